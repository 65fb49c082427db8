"""Tensors of PyTorch itself as inputs of reports."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from modelstore.errors import InvalidRequestError
from modelstore.registry.rules import check_number
from modelstore.reports import inputs
from modelstore.reports.pictures import png

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.mark.parametrize(
    "kind", ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "int64", "uint8", "bool"]
)
def test_tensors_of_every_type_are_lists_of_numbers(kind: str) -> None:
    """Python has no arrays of half of them."""
    tensor = torch.eye(2).to(getattr(torch, kind))

    assert inputs.matrix(tensor, "m") == [[1, 0], [0, 1]]
    assert check_number("n", tensor[0, 0]) == 1.0


def test_what_is_part_of_a_graph_sparse_or_quantized_is_too() -> None:
    """Weights are, and PyTorch warns whoever reads them as they are."""
    weights = torch.nn.Parameter(torch.eye(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_number("n", weights.sum()) == 2.0
        assert inputs.matrix(weights, "m") == [[1, 0], [0, 1]]
        assert inputs.matrix([weights[0], weights[1]], "m") == [[1, 0], [0, 1]]
    assert inputs.matrix(torch.eye(2).to_sparse(), "m") == [[1, 0], [0, 1]]
    assert inputs.plain(torch.fake_quantize_per_tensor_affine(torch.ones(2), 0.5, 0, 0, 255)) == [1, 1]


def test_pictures_are_channels_first_in_pytorch() -> None:
    """In every type, the same picture."""
    tensor = torch.rand(3, 4, 5).round()

    assert png(tensor) == png(tensor.permute(1, 2, 0)) == png(torch.nn.Parameter(tensor).bfloat16())
    assert png(tensor) == png((tensor * 255).to(torch.uint8))


def test_what_has_no_values_is_an_error_of_ours() -> None:
    """On the device "meta", or complex."""
    for tensor in (torch.empty(2, 2, device="meta"), torch.tensor([[1 + 2j]])):
        with pytest.raises(InvalidRequestError):
            inputs.matrix(tensor, "m")
    with pytest.raises(InvalidRequestError):
        png(torch.empty(2, 2, device="meta"))
    with pytest.raises(InvalidRequestError):
        check_number("n", torch.empty((), device="meta"))

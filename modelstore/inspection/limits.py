"""What the readers of all formats share: bounds, checks, and names of types."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

from modelstore.inspection.bytesource import malformed
from modelstore.inspection.contents import TensorInfo

__all__ = [
    "MOST_IN_NAMES",
    "MOST_TENSORS",
    "Budget",
    "bits_of",
    "check_layout",
    "check_shape",
    "shortened",
    "text_steps",
]

MOST_TENSORS: Final = 250_000
"""Tensors of one file; the largest models known have some 90,000 in all their files together."""

MOST_IN_NAMES: Final = 1 << 26
"""Characters of all tensors' names: where they are made of the names around them, a small file makes gigabytes."""

_MOST_DIMENSIONS: Final = 64
_MOST_ELEMENTS: Final = 1 << 62
_MOST_TEXT: Final = 16_384

_BITS: Final = {
    "bool": 8,
    "float4_e2m1": 4,
    "float6_e2m3": 6,
    "float6_e3m2": 6,
    "float8_e4m3": 8,
    "float8_e5m2": 8,
    "float8_e8m0": 8,
    "bfloat16": 16,
    "float16": 16,
    "float32": 32,
    "float64": 64,
    "complex32": 32,
    "complex64": 64,
    "complex128": 128,
    "qint8": 8,
    "quint8": 8,
    "qint32": 32,
    "float8_e4m3fn": 8,
    "float8_e4m3fnuz": 8,
    "float8_e5m2fnuz": 8,
    "float8_e8m0fnu": 8,
    "uint4": 4,
    "int4": 4,
    "uint2": 2,
    "int2": 2,
    **{f"{sign}int{bits}": bits for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


def bits_of(dtype: str) -> int | None:
    """Return how many bits an element of a type takes; None for a type that is not known."""
    return _BITS.get(dtype)


class Budget:
    """So many steps and no more, whatever a file asks for.

    Args:
        name: The file, for messages.
        steps: How many.
    """

    __slots__ = ("_name", "_steps")

    def __init__(self, name: str, steps: int) -> None:
        self._name, self._steps = name, steps

    def spend(self, steps: int = 1) -> None:
        """Count some.

        Raises:
            UnreadableWeightsError: They are used up.
        """
        self._steps -= steps
        if self._steps < 0:
            raise malformed(self._name, "its header has more parts than any model")


def text_steps(length: int) -> int:
    """Return the steps that a text of so many bytes costs, so that no budget lets a file fill the memory with texts."""
    return 1 + length // 64


def check_shape(name: str, shape: Sequence[Any]) -> tuple[int, ...]:
    """Return a shape after seeing that it is one.

    Raises:
        UnreadableWeightsError: It is none.
    """
    good = len(shape) <= _MOST_DIMENSIONS and all(type(n) is int and 0 <= n < _MOST_ELEMENTS for n in shape)
    if not good or math.prod(n for n in shape if n) >= _MOST_ELEMENTS:
        raise malformed(name, "a tensor has an impossible shape")
    return tuple(shape)


def check_layout(name: str, tensors: Iterable[TensorInfo], start: int, end: int, *, whole: bool = False) -> None:
    """See that the bytes of tensors lie between two places and do not overlap.

    Args:
        name: The file.
        tensors: With their spans.
        start: Where the first may begin.
        end: Where the last may end.
        whole: Whether nothing may be left between them either.

    Raises:
        UnreadableWeightsError: They do not.
    """
    spans = sorted((t.span.offset, t.span.length, t.name) for t in tensors if t.span is not None)
    before = start
    for offset, length, tensor in spans:
        if offset < before:
            raise malformed(name, f"the bytes of tensor {tensor!r:.100} overlap others")
        if whole and offset > before:
            raise malformed(name, f"in front of the bytes of tensor {tensor!r:.100} are some that belong to none")
        before = offset + length
        if before > end:
            raise malformed(name, f"the bytes of tensor {tensor!r:.100} are not all there")
    if whole and before != end:
        raise malformed(name, "behind its tensors are bytes that belong to none")


def shortened(text: str) -> str:
    """Return a text of a file's metadata, cut where it is very long."""
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}… ({len(text)} characters)"

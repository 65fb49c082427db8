"""The command `inspect`, and how a look into weights is shown."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from modelstore.cli.output import plain, print_json, print_lines, size, styled
from modelstore.cli.params import MODEL
from modelstore.cli.session import json_option, registry_option, session_of
from modelstore.cli.tables import Column, print_table
from modelstore.errors import ModelNotFoundError, ModelStoreError, RegistryNotFoundError

if TYPE_CHECKING:
    from modelstore.inspection import Inspection
    from modelstore.records.entities import ModelRecord
    from modelstore.registry import Registry

__all__ = ["glance", "inspect", "summary"]

_DEPTH: Final = 2
_MOST_FACTS: Final = 40


@click.command(short_help="Look into weights: tensors, types, layers.")
@click.argument("model_or_file", metavar="MODEL|FILE", type=MODEL)
@click.option("--depth", metavar="N", type=click.IntRange(min=1), default=_DEPTH, help="Levels of layers to show.  [2]")
@click.option("--tensors", is_flag=True, help="List every tensor instead of the layers.")
@json_option
@registry_option
@click.pass_context
def inspect(context: click.Context, model_or_file: str, depth: int, tensors: bool, as_json: bool) -> None:
    r"""Look into a file of weights: its tensors, their types and shapes, parameters and bytes by layer.

    MODEL|FILE is a model's id or name, a path, or a URI. Nothing in the file is executed, and no framework is needed.
    Of a remote file only the headers are transferred. Known are safetensors, GGUF, ONNX, NumPy (npy, npz) and
    PyTorch's zip files.

    \b
    Examples:
      modelstore inspect digits
      modelstore inspect model.safetensors --tensors
      modelstore inspect https://example.com/models/detector.onnx --json
    """
    inspection = _look(context, model_or_file)
    if as_json:
        print_json(inspection.to_dict())
        return
    print_lines([f"{styled(plain(inspection.name), 'bold')}  {plain(inspection.format)}"])
    facts = [*summary(inspection), *((key, _fact(value)) for key, value in inspection.metadata.items())]
    for key, value in facts[:_MOST_FACTS]:
        print_lines([f"  {styled(f'{plain(key):<10}', 'dim')} {plain(value)}"])
    if len(facts) > _MOST_FACTS:
        print_lines([f"  and {len(facts) - _MOST_FACTS} more (--json has all)"])
    print_lines([""])
    if tensors:
        _print_tensors(inspection)
    else:
        _print_layers(inspection, depth)


def _look(context: click.Context, text: str) -> Inspection:
    """Take the words for a path or URI where they look like one, else for a model, else for a file all the same."""
    from modelstore.inspection import inspect_uri
    from modelstore.registry.inspecting import inspect_model
    from modelstore.registry.lookup import find_model

    if "://" in text or "/" in text:
        return inspect_uri(text)
    try:
        registry = session_of(context).open(context)
        return inspect_model(registry, find_model(registry, text))
    except (ModelNotFoundError, RegistryNotFoundError):
        if not os.path.exists(text):
            raise
        return inspect_uri(text)


def summary(inspection: Inspection) -> Iterator[tuple[str, str]]:
    """Yield the lines that say what a file holds in all."""
    count = len(inspection.tensors)
    yield "tensors", f"{count:,}"
    yield "parameters", f"{inspection.parameters:,}"
    yield "types", ", ".join(f"{dtype} {number:,}" for dtype, number in inspection.dtypes.items())
    yield "size", size(inspection.size)
    if inspection.others:
        yield "other files", ", ".join(sorted(inspection.others))


def _fact(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _print_layers(inspection: Inspection, depth: int) -> None:
    root = inspection.layers()
    total = root.size or 1
    rows = [
        (
            "  " * level + layer.name,
            f"{layer.tensors:,}" if layer.children else _shape(inspection, layer.name),
            f"{layer.parameters:,}",
            size(layer.size),
            f"{100 * layer.size / total:.1f}%",
        )
        for level, layer in root.walk(depth)
    ]
    columns = (
        Column("LAYER", least=12),
        Column("TENSORS", right=True, rank=2),
        Column("PARAMETERS", right=True),
        Column("SIZE", right=True),
        Column("", right=True, rank=1),
    )
    print_table(columns, rows)


def _shape(inspection: Inspection, name: str) -> str:
    tensor = next((one for one in inspection.tensors if one.name == name), None)
    return "1" if tensor is None else f"{tensor.dtype} {_dimensions(tensor.shape)}"


def _dimensions(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"


def _print_tensors(inspection: Inspection) -> None:
    columns = (
        Column("TENSOR", least=12),
        Column("TYPE"),
        Column("SHAPE", right=True),
        Column("PARAMETERS", right=True, rank=1),
        Column("SIZE", right=True),
        Column("REMARK", least=8, rank=2),
    )
    rows = (
        (
            one.name,
            one.dtype,
            _dimensions(one.shape),
            f"{one.parameters:,}",
            size(one.size),
            f"same as {one.shared_with}" if one.shared_with else one.file or "",
        )
        for one in inspection.tensors
    )
    print_table(columns, rows)


def glance(registry: Registry, record: ModelRecord) -> Inspection | None:
    """Return a look into a model's weights where that takes no network; None where they cannot be looked into."""
    from modelstore.inspection import inspect_path
    from modelstore.registry.inspecting import nearby

    try:
        path = nearby(registry, record)
        return None if path is None else inspect_path(path)
    except ModelStoreError:
        return None

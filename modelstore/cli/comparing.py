"""The command `compare`: models side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from modelstore.cli.output import note, plain, print_json, print_lines, styled
from modelstore.cli.params import MODEL
from modelstore.cli.session import json_option, registry_option, session_of
from modelstore.cli.tables import Column, print_table

if TYPE_CHECKING:
    from modelstore.registry.comparison import Comparison, Row, TensorResult

__all__ = ["compare"]

_MOST_TENSORS = 30


@click.command(short_help="Compare models side by side.")
@click.argument("models", metavar="MODEL MODEL...", type=MODEL, nargs=-1, required=True)
@click.option("--all", "everything", is_flag=True, help="Also what is the same in all of them.")
@click.option("--no-tensors", is_flag=True, help="Leave the weights alone.")
@click.option("--html", "page", metavar="FILE", help="Write a page with charts, and print nothing.")
@json_option
@registry_option
@click.pass_context
def compare(
    context: click.Context,
    models: tuple[str, ...],
    *,
    everything: bool,
    no_tensors: bool,
    page: str | None,
    as_json: bool,
) -> None:
    r"""Compare two or more models: fields, tags, metadata, labels, configuration, values, scalars, tensors.

    Only what differs is shown, unless --all is given. Tensors are compared with those of the first model: by their
    values where the bytes are on this machine, by types and shapes otherwise.

    \b
    Examples:
      modelstore compare digits-1 digits-2
      modelstore compare digits-1 digits-2 digits-3 --html comparison.html
    """
    from modelstore.registry.comparison import compare_models
    from modelstore.registry.lookup import find_model

    registry = session_of(context).open(context)
    records = [find_model(registry, model) for model in models]
    comparison = compare_models(registry, records, tensors=not no_tensors)
    if page is not None:
        from modelstore.pages import comparison_page, write_page

        write_page(page, comparison_page(registry, comparison))
    if as_json:
        print_json(comparison.to_dict())
    elif page is None:
        _print(comparison, everything=everything)


def _print(comparison: Comparison, *, everything: bool) -> None:
    same = 0
    names = _headings(comparison)
    for title, rows in comparison.sections.items():
        shown = [row for row in rows if everything or row.differs]
        same += len(rows) - len(shown)
        if shown:
            print_lines([styled(title, "bold")])
            columns = [Column("", least=12), *(Column(name, least=10) for name in names)]
            print_table(columns, [_cells(title, row, mark=everything) for row in shown])
            print_lines([""])
    for one, name in zip(comparison.tensors, names[1:], strict=True):
        _print_tensors(one, names[0], name)
    if same:
        note(f"{same} more are the same in all (--all shows them)")


def _headings(comparison: Comparison) -> list[str]:
    """Return the models' names, with the beginning of the id where that is needed to tell them apart."""
    names = [name for _, name in comparison.models]
    return [name if name and names.count(name) == 1 else f"{name} {one[:8]}".strip() for one, name in comparison.models]


def _cells(section: str, row: Row, *, mark: bool) -> list[str]:
    key = f"{'≠' if row.differs else '='} {row.key}" if mark else row.key
    return [key, *(_cell(section, value) for value in row.values)]


def _cell(section: str, value: Any) -> str:
    if value is None:
        return "–"
    if section == "tags":
        return "✓"
    if section == "scalars":
        last, least, most = (_number(number) for number in (value.last, value.min, value.max))
        return f"{last} ({least} … {most})"
    if isinstance(value, float):
        return _number(value)
    return value if isinstance(value, str) else repr(value)


def _number(value: float | None) -> str:
    return "nan" if value is None else f"{value:.6g}"


def _print_tensors(result: TensorResult, first: str, other: str) -> None:
    found = result.differences
    head = styled(f"tensors, {plain(first)} → {plain(other)}", "bold")
    if found is None:
        print_lines([f"{head}: not compared ({plain(result.problem)})", ""])
        return
    how = "by their values" if found.by_values else "by type and shape only: not all bytes are here"
    counts = (
        f"{len(found.changed)} changed, {len(found.added)} added, {len(found.removed)} removed, {found.same} the same"
    )
    print_lines([f"{head}: {counts} ({how})"])
    lines = list(_changes(result))
    print_lines([f"  {plain(line)}" for line in lines[:_MOST_TENSORS]])
    if len(lines) > _MOST_TENSORS:
        print_lines([f"  and {len(lines) - _MOST_TENSORS} more (--json has all)"])
    print_lines([""])


def _changes(result: TensorResult) -> Iterator[str]:
    found = result.differences
    if found is None:
        return
    for one in found.removed:
        yield f"- {one.name}  {one.dtype} {_shape(one.shape)}"
    for one in found.added:
        yield f"+ {one.name}  {one.dtype} {_shape(one.shape)}"
    for change in found.changed:
        if change.what == ("values",):
            yield f"≠ {change.name}  {change.after.dtype} {_shape(change.after.shape)}"
        else:
            before = f"{change.before.dtype} {_shape(change.before.shape)}"
            yield f"≠ {change.name}  {before} → {change.after.dtype} {_shape(change.after.shape)}"


def _shape(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "scalar"

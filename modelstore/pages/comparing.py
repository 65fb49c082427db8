"""The page of several models side by side."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from modelstore.pages.charts import chart_data, chart_elements, load_lines, number_text, scalar_series
from modelstore.pages.document import document

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelstore.inspection import TensorInfo
    from modelstore.records.reports import SeriesRecord
    from modelstore.registry.comparison import Comparison, Row, TensorResult
    from modelstore.registry.registry import Registry

__all__ = ["comparison_page", "headings"]

_MOST_TENSORS = 300


def comparison_page(registry: Registry, comparison: Comparison) -> str:
    """Return the page of a comparison as one HTML text: tables, and scalars overlaid.

    Raises:
        StorageError: What was reported cannot be read.
    """
    names = headings(comparison)
    series = [
        (name, one)
        for (identity, _), name in zip(comparison.models, names, strict=True)
        for one in scalar_series(registry.reports.series(identity))
    ]
    # A model has one colour in all charts; the series of a chart differ by their dashes.
    several = {one.title for _, one in series if len({s.series for _, s in series if s.title == one.title}) > 1}
    named = [(f"{name}: {one.series}" if one.title in several else name, one) for name, one in series]
    charts = chart_data(load_lines(registry, named), _styles(names, series))
    parts = [
        _header(names, comparison.differences),
        f"<h2>Scalars</h2>{chart_elements(charts)}" if charts else "",
        *(_section(title, rows, names) for title, rows in comparison.sections.items()),
        *(_tensors(one, names[0], name) for one, name in zip(comparison.tensors, names[1:], strict=True)),
    ]
    return document(" · ".join(names), "\n".join(filter(None, parts)), charts=charts)


def _styles(names: list[str], series: Sequence[tuple[str, SeriesRecord]]) -> list[tuple[int, int]]:
    """Return colour and dashes of each line."""
    styles: list[tuple[int, int]] = []
    inside: dict[str, dict[str, int]] = {}
    for name, one in series:
        numbers = inside.setdefault(one.title, {})
        styles.append((names.index(name), numbers.setdefault(one.series, len(numbers))))
    return styles


def _header(names: list[str], differences: int) -> str:
    return (
        f"<header><h1>{escape(' · '.join(names))}</h1>"
        f'<span class="quiet">{differences} difference{"s" * (differences != 1)}</span> '
        '<button data-everything aria-pressed="false">show what is the same, too</button></header>'
    )


def headings(comparison: Comparison) -> list[str]:
    """Return the models' names, with the beginning of the id where that is needed to tell them apart."""
    names = [name for _, name in comparison.models]
    return [name if name and names.count(name) == 1 else f"{name} {one[:8]}".strip() for one, name in comparison.models]


def _section(title: str, rows: tuple[Row, ...], names: list[str]) -> str:
    heads = "".join(f"<th>{escape(name)}</th>" for name in names)
    cells = "".join(
        f'<tr class="{"differs" if row.differs else "same"}"><th>{escape(row.key)}</th>'
        + "".join(f"<td>{_cell(title, value)}</td>" for value in row.values)
        + "</tr>"
        for row in rows
    )
    differs = any(row.differs for row in rows)
    remark = "" if differs else ' <span class="quiet" style="font-weight:400">all the same</span>'
    return (
        f'<h2>{escape(title.capitalize())}{remark}</h2><div class="card scroll{"" if differs else " same-only"}">'
        f'<table class="compared"><tr><th></th>{heads}</tr>{cells}</table></div>'
    )


def _cell(section: str, value: Any) -> str:
    if value is None:
        return '<span class="quiet">–</span>'
    if section == "tags":
        return "✓"
    if section == "scalars":
        rest = f"{number_text(value.min)} … {number_text(value.max)}, {value.points:,} points"
        return f'{number_text(value.last)} <span class="quiet">({escape(rest)})</span>'
    if isinstance(value, float):
        return escape(number_text(value))
    return escape(value if isinstance(value, str) else repr(value))


def _tensors(result: TensorResult, first: str, other: str) -> str:
    head = f"<h2>Tensors: {escape(first)} → {escape(other)}</h2>"
    found = result.differences
    if found is None:
        return f'{head}<p class="quiet">Not compared: {escape(result.problem)}</p>'
    how = "by their values" if found.by_values else "by type and shape only, since not all bytes are on this machine"
    rows = [
        *(_tensor_row("removed", "−", one, "") for one in found.removed),
        *(_tensor_row("added", "+", one, "") for one in found.added),
        *(
            _tensor_row("differs", "≠", one.after, "" if one.what == ("values",) else _described(one.before))
            for one in found.changed
        ),
    ]
    counts = (
        f"{len(found.changed)} changed, {len(found.added)} added, {len(found.removed)} removed, {found.same} the same"
    )
    more = f'<p class="quiet">and {len(rows) - _MOST_TENSORS} more</p>' if len(rows) > _MOST_TENSORS else ""
    table = f'<div class="card scroll"><table>{"".join(rows[:_MOST_TENSORS])}</table>{more}</div>' if rows else ""
    return f'{head}<p class="quiet">{counts}, compared {how}.</p>{table}'


def _tensor_row(kind: str, mark: str, tensor: TensorInfo, before: str) -> str:
    now = _described(tensor)
    change = f"{escape(before)} → {escape(now)}" if before else escape(now)
    return f'<tr class="{kind}"><th>{mark}</th><td>{escape(tensor.name)}</td><td>{change}</td></tr>'


def _described(tensor: TensorInfo) -> str:
    return f"{tensor.dtype} {'×'.join(map(str, tensor.shape)) or 'scalar'}"

"""Scalar series as the page's charts take them."""

from __future__ import annotations

import base64
import math
import re
import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Final

from modelstore.records.points import SUMMARY
from modelstore.reports.columns import columns, thinned

if TYPE_CHECKING:
    from modelstore.records.reports import SeriesRecord
    from modelstore.registry.registry import Registry

__all__ = ["Line", "chart_data", "chart_elements", "load_lines", "number_text"]

_DIGITS: Final = re.compile(r"([0-9]{1,18})")
_ALL_POINTS: Final = 200_000
_MOST: Final = 20_000
_COLOURS: Final = 8
_LEAST: Final = 200


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart.

    Attributes:
        title: Of the chart.
        name: Of the line.
        x: Iterations, type "d".
        y: Values, type "d".
    """

    title: str
    name: str
    x: array[float]
    y: array[float]


def load_lines(registry: Registry, named: Sequence[tuple[str, SeriesRecord]], most: int | None = None) -> list[Line]:
    """Return the points of series, thinned where there are very many: extremes stay.

    Args:
        registry: Where they are.
        named: Name of the line to its series.
        most: Points of each; None for what a page can carry.
    """
    room = min(_MOST, max(_LEAST, _ALL_POINTS // max(1, len(named)))) if most is None else most
    lines = []
    for name, record in named:
        found = thinned(columns(registry.reports.blocks(record)), room)
        lines.append(Line(record.title, name, array("d", found.iterations), found.values))
    return lines


def scalar_series(found: Iterable[SeriesRecord]) -> list[SeriesRecord]:
    """Return the series that are lines, and not single values; numbers in their names are sorted as numbers."""
    return sorted(
        (one for one in found if one.title != SUMMARY), key=lambda one: _natural(f"{one.title}\0{one.series}")
    )


def _natural(text: str) -> list[tuple[int, int, str]]:
    parts = _DIGITS.split(text)
    return [(1, 0, part) if place % 2 == 0 else (0, int(part), part) for place, part in enumerate(parts)]


def chart_data(lines: Sequence[Line], styles: Sequence[tuple[int, int]] | None = None) -> list[dict[str, Any]]:
    """Return charts by title, each with its lines.

    Args:
        lines: With their points.
        styles: Colour and dashes of each line, by number; None gives each line of a chart its own.
    """
    charts: dict[str, list[dict[str, Any]]] = {}
    for place, line in enumerate(lines):
        inside = charts.setdefault(line.title, [])
        colour, dashes = (len(inside) % _COLOURS, len(inside) // _COLOURS) if styles is None else styles[place]
        inside.append(
            {"name": line.name, "x": _packed(line.x), "y": _packed(line.y), "colour": colour, "dashes": dashes}
        )
    return [{"title": title, "lines": found} for title, found in charts.items()]


def _packed(numbers: array[float]) -> str:
    if sys.byteorder == "big":
        numbers = array("d", numbers)
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()


def chart_elements(charts: Sequence[dict[str, Any]]) -> str:
    """Return the elements that the charts are drawn in."""
    elements = "".join(f'<figure class="card" data-chart="{number}"></figure>' for number in range(len(charts)))
    missing = escape("Charts are drawn by a script, and scripts are switched off here.")
    return f'<noscript><p class="quiet">{missing}</p></noscript><div class="charts">{elements}</div>'


def number_text(value: float | None) -> str:
    """Return a number for people; None is NaN."""
    if value is None or math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:.6g}"

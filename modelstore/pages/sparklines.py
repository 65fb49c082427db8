"""A series as one line of text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from modelstore.pages.charts import load_lines, number_text, scalar_series
from modelstore.records.points import SUMMARY

if TYPE_CHECKING:
    from modelstore.records.reports import SeriesRecord
    from modelstore.registry.registry import Registry

__all__ = ["scalar_rows", "sparkline", "value_rows"]

_POINTS: Final = 2000
_BLOCKS: Final = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """Return values as a line of blocks of eight heights; what is no finite number leaves a gap.

    Each block stands for a stretch of the values: for the one that is farthest from the middle of them all, so that
    an outlier shows.

    Args:
        values: In order.
        width: Blocks at most.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    middle, reach = (low / 2 + high / 2), high / 2 - low / 2
    count = min(width, len(values))
    line = []
    for number in range(count):
        part = values[len(values) * number // count : len(values) * (number + 1) // count]
        numbers = [value for value in part if math.isfinite(value)]
        if not numbers:
            line.append(" ")
            continue
        value = max(numbers, key=lambda one: abs(one - middle))
        height = 0.5 if reach == 0 else (value / 2 - low / 2) / reach
        line.append(_BLOCKS[min(7, int(height * 8))])
    return "".join(line)


def value_rows(found: Sequence[SeriesRecord]) -> list[tuple[str, str]]:
    """Return the single values among series, as text."""
    return [(one.series, number_text(one.last)) for one in found if one.title == SUMMARY]


def scalar_rows(registry: Registry, found: Sequence[SeriesRecord]) -> list[tuple[str, ...]]:
    """Return for each series its name, its line, and its last, least and greatest value, as text."""
    scalars = scalar_series(found)
    lines = load_lines(registry, [(one.series, one) for one in scalars], _POINTS)
    return [
        (f"  {one.title} / {one.series}", sparkline(line.y), *map(number_text, (one.last, one.min, one.max)))
        for one, line in zip(scalars, lines, strict=True)
    ]

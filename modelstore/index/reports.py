"""Reports in the index: what one operation adds, and how it is read.

Nothing here depends on the order of arrival. Points are kept as they came, a block an operation and series, and read
in the order of iterations, those of one iteration in the order of stamps. What is known of a series as a whole (last,
least, greatest, mean) is the same for every order too: the mean because the sum is kept exactly.
"""

from __future__ import annotations

import json
import math
import sys
from array import array
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

from modelstore.index.driver import sqlite3
from modelstore.records.operations import Operation
from modelstore.records.points import Points, exact_sum, little_endian, mean_of, unpack
from modelstore.records.reports import PlotRecord, SeriesRecord

__all__ = ["add", "blocks", "figure_text", "plots", "points_json", "refill_metrics", "series"]

_PLOT_COLUMNS: Final = "entity, op, kind, title, series, iteration, time, digest, size, name, url"
_SERIES_COLUMNS: Final = "key, entity, title, series, points, last, last_iteration, min, max, mean"


def add(connection: sqlite3.Connection, operation: Operation, seq: int) -> None:
    """Add what one report brings, whose operation is in the journal as number ``seq``.

    Raises:
        InvalidOperationError: Its scalars cannot be unpacked.
    """
    plot = operation.changes.get("plot")
    if plot is not None:
        values = (operation.entity, seq, *(plot.get(name) for name in _PLOT_COLUMNS.split(", ")[2:]))
        connection.execute(f"INSERT INTO plots ({_PLOT_COLUMNS}) VALUES ({','.join('?' * len(values))})", values)
        return
    for points in unpack(operation.changes["scalars"]):
        key = _add_to_series(connection, operation, points)
        connection.execute(
            "INSERT INTO scalar_blocks (series, op, iterations, times, numbers) VALUES (?,?,?,?,?)",
            (key, seq, little_endian(points.iterations), little_endian(points.times), little_endian(points.values)),
        )
        if operation.kind == "model":
            connection.execute(
                "INSERT OR REPLACE INTO metrics (model, title, series, last, min, max, mean, points)"
                " SELECT m.key, s.title, s.series, s.last, s.min, s.max, s.mean, s.points"
                " FROM scalar_series AS s JOIN models AS m ON m.id = s.entity WHERE s.key = ?",
                (key,),
            )


def _add_to_series(connection: sqlite3.Connection, operation: Operation, points: Points) -> int:
    """Bring the row of a series up to date; returns its key."""
    numbers = [value for value in points.values if value == value]  # noqa: PLR0124 - all but NaN
    least, greatest = (min(numbers), max(numbers)) if numbers else (None, None)
    if least is not None and not (math.isfinite(least) and math.isfinite(greatest or 0.0)):
        numbers = [value for value in numbers if math.isfinite(value)]
    iteration, last = _last(points)
    stamp, count, finite, parts = operation.stamp, len(points), len(numbers), []
    row = connection.execute(
        "SELECT key, points, finite, last, last_iteration, last_stamp, min, max, total FROM scalar_series"
        " WHERE entity = ? AND title = ? AND series = ?",
        (operation.entity, points.title, points.series),
    ).fetchone()
    if row is not None:
        count, finite, parts = count + row[1], finite + row[2], json.loads(row[8])
        least = min((value for value in (least, row[6]) if value is not None), default=None)
        greatest = max((value for value in (greatest, row[7]) if value is not None), default=None)
        if (row[4], row[5]) > (iteration, stamp):
            last, iteration, stamp = row[3], row[4], row[5]
    total = exact_sum(numbers, parts)
    mean = _mean(total, finite, least, greatest)
    values = (count, finite, last, iteration, stamp, least, greatest, mean, json.dumps(total))
    if row is not None:
        connection.execute(
            "UPDATE scalar_series SET points = ?, finite = ?, last = ?, last_iteration = ?, last_stamp = ?, min = ?,"
            " max = ?, mean = ?, total = ? WHERE key = ?",
            (*values, row[0]),
        )
        return int(row[0])
    cursor = connection.execute(
        "INSERT INTO scalar_series (entity, title, series, points, finite, last, last_iteration, last_stamp, min, max,"
        " mean, total) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
        (operation.entity, points.title, points.series, *values),
    )
    return int(cursor.lastrowid or 0)


def _last(points: Points) -> tuple[int, float]:
    iteration = max(points.iterations)
    place = len(points) - 1 - points.iterations[::-1].index(iteration)
    return iteration, points.values[place]


def _mean(total: list[float], finite: int, least: float | None, greatest: float | None) -> float | None:
    """Return the mean of all points but NaN; None where there are none, or both infinities."""
    if least is None or greatest is None or (least == -math.inf and greatest == math.inf):
        return None
    if math.isinf(least) or math.isinf(greatest):
        return least if math.isinf(least) else greatest
    return min(max(mean_of(total, finite), least), greatest)


# -- reading -----------------------------------------------------------------------------------------------------------


def series(
    connection: sqlite3.Connection, entity: str, title: str | None = None, name: str | None = None
) -> list[SeriesRecord]:
    """Return the scalar series of a model or task, sorted by title and name."""
    rows = connection.execute(
        f"SELECT {_SERIES_COLUMNS} FROM scalar_series WHERE entity = ? AND (? IS NULL OR title = ?)"
        " AND (? IS NULL OR series = ?) ORDER BY title, series",
        (entity, title, title, name, name),
    )
    return [SeriesRecord(*row) for row in rows]


def blocks(connection: sqlite3.Connection, key: int) -> list[tuple[bytes, bytes, bytes]]:
    """Return the points of a series in the order in which they were reported, by any registry.

    Returns:
        Iterations, times and values of each block, eight bytes a number, little-endian.
    """
    stamps = [
        row[0]
        for row in connection.execute(
            "SELECT o.stamp FROM scalar_blocks AS b JOIN ops AS o ON o.seq = b.op WHERE b.series = ? ORDER BY b.op",
            (key,),
        )
    ]
    rows = connection.execute(
        "SELECT iterations, times, numbers FROM scalar_blocks WHERE series = ? ORDER BY op", (key,)
    ).fetchall()
    found = [(row[0], row[1], row[2]) for row in rows]
    if all(before < after for before, after in pairwise(stamps)):
        return found
    return [found[place] for place in sorted(range(len(stamps)), key=stamps.__getitem__)]


def plots(connection: sqlite3.Connection, entity: str) -> list[PlotRecord]:
    """Return the plots of a model or task, sorted by title, series and iteration; of one, the later report last."""
    rows = connection.execute(
        f"SELECT {', '.join(f'p.{name}' for name in _PLOT_COLUMNS.split(', '))} FROM plots AS p"
        " JOIN ops AS o ON o.seq = p.op WHERE p.entity = ? ORDER BY p.title, p.series, p.iteration, o.stamp",
        (entity,),
    )
    return [PlotRecord(*row) for row in rows]


def figure_text(connection: sqlite3.Connection, seq: int) -> str:
    """Return the figure that an operation holds, as JSON in the form of `modelstore.records.values`."""
    row = connection.execute("SELECT changes FROM ops WHERE seq = ?", (seq,)).fetchone()
    return json.dumps(json.loads(row[0])["plot"]["figure"], ensure_ascii=False, separators=(",", ":"))


def refill_metrics(connection: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    """Yield the rows that `metrics` should hold, in order of its key."""
    yield from connection.execute(
        "SELECT m.key, s.title, s.series, s.last, s.min, s.max, s.mean, s.points"
        " FROM scalar_series AS s JOIN models AS m ON m.id = s.entity ORDER BY 1, 2, 3"
    )


# -- for people with SQL -----------------------------------------------------------------------------------------------


def points_json(iterations: bytes, times: bytes, numbers: bytes) -> str:
    """Return the points of a block as a JSON array of [iteration, time, value]; NaN is null, infinities ±9e999."""
    columns: Sequence[array[Any]] = array("q", iterations), array("q", times), array("d", numbers)
    if sys.byteorder == "big":
        for column in columns:
            column.byteswap()
    return "[" + ",".join(f"[{i},{t},{_number(v)}]" for i, t, v in zip(*columns, strict=True)) + "]"


def _number(value: float) -> str:
    if value - value == 0:  # finite
        return repr(value)
    return "null" if value != value else "9e999" if value > 0 else "-9e999"  # noqa: PLR0124

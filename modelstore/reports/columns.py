"""Points of a series from the blocks in which they are kept, in order, and fewer of them for pictures."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from modelstore.errors import InvalidRequestError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

__all__ = ["Block", "Columns", "ScalarArrays", "arrays", "columns", "frame", "thinned"]

Block = tuple[bytes, bytes, bytes]
"""Iterations, times and values: eight bytes a number, little-endian."""


class Columns(NamedTuple):
    """Points of one series, sorted by iteration; those of one iteration in the order of reporting.

    Attributes:
        iterations: Whole numbers, type "q".
        times: Milliseconds since 1970, type "q".
        values: Floats, type "d".
    """

    iterations: array[int]
    times: array[int]
    values: array[float]


class ScalarArrays(NamedTuple):
    """Points of one series as numpy arrays of equal length, sorted as in `Columns`.

    Attributes:
        iterations: int64.
        values: float64.
        times: int64, milliseconds since 1970.
    """

    iterations: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    times: npt.NDArray[np.int64]


def columns(blocks: Sequence[Block]) -> Columns:
    """Put blocks together, without numpy."""
    joined: list[array[Any]] = [_joined(kind, [block[at] for block in blocks]) for at, kind in enumerate("qqd")]
    found = Columns(*joined)
    iterations = found.iterations
    if all(before <= after for before, after in pairwise(iterations)):
        return found
    order = sorted(range(len(iterations)), key=iterations.__getitem__)
    return _chosen(found, order)


def _chosen(found: Columns, places: Sequence[int]) -> Columns:
    columns: list[array[Any]] = [array(column.typecode, map(column.__getitem__, places)) for column in found]
    return Columns(*columns)


def _joined(kind: str, parts: Sequence[bytes]) -> array[Any]:
    column = array(kind, b"".join(parts))
    if sys.byteorder == "big":
        column.byteswap()
    return column


def arrays(blocks: Sequence[Block]) -> ScalarArrays:
    """Put blocks together as numpy arrays.

    Raises:
        UsageError: numpy is not installed.
    """
    try:
        import numpy as np
    except ImportError as error:
        raise UsageError("Arrays of scalars need numpy", "Install it with: pip install numpy") from error
    iterations, times, values = (
        np.frombuffer(bytearray().join(block[place] for block in blocks), dtype=kind)
        for place, kind in enumerate(("<i8", "<i8", "<f8"))
    )
    if len(iterations) > 1 and not (iterations[1:] >= iterations[:-1]).all():
        order = np.argsort(iterations, kind="stable")
        iterations, times, values = iterations[order], times[order], values[order]
    return ScalarArrays(iterations, values, times)


def frame(named: Sequence[tuple[str, str, Sequence[Block]]]) -> pd.DataFrame:
    """Return points of several series as one pandas frame.

    Args:
        named: Title, series and blocks.

    Returns:
        A row a point, with the columns title, series, iteration, value and time (UTC).

    Raises:
        UsageError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise UsageError("A table of scalars needs pandas", "Install it with: pip install pandas") from error
    parts = []
    for title, series, blocks in named:
        iterations, values, milliseconds = arrays(blocks)
        times = pd.to_datetime(milliseconds, unit="ms", utc=True)
        parts.append(
            pd.DataFrame({"title": title, "series": series, "iteration": iterations, "value": values, "time": times})
        )
    if parts:
        return pd.concat(parts, ignore_index=True)
    empty = {"title": "str", "series": "str", "iteration": "int64", "value": "float64", "time": "datetime64[ms, UTC]"}
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in empty.items()})


_LEAST_SAMPLES: Final = 4


def thinned(found: Columns, most: int) -> Columns:
    """Return at most so many of the points, in order; the first, the last and all extremes of the whole stay.

    The points between are cut into stretches of equal length, and of each stretch the least and the greatest value
    stay: a picture of it looks like one of all points. NaN stays where a stretch has nothing else.

    Args:
        found: The points.
        most: Number wanted, at least 4.

    Raises:
        InvalidRequestError: ``most`` is less than 4.
    """
    if most < _LEAST_SAMPLES:
        raise InvalidRequestError(f"{most} samples cannot show a series", f"Ask for {_LEAST_SAMPLES} or more.")
    length = len(found.values)
    if length <= most:
        return found
    kept = [0, *_extremes(found.values, 1, length - 1, (most - 2) // 2), length - 1]
    return _chosen(found, kept)


def _extremes(values: array[float], begin: int, end: int, stretches: int) -> Iterator[int]:
    """Yield the places of the least and the greatest value of each stretch, in order."""
    for number in range(stretches):
        start = begin + (end - begin) * number // stretches
        stop = begin + (end - begin) * (number + 1) // stretches
        part = values[start:stop]
        if not part:
            continue
        if math.isnan(sum(part)):  # NaN is among them, or both infinities
            numbers: Sequence[float] = [value for value in part if not math.isnan(value)]
            if not numbers:
                yield start
                continue
        else:
            numbers = part
        yield from sorted({start + part.index(min(numbers)), start + part.index(max(numbers))})

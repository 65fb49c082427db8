"""Points put together, and fewer of them for pictures."""

from __future__ import annotations

import math
import struct
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstore.errors import InvalidRequestError
from modelstore.reports.columns import Block, Columns, arrays, columns, frame, thinned

ROWS = st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 9), st.floats()), max_size=8)


def block(rows: list[tuple[int, int, float]]) -> Block:
    iterations, times, values = zip(*rows, strict=True) if rows else ((), (), ())
    size = len(rows)
    return struct.pack(f"<{size}q", *iterations), struct.pack(f"<{size}q", *times), struct.pack(f"<{size}d", *values)


@given(parts=st.lists(ROWS, max_size=4))
def test_points_are_sorted_by_iteration_and_else_stay_in_order(parts: list[list[tuple[int, int, float]]]) -> None:
    """With numpy and without, the same."""
    np: Any = pytest.importorskip("numpy")
    wanted = sorted((row for rows in parts for row in rows), key=lambda row: row[0])
    plain, fast = columns([block(rows) for rows in parts]), arrays([block(rows) for rows in parts])

    assert list(zip(plain.iterations, plain.times, map(repr, plain.values), strict=True)) == [
        (i, t, repr(v)) for i, t, v in wanted
    ]
    assert np.array_equal(fast.iterations, plain.iterations)
    assert np.array_equal(fast.values, plain.values, equal_nan=True)
    assert np.array_equal(fast.times, plain.times)


def test_arrays_can_be_written_to() -> None:
    """Frozen memory would be a surprise to whoever normalises a curve in place."""
    pytest.importorskip("numpy")
    found = arrays([block([(1, 1, 2.0)])])
    found.values[0] = 1.0

    assert found.values[0] == 1.0


@given(values=st.lists(st.floats(), min_size=1, max_size=300), most=st.integers(4, 60))
def test_the_extremes_of_a_thinned_series_are_those_of_the_series(values: list[float], most: int) -> None:
    """A spike that a picture does not show is a lie."""
    found = Columns(array("q", range(len(values))), array("q", range(len(values))), array("d", values))
    few = thinned(found, most)
    numbers = [value for value in values if not math.isnan(value)]

    assert len(few.values) <= most or len(few.values) == len(values) <= most
    assert list(few.iterations) == sorted(set(few.iterations))
    assert (few.iterations[0], few.iterations[-1]) == (0, len(values) - 1)
    assert all(repr(values[i]) == repr(v) for i, v in zip(few.iterations, few.values, strict=True))
    if numbers:
        kept = [value for value in few.values if not math.isnan(value)]
        assert (min(kept), max(kept)) == (min(numbers), max(numbers))


def test_too_few_samples_are_refused() -> None:
    """First, last, least and greatest are four."""
    with pytest.raises(InvalidRequestError, match="4 or more"):
        thinned(Columns(array("q"), array("q"), array("d")), 3)


def test_a_frame_of_nothing_has_its_columns() -> None:
    """Code that filters a frame should not fail on a model without scalars."""
    pytest.importorskip("pandas")
    empty, full = frame([]), frame([("t", "s", [block([(1, 0, 0.5)])])])

    assert list(empty.columns) == list(full.columns) == ["title", "series", "iteration", "value", "time"]
    assert str(full.time[0]) == "1970-01-01 00:00:00+00:00"

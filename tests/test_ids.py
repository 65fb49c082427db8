"""Ids and stamps."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from modelstore.ids import (
    clock_of,
    clock_to_datetime,
    is_id,
    make_stamp,
    ms_to_clock,
    new_id,
    next_stamp,
    project_id,
    stamp_ms,
    to_datetime,
)

W = "0123456789abcdef"


@given(st.lists(st.integers(-10, 2**47 - 2), min_size=1, max_size=30))
def test_stamps_only_rise_whatever_the_wall_clock_does(walls: list[int]) -> None:
    """A clock that jumps back, or stands still, must not reorder what one registry did."""
    last: str | None = None
    for wall in walls:
        stamp = next_stamp(last, W, wall)
        assert last is None or stamp > last
        assert len(stamp) == 32
        assert clock_of(stamp) < 2**63
        last = stamp


def test_the_counter_overflows_into_the_next_millisecond() -> None:
    """65,536 changes in one millisecond do not stop the registry."""
    assert next_stamp(make_stamp(5, 0xFFFF, W), W, 1) == make_stamp(6, 0, W)


@given(
    st.tuples(st.integers(0, 2**47 - 1), st.integers(0, 65535)),
    st.tuples(st.integers(0, 2**47 - 1), st.integers(0, 65535)),
)
def test_stamps_compare_as_they_compare_in_time(one: tuple[int, int], two: tuple[int, int]) -> None:
    """They are compared as text, in Python and in SQL."""
    left, right = make_stamp(*one, W), make_stamp(*two, W)

    assert (left < right) == (one < two)
    assert (clock_of(left) < clock_of(right)) == (one < two)
    assert stamp_ms(left) == one[0]


def test_a_project_has_the_same_id_everywhere() -> None:
    """Two laptops that create "vision/ocr" create the same project; the value must never change."""
    assert project_id("vision/ocr") == "96f95272cda1133f268e663e547afa63"
    assert project_id("vision/ocr") != project_id("vision/OCR")


def test_times_are_aware_and_exact_to_the_millisecond() -> None:
    """Naive datetimes are the commonest cause of hours gone astray."""
    moment = datetime(2026, 3, 1, 12, 30, 0, 123000, UTC)
    ms = int(moment.timestamp() * 1000)

    assert to_datetime(ms) == moment
    assert clock_to_datetime(ms_to_clock(ms) + 7) == moment
    assert to_datetime(None) is None


def test_ids_have_the_form_of_clearmls() -> None:
    """Scripts slice, print and paste them."""
    assert is_id(new_id())
    assert not is_id(new_id().upper() + "g")
    assert not is_id(None)

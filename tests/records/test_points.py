"""Blocks of points: what is packed comes back to the bit, and sums do not depend on the order."""

from __future__ import annotations

import binascii
import math
import random
import struct
import zlib
from array import array
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstore.errors import InvalidOperationError
from modelstore.records.operations import Operation
from modelstore.records.points import MAX_ITERATION, Points, exact_sum, mean_of, pack, unpack

WHOLE = st.integers(-MAX_ITERATION, MAX_ITERATION)
ROWS = st.lists(st.tuples(WHOLE, WHOLE, st.floats()), min_size=1, max_size=20)


def points(title: str, series: str, rows: list[tuple[int, int, float]]) -> Points:
    iterations, times, values = zip(*rows, strict=True)
    return Points(title, series, array("q", iterations), array("q", times), array("d", values))


@given(found=st.dictionaries(st.tuples(st.text(max_size=3), st.text(max_size=3)), ROWS, min_size=1, max_size=4))
def test_what_is_packed_comes_back_to_the_bit(found: dict[tuple[str, str], list[tuple[int, int, float]]]) -> None:
    """NaN, infinities and negative zero are values like any other, and the journal is JSON all the same."""
    blocks = [points(title, series, rows) for (title, series), rows in found.items()]
    operation = Operation("0" * 32, "model", "0" * 32, "report", {"scalars": pack(blocks)})
    back = unpack(Operation.from_json(operation.to_json()).changes["scalars"])

    assert [(b.title, b.series, b.iterations, b.times, b.values.tobytes()) for b in back] == [
        (b.title, b.series, b.iterations, b.times, b.values.tobytes()) for b in blocks
    ]


def test_a_steady_series_takes_ten_bytes_a_point() -> None:
    """A million points are ten megabytes of journal, not a hundred."""
    chance = random.Random(0)
    rows = [(i, 1_700_000_000_000 + i // 100, chance.gauss(0, 1)) for i in range(10_000)]
    packed = pack([points("train", "loss", rows)])

    assert sum(len(packed[name]) for name in ("iterations", "times", "values")) < 110_000


@given(numbers=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1), seed=st.integers())
def test_a_sum_depends_on_nothing_but_what_is_added(numbers: list[float], seed: int) -> None:
    """The mean must be the same on two registries that heard the points in different orders."""
    shuffled = list(numbers)
    random.Random(seed).shuffle(shuffled)
    cut = len(shuffled) // 2
    parts = exact_sum(shuffled[cut:], exact_sum(shuffled[:cut]))

    assert parts == exact_sum(numbers)
    exact = sum((Fraction(number * 2.0**-64) for number in numbers), Fraction())
    assert sum(map(Fraction, parts), Fraction()) == exact
    assert mean_of([*parts], len(numbers)) == float(exact) / len(numbers) * 2.0**64


def column(*numbers: int) -> str:
    data = struct.pack(f"<{len(numbers)}q", *numbers)
    shuffled = b"".join(data[byte::8] for byte in range(8))
    return binascii.b2a_base64(zlib.compress(shuffled), newline=False).decode()


PLACE: dict[str, Any] = {"title": "t", "series": "s", "iteration": 1, "time": 1}
GOOD: dict[str, Any] = {
    "series": [["t", "s", 2]],
    "iterations": column(1, 1),
    "times": column(5, 0),
    "values": column(0, 0),
}


@pytest.mark.parametrize(
    "change",
    [
        {"series": []},
        {"series": [["t", "s", 0]]},
        {"series": [["t", "s", True]]},
        {"series": [["t", "s", 3]]},
        {"series": [["t", "s", 2**40]]},
        {"series": [["t", 1, 2]]},
        {"series": [["t", "s"]]},
        {"series": [["t", "s", 1], ["t", "s", 1]]},
        {"series": None},
        {"iterations": column(2**62 - 1, 5)},
        {"iterations": column(2**63 - 1, 2**63 - 1)},
        {"times": column(1)},
        {"times": column(1, 2, 3)},
        {"values": "not base64"},
        {"values": binascii.b2a_base64(b"not zlib").decode().strip()},
        {"values": binascii.b2a_base64(zlib.compress(b"\0" * 10_000_000)).decode().strip()},
        {"values": 7},
    ],
    ids=str,
)
def test_a_malformed_block_is_refused(change: dict[str, Any]) -> None:
    """It came from elsewhere: whatever is in it, nothing but our error comes out, and no memory is filled with it."""
    assert len(unpack(GOOD)[0]) == 2
    with pytest.raises(InvalidOperationError, match="No block"):
        unpack(GOOD | change)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("project", {"scalars": GOOD}),
        ("model", {}),
        ("model", {"scalars": GOOD, "plot": {}}),
        ("model", {"scalars": []}),
        ("model", {"name": "x"}),
        ("model", {"plot": {}}),
        ("model", {"plot": {"kind": "plotly", "title": "t", "series": "s", "iteration": 1, "time": 1}}),
        ("model", {"plot": {"kind": "x", "title": "t", "series": "s", "iteration": 1, "time": 1, "url": "u"}}),
        ("model", {"plot": {"kind": "image", "title": "t", "series": "s", "iteration": "1", "time": 1, "url": "u"}}),
        ("model", {"plot": {"kind": "image", "title": 1, "series": "s", "iteration": 1, "time": 1, "url": "u"}}),
        ("model", {"plot": {"kind": "image", "title": "t", "series": "s", "iteration": 1, "time": 1, "digest": "u"}}),
        ("model", {"plot": {"kind": "image", **PLACE, "url": "u", "x": 1}}),
    ],
    ids=str,
)  # fmt: skip
def test_a_malformed_report_is_refused(kind: Any, changes: dict[str, Any]) -> None:
    """Before it is let near the index."""
    text = Operation("1" * 32, kind, "0" * 32, "report", changes).to_json()
    with pytest.raises(InvalidOperationError):
        Operation.from_json(text)


def test_a_report_names_no_parents() -> None:
    """It replaces nothing, so it can be in no conflict."""
    text = Operation("1" * 32, "model", "0" * 32, "report", {"scalars": GOOD}, {"scalars": "0" * 32}).to_json()
    with pytest.raises(InvalidOperationError, match="replace nothing"):
        Operation.from_json(text)


def test_the_mean_of_the_largest_numbers_is_in_range() -> None:
    """Their sum is not."""
    assert mean_of(exact_sum([1.7e308] * 4), 4) == 1.7e308
    assert math.isclose(mean_of(exact_sum([0.1] * 10), 10), 0.1)

"""Reported scalars in blocks: as they are packed into an operation, and what is known of them together.

A block holds the points of any number of series. In the journal it is JSON: the names and lengths of the series, and
three columns over all of them (iterations, times, values). A column is base64 of zlib of its numbers, eight bytes each,
little-endian, with the first bytes of all numbers first, then the second ones and so on; iterations and times are
written as differences. So NaN and infinities are kept to the bit, what grows steadily takes next to nothing, and a
point costs about ten bytes.
"""

from __future__ import annotations

import binascii
import math
import operator
import sys
import zlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, islice
from typing import Any, Final

from modelstore.errors import InvalidOperationError

__all__ = [
    "MAX_ITERATION",
    "SINGLE_VALUE",
    "SUMMARY",
    "Points",
    "exact_sum",
    "little_endian",
    "mean_of",
    "pack",
    "unpack",
]

SUMMARY: Final = "Summary"
"""Title of the series that single values are."""

SINGLE_VALUE: Final = -(2**31)
"""Iteration of single values, as in ClearML."""

MAX_ITERATION: Final = 2**62 - 1
"""Largest iteration, either way: a difference of two must fit 64 bits."""

_MAX_POINTS: Final = 2**24
_LEVEL: Final = 1
_SCALE: Final = 2.0**-64


@dataclass(frozen=True, slots=True)
class Points:
    """Points of one series, in the order in which they were reported.

    Attributes:
        title: Name of the chart.
        series: Name of the line in it.
        iterations: Array of type "q".
        times: When each was reported, milliseconds since 1970; array of type "q".
        values: Array of type "d".
    """

    title: str
    series: str
    iterations: array[int]
    times: array[int]
    values: array[float]

    def __len__(self) -> int:
        return len(self.values)


def pack(blocks: Sequence[Points]) -> dict[str, Any]:
    """Return the points of several series, each at most once, as JSON can say them."""
    iterations, times, values = array("q"), array("q"), array("d")
    for block in blocks:
        iterations.extend(block.iterations)
        times.extend(block.times)
        values.extend(block.values)
    return {
        "series": [[block.title, block.series, len(block)] for block in blocks],
        "iterations": _packed(_differences(iterations)),
        "times": _packed(_differences(times)),
        "values": _packed(values),
    }


def unpack(packed: Any) -> list[Points]:
    """Return what was packed.

    Raises:
        InvalidOperationError: It is no block; the message says why.
    """
    try:
        names = [(title, series, count) for title, series, count in packed["series"]]
        for title, series, count in names:
            if not isinstance(title, str) or not isinstance(series, str) or type(count) is not int or count < 1:
                raise ValueError("a series is not a title, a name and a length")
        total = sum(count for _, _, count in names)
        if len({name[:2] for name in names}) != len(names) or not 0 < total <= _MAX_POINTS:
            raise ValueError("a series comes twice, or there are no points, or too many")
        iterations = array("q", accumulate(_unpacked(packed["iterations"], "q", total)))
        times = array("q", accumulate(_unpacked(packed["times"], "q", total)))
        if max(map(abs, chain(iterations, times))) > MAX_ITERATION:
            raise ValueError("an iteration or time is out of range")
        values = _unpacked(packed["values"], "d", total)
    except (ValueError, KeyError, TypeError, OverflowError, zlib.error) as error:
        raise InvalidOperationError(f"No block of scalars: {error}") from error
    found, start = [], 0
    for title, series, count in names:
        part = slice(start, start + count)
        found.append(Points(title, series, iterations[part], times[part], values[part]))
        start += count
    return found


def _differences(numbers: array[int]) -> array[int]:
    return array("q", [*numbers[:1], *map(operator.sub, islice(numbers, 1, None), numbers)])


def _packed(column: array[Any]) -> str:
    data = little_endian(column)
    shuffled = b"".join(data[byte::8] for byte in range(8))
    return binascii.b2a_base64(zlib.compress(shuffled, _LEVEL), newline=False).decode("ascii")


def _unpacked(text: Any, kind: str, count: int) -> array[Any]:
    if not isinstance(text, str):
        raise TypeError("a column is not text")
    inflating = zlib.decompressobj()
    shuffled = inflating.decompress(binascii.a2b_base64(text, strict_mode=True), count * 8 + 1)
    if len(shuffled) != count * 8 or not inflating.eof:
        raise ValueError("a column is not as long as its series")
    data = bytearray(count * 8)
    for byte in range(8):
        data[byte::8] = shuffled[byte * count : (byte + 1) * count]
    column = array(kind, bytes(data))
    if sys.byteorder == "big":
        column.byteswap()
    return column


def little_endian(column: array[Any]) -> bytes:
    """Return the numbers of a column, eight bytes each, little-endian."""
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()


def exact_sum(values: Iterable[float], parts: Sequence[float] = ()) -> list[float]:
    """Return the exact sum of finite numbers, as few numbers that add up to it.

    The result depends on nothing but the sum: not on the order, nor on what was added up before. All numbers are
    scaled down by 2**64, so that no sum leaves the range.

    Args:
        values: Finite numbers to add.
        parts: What an earlier call returned.
    """
    terms = [*parts, *(value * _SCALE for value in values)]
    found: list[float] = []
    while rest := math.fsum(terms):
        found.append(rest)
        terms.append(-rest)
    return found


def mean_of(parts: Sequence[float], count: int) -> float:
    """Return the mean of ``count`` numbers whose `exact_sum` is ``parts``."""
    return math.fsum(parts) / count / _SCALE

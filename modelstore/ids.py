"""Ids and stamps.

A *stamp* is a hybrid logical clock reading written as 32 lower-case hex digits: 12 of milliseconds since 1970,
4 of a counter within the millisecond, 16 of the writer. Stamps compare as strings exactly as they compare in time,
and no two operations ever share one, so a stamp is the id of its operation as well.
"""

from __future__ import annotations

import hashlib
import os
import time
from datetime import UTC, datetime

__all__ = [
    "clock_of",
    "clock_to_datetime",
    "is_digest",
    "is_id",
    "is_stamp",
    "make_stamp",
    "ms_to_clock",
    "new_id",
    "new_writer",
    "next_stamp",
    "now_ms",
    "project_id",
    "stamp_ms",
    "to_datetime",
]

_HEX = frozenset("0123456789abcdef")
_MAX_COUNTER = 0xFFFF
_MAX_MS = 0x7FFFFFFFFFFF  # so that a clock reading fits a signed 64-bit integer (the year 6429)


def new_id() -> str:
    """Return a fresh random id: 32 lower-case hex digits, the form of ClearML's ids."""
    return os.urandom(16).hex()


def new_writer() -> str:
    """Return a fresh random writer id: 16 lower-case hex digits."""
    return os.urandom(8).hex()


def project_id(name: str) -> str:
    """Return the id of the project with that full name; the same everywhere, so that registries agree on it."""
    return hashlib.sha256(b"modelstore:project:" + name.encode()).hexdigest()[:32]


def is_id(text: object) -> bool:
    """Tell whether ``text`` has the form of an id (32 lower-case hex digits)."""
    return isinstance(text, str) and len(text) == 32 and _HEX.issuperset(text)


def is_digest(text: object) -> bool:
    """Tell whether ``text`` has the form of a digest: "sha256:" and 64 lower-case hex digits."""
    return isinstance(text, str) and text[:7] == "sha256:" and len(text) == 71 and _HEX.issuperset(text[7:])


def is_stamp(text: object) -> bool:
    """Tell whether ``text`` has the form of a stamp."""
    return is_id(text)


def now_ms() -> int:
    """Return the wall clock in milliseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000_000


def make_stamp(ms: int, counter: int, writer: str) -> str:
    """Write a stamp.

    Args:
        ms: Milliseconds since 1970, 0 to 2**48 - 1.
        counter: 0 to 65535.
        writer: 16 hex digits.
    """
    return f"{ms:012x}{counter:04x}{writer}"


def stamp_ms(stamp: str) -> int:
    """Return the milliseconds since 1970 of a stamp."""
    return int(stamp[:12], 16)


def clock_of(stamp: str) -> int:
    """Return the clock reading of a stamp: milliseconds shifted left by 16 bits, plus the counter."""
    return int(stamp[:16], 16)


def ms_to_clock(ms: int) -> int:
    """Return the first clock reading of a millisecond, for comparing stored readings with a time."""
    return ms << 16


def clock_to_datetime(clock: int) -> datetime:
    """Turn a clock reading into an aware UTC datetime, exact to the millisecond."""
    return datetime.fromtimestamp((clock >> 16) / 1000, UTC)


def next_stamp(last: str | None, writer: str, wall_ms: int | None = None) -> str:
    """Return a stamp greater than ``last``, at the wall clock where that is ahead.

    A wall clock that jumps back, or one that is behind a stamp seen from elsewhere, only makes the counter run;
    stamps never go back.

    Args:
        last: The greatest stamp known so far; None for none.
        writer: This writer's id.
        wall_ms: The wall clock, milliseconds; None reads it.
    """
    wall = now_ms() if wall_ms is None else wall_ms
    if last is None:
        return make_stamp(max(wall, 0), 0, writer)
    ms, counter = int(last[:12], 16), int(last[12:16], 16)
    if wall > ms:
        return make_stamp(wall, 0, writer)
    if counter < _MAX_COUNTER:
        return make_stamp(ms, counter + 1, writer)
    return make_stamp(min(ms + 1, _MAX_MS), 0, writer)


def to_datetime(ms: int | None) -> datetime | None:
    """Turn milliseconds since 1970 into an aware UTC datetime; None stays None."""
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)

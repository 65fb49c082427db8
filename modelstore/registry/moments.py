"""Moments as people say them, and the stamps that they stand for."""

from __future__ import annotations

import math
from datetime import date, datetime, time
from typing import Final

from modelstore.errors import InvalidRequestError
from modelstore.ids import is_stamp

__all__ = ["Moment", "first_stamp_of", "last_stamp_of"]

Moment = datetime | date | str | int | float
"""A datetime or ISO text (local time where it has no zone), a date (its end), seconds since 1970, or a stamp."""

_MAX_MS: Final = 2**47


def last_stamp_of(moment: Moment) -> str:
    """Return the greatest stamp that an operation made until then, that moment included, can have.

    Raises:
        InvalidRequestError: It is no moment.
    """
    if isinstance(moment, str) and is_stamp(moment):
        return moment
    seconds = _seconds(moment)
    if not math.isfinite(seconds) or not 0 <= seconds * 1000 < _MAX_MS:
        raise InvalidRequestError(f"{moment!r} is no moment after 1970", _FORMS)
    return f"{math.floor(seconds * 1000):012x}{'f' * 20}"


def first_stamp_of(moment: Moment) -> str:
    """Return the least stamp that an operation made from then on, that moment included, can have.

    A date is its beginning here.

    Raises:
        InvalidRequestError: It is no moment.
    """
    if isinstance(moment, str):
        if is_stamp(moment):
            return moment
        moment = _read(moment.strip())
    if isinstance(moment, date) and not isinstance(moment, datetime):
        moment = datetime.combine(moment, time())
    return f"{last_stamp_of(moment)[:12]}{'0' * 20}"


_FORMS: Final = "Use 2026-03-01, 2026-03-01T12:00:00+01:00, seconds since 1970, or an operation's stamp."


def _seconds(moment: Moment) -> float:
    if isinstance(moment, str):
        moment = _read(moment.strip())
    if isinstance(moment, datetime):
        return moment.timestamp()  # without a zone: local time
    if isinstance(moment, date):
        return datetime.combine(moment, time(23, 59, 59, 999_000)).timestamp()
    if isinstance(moment, bool) or not isinstance(moment, (int, float)):
        raise InvalidRequestError(f"{moment!r} is no moment", _FORMS)
    return float(moment)


def _read(text: str) -> Moment:
    for read in (date.fromisoformat, datetime.fromisoformat, float):
        try:
            found: Moment = read(text)
        except ValueError:
            continue
        return found
    raise InvalidRequestError(f"{text!r} is no moment", _FORMS)

"""The fields that can be compared, and the constants that fit them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final, Literal

from modelstore.errors import InvalidRequestError
from modelstore.query.tree import AllOf, AnyOf, Compare, FieldTarget, Node, Not, Op, Scalar, Target, TextTarget, Value

__all__ = ["FIELDS", "KINDS", "TASK_FIELDS", "Kind", "check_field", "check_fields", "check_text", "constant", "to_ms"]

Kind = Literal["text", "number", "time", "flag"]

FIELDS: Final[dict[str, Kind]] = {
    "archived": "flag",
    "comment": "text",
    "created": "time",
    "digest": "text",
    "framework": "text",
    "id": "text",
    "iteration": "number",
    "name": "text",
    "package": "flag",
    "parent": "text",
    "project": "text",
    "published": "flag",
    "size": "number",
    "task": "text",
    "updated": "time",
    "uri": "text",
}
"""Field name to what it holds. `project` is the full name, `size` bytes, `task` and `parent` ids."""

TASK_FIELDS: Final[dict[str, Kind]] = {
    "archived": "flag",
    "comment": "text",
    "completed": "time",
    "created": "time",
    "id": "text",
    "last_iteration": "number",
    "name": "text",
    "output_uri": "text",
    "parent": "text",
    "project": "text",
    "published": "flag",
    "started": "time",
    "status": "text",
    "type": "text",
    "updated": "time",
}
"""The same of tasks."""

KINDS: Final = FIELDS | TASK_FIELDS
"""Fields of anything; those of one name are of one kind."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TAKES: Final = {"text": "text", "number": "a number", "time": "a date or time", "flag": "True or False"}


def check_field(name: object, fields: Mapping[str, Kind] = FIELDS, of: str = "model") -> str:
    """Return the name of a field.

    Args:
        name: The name.
        fields: The fields that there are.
        of: Of what.

    Raises:
        InvalidRequestError: There is no such field; the nearest name is suggested.
    """
    if isinstance(name, str) and name in fields:
        return name
    near = difflib.get_close_matches(str(name), fields, 1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Fields are {', '.join(fields)}."
    raise InvalidRequestError(f"A {of} has no field {name!r}", hint)


def check_fields(node: Node, fields: Mapping[str, Kind], of: str) -> None:
    """See that a condition is about fields that there are.

    Raises:
        InvalidRequestError: It is not, as ``Field("status")`` is not for models.
    """
    match node:
        case Compare(FieldTarget(name)):
            check_field(name, fields, of)
        case Not(child):
            check_fields(child, fields, of)
        case AllOf(children) | AnyOf(children):
            for child in children:
                check_fields(child, fields, of)


def check_text(text: object, what: str) -> str:
    """Return a piece of text that a registry can hold.

    Raises:
        InvalidRequestError: It is no string, is empty, or has half a surrogate pair, which no database takes.
    """
    if not isinstance(text, str):
        raise InvalidRequestError(f"{what} must be a string, not {text!r}")
    if not text:
        raise InvalidRequestError(f"{what} must not be empty")
    return _encodable(text, what)


def _encodable(text: str, what: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(f"{what} {text!r} is not valid Unicode") from error
    return str(text)


def to_ms(moment: datetime | date | str | float) -> int:
    """Return a moment as milliseconds since 1970 UTC, fractions cut off.

    Args:
        moment: A datetime (without a zone: local time, as everywhere in Python), a date (its first moment, local
            time), either as ISO 8601 text, or milliseconds since 1970.

    Raises:
        InvalidRequestError: It is none of these.
    """
    if isinstance(moment, bool):
        raise InvalidRequestError(f"{moment!r} is no date or time")
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError as error:
            hint = "Write 2026-03-01 or 2026-03-01T18:30."
            raise InvalidRequestError(f"{moment!r} is no date or time", hint) from error
    elif isinstance(moment, date) and not isinstance(moment, datetime):
        moment = datetime.combine(moment, time())
    try:
        if isinstance(moment, (int, float)):
            return int(moment)
        if isinstance(moment, datetime):
            return (moment.astimezone(UTC) - _EPOCH) // timedelta(milliseconds=1)
    except (OverflowError, ValueError, OSError) as error:
        raise InvalidRequestError(f"{moment!r} is out of range") from error
    raise InvalidRequestError(f"{moment!r} is no date or time", "Use a datetime, a date or ISO 8601 text.")


def constant(target: Target, op: Op, value: Any) -> Value:
    """Check the constant of a comparison, and bring it into the form that `Compare` holds.

    Raises:
        InvalidRequestError: The operator or the constant does not fit the target.
    """
    kind = _kind_of(target)
    if op == "exists":
        return None
    if op in ("contains", "matches"):
        if kind not in ("text", "any"):
            hint = "Use ==, <, <=, >, >= or in."
            raise InvalidRequestError(f"{op} works on text, and {_named(target)} is none", hint)
        text = _scalar(target, "text", value)
        return _pattern(str(text)) if op == "matches" else text
    if op == "in":
        if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
            raise InvalidRequestError(f"in takes a list of values, not {value!r}")
        return tuple(_scalar(target, kind, member) for member in value)
    if kind == "flag" and op != "==":
        raise InvalidRequestError(f"{_named(target)} is true or false and has no order", "Use == or !=.")
    return _scalar(target, kind, value)


def _kind_of(target: Target) -> Kind | Literal["any"]:
    if isinstance(target, FieldTarget):
        return KINDS[check_field(target.name, KINDS)]
    if isinstance(target, TextTarget):
        return "text"
    return "any" if hasattr(target, "key") else "number"


def _named(target: Target) -> str:
    match target:
        case FieldTarget(name):
            return f"the field {name!r}"
        case _ if hasattr(target, "key"):
            return f"the metadata {target.key!r}"
    return "a metric"


def _scalar(target: Target, kind: str, value: Any) -> Scalar:
    if not isinstance(value, (bool, int, float, str)) and hasattr(value, "item"):
        value = value.item()  # a numpy scalar, without importing numpy
    if kind == "time":
        return to_ms(value)
    if isinstance(value, str) and kind in ("text", "any"):
        return _encodable(value, "The text")
    if isinstance(value, bool) and kind in ("flag", "any"):
        return bool(value)
    if isinstance(value, int) and not isinstance(value, bool) and kind in ("number", "any"):
        return int(value)
    if isinstance(value, float) and kind in ("number", "any"):
        return float(value)
    if value is None:
        raise InvalidRequestError(
            f"{_named(target)} cannot be compared with None".capitalize(), "Use .exists(), or ~….exists() for absence."
        )
    takes = _TAKES.get(kind, "a number, text, True or False")
    raise InvalidRequestError(f"{value!r} does not fit {_named(target)}, which takes {takes}")


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise InvalidRequestError(f"{text!r} is no regular expression: {error}") from error
    return text

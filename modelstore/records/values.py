"""JSON that gives back what it was given.

Plain JSON loses NaN, infinities, tuples, bytes and keys that are not strings. Here each of those becomes an object
with a single key that starts with `$`, and an object of the caller's that looks like one is wrapped in turn.
"""

from __future__ import annotations

import json
import math
from typing import Any

from modelstore.errors import InvalidRequestError

__all__ = ["METADATA_TYPES", "decode", "dumps", "encode", "loads", "metadata_text", "metadata_type", "scalar_of"]

METADATA_TYPES = ("float", "int", "bool", "str", "basestring", "list", "tuple", "dict")
"""The type names that ClearML's `set_metadata(v_type=…)` knows."""

_MAX_DEPTH = 200


def encode(value: Any, _depth: int = 0) -> Any:  # noqa: C901, PLR0911 - one branch a type
    """Turn a Python value into one that `json` writes without loss.

    Raises:
        InvalidRequestError: The value, or one inside it, has no representation (an object, a set, a function).
    """
    if _depth > _MAX_DEPTH:
        raise InvalidRequestError(f"The value is nested more than {_MAX_DEPTH} levels deep", "Store it as a file.")
    if value is None or isinstance(value, (bool, str)):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        return {"$float": "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"}
    if isinstance(value, bytes):
        return {"$bytes": value.hex()}
    if isinstance(value, tuple):
        return {"$tuple": [encode(v, _depth + 1) for v in value]}
    if isinstance(value, list):
        return [encode(v, _depth + 1) for v in value]
    if isinstance(value, dict):
        if all(type(k) is str for k in value) and not (len(value) == 1 and next(iter(value)).startswith("$")):
            return {k: encode(v, _depth + 1) for k, v in value.items()}
        return {"$dict": [[encode(k, _depth + 1), encode(v, _depth + 1)] for k, v in value.items()]}
    if hasattr(value, "tolist"):  # numpy scalars and arrays, without importing numpy
        return encode(value.tolist(), _depth + 1)
    if hasattr(value, "__fspath__"):
        return str(value)
    raise InvalidRequestError(
        f"A value of type {type(value).__name__} cannot be stored",
        "Use numbers, strings, booleans, None, lists, tuples, dictionaries or bytes.",
    )


def decode(value: Any) -> Any:
    """Turn what `encode` made back into the value it was made from."""
    if isinstance(value, list):
        return [decode(v) for v in value]
    if isinstance(value, dict):
        if len(value) == 1:
            ((tag, inner),) = value.items()
            if tag == "$float":
                return float(inner)
            if tag == "$bytes":
                return bytes.fromhex(inner)
            if tag == "$tuple":
                return tuple(decode(v) for v in inner)
            if tag == "$dict":
                return {decode(k): decode(v) for k, v in inner}
        return {k: decode(v) for k, v in value.items()}
    return value


def dumps(value: Any) -> str:
    """Write a value as one line of strict JSON; `loads` gives the same value back.

    Raises:
        InvalidRequestError: The value cannot be represented (see `encode`).
    """
    return json.dumps(encode(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def loads(text: str) -> Any:
    """Read what `dumps` wrote."""
    return decode(json.loads(text))


def metadata_type(value: Any) -> str:
    """Name the metadata type of a value: one of `METADATA_TYPES`, or "None" for None."""
    if value is None:
        return "None"
    for kind, name in (
        (bool, "bool"),
        (int, "int"),
        (float, "float"),
        (str, "str"),
        (list, "list"),
        (tuple, "tuple"),
        (dict, "dict"),
    ):
        if isinstance(value, kind):
            return name
    return "str"


def metadata_text(value: Any) -> str:
    """Return a metadata value as text, the form in which ClearML hands it out and compares it."""
    if isinstance(value, str):
        return value
    if isinstance(value, (list, dict)) and (encoded := encode(value)) == value and not _has_tuple(value):
        return json.dumps(encoded, ensure_ascii=False)
    return str(value)  # what JSON cannot say


def _has_tuple(value: Any) -> bool:
    if isinstance(value, (list, dict)):
        return any(_has_tuple(inner) for inner in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, tuple)


def scalar_of(text: str) -> float | str | None:
    """Return what a value that `dumps` wrote compares as: text, a number, or nothing; an SQL function of connections.

    Integers too large for a float become infinite; NaN is nothing to compare with.
    """
    value = loads(text)
    if isinstance(value, str):
        return value
    if not isinstance(value, (bool, int, float)) or value != value:  # noqa: PLR0124 - NaN
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf

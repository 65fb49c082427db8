"""What names, tags, labels and the like may be. Checked before anything is touched."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from modelstore.errors import InvalidConfigurationError, InvalidMetadataError, InvalidRequestError
from modelstore.records.literals import parse_literal
from modelstore.records.values import METADATA_TYPES, encode, metadata_type

__all__ = [
    "check_config",
    "check_integer",
    "check_labels",
    "check_metadata_key",
    "check_name",
    "check_number",
    "check_project",
    "check_tags",
    "check_text",
    "metadata_pair",
]

MAX_NAME = 1_000
MAX_TAG = 500
MAX_TEXT = 10_000_000


def check_text(what: str, value: object, *, limit: int = MAX_TEXT) -> str:
    """Return a text that the registry can hold.

    Raises:
        InvalidRequestError: It is no string, too long, or holds NUL or half a surrogate pair.
    """
    if not isinstance(value, str):
        raise InvalidRequestError(f"The {what} must be a string, not {type(value).__name__}")
    if len(value) > limit:
        raise InvalidRequestError(f"The {what} has {len(value):,} characters; {limit:,} are allowed")
    if "\0" in value:
        raise InvalidRequestError(f"The {what} contains a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError(f"The {what} is no valid Unicode (half a surrogate pair)") from None
    return value


def check_integer(what: str, value: Any) -> int:
    """Return a whole number of at most 63 bits; those of numpy count, booleans do not.

    Raises:
        InvalidRequestError: It is none.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__") or abs(int(value.__index__())) >= 2**63:
        raise InvalidRequestError(f"The {what} must be a whole number, not {value!r:.80}")
    return int(value.__index__())


def check_number(what: str, value: Any) -> float:
    """Return a number as a float: also one of numpy, an array or tensor of one, or text such as "0.5".

    Raises:
        InvalidRequestError: It is none.
    """
    try:
        return float(value.detach() if hasattr(value, "detach") else value)  # PyTorch warns of what is part of a graph
    except (TypeError, ValueError, OverflowError, RuntimeError):  # a tensor of several is a RuntimeError
        raise InvalidRequestError(f"The {what} must be a number, not {value!r:.80}") from None


def check_name(what: str, value: object) -> str:
    """Return a name: not empty, one line, at most 1,000 characters. Slashes and emoji are fine.

    Raises:
        InvalidRequestError: It is none.
    """
    text = check_text(what, value, limit=MAX_NAME)
    if not text.strip():
        raise InvalidRequestError(f"The {what} is empty")
    for character in text:
        if unicodedata.category(character) == "Cc":
            raise InvalidRequestError(f"The {what} contains the control character {character!r}")
    return text


def check_project(value: object) -> str:
    """Return a project's full name, whose parts are separated by single slashes.

    Raises:
        InvalidRequestError: It is none.
    """
    name = check_name("project name", value)
    if any(not part.strip() for part in name.split("/")):
        raise InvalidRequestError(
            f"The project name {name!r} has an empty part", "Separate the parts by single slashes, as in 'vision/ocr'."
        )
    return name


def check_tags(value: object, what: str = "tags") -> list[str]:
    """Return tags without duplicates, in the order given.

    Raises:
        InvalidRequestError: Not a list, tuple or set of acceptable strings.
    """
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InvalidRequestError(f"The {what} must be a list of strings, not {value!r:.80}", "Put it in a list.")
    found: dict[str, None] = {}
    for tag in value:
        text = check_text("tag", tag, limit=MAX_TAG)
        if not text.strip():
            raise InvalidRequestError("A tag is empty")
        if text.startswith("__$"):
            raise InvalidRequestError(f"The tag {text!r} begins with '__$', which is kept for operators in queries")
        found[text] = None
    return list(found)


def check_labels(value: object) -> dict[str, int]:
    """Return a label enumeration: names to integers (True and False count as 1 and 0).

    Raises:
        InvalidRequestError: It is none.
    """
    if not isinstance(value, Mapping):
        raise InvalidRequestError(f"Labels must be a dictionary of names to integers, not {type(value).__name__}")
    labels = {}
    for name, number in value.items():
        text = check_text("label", name, limit=MAX_NAME)
        if hasattr(number, "__index__"):
            labels[text] = int(number.__index__())
        else:
            raise InvalidRequestError(f"The label {text!r} has the value {number!r:.80}, which is no integer")
        if abs(labels[text]) >= 2**63:
            raise InvalidRequestError(f"The label {text!r} has a value of more than 64 bits")
    return labels


def check_config(config_text: object, config_dict: object) -> dict[str, Any] | None:
    """Return a configuration in the form that models keep: {"text": …}, {"dict": …}, or None when it is empty.

    Raises:
        InvalidConfigurationError: Both were given, or one of the wrong type.
    """
    if config_text is not None and config_dict is not None:
        raise InvalidConfigurationError("Only one of config_text and config_dict can be given")
    if config_text is not None:
        text = check_text("configuration text", config_text)
        return {"text": text} if text else None
    if config_dict is None:
        return None
    if not isinstance(config_dict, Mapping):
        raise InvalidConfigurationError(
            f"config_dict must be a dictionary, not {type(config_dict).__name__}", "Wrap it: {'value': …}."
        )
    return {"dict": encode(dict(config_dict))} if config_dict else None


def check_metadata_key(key: object) -> str:
    """Return a metadata key: not empty, at most 1,000 characters; dots are fine.

    Raises:
        InvalidMetadataError: It is none.
    """
    try:
        text = check_text("metadata key", key, limit=MAX_NAME)
    except InvalidRequestError as error:
        raise InvalidMetadataError(error.message) from None
    if not text:
        raise InvalidMetadataError("A metadata key is empty")
    return text


def metadata_pair(key: str, value: Any, v_type: str | None) -> list[Any]:
    """Return a metadata value as type and encoded value.

    Args:
        key: Its key, for messages.
        value: Anything that JSON can hold, and tuples, NaN, bytes; a string is converted to ``v_type``.
        v_type: One of `METADATA_TYPES`; None takes the value's own.

    Raises:
        InvalidMetadataError: The type is unknown, or the value is not of it.
    """
    if hasattr(value, "tolist"):  # numpy scalars and arrays, without importing numpy
        value = value.tolist()
    if isinstance(value, str):
        value = check_text(f"metadata value of {key!r}", value)
    if isinstance(value, (bytes, bytearray)):
        raise InvalidMetadataError(
            f"Metadata {key!r} cannot hold bytes", "Store a file, or a text such as value.hex()."
        )
    if v_type is not None and not isinstance(v_type, str):
        raise InvalidMetadataError(f"The type of metadata {key!r} must be a name, not {v_type!r:.80}")
    if v_type is None:
        if hasattr(value, "__fspath__"):
            value = str(value)
        return [metadata_type(value), _encoded(key, value)]
    if v_type == "None":
        return ["None", _encoded(key, value)]
    name = "str" if v_type == "basestring" else v_type
    if name.partition("/")[0] not in METADATA_TYPES:
        raise InvalidMetadataError(f"Unknown metadata type {v_type!r} for {key!r}", f"Use {', '.join(METADATA_TYPES)}.")
    name = name.partition("/")[0]
    return [name, _encoded(key, _cast(key, value, name))]


def _encoded(key: str, value: Any) -> Any:
    try:
        return encode(value)
    except InvalidRequestError as error:
        raise InvalidMetadataError(f"Metadata {key!r}: {error.message}", error.hint) from None


def _cast(key: str, value: Any, kind: str) -> Any:
    if metadata_type(value) == kind:
        return value
    try:
        if kind == "str":
            return str(value)
        if kind == "float":
            return float(value)
        if kind == "int":
            return _whole(value)
        if kind == "bool":
            return _truth(value)
        return _container(value, kind)
    except (ValueError, TypeError, OverflowError, SyntaxError, MemoryError, RecursionError):
        raise InvalidMetadataError(
            f"Metadata {key!r} has the value {value!r:.80}, which is no {kind}",
            "Leave v_type out to keep its own type.",
        ) from None


def _whole(value: Any) -> int:
    number = int(value)
    if not isinstance(value, str) and number != value:
        raise ValueError
    return number


def _truth(value: Any) -> bool:
    if isinstance(value, str):
        words = {
            "true": True,
            "yes": True,
            "1": True,
            "on": True,
            "false": False,
            "no": False,
            "0": False,
            "off": False,
        }
        if value.strip().lower() in words:
            return words[value.strip().lower()]
        raise ValueError
    if value in (0, 1):
        return bool(value)
    raise ValueError


def _container(value: Any, kind: str) -> Any:
    import ast
    import json

    class _Numbers(ast.NodeTransformer):
        """Read nan and inf, which Python writes but does not read."""

        def visit_Name(self, node: ast.Name) -> ast.AST:
            return ast.Constant(float(node.id)) if node.id in ("nan", "inf") else node

    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = ast.literal_eval(_Numbers().visit(parse_literal(value)))
    if kind == "dict":
        if not isinstance(value, dict):
            raise TypeError
        return value
    if not isinstance(value, (list, tuple)):
        raise TypeError
    return list(value) if kind == "list" else tuple(value)

"""What a tree means: the specification that every compiled form must agree with on every input."""

from __future__ import annotations

import math
import operator
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from modelstore.query.tree import (
    AllOf,
    AnyOf,
    Compare,
    FieldTarget,
    HasTag,
    Mentions,
    MetaTarget,
    MetricTarget,
    Node,
    Not,
    TextTarget,
    Untagged,
    Value,
)
from modelstore.query.words import mentions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from collections.abc import Set as AbstractSet

__all__ = ["Subject", "accepts", "matches", "number_of", "regexp"]

_ORDER: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def regexp(pattern: str, text: object) -> bool:
    """Tell whether a regular expression is found in a text (`re.search`); false for what is no text.

    Connections register it as the SQL function `regexp`, so that the database and `accepts` agree.
    """
    return isinstance(text, str) and re.search(pattern, text) is not None


_TEXT: Final[dict[str, Callable[[str, str], bool]]] = {
    **_ORDER,
    "contains": operator.contains,
    "matches": lambda text, pattern: regexp(pattern, text),
}


@dataclass(frozen=True, slots=True)
class Subject:
    """What a condition is decided on.

    Attributes:
        tags: The model's tags.
        fields: Field name to value (`modelstore.query.fields.FIELDS`); times are milliseconds since 1970; None and
            missing mean absent.
        metadata: Key to typed value.
        texts: Key to metadata value as text.
        metrics: (title, series, statistic) to value; statistics are "last", "min", "max" and "mean".
    """

    tags: AbstractSet[str] = frozenset()
    fields: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[tuple[str, str, str], float] = field(default_factory=dict)


def matches(node: Node, tags: AbstractSet[str]) -> bool:
    """Decide whether a model that carries ``tags``, and of which nothing else is known, satisfies ``node``."""
    return accepts(node, Subject(tags=tags))


def accepts(node: Node, subject: Subject) -> bool:
    """Decide whether a model satisfies ``node``.

    A comparison with what is absent, with NaN, or with a value of another type is false. Numbers (int, float, bool)
    of metadata and metrics compare as double-precision floats, text by code points.
    """
    match node:
        case HasTag(name):
            return name in subject.tags
        case Untagged():
            return not subject.tags
        case Mentions(text):
            return mentions(text, _searched(subject))
        case Not(child):
            return not accepts(child, subject)
        case AllOf(children):
            return all(accepts(child, subject) for child in children)
        case AnyOf(children):
            return any(accepts(child, subject) for child in children)
        case Compare():
            return _compare(node, subject)
    raise TypeError(f"{node!r} is no condition")


def _searched(subject: Subject) -> list[str]:
    fields = [subject.fields.get("name") or "", subject.fields.get("comment") or ""]
    return [*fields, *subject.tags, *(text for pair in subject.texts.items() for text in pair)]


def _compare(node: Compare, subject: Subject) -> bool:
    match node.target:
        case FieldTarget(name):
            return _holds(node.op, subject.fields.get(name), node.value, exact=True)
        case MetaTarget(key):
            if node.op == "exists":
                return key in subject.metadata
            return _holds(node.op, subject.metadata.get(key), node.value, exact=False)
        case TextTarget(key):
            return _holds(node.op, subject.texts.get(key), node.value, exact=False)
        case MetricTarget(title, series, stat):
            return _holds(node.op, subject.metrics.get((title, series, stat)), node.value, exact=False)


def _holds(op: str, found: Any, wanted: Value, *, exact: bool) -> bool:
    if found is None:
        return False
    if op == "exists":
        return True
    if isinstance(wanted, tuple):
        return any(_holds("==", found, member, exact=exact) for member in wanted)
    if isinstance(found, str) and isinstance(wanted, str):
        return _TEXT[op](found, wanted)
    if isinstance(found, str) or isinstance(wanted, str) or op not in _ORDER:
        return False
    left, right = (found, wanted) if exact else (number_of(found), number_of(wanted))
    return left is not None and right is not None and _ORDER[op](left, right)


def number_of(value: object) -> float | None:
    """Return the number that stands for a metadata or metric value in comparisons.

    The index stores it in `metadata.number`. Integers too large for a float become infinite.

    Returns:
        None for NaN and for what is no number.
    """
    if not isinstance(value, (bool, int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    return None if math.isnan(number) else number

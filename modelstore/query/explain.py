"""A tree as a formula that people read, and that `parse_where` reads back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from modelstore.query.fields import KINDS
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
    Scalar,
    Target,
    TextTarget,
    Untagged,
)

__all__ = ["explain", "quote"]

_ESCAPES: Final = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def explain(node: Node) -> str:
    """Return the formula of a condition: ``("a" OR "b") AND NOT "c"``.

    Quoted text standing alone is a tag. `parse_where` makes a tree of the same meaning from it.
    """
    match node:
        case HasTag(name):
            return quote(name)
        case Untagged():
            return "UNTAGGED"
        case Mentions(text):
            return f"search({quote(text)})"
        case Compare():
            return _comparison(node)
        case Not(child):
            return f"NOT {_inner(child)}"
        case AllOf(children):
            return " AND ".join(map(_inner, children)) or "TRUE"
        case AnyOf(children):
            return " OR ".join(map(_inner, children)) or "FALSE"
    raise TypeError(f"{node!r} is no condition")


def _inner(node: Node) -> str:
    compound = isinstance(node, (AllOf, AnyOf)) and len(node.children) > 1
    return f"({explain(node)})" if compound else explain(node)


def quote(text: str) -> str:
    """Return text in double quotes, on one line, with what cannot be printed escaped."""
    return '"' + "".join(_ESCAPES.get(c) or (c if c.isprintable() else _escaped(c)) for c in text) + '"'


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _comparison(node: Compare) -> str:
    target = _target(node.target)
    if node.op == "exists":
        return f"exists({target})"
    times = isinstance(node.target, FieldTarget) and KINDS.get(node.target.name) == "time"
    if isinstance(node.value, tuple):
        return f"{target} in ({', '.join(_scalar(member, times=times) for member in node.value)})"
    return f"{target} {node.op} {'' if node.value is None else _scalar(node.value, times=times)}"


def _target(target: Target) -> str:
    match target:
        case FieldTarget(name):
            return name
        case MetaTarget(key):
            return f"meta({quote(key)})"
        case TextTarget(key):
            return f"meta({quote(key)}).text"
        case MetricTarget(title, series, stat):
            return f"metric({quote(title)}, {quote(series)}).{stat}"


def _scalar(value: Scalar, *, times: bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quote(value)
    if times and isinstance(value, int):
        try:
            moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=value)
        except OverflowError:
            return repr(value)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return repr(value)

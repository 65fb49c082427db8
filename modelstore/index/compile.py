"""From conditions to SQL. Values never become part of the text: they are bound.

SQL's logic has three values and ours two, so every comparison that can be NULL is closed with IS TRUE.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from modelstore.errors import InvalidRequestError
from modelstore.ids import ms_to_clock
from modelstore.index.texts import mentioned_in, mentioning
from modelstore.query.evaluate import number_of
from modelstore.query.fields import FIELDS
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
    Op,
    Scalar,
    TextTarget,
    Untagged,
    Value,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from modelstore.index.facts import Facts

__all__ = [
    "COLUMNS",
    "MAX_PARAMETERS",
    "Binder",
    "Conditions",
    "compared",
    "joined",
    "metadata_holds",
    "numbers",
    "walk_bounds",
]

MAX_PARAMETERS: Final = 32_000
"""SQLite's own limit is 32,766."""

_MAX_INT: Final = 2**63 - 1
_FEW_TAGS: Final = 3

COLUMNS: Final = {
    "archived": "(m.state = 1)",
    "comment": "m.comment",
    "created": "(m.created >> 16)",
    "digest": "m.digest",
    "framework": "m.framework",
    "id": "m.id",
    "iteration": "m.iteration",
    "name": "m.name",
    "package": "m.package",
    "parent": "m.parent",
    "project": "(SELECT p.name FROM projects AS p WHERE p.key = m.project)",
    "published": "(m.published_op IS NOT NULL)",
    "size": "m.size",
    "task": "m.task",
    "updated": "(m.updated >> 16)",
    "uri": "m.uri",
}
"""Field to the expression of its value on a row of ``models AS m``; times in milliseconds."""


class Binder:
    """Collects the values of one statement, in whatever order its parts are made."""

    _NAMES: Final = re.compile(r":v(\d+)\b")

    def __init__(self) -> None:
        self._values: list[Scalar | None] = []

    def __call__(self, value: Scalar | None) -> str:
        """Take a value and return what stands for it in the text."""
        if isinstance(value, int) and abs(value) > _MAX_INT:
            value = number_of(value)  # beyond what SQLite holds, so that comparing with the nearest float is exact
        self._values.append(value)
        return f":v{len(self._values) - 1}"

    def finish(self, sql: str) -> tuple[str, tuple[Scalar | None, ...]]:
        """Return a statement with question marks, and its values in their order.

        Raises:
            InvalidRequestError: There are more values than SQLite takes.
        """
        values = [self._values[int(number)] for number in self._NAMES.findall(sql)]
        if len(values) > MAX_PARAMETERS:
            raise InvalidRequestError(
                f"The query compares with more than {MAX_PARAMETERS} values", "Split it into several queries."
            )
        return self._NAMES.sub("?", sql), tuple(values)


def joined(parts: Iterable[str], operator: str) -> str:
    """Join conditions with AND or OR as a balanced tree: SQLite refuses expressions more than 1,000 levels deep."""
    todo = list(parts)
    if not todo:
        return "1" if operator == "AND" else "0"
    while len(todo) > 1:
        pairs = [f"({a} {operator} {b})" for a, b in zip(todo[::2], todo[1::2], strict=False)]
        todo = pairs + todo[len(pairs) * 2 :]
    return todo[0]


def compared(op: Op, expression: str, value: Value, bind: Binder) -> str:
    """Return an expression compared with a constant of its own type; NULL where the expression is."""
    if op == "in":
        assert isinstance(value, tuple)  # noqa: S101 - what `constant` makes
        return f"{expression} IN ({', '.join(bind(member) for member in value)})"
    if op == "exists":
        return f"{expression} IS NOT NULL"
    assert not isinstance(value, tuple)  # noqa: S101 - what `constant` makes
    if op == "contains":
        return f"instr({expression}, {bind(value)}) > 0"
    if op == "matches":
        return f"regexp({bind(value)}, {expression})"
    return f"{expression} {'=' if op == '==' else op} {bind(value)}"


class Conditions:
    """Compiles conditions on one model at a time.

    Args:
        bind: Takes the values.
        facts: What the index knows.
        by_row: Tells whether a search is better tested on the model's row, at some 15 µs, than by finding, once,
            everything that it finds.

    Attributes:
        needs_row: Whether something compiled so far refers to the model's row as ``m``.
    """

    def __init__(self, bind: Binder, facts: Facts, by_row: Callable[[Mentions], bool]) -> None:
        self._bind = bind
        self._facts = facts
        self._by_row = by_row
        self.needs_row = False

    def compile(self, node: Node, key: str) -> str:
        """Return a condition that is 1 or 0.

        Args:
            node: What must hold.
            key: Expression of the model's key in the surrounding statement.
        """
        match node:
            case HasTag(name):
                return self._tagged([name], key)
            case Untagged():
                return f"NOT EXISTS (SELECT 1 FROM model_tags AS t WHERE t.model = {key})"
            case Mentions(text) if self._by_row(node):
                self.needs_row = True
                return mentioned_in("m", text, self._bind)
            case Mentions(text):
                return f"{key} IN ({mentioning(text, self._bind)})"
            case Not(child):
                return f"NOT {self.compile(child, key)}"
            case AllOf(children):
                return joined((self.compile(child, key) for child in children), "AND")
            case AnyOf(children):
                return self._any(children, key)
            case Compare():
                return self._compare(node, key)
        raise TypeError(f"{node!r} is no condition")

    def _any(self, children: tuple[Node, ...], key: str) -> str:
        names = [child.name for child in children if isinstance(child, HasTag)]
        if len(names) <= _FEW_TAGS:
            return joined((self.compile(child, key) for child in children), "OR")
        others = [self.compile(child, key) for child in children if not isinstance(child, HasTag)]
        return joined([self._tagged(names, key), *others], "OR")

    def _tagged(self, names: list[str], key: str) -> str:
        known = [fact.key for fact in map(self._facts.tag, names) if fact is not None]
        if not known:
            return "0"
        if len(known) == 1:
            return f"EXISTS (SELECT 1 FROM model_tags AS t WHERE t.tag = {self._bind(known[0])} AND t.model = {key})"
        return (
            f"EXISTS (SELECT 1 FROM model_tags AS t INDEXED BY model_tags_model WHERE t.model = {key}"
            f" AND t.tag IN ({', '.join(map(self._bind, known))}))"
        )

    def _compare(self, node: Compare, key: str) -> str:
        bind, op, value = self._bind, node.op, node.value
        match node.target:
            case FieldTarget("project"):
                self.needs_row = True
                return f"(m.project IN ({projects(op, value, bind)})) IS TRUE"
            case FieldTarget(name):
                self.needs_row = True
                return f"({compared(op, COLUMNS[name], value, bind)}) IS TRUE"
            case MetaTarget(name) | TextTarget(name):
                held = metadata_holds(node, bind)
                return f"EXISTS (SELECT 1 FROM metadata AS d WHERE d.model = {key} AND d.key = {bind(name)} AND {held})"
            case MetricTarget(title, series, stat):
                held = compared(op, f"s.{stat}", numbers(value), bind)
                return (
                    f"EXISTS (SELECT 1 FROM metrics AS s WHERE s.model = {key} AND s.title = {bind(title)}"
                    f" AND s.series = {bind(series)} AND {held})"
                )


def projects(op: Op, value: Value, bind: Binder) -> str:
    """Return the subquery of the keys of the projects whose full name compares so."""
    return f"SELECT p.key FROM projects AS p WHERE {compared(op, 'p.name', value, bind)}"


def metadata_holds(node: Compare, bind: Binder) -> str:
    """Return the condition on a row ``d`` of `metadata` that a comparison with metadata is."""
    op, value = node.op, node.value
    if op == "exists":
        return "1"
    if isinstance(node.target, TextTarget):
        return compared(op, "d.value", value, bind)
    # A value is text if its JSON is; the type's name says only what the author called it.
    if isinstance(value, tuple):
        texts = tuple(member for member in value if isinstance(member, str))
        others = tuple(member for member in value if not isinstance(member, str))
        return joined(
            [
                f"({compared('in', 'd.value', texts, bind)} AND substr(d.json, 1, 1) = '\"')",
                compared("in", "d.number", numbers(others), bind),
            ],
            "OR",
        )
    if isinstance(value, str):
        return f"({compared(op, 'd.value', value, bind)} AND substr(d.json, 1, 1) = '\"')"
    return compared(op, "d.number", numbers(value), bind)


def numbers(value: Value) -> Value:
    """Return constants as the floats that they compare as; NaN becomes NULL, which equals nothing."""
    if isinstance(value, tuple):
        return tuple(number for number in map(number_of, value) if number is not None)
    return number_of(value)


def walk_bounds(node: Node, updated: str, bind: Binder) -> list[str]:
    """Return bounds on the time of last change that follow from a condition; a walk in that order stops at them."""
    bounds = []
    for part in node.children if isinstance(node, AllOf) else (node,):
        match part:
            case Compare(FieldTarget("updated"), (">=" | "<" | ">" | "<=") as op, int(ms)) if abs(ms) < 2**46:
                # The stored reading has a counter below the milliseconds.
                edge = ms_to_clock(ms if op in (">=", "<") else ms + 1)
                bounds.append(f"{updated} {'>=' if op in ('>', '>=') else '<'} {bind(edge)}")
    return bounds


assert COLUMNS.keys() == FIELDS.keys()  # noqa: S101 - every field that can be compared has a column

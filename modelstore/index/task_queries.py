"""Queries for tasks: the conditions and orders of queries for models, on the tables of tasks.

There is no planner here. In the order of last change SQLite walks `tasks_recent` and stops when a page is full; what
names a project or an id is looked up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from modelstore.errors import InvalidRequestError
from modelstore.index.compile import Binder, Conditions, compared, joined, numbers, projects
from modelstore.index.reader import TASK_COLUMNS
from modelstore.index.schema import ARCHIVED, VISIBLE
from modelstore.query.fields import TASK_FIELDS, check_fields
from modelstore.query.order import NEWEST_FIRST, Order
from modelstore.query.simplify import simplify
from modelstore.query.tree import Compare, FieldTarget, Mentions, MetaTarget, Node, Untagged

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from modelstore.index.facts import Facts

__all__ = ["select_tasks"]

_COLUMNS: Final = {
    "archived": "(t.state = 1)",
    "comment": "t.comment",
    "completed": "t.completed",
    "created": "(t.created >> 16)",
    "id": "t.id",
    "last_iteration": "t.last_iteration",
    "name": "t.name",
    "output_uri": "t.output_uri",
    "parent": "t.parent",
    "project": "(SELECT q.name FROM projects AS q WHERE q.key = t.project)",
    "published": "(t.published_op IS NOT NULL)",
    "started": "t.started",
    "status": "t.status",
    "type": "t.type",
    "updated": "(t.updated >> 16)",
}

assert _COLUMNS.keys() == TASK_FIELDS.keys()  # noqa: S101 - every field that can be compared has a column


def select_tasks(
    node: Node, facts: Facts, *, archived: bool, order_by: Sequence[Order] = NEWEST_FIRST, limit: int | None = None
) -> tuple[str, tuple[Any, ...]]:
    """Return the statement that selects tasks, in the columns of `TASK_COLUMNS`, and its values.

    Args:
        node: What must hold. Metadata are the tasks' hyper-parameters, by their full names ("General/lr").
        facts: What the index knows.
        archived: Archived tasks too.
        order_by: Fields of tasks, most significant first; ties come by id.
        limit: At most so many; None for all.

    Raises:
        InvalidRequestError: A part of it cannot be asked of tasks.
    """
    check_fields(node, TASK_FIELDS, "task")
    bind = Binder()
    test = _TaskConditions(bind, facts, lambda _: True).compile(simplify(node), "t.key")
    states = f"{VISIBLE}, {ARCHIVED}" if archived else f"{VISIBLE}"
    until = "" if limit is None else f" LIMIT {bind(limit)}"
    return bind.finish(
        f"SELECT {TASK_COLUMNS} FROM tasks AS t LEFT JOIN projects AS p ON p.key = t.project"
        f" WHERE t.state IN ({states}) AND {test} ORDER BY {_order(order_by)}{until}"
    )


def _order(order_by: Sequence[Order]) -> str:
    if tuple(order_by) == NEWEST_FIRST:
        return "t.updated DESC, t.key DESC"
    terms = []
    for order in order_by:
        if not isinstance(order.target, FieldTarget) or order.target.name not in _COLUMNS:
            raise InvalidRequestError(
                "Tasks are ordered by their fields only", f"Use one of {', '.join(TASK_FIELDS)}; - in front descends."
            )
        name = order.target.name
        column = f"t.{name}" if name in ("created", "updated") else _COLUMNS[name]
        terms += [f"{column} IS NULL", f"{column}{' DESC' if order.descending else ''}"]
    return ", ".join([*terms, "t.id"])


class _TaskConditions(Conditions):
    """Compiles conditions on one task, whose row is ``t``."""

    def compile(self, node: Node, key: str) -> str:
        match node:
            case Untagged():
                return f"NOT EXISTS (SELECT 1 FROM task_tags AS g WHERE g.task = {key})"
            case Mentions(text):
                return f"mentioned({self._bind(text)}, t.name, t.comment, t.tags, NULL)"
        return super().compile(node, key)

    def _tagged(self, names: list[str], key: str) -> str:
        known = [fact.key for fact in map(self._facts.tag, names) if fact is not None]
        tags = ", ".join(map(self._bind, known))
        return f"EXISTS (SELECT 1 FROM task_tags AS g WHERE g.task = {key} AND g.tag IN ({tags}))" if known else "0"

    def _compare(self, node: Compare, key: str) -> str:  # noqa: ARG002 - the row is always there
        match node.target:
            case FieldTarget("project"):
                return f"(t.project IN ({projects(node.op, node.value, self._bind)})) IS TRUE"
            case FieldTarget(name):
                return f"({compared(node.op, _COLUMNS[name], node.value, self._bind)}) IS TRUE"
            case MetaTarget(name):
                held = self._parameter(node)
                return (
                    "EXISTS (SELECT 1 FROM items AS d WHERE d.entity = t.id AND d.value IS NOT NULL"
                    f" AND d.key = {self._bind(f'param:{name}')} AND {held})"
                )
        raise InvalidRequestError("Tasks are asked for tags, fields, words and hyper-parameters", "Ask the models.")

    def _parameter(self, node: Compare) -> str:
        """Return the condition on a row ``d`` of `items` that a comparison with a hyper-parameter is."""
        op, value, bind = node.op, node.value, self._bind
        if op == "exists":
            return "1"
        members = value if isinstance(value, tuple) else (value,)
        texts = tuple(member for member in members if isinstance(member, str))
        others = numbers(tuple(member for member in members if member is not None and not isinstance(member, str)))
        parts = []
        for kind, constants in (("text", texts), ("real", others)):
            assert isinstance(constants, tuple)  # noqa: S101 - as it was given
            if constants:
                held = compared(op, "scalar_of(d.value)", constants if op == "in" else constants[0], bind)
                parts.append(f"(typeof(scalar_of(d.value)) = '{kind}' AND {held})")
        return joined(parts, "OR")

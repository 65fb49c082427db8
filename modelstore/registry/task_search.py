"""Searching tasks: from the arguments that people give to one statement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelstore.errors import InvalidRequestError
from modelstore.index import reader
from modelstore.index.facts import IndexFacts
from modelstore.index.task_queries import select_tasks
from modelstore.query import (
    NEWEST_FIRST,
    TASK_FIELDS,
    Compare,
    FieldTarget,
    Node,
    Order,
    Search,
    all_of,
    parse_order,
    parse_tags,
    parse_where,
)
from modelstore.query.fields import constant

if TYPE_CHECKING:
    from modelstore.query.tree import Op
    from modelstore.records.entities import TaskRecord
    from modelstore.registry.registry import Registry

__all__ = ["TaskSearch"]


@dataclass(frozen=True, slots=True)
class TaskSearch:
    """A question for tasks; every part that is given must hold.

    Attributes:
        projects: Full names of projects, any of which will do; None for any at all.
        name: Exact name.
        name_regex: Regular expression that the name must contain a match of.
        ids: Only these.
        statuses: Only in these statuses.
        types: Only of these types.
        tags: Tags and operators, as for models.
        where: A condition or its text; metadata in it are hyper-parameters by their full names ("General/lr").
        search: Words that must be found in name, comment or tags.
        archived: Archived ones too.
        order_by: Fields, "-" in front for descending; None for the one changed last first.
        limit: At most so many; None for all.
    """

    projects: Sequence[str] | None = None
    name: str | None = None
    name_regex: str | None = None
    ids: Sequence[str] | None = None
    statuses: Sequence[str] | None = None
    types: Sequence[str] | None = None
    tags: Sequence[str] | None = None
    where: Node | str | None = None
    search: str | None = None
    archived: bool = True
    order_by: str | Sequence[Any] | None = None
    limit: int | None = None

    def condition(self) -> Node:
        """Return the one condition that the question amounts to, but for archived tasks.

        Raises:
            InvalidRequestError: A part is malformed.
        """
        asked: list[tuple[str, Op, Any]] = [
            ("project", "in", self.projects),
            ("name", "==", self.name),
            ("name", "matches", self.name_regex),
            ("id", "in", self.ids),
            ("status", "in", self.statuses),
            ("type", "in", self.types),
        ]
        parts = [
            Compare(FieldTarget(field), op, constant(FieldTarget(field), op, value))
            for field, op, value in asked
            if value is not None
        ]
        where = parse_where(self.where, TASK_FIELDS) if isinstance(self.where, str) else self.where
        if where is not None and not isinstance(where, Node):
            raise InvalidRequestError(f"where takes a condition, not {where!r}", "Write Field('status') == 'failed'.")
        search = Search(self.search) if self.search else None
        return all_of(part for part in (*parts, parse_tags(self.tags), where, search) if part is not None)

    def run(self, registry: Registry) -> list[TaskRecord]:
        """Return the tasks, in order.

        Raises:
            InvalidRequestError: A part is not acceptable.
        """
        limit: Any = self.limit
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise InvalidRequestError(f"A limit is a number of 1 or more, not {limit!r}", "None asks for all.")
        node, database = self.condition(), registry.database
        registry.refresh()
        with database.snapshot():
            sql, values = select_tasks(
                node, IndexFacts(database.one), archived=self.archived, order_by=self._orders(), limit=limit
            )
            return reader.tasks(database.all(sql, values))

    def _orders(self) -> tuple[Order, ...]:
        terms = [self.order_by] if isinstance(self.order_by, (str, Order)) else self.order_by
        return tuple(parse_order(term, TASK_FIELDS) for term in terms) if terms else NEWEST_FIRST

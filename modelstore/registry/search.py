"""Searching models: from the arguments that people give to one statement, and back to records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

from modelstore.errors import InvalidRequestError
from modelstore.index import reader
from modelstore.index.facts import IndexFacts
from modelstore.index.plan import Plan, plan, plan_count
from modelstore.index.texts import catch_up
from modelstore.query import (
    Meta,
    ModelQuery,
    Node,
    Order,
    Search,
    all_of,
    explain,
    has_search,
    parse_order,
    parse_tags,
    parse_where,
)
from modelstore.query.filters import Cursor, condition
from modelstore.query.order import NEWEST_FIRST

if TYPE_CHECKING:
    from modelstore.records.entities import ModelRecord
    from modelstore.registry.registry import Registry

__all__ = ["ModelSearch"]

_PAGE = 500


@dataclass(frozen=True, slots=True)
class ModelSearch:
    """A question in the terms of `Model.query_models`; see there for the attributes."""

    project: str | None = None
    name: str | None = None
    tags: Sequence[str] | None = None
    only_published: bool = False
    include_archived: bool = False
    limit: int | None = None
    metadata: Mapping[str, Any] | None = None
    where: Node | str | None = None
    name_regex: str | None = None
    order_by: str | Sequence[Any] | None = None
    dialect: str = "page"
    task: str | None = None
    search: str | None = None

    def query(self) -> ModelQuery:
        """Return the question as plain data.

        Raises:
            TagQueryError: ``tags`` is malformed.
            WhereSyntaxError: ``where`` is malformed.
            InvalidRequestError: Another part is not acceptable.
        """
        if self.dialect not in ("page", "clearml-server"):
            raise InvalidRequestError(f"Unknown dialect {self.dialect!r}", "Use 'page' or 'clearml-server'.")
        dialect = cast("Literal['page', 'clearml-server']", self.dialect)
        parts = [parse_tags(self.tags, dialect=dialect), self._where(), self._search()]
        texts, comparisons = _metadata(self.metadata)
        return ModelQuery(
            where=all_of([part for part in (*parts, *comparisons) if part is not None]),
            project=self.project,
            name=self.name,
            name_regex=self.name_regex,
            task=self.task,
            metadata=texts,
            only_published=bool(self.only_published),
            include_archived=bool(self.include_archived),
            order_by=_orders(self.order_by),
            limit=self.limit,
        )

    def _where(self) -> Node | None:
        return parse_where(self.where) if isinstance(self.where, str) else self.where

    def _search(self) -> Node | None:
        if self.search is None or (isinstance(self.search, str) and not self.search.strip()):
            return None  # an empty box asks for nothing in particular
        return Search(self.search)

    def run(self, registry: Registry) -> list[ModelRecord]:
        """Return the models, in order: one statement to find them, two to read them.

        Raises:
            ProjectNotFoundError: There is no such project.
            InvalidRequestError: A part is not acceptable.
        """
        return self._page(registry, self._checked(registry))[0]

    def check(self, registry: Registry) -> None:
        """Find out whether the question can be asked.

        Raises:
            ProjectNotFoundError: There is no such project.
            InvalidRequestError: A part is not acceptable.
        """
        condition(self._checked(registry))

    def pages(self, registry: Registry, page: int = _PAGE) -> Iterator[list[ModelRecord]]:
        """Yield the models page by page; each page begins where the last one ended, whatever others write meanwhile.

        A model that is changed meanwhile may come again or not at all where the order depends on what changed; none
        that stays as it is comes twice or is left out.
        """
        query = self._checked(registry)
        left = query.limit
        while left is None or left > 0:
            size = page if left is None else min(page, left)
            records, after = self._page(registry, replace(query, limit=size))
            yield records
            if len(records) < size:
                return
            left = None if left is None else left - size
            query = replace(query, after=after)

    def page(
        self, registry: Registry, size: int, after: Sequence[Any] | None = None
    ) -> tuple[list[ModelRecord], tuple[Any, ...] | None]:
        """Return one page of the answer, and what to give as ``after`` for the next; None behind the last.

        Args:
            registry: The registry.
            size: Most models on the page; ``limit`` is not looked at.
            after: What the page before returned; None for the first.

        Raises:
            ProjectNotFoundError: There is no such project.
            InvalidRequestError: A part is not acceptable.
        """
        cursor = None if after is None else tuple(after)
        records, last = self._page(registry, replace(self._checked(registry), limit=size, after=cursor))
        return records, None if len(records) < size else last

    def count(self, registry: Registry) -> int:
        """Return how many models match, whatever the limit.

        Raises:
            ProjectNotFoundError: There is no such project.
            InvalidRequestError: A part is not acceptable.
        """
        statement = plan_count(self._checked(registry), _facts(registry))
        row = registry.database.one(statement.sql, statement.parameters)
        return 0 if row is None else int(row[0])

    def keys(self, registry: Registry) -> list[int]:
        """Return the keys that the models which match have in the index, in order: they are found and not read.

        Raises:
            ProjectNotFoundError: There is no such project.
            InvalidRequestError: A part is not acceptable.
        """
        query = self._checked(registry)
        with registry.database.snapshot():
            statement = plan(query, _facts(registry))
            return [row[0] for row in registry.database.all(statement.sql, statement.parameters)]

    def formula(self) -> str:
        """Return the condition as a formula."""
        return explain(condition(self.query()))

    def plan(self, registry: Registry) -> Plan:
        """Return how the index answers the question.

        Raises:
            ProjectNotFoundError: There is no such project.
        """
        return plan(self._checked(registry), _facts(registry))

    def _checked(self, registry: Registry) -> ModelQuery:
        query = self.query()
        registry.flush_reports()
        with registry.reading():
            if self.project is not None:
                registry.tasks.project(self.project)
        if query.where is not None and has_search(query.where):
            catch_up(registry.database)
        return query

    def _page(self, registry: Registry, query: ModelQuery) -> tuple[list[ModelRecord], Cursor | None]:
        with registry.database.snapshot():
            statement = plan(query, _facts(registry))
            rows = registry.database.all(statement.sql, statement.parameters)
            records = reader.models(registry.database, [row[0] for row in rows])
        return records, Plan.cursor(rows[-1]) if rows else None


def _facts(registry: Registry) -> IndexFacts:
    return IndexFacts(registry.database.one)


def _orders(order_by: str | Sequence[Any] | None) -> tuple[Order, ...]:
    if order_by is None or (isinstance(order_by, (list, tuple)) and not order_by):
        return NEWEST_FIRST
    terms = [order_by] if isinstance(order_by, (str, Order)) or not isinstance(order_by, Sequence) else order_by
    return tuple(parse_order(term) for term in terms)


def _metadata(filters: Mapping[str, Any] | None) -> tuple[dict[str, Any], list[Node]]:
    """Split metadata filters into ClearML's comparisons of text and typed ones."""
    if filters is None:
        return {}, []
    if not isinstance(filters, Mapping):
        raise InvalidRequestError(f"metadata must be a dictionary, not {type(filters).__name__}")
    texts: dict[str, Any] = {}
    comparisons: list[Node] = []
    for key, value in filters.items():
        if value is None:
            continue
        if isinstance(value, (bool, int, float)):
            comparisons.append(Meta(key) == value)
        elif isinstance(value, tuple) and len(value) == 2 and value[0] in _COMPARISONS:
            comparisons.append(_COMPARISONS[value[0]](Meta(key), value[1]))
        else:
            texts[key] = value
    return texts, comparisons


_COMPARISONS: dict[Any, Any] = {
    "==": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
}

"""Writing the statements of one query: models of a source that satisfy the rest of its condition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelstore.errors import InvalidRequestError
from modelstore.index import intersect
from modelstore.index.compile import Binder, Conditions, walk_bounds
from modelstore.index.schema import ARCHIVED, VISIBLE
from modelstore.query.order import NEWEST_FIRST
from modelstore.query.simplify import simplify
from modelstore.query.tree import TRUE, AllOf, Mentions, Node, all_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from modelstore.index.facts import Facts
    from modelstore.index.sources import Source
    from modelstore.query.filters import Cursor, ModelQuery

__all__ = ["Branch", "Statements", "without"]


@dataclass(frozen=True, slots=True)
class Branch:
    """Models of a source that satisfy the rest of a condition."""

    source: Source
    rest: Node


class Statements:
    """What the parts of a planner write with.

    Args:
        query: The question.
        facts: What the index knows.

    Attributes:
        bind: Takes the values.
        states: States of the models that are asked for.
        node: The condition; TRUE until it is known.
        steps: What was found and chosen, one line each.
        by_row: Tells whether a search is better tested on the row of each model of a source (see `Conditions`).
    """

    def __init__(self, query: ModelQuery, facts: Facts) -> None:
        self.query = query
        self.facts = facts
        self.bind = Binder()
        self.states = (VISIBLE, ARCHIVED) if query.include_archived else (VISIBLE,)
        self.node: Node = TRUE
        self.steps: list[str] = []
        self.by_row: Callable[[Source, Mentions], bool] = lambda _source, _search: False

    def note(self, step: str) -> None:
        """Write down a step, for people."""
        self.steps.append(step if len(step) <= 500 else f"{step[:497]}...")

    def value(self, sql: str) -> Any:
        """Return the one value that a statement selects."""
        return self.facts.value(*self.bind.finish(sql))

    def select(self, branch: Branch, states: Sequence[int], limit: str) -> str:
        """Return the statement of a branch's models in some states, newest change first, behind the query's cursor."""
        source = branch.source
        tables, where = self.tested(source, branch.rest)
        updated = f"{source.alias}.updated"
        parts = [where, self.in_states(source, states)]
        if source.ordered:
            parts += walk_bounds(self.node, updated, self.bind)
        if self.query.after is not None and self.query.order_by == NEWEST_FIRST:
            parts.append(f"({updated}, {source.key}) < ({', '.join(map(self.bind, self.cursor(2)))})")
        until = f" LIMIT {limit}" if limit else ""
        return (
            f"SELECT {source.key} AS model, {updated} AS updated FROM {tables} WHERE {' AND '.join(parts)}"
            f" ORDER BY {updated} DESC, {source.key} DESC{until}"
        )

    def tested(self, source: Source, rest: Node, *, row: bool = False) -> tuple[str, str]:
        """Return the FROM clause of a source, and the condition on it."""
        conditions = self.conditions(source)
        test = "" if rest == TRUE else f" AND {conditions.compile(rest, source.key)}"
        join = f" CROSS JOIN models AS m ON m.key = {source.key}"
        needed = (conditions.needs_row or row) and not source.has_row
        return f"{source.tables}{join if needed else ''}", f"{source.where}{test}"

    def conditions(self, source: Source) -> Conditions:
        """Return what compiles conditions on the models of a source."""
        return Conditions(self.bind, self.facts, lambda search: self.by_row(source, search))

    def in_states(self, source: Source, states: Sequence[int] | None = None) -> str:
        """Return the condition that a source's model is in some states; None for those asked for."""
        wanted = self.states if states is None else states
        if len(wanted) == 1:
            return f"{source.alias}.state = {wanted[0]}"
        return f"{source.alias}.state IN ({', '.join(map(str, wanted))})"

    def cursor(self, length: int) -> Cursor:
        """Return the cursor of the query.

        Raises:
            InvalidRequestError: It is none of this order.
        """
        after = self.query.after
        if not isinstance(after, tuple) or len(after) != length:
            raise InvalidRequestError(f"{after!r} is no place in this order", "Continue with the order you began with.")
        return after

    def blocks(self, node: Node) -> str:
        """Return the statement of the bitmaps' blocks of a condition for which `intersect.is_set` holds."""
        return intersect.blocks(node, self.states, self.facts, self.bind)


def without(conjuncts: Sequence[Node], answered: Node | None) -> Node:
    """Return a conjunction without what a source answers."""
    if answered is None:
        return simplify(all_of(conjuncts))
    done = set(answered.children) if isinstance(answered, AllOf) else {answered}
    return simplify(all_of(c for c in conjuncts if c != answered and c not in done))

"""How the index answers a query: one SQL statement, chosen from facts that the index keeps.

A page (newest changes first, with a limit) is read by *walking*: an index in the order of the page is read from its
newer end, each model is tested for the rest of the condition, and the walk stops when the page is full. What is
walked is the rarest tag of a conjunction; each branch of a disjunction is walked by itself, up to the limit, and the
branches are merged; a condition that excludes only walks all models.

A walk is long when what is tested for is rare or old. So unless the walked set is small, the newest `SAMPLE` of it are
tested first, and when they do not go far towards filling the page, the planner counts what the alternatives would
give: the set that an index on values yields, sorted, or the exact intersection of bitmaps. When that set is too large
to be sorted, the walk leaps over what the bitmaps exclude (`modelstore.index.leap`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from modelstore.index import intersect
from modelstore.index.leap import leap
from modelstore.index.orders import bounded, ordered
from modelstore.index.sources import Source, Sources
from modelstore.index.statements import Branch, Statements, without
from modelstore.query.explain import explain
from modelstore.query.filters import ModelQuery, condition
from modelstore.query.order import NEWEST_FIRST
from modelstore.query.simplify import simplify
from modelstore.query.tree import (
    FALSE,
    TRUE,
    AllOf,
    AnyOf,
    Compare,
    FieldTarget,
    HasTag,
    Mentions,
    Node,
    Not,
    all_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelstore.index.facts import Facts
    from modelstore.query.filters import Cursor

__all__ = ["Plan", "plan", "plan_count"]

FEW: Final = 2_000
"""Models that are walked without asking further: 1 to 2 ms."""

SAMPLE: Final = 1_000
"""Models of a walk that are tested before it is chosen."""

_GOOD: Final = 10
"""A walk is taken when its sample fills at least one part in so many of the page."""

_SORTING: Final = 2
"""Looking up and sorting a model costs as much as walking past so many."""

_MAX_BRANCHES: Final = 64
_MAX_WALKS: Final = 3
_MAX_SAMPLES: Final = 12
_MAX_LEAPS: Final = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """A statement and why it is this one.

    Attributes:
        sql: One SELECT. Its rows are the model's key, then what it is sorted by.
        parameters: The values, in order.
        steps: How it works, one line each.
    """

    sql: str
    parameters: tuple[Any, ...]
    steps: tuple[str, ...]

    def explain(self) -> str:
        """Return how the statement works, for people."""
        return "\n".join(self.steps)

    @staticmethod
    def cursor(row: Sequence[Any]) -> Cursor:
        """Return the point behind a row of the statement, for `ModelQuery.after`."""
        return (*row[1:], row[0])


def plan(query: ModelQuery, facts: Facts) -> Plan:
    """Return the statement that selects the models a query asks for, in its order.

    Args:
        query: The question.
        facts: What the index knows; to be asked in the transaction in which the statement will run.

    Raises:
        InvalidRequestError: The query has a malformed part, or more values than a statement takes.
    """
    return _Planner(query, facts, whole=query.limit is None or query.order_by != NEWEST_FIRST).plan()


def plan_count(query: ModelQuery, facts: Facts) -> Plan:
    """Return the statement that counts the models a query asks for, whatever its order, limit and cursor.

    Raises:
        InvalidRequestError: The query has a malformed part, or more values than a statement takes.
    """
    return _Planner(query, facts, whole=True).count()


class _Planner:
    def __init__(self, query: ModelQuery, facts: Facts, *, whole: bool) -> None:
        self._whole = whole
        self._query = query
        self._facts = facts
        self._statements = Statements(query, facts)
        self._states, self._bind, self._note = self._statements.states, self._statements.bind, self._statements.note
        self._sources = Sources(facts, self._bind, self._states, whole=whole)
        self._statements.by_row = self._by_row
        self._samples = 0
        self._leaps = 0
        asked = condition(query)
        self._node = self._statements.node = simplify(self._known(asked))
        self._note(f"condition: {explain(asked) if asked != TRUE else 'none'}")
        if self._node == FALSE:
            self._note("nothing can satisfy it")

    def plan(self) -> Plan:
        if self._query.order_by != NEWEST_FIRST:
            branch = self._bounded() or self._exhaust(self._node)
            self._describe(branch)
            self._note("sort them")
            return self._finish(ordered(self._statements, branch))
        return self._finish(self._page([self._exhaust(self._node)] if self._whole else self._choose(self._node)))

    def count(self) -> Plan:
        if intersect.is_set(self._node) and len(intersect.sets_of(self._node)) <= intersect.MAX_SETS:
            self._note("count the bits of intersected bitmaps")
            return self._finish(intersect.count(self._statements.blocks(self._node)))
        branch = self._exhaust(self._node)
        tables, where = self._statements.tested(branch.source, branch.rest)
        return self._finish(
            f"SELECT count(*) FROM {tables} WHERE {where} AND {self._statements.in_states(branch.source)}"
        )

    def _finish(self, sql: str) -> Plan:
        text, values = self._bind.finish(sql)
        return Plan(text, values, tuple(self._statements.steps))

    def _known(self, node: Node) -> Node:
        """Replace tags and projects that do not exist by what they amount to."""
        match node:
            case HasTag(name):
                return node if self._sources.frequency(name) else FALSE
            case Compare(FieldTarget("project"), "==", str(name)):
                return FALSE if self._facts.project(name) is None else node
            case Not(child):
                return Not(self._known(child))
            case AllOf(children):
                return AllOf(tuple(map(self._known, children)))
            case AnyOf(children):
                return AnyOf(tuple(map(self._known, children)))
        return node

    # Choosing.

    def _by_row(self, source: Source, search: Mentions) -> bool:
        return source.rows <= FEW or (not self._whole and self._sources.sought(search) is None)

    def _choose(self, node: Node) -> list[Branch]:
        """Return the branches whose newest models together fill a page of what satisfies a condition."""
        if node == FALSE:
            return []
        conjuncts = node.children if isinstance(node, AllOf) else (node,)
        best = self._smallest(conjuncts)
        if best is not None and best.rows <= FEW:
            return [Branch(best, without(conjuncts, best.answers))]
        split = self._split(conjuncts, best)
        if split is not None:
            return split
        return self._walk(conjuncts)

    def _walk(self, conjuncts: Sequence[Node]) -> list[Branch]:
        """Walk what fills the page soonest, as far as samples tell; else look for another way."""
        exact = [source for c in conjuncts if (source := self._sources.exact(c)) is not None and source.ordered]
        exact.sort(key=lambda source: source.rows)
        poor: list[tuple[int, Branch]] = []
        # Of two things that are common, one may be common among the new and the other among the old: walking the
        # latter finds at once what walking the former finds at its end.
        for source in exact[:_MAX_WALKS] or [self._sources.recent()]:
            walk = Branch(source, without(conjuncts, source.answers))
            found = self._page_size if walk.rest == TRUE else self._sample(walk)
            if found is None or found * _GOOD >= self._page_size:
                return [walk]
            poor.append((found, walk))
        found, walk = max(poor, key=lambda pair: pair[0])
        return self._otherwise(conjuncts, walk, found)

    @property
    def _page_size(self) -> int:
        return self._query.limit or 0

    def _smallest(self, conjuncts: Sequence[Node]) -> Source | None:
        """Return the smallest source that answers one of several conditions; counts no more than it must."""
        exact = [source for c in conjuncts if (source := self._sources.exact(c)) is not None]
        best = min(exact, key=lambda source: source.rows, default=None)
        if best is not None and best.rows <= FEW:
            return best
        sought = [source for c in conjuncts if (source := self._sources.sought(c)) is not None]
        return min([*exact, *sought], key=lambda source: source.rows, default=None)

    def _split(self, conjuncts: Sequence[Node], best: Source | None) -> list[Branch] | None:
        """Distribute a conjunction over its smallest disjunction, where that leaves less to walk."""
        smallest: tuple[int, Node, tuple[Node, ...]] | None = None
        for conjunct in conjuncts:
            if not isinstance(conjunct, AnyOf) or len(conjunct.children) > _MAX_BRANCHES:
                continue
            rows = [self._rows(child) for child in conjunct.children]
            known = [r for r in rows if r is not None]
            if len(known) == len(rows) and (smallest is None or sum(known) < smallest[0]):
                smallest = sum(known), conjunct, conjunct.children
        if smallest is None or (best is not None and best.rows <= smallest[0]):
            return None
        others = [c for c in conjuncts if c is not smallest[1]]
        branches = [b for member in smallest[2] for b in self._choose(simplify(all_of([member, *others])))]
        return branches if len(branches) <= _MAX_BRANCHES else None

    def _rows(self, node: Node) -> int | None:
        """Return how many models a condition's smallest source yields; None where it has none but all models."""
        best = self._smallest(node.children if isinstance(node, AllOf) else (node,))
        return None if best is None else best.rows

    def _sample(self, walk: Branch) -> int | None:
        """Return how many of the newest models of a walk satisfy the rest, up to the limit; None for not asked."""
        if self._samples == _MAX_SAMPLES:
            return None
        self._samples += 1
        inner = self._statements.select(Branch(walk.source, TRUE), self._states[:1], str(SAMPLE))
        conditions = self._statements.conditions(walk.source)
        test = conditions.compile(walk.rest, "f.model")
        row = " CROSS JOIN models AS m ON m.key = f.model" if conditions.needs_row else ""
        sql, values = self._bind.finish(
            f"SELECT count(*) FROM (SELECT 1 FROM ({inner}) AS f{row} WHERE {test} LIMIT {self._page_size})"
        )
        found = self._facts.count(sql, values)
        self._note(f"of the newest {SAMPLE:,} of {walk.source.label}, {found:,} satisfy the rest")
        return found

    def _otherwise(self, conjuncts: Sequence[Node], walk: Branch, found: int) -> list[Branch]:
        """Choose between a walk whose sample was poor, an index on values, and bitmaps."""
        cost = min(self._page_size * SAMPLE / found if found else walk.source.rows, walk.source.rows)
        sought = self._smallest(conjuncts)
        if sought is not None and not sought.ordered and sought.rows < cost:
            cost, walk = sought.rows, Branch(sought, without(conjuncts, sought.answers))
        met = self._intersection(conjuncts)
        if met is None or not met.rows:
            return [walk] if met is None else []
        if met.rows > FEW and walk.source.ordered and met.answers is not None and self._leaps < _MAX_LEAPS:
            self._leaps += 1
            found_sooner = leap(self._statements, self._sources, conjuncts, walk, met.answers)
            if found_sooner:
                return found_sooner
        return [walk if met.rows * _SORTING >= cost else Branch(met, without(conjuncts, met.answers))]

    def _intersection(self, conjuncts: Sequence[Node]) -> Source | None:
        """Return the exact set that all conditions on tags, project and publication leave, counted."""
        settable = simplify(all_of(c for c in conjuncts if intersect.is_set(c)))
        if settable in (TRUE, FALSE) or isinstance(settable, (HasTag, Compare)):
            return None  # what a walk answers by itself
        if len(intersect.sets_of(settable)) > intersect.MAX_SETS:
            return None
        blocks = self._statements.blocks(settable)
        sql, values = self._bind.finish(intersect.count(blocks))
        rows = self._facts.count(sql, values)
        label = f"models in the bitmaps of {explain(settable)} ({rows:,})"
        self._note(f"bitmaps: {rows:,} models satisfy {explain(settable)}")
        return self._sources.chosen(label, intersect.members(blocks), rows, settable)

    def _exhaust(self, node: Node) -> Branch:
        """Return the one branch that yields everything that satisfies a condition with the least to look at."""
        conjuncts = node.children if isinstance(node, AllOf) else (node,)
        best = self._smallest(conjuncts) or self._sources.recent()
        if best.rows > FEW:
            met = self._intersection(conjuncts)
            if met is not None and met.rows < best.rows:
                best = met
        return Branch(best, without(conjuncts, best.answers))

    def _bounded(self) -> Branch | None:
        """Return the models that can be on a page in another order; None where all that are found must be sorted."""
        if self._node == FALSE:
            return None
        source = bounded(self._statements, self._sources, self._node)
        return None if source is None else Branch(source, self._node)

    # Writing.

    def _page(self, branches: list[Branch]) -> str:
        """Return the statement of a page, newest change first."""
        limit = "" if self._query.limit is None else self._bind(self._query.limit)
        selects: list[str] = []
        for branch in branches:
            self._describe(branch)
            groups = [(state,) for state in self._states] if branch.source.ordered else [self._states]
            selects.extend(self._statements.select(branch, group, limit) for group in groups)
        if not selects:
            return "SELECT 0 AS model, 0 AS updated WHERE 0"
        if len(selects) == 1:
            return selects[0]
        merged = " UNION ".join(f"SELECT model, updated FROM ({select})" for select in selects)
        until = f" LIMIT {limit}" if limit else ""
        return f"SELECT model, updated FROM ({merged}) ORDER BY updated DESC, model DESC{until}"

    def _describe(self, branch: Branch) -> None:
        how = "walk" if branch.source.ordered and self._query.order_by == NEWEST_FIRST else "take"
        test = "" if branch.rest == TRUE else f", test each for {explain(branch.rest)}"
        self._note(f"{how} {branch.source.label}{test}")

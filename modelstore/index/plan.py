"""How the index answers a query: one SQL statement, chosen from facts that the index keeps.

A page (newest changes first, with a limit) is read by *walking*: an index in the order of the page is read from its
newer end, each model is tested for the rest of the condition, and the walk stops when the page is full. What is
walked is the rarest tag of a conjunction; each branch of a disjunction is walked by itself, up to the limit, and the
branches are merged; a condition that excludes only walks all models.

A walk is long when what is tested for is rare or old. So unless the walked set is small, the newest `SAMPLE` of it are
tested first, and when they do not go far towards filling the page, the planner counts what the alternatives would
give: the set that an index on values yields, sorted, or the exact intersection of bitmaps. When that set is too large
to be sorted, the walk leaps over what the bitmaps exclude (`_leap`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from modelstore.errors import InvalidRequestError
from modelstore.index import intersect
from modelstore.index.compile import COLUMNS, Binder, Conditions, joined, walk_bounds
from modelstore.index.schema import ARCHIVED, VISIBLE
from modelstore.index.sources import Source, Sources
from modelstore.query.explain import explain
from modelstore.query.fields import FIELDS
from modelstore.query.filters import ModelQuery, condition
from modelstore.query.order import NEWEST_FIRST, Order
from modelstore.query.simplify import simplify
from modelstore.query.tree import (
    FALSE,
    TRUE,
    AllOf,
    AnyOf,
    Compare,
    FieldTarget,
    HasTag,
    MetaTarget,
    MetricTarget,
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

_LATEST_BLOCKS: Final = (16, 128, 1024)
"""Blocks of a bitmap from which a leap tries to fill the page: at least one model in each, at most 64."""


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


@dataclass(frozen=True, slots=True)
class _Branch:
    """Models of a source that satisfy the rest of a condition."""

    source: Source
    rest: Node


class _Planner:
    def __init__(self, query: ModelQuery, facts: Facts, *, whole: bool) -> None:
        self._whole = whole
        self._query = query
        self._facts = facts
        self._bind = Binder()
        self._states = (VISIBLE, ARCHIVED) if query.include_archived else (VISIBLE,)
        self._sources = Sources(facts, self._bind, self._states, whole=whole)
        self._samples = 0
        self._leaps = 0
        self._steps: list[str] = []
        asked = condition(query)
        self._node = simplify(self._known(asked))
        self._note(f"condition: {explain(asked) if asked != TRUE else 'none'}")
        if self._node == FALSE:
            self._note("nothing can satisfy it")

    def plan(self) -> Plan:
        if self._query.order_by != NEWEST_FIRST:
            return self._finish(self._sorted(self._exhaust(self._node)))
        return self._finish(self._page([self._exhaust(self._node)] if self._whole else self._choose(self._node)))

    def count(self) -> Plan:
        if intersect.is_set(self._node) and len(intersect.sets_of(self._node)) <= intersect.MAX_SETS:
            self._note("count the bits of intersected bitmaps")
            return self._finish(intersect.count(self._blocks(self._node)))
        branch = self._exhaust(self._node)
        tables, where = self._tested(branch.source, branch.rest)
        return self._finish(f"SELECT count(*) FROM {tables} WHERE {where} AND {self._in_states(branch.source)}")

    def _finish(self, sql: str) -> Plan:
        text, values = self._bind.finish(sql)
        return Plan(text, values, tuple(self._steps))

    def _note(self, step: str) -> None:
        self._steps.append(step if len(step) <= 500 else f"{step[:497]}...")

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

    def _choose(self, node: Node) -> list[_Branch]:
        """Return the branches whose newest models together fill a page of what satisfies a condition."""
        if node == FALSE:
            return []
        conjuncts = node.children if isinstance(node, AllOf) else (node,)
        best = self._smallest(conjuncts)
        if best is not None and best.rows <= FEW:
            return [_Branch(best, _without(conjuncts, best.answers))]
        split = self._split(conjuncts, best)
        if split is not None:
            return split
        return self._walk(conjuncts)

    def _walk(self, conjuncts: Sequence[Node]) -> list[_Branch]:
        """Walk what fills the page soonest, as far as samples tell; else look for another way."""
        exact = [source for c in conjuncts if (source := self._sources.exact(c)) is not None and source.ordered]
        exact.sort(key=lambda source: source.rows)
        poor: list[tuple[int, _Branch]] = []
        # Of two things that are common, one may be common among the new and the other among the old: walking the
        # latter finds at once what walking the former finds at its end.
        for source in exact[:_MAX_WALKS] or [self._sources.recent()]:
            walk = _Branch(source, _without(conjuncts, source.answers))
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

    def _split(self, conjuncts: Sequence[Node], best: Source | None) -> list[_Branch] | None:
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

    def _sample(self, walk: _Branch) -> int | None:
        """Return how many of the newest models of a walk satisfy the rest, up to the limit; None for not asked."""
        if self._samples == _MAX_SAMPLES:
            return None
        self._samples += 1
        inner = self._select(_Branch(walk.source, TRUE), self._states[:1], str(SAMPLE))
        conditions = Conditions(self._bind, self._facts)
        test = conditions.compile(walk.rest, "f.model")
        row = " CROSS JOIN models AS m ON m.key = f.model" if conditions.needs_row else ""
        sql, values = self._bind.finish(
            f"SELECT count(*) FROM (SELECT 1 FROM ({inner}) AS f{row} WHERE {test} LIMIT {self._page_size})"
        )
        found = self._facts.count(sql, values)
        self._note(f"of the newest {SAMPLE:,} of {walk.source.label}, {found:,} satisfy the rest")
        return found

    def _otherwise(self, conjuncts: Sequence[Node], walk: _Branch, found: int) -> list[_Branch]:
        """Choose between a walk whose sample was poor, an index on values, and bitmaps."""
        cost = min(self._page_size * SAMPLE / found if found else walk.source.rows, walk.source.rows)
        sought = self._smallest(conjuncts)
        if sought is not None and not sought.ordered and sought.rows < cost:
            cost, walk = sought.rows, _Branch(sought, _without(conjuncts, sought.answers))
        met = self._intersection(conjuncts)
        if met is None or not met.rows:
            return [walk] if met is None else []
        if met.rows > FEW and walk.source.ordered:
            leap = self._leap(conjuncts, walk, met)
            if leap is not None:
                return leap
        return [walk if met.rows * _SORTING >= cost else _Branch(met, _without(conjuncts, met.answers))]

    def _leap(self, conjuncts: Sequence[Node], walk: _Branch, met: Source) -> list[_Branch] | None:
        """Take the models of a large set that were registered last, and walk only past those registered before them.

        Of a set that has nothing of what changed last, those registered last are likely to be those changed last. Let
        the page be filled from them, down to a time of change, the edge: what else belongs on the page is newer than
        the edge and was registered before them. A walk down to the edge that tests nothing but those is short.
        """
        if self._leaps == _MAX_LEAPS or met.answers is None:
            return None
        self._leaps += 1
        found = self._latest(conjuncts, met.answers)
        if found is None:
            return None
        latest, first, edge = found
        bounds = f"{walk.source.key} < {self._bind(first)} AND {walk.source.alias}.updated >= {self._bind(edge)}"
        newer = replace(
            walk.source,
            label=f"those of {walk.source.label} that were registered earlier and changed later",
            where=f"{walk.source.where} AND {bounds}",
        )
        return [latest, _Branch(newer, walk.rest)]

    def _latest(self, conjuncts: Sequence[Node], settable: Node) -> tuple[_Branch, int, int] | None:
        """Return the members of a set that were registered last and fill the page, the first's key, and the edge."""
        blocks = self._blocks(settable)
        for number in _LATEST_BLOCKS:
            sql, values = self._bind.finish(
                f"SELECT coalesce(min(block), 0) FROM (SELECT block FROM ({blocks}) ORDER BY block DESC LIMIT {number})"
            )
            first = self._facts.count(sql, values)
            held = f"SELECT * FROM ({blocks}) WHERE block >= {self._bind(first)}"
            label = f"those registered last of the models in the bitmaps of {explain(settable)}"
            source = self._sources.chosen(label, intersect.members(held), number, settable)
            branch = _Branch(source, _without(conjuncts, settable))
            page = self._select(branch, self._states, str(self._page_size))
            sql, values = self._bind.finish(
                f"SELECT CASE count(*) WHEN {self._page_size} THEN min(updated) ELSE 0 END FROM ({page})"
            )
            edge = self._facts.count(sql, values)
            if edge:
                return branch, first << 6, edge
        return None

    def _intersection(self, conjuncts: Sequence[Node]) -> Source | None:
        """Return the exact set that all conditions on tags, project and publication leave, counted."""
        settable = simplify(all_of(c for c in conjuncts if intersect.is_set(c)))
        if settable in (TRUE, FALSE) or isinstance(settable, (HasTag, Compare)):
            return None  # what a walk answers by itself
        if len(intersect.sets_of(settable)) > intersect.MAX_SETS:
            return None
        blocks = self._blocks(settable)
        sql, values = self._bind.finish(intersect.count(blocks))
        rows = self._facts.count(sql, values)
        label = f"models in the bitmaps of {explain(settable)} ({rows:,})"
        self._note(f"bitmaps: {rows:,} models satisfy {explain(settable)}")
        return self._sources.chosen(label, intersect.members(blocks), rows, settable)

    def _blocks(self, node: Node) -> str:
        return intersect.blocks(node, self._states, self._facts, self._bind)

    def _exhaust(self, node: Node) -> _Branch:
        """Return the one branch that yields everything that satisfies a condition with the least to look at."""
        conjuncts = node.children if isinstance(node, AllOf) else (node,)
        best = self._smallest(conjuncts) or self._sources.recent()
        if best.rows > FEW:
            met = self._intersection(conjuncts)
            if met is not None and met.rows < best.rows:
                best = met
        return _Branch(best, _without(conjuncts, best.answers))

    # Writing.

    def _page(self, branches: list[_Branch]) -> str:
        """Return the statement of a page, newest change first."""
        limit = "" if self._query.limit is None else self._bind(self._query.limit)
        selects: list[str] = []
        for branch in branches:
            self._describe(branch)
            groups = [(state,) for state in self._states] if branch.source.ordered else [self._states]
            selects.extend(self._select(branch, group, limit) for group in groups)
        if not selects:
            return "SELECT 0 AS model, 0 AS updated WHERE 0"
        if len(selects) == 1:
            return selects[0]
        merged = " UNION ".join(f"SELECT model, updated FROM ({select})" for select in selects)
        until = f" LIMIT {limit}" if limit else ""
        return f"SELECT model, updated FROM ({merged}) ORDER BY updated DESC, model DESC{until}"

    def _describe(self, branch: _Branch) -> None:
        how = "walk" if branch.source.ordered and self._query.order_by == NEWEST_FIRST else "take"
        test = "" if branch.rest == TRUE else f", test each for {explain(branch.rest)}"
        self._note(f"{how} {branch.source.label}{test}")

    def _select(self, branch: _Branch, states: Sequence[int], limit: str) -> str:
        source = branch.source
        tables, where = self._tested(source, branch.rest)
        updated = f"{source.alias}.updated"
        parts = [where, self._in_states(source, states)]
        if source.ordered:
            parts += walk_bounds(self._node, updated, self._bind)
        if self._query.after is not None and self._query.order_by == NEWEST_FIRST:
            parts.append(f"({updated}, {source.key}) < ({', '.join(map(self._bind, self._cursor(2)))})")
        until = f" LIMIT {limit}" if limit else ""
        return (
            f"SELECT {source.key} AS model, {updated} AS updated FROM {tables} WHERE {' AND '.join(parts)}"
            f" ORDER BY {updated} DESC, {source.key} DESC{until}"
        )

    def _tested(self, source: Source, rest: Node, *, row: bool = False) -> tuple[str, str]:
        """Return the FROM clause of a source, and the condition on it."""
        conditions = Conditions(self._bind, self._facts)
        test = "" if rest == TRUE else f" AND {conditions.compile(rest, source.key)}"
        join = f" CROSS JOIN models AS m ON m.key = {source.key}"
        needed = (conditions.needs_row or row) and not source.has_row
        return f"{source.tables}{join if needed else ''}", f"{source.where}{test}"

    def _in_states(self, source: Source, states: Sequence[int] | None = None) -> str:
        wanted = self._states if states is None else states
        if len(wanted) == 1:
            return f"{source.alias}.state = {wanted[0]}"
        return f"{source.alias}.state IN ({', '.join(map(str, wanted))})"

    def _cursor(self, length: int) -> Cursor:
        after = self._query.after
        if not isinstance(after, tuple) or len(after) != length:
            raise InvalidRequestError(f"{after!r} is no place in this order", "Continue with the order you began with.")
        return after

    def _sorted(self, branch: _Branch) -> str:
        """Return the statement of an order other than newest first: everything is found, then sorted."""
        self._describe(branch)
        terms: list[tuple[str, bool]] = []
        joins = ""
        for number, order in enumerate(self._query.order_by):
            join, more = self._order(order, f"o{number}")
            joins += join
            terms += more
        terms.append(("m.id", False))
        tables, where = self._tested(branch.source, branch.rest, row=True)
        columns = [f"{expression} AS a{n}" for n, (expression, _) in enumerate(terms)]
        sql = f"SELECT m.key AS model, {', '.join(columns)} FROM {tables}{joins}"
        sql += f" WHERE {where} AND {self._in_states(branch.source)}"
        ways = [descending for _, descending in terms]
        by = ", ".join([*(f"a{n} DESC" if down else f"a{n}" for n, down in enumerate(ways)), "model DESC"])
        if self._query.after is not None:
            sql = f"SELECT * FROM ({sql}) WHERE {self._behind([*ways, True])}"
        until = "" if self._query.limit is None else f" LIMIT {self._bind(self._query.limit)}"
        self._note("sort them")
        return f"{sql} ORDER BY {by}{until}"

    def _behind(self, ways: list[bool]) -> str:
        """Return the condition that a row comes after the cursor."""
        values = [self._bind(value) for value in self._cursor(len(ways))]
        names = [*(f"a{n}" for n in range(len(ways) - 1)), "model"]
        same: list[str] = []
        cases: list[str] = []
        for name, value, descending in zip(names, values, ways, strict=True):
            cases.append(joined([*same, f"{name} {'<' if descending else '>'} {value}"], "AND"))
            same.append(f"{name} = {value}")
        return joined(cases, "OR")

    def _order(self, order: Order, alias: str) -> tuple[str, list[tuple[str, bool]]]:
        """Return the join that an order needs, and what to sort by, never NULL: the absent are ranked last."""
        target, down = order.target, order.descending
        match target:
            case FieldTarget("created" | "updated" as name):
                return "", [(f"m.{name}", down)]
            case FieldTarget(name):
                column, neutral = COLUMNS[name], "''" if FIELDS[name] == "text" else "0"
                return "", [(f"({column} IS NULL)", False), (f"coalesce({column}, {neutral})", down)]
            case MetricTarget(title, series, stat):
                on = f"{alias}.title = {self._bind(title)} AND {alias}.series = {self._bind(series)}"
                value = f"{alias}.{stat}"
                join = f" LEFT JOIN metrics AS {alias} ON {alias}.model = m.key AND {on}"
                return join, [(f"({value} IS NULL)", False), (f"coalesce({value}, 0.0)", down)]
            case MetaTarget(key):
                join = f" LEFT JOIN metadata AS {alias} ON {alias}.model = m.key AND {alias}.key = {self._bind(key)}"
                text = f"substr({alias}.json, 1, 1) = '\"'"
                rank = f"CASE WHEN {alias}.number IS NOT NULL THEN 0 WHEN {text} THEN 1 ELSE 2 END"
                return join, [
                    (rank, False),
                    (f"coalesce({alias}.number, 0.0)", down),
                    (f"CASE WHEN {text} THEN {alias}.value ELSE '' END", down),
                ]
        raise InvalidRequestError(f"Results cannot be ordered by {target!r}")


def _without(conjuncts: Sequence[Node], answered: Node | None) -> Node:
    """Return a conjunction without what a source answers."""
    if answered is None:
        return simplify(all_of(conjuncts))
    done = set(answered.children) if isinstance(answered, AllOf) else {answered}
    return simplify(all_of(c for c in conjuncts if c != answered and c not in done))

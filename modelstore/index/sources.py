"""Where the models that a query looks at can come from, and how many each place would give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from modelstore.index.compile import compared, metadata_holds, numbers
from modelstore.index.texts import mentioning
from modelstore.query.explain import explain
from modelstore.query.tree import Compare, FieldTarget, HasTag, Mentions, MetaTarget, MetricTarget, Node, TextTarget

if TYPE_CHECKING:
    from modelstore.index.compile import Binder
    from modelstore.index.facts import Facts

__all__ = ["CAP", "Source", "Sources"]

CAP: Final = 5_000
"""Models that a source without order is counted up to. So many are looked up and sorted in 10 to 15 ms, in which time
a walk has looked at as many."""

_SEARCH: Final = 4
"""A search may find so many times more before models are walked past instead: testing one costs 15 µs."""

_SOUGHT: Final = ("id", "uri", "task", "digest", "parent")


@dataclass(frozen=True, slots=True)
class Source:
    """A part of a FROM clause that yields models.

    Attributes:
        label: What it is, for people.
        tables: The FROM clause.
        key: Expression of the model's key.
        where: What limits it.
        rows: How many models it yields, exactly or up to `CAP`.
        ordered: Whether it yields one state's models newest change first.
        alias: The table that has the columns state and updated.
        has_row: Whether the model's row is joined as ``m``.
        answers: The condition it answers, which need not be tested again.
    """

    label: str
    tables: str
    key: str
    where: str
    rows: int
    ordered: bool
    alias: str
    has_row: bool
    answers: Node | None = None


class Sources:
    """Finds the sources for the conditions of one query.

    Args:
        facts: What the index knows.
        bind: Takes the values.
        states: States of the models that are asked for.
        whole: Whether everything that is found will be looked at, not only the newest: then a source without order
            is better than all models up to a quarter of them.
    """

    def __init__(self, facts: Facts, bind: Binder, states: tuple[int, ...], *, whole: bool) -> None:
        self._facts = facts
        self._bind = bind
        self._states = states
        self._cap = max(CAP, facts.size() // 4) if whole else CAP
        self._exact: dict[Node, Source | None] = {}
        self._sought: dict[Node, Source | None] = {}

    def recent(self) -> Source:
        """Return all models."""
        size = self._facts.size()
        tables = "models AS m INDEXED BY models_recent"
        label = f"all models ({size:,})"
        return Source(label, tables, "m.key", "1", size, ordered=True, alias="m", has_row=True)

    def frequency(self, name: str) -> int:
        """Return how many models in the states asked for carry a tag."""
        fact = self._facts.tag(name)
        return 0 if fact is None else fact.visible + (fact.archived if len(self._states) > 1 else 0)

    def exact(self, node: Node) -> Source | None:
        """Return the source of the models for which a tag or an equality holds, whose size is cheap to learn."""
        if node not in self._exact:
            self._exact[node] = self._find_exact(node)
        return self._exact[node]

    def sought(self, node: Node) -> Source | None:
        """Return the source of the models for which a comparison holds; None if they are too many to be sorted."""
        if node not in self._sought:
            self._sought[node] = self._find_sought(node)
        return self._sought[node]

    def _find_exact(self, node: Node) -> Source | None:
        match node:
            case HasTag(name):
                return self._tagged(node, name)
            case Compare(FieldTarget("name" | "project" as field), "==", str(value)):
                return self._named(node, field, value)
            case Compare(FieldTarget(field), "==" | "in", value) if field in _SOUGHT:
                values = value if isinstance(value, tuple) else (value or "",)
                held = compared("in", f"f.{field}", values, self._bind)
                rows = len(values) if field == "id" else self._bounded(f"models AS f WHERE {held}")
                # Ids that were named are looked up however many they are: there are no more models than ids.
                return self._counted(node, f"models AS f WHERE {held}", "f.key", rows, cap=len(values))
        return None

    def _find_sought(self, node: Node) -> Source | None:
        if isinstance(node, Mentions):
            found = f"({mentioning(node.text, self._bind)}) AS f"
            cap = self._cap * _SEARCH
            return self._counted(node, found, "f.model", self._bounded(found, cap), cap)
        if not isinstance(node, Compare):
            return None
        bind, op, value = self._bind, node.op, node.value
        match node.target:
            case MetaTarget(key) | TextTarget(key):
                keyed = f"metadata AS d WHERE d.key = {bind(key)}"
                held = metadata_holds(node, bind)
                if isinstance(node.target, MetaTarget) and isinstance(value, str):
                    # The test of the type reads the table; for the bound the index must do.
                    narrow = compared(op, "d.value", value, bind)
                else:
                    narrow = held
                rows = self._bounded(f"{keyed} AND {'1' if op in ('contains', 'matches') else narrow}")
                return self._counted(node, f"{keyed} AND {held}", "d.model", rows)
            case MetricTarget(title, series, stat):
                held = compared(op, f"s.{stat}", numbers(value), bind)
                table = f"metrics AS s INDEXED BY metrics_{stat}"
                where = f"{table} WHERE s.title = {bind(title)} AND s.series = {bind(series)} AND {held}"
                return self._counted(node, where, "s.model", self._bounded(where))
        return None

    def chosen(self, label: str, select: str, rows: int, answers: Node | None) -> Source:
        """Return the source of the models whose keys a statement selects as ``model``."""
        tables = f"({select}) AS k CROSS JOIN models AS m ON m.key = k.model"
        return Source(label, tables, "m.key", "1", rows, ordered=False, alias="m", has_row=True, answers=answers)

    def _tagged(self, node: Node, name: str) -> Source:
        fact = self._facts.tag(name)
        rows = self.frequency(name)
        label = f"models with the tag {explain(node)} ({rows:,})"
        where = f"w.tag = {self._bind(-1 if fact is None else fact.key)}"
        tables = "tag_walk AS w"
        return Source(label, tables, "w.model", where, rows, ordered=True, alias="w", has_row=False, answers=node)

    def _named(self, node: Node, field: str, value: str) -> Source:
        wanted = value if field == "name" else self._facts.project(value)
        tables = f"models AS m INDEXED BY models_{field}"
        where = f"m.{field} = {self._bind(wanted)}"
        rows = self._bounded(f"{tables} WHERE {where} AND m.state IN ({', '.join(map(str, self._states))})")
        label = self._label(node, rows)
        return Source(label, tables, "m.key", where, rows, ordered=True, alias="m", has_row=True, answers=node)

    def _counted(self, node: Node, from_where: str, key: str, rows: int, cap: int = 0) -> Source | None:
        if rows > max(self._cap, cap):
            return None
        return self.chosen(self._label(node, rows), f"SELECT {key} AS model FROM {from_where}", rows, node)

    def _bounded(self, from_where: str, cap: int = 0) -> int:
        limit = max(self._cap, cap) + 1
        sql, values = self._bind.finish(f"SELECT count(*) FROM (SELECT 1 FROM {from_where} LIMIT {limit})")
        return self._facts.count(sql, values)

    def _label(self, node: Node, rows: int) -> str:
        count = f"more than {self._cap:,}" if rows > self._cap else f"{rows:,}"
        return f"models for which {explain(node)} ({count})"

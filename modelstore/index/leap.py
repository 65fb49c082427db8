"""Leaping over what a condition excludes, where a walk would test half of all models to find the first.

Of a set that has nothing of what changed last, those registered last are likely to be those changed last. Let the page
be filled from them, down to a time of change, the *edge*: what else belongs on the page changed after the edge and was
registered before them. A walk down to the edge that tests nothing but those is short, and when many models were given
a tag lately and others are asked for, counting shows that there are none.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from modelstore.index import intersect
from modelstore.index.statements import Branch, Statements, without
from modelstore.query.explain import explain
from modelstore.query.tree import TRUE, AnyOf, HasTag, Node, Not

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelstore.index.sources import Source, Sources

__all__ = ["leap"]

SAMPLE: Final = 1_000
"""Models that changed last of which it is asked whether they were registered early."""

EARLY: Final = 100
"""More than so many of them make it worth counting what they have in common."""

_MAX_PROOFS: Final = 2
_LATEST_BLOCKS: Final = (16, 128, 1024)
"""Blocks of a bitmap from which the page is tried to be filled: at least one model in each, at most 64."""


def leap(
    statements: Statements, sources: Sources, conjuncts: Sequence[Node], walk: Branch, settable: Node
) -> list[Branch]:
    """Return branches that fill the page sooner than a walk does; none where they would not.

    Args:
        statements: Those of a query with a limit, newest change first.
        sources: Where models come from.
        conjuncts: The conditions.
        walk: The walk that takes long.
        settable: What of the conditions bitmaps can say.
    """
    return _Leap(statements, sources, conjuncts).branches(walk, settable)


class _Leap:
    def __init__(self, statements: Statements, sources: Sources, conjuncts: Sequence[Node]) -> None:
        self._statements = statements
        self._bind = statements.bind
        self._sources = sources
        self._conjuncts = conjuncts

    def branches(self, walk: Branch, settable: Node) -> list[Branch]:
        found = self._latest(settable)
        if found is None:
            return []
        latest, first, edge = found
        if self._covered(first, edge):
            return [latest]
        source = walk.source
        bounds = f"{source.key} < {self._bind(first)} AND {source.alias}.updated >= {self._bind(edge)}"
        label = f"those of {source.label} that were registered earlier and changed later"
        return [latest, Branch(replace(source, label=label, where=f"{source.where} AND {bounds}"), walk.rest)]

    def _latest(self, settable: Node) -> tuple[Branch, int, int] | None:
        """Return the members of a set that were registered last and fill the page, the first's key, and the edge."""
        blocks = self._statements.blocks(settable)
        limit = self._statements.query.limit
        for number in _LATEST_BLOCKS:
            newest = f"SELECT block FROM ({blocks}) ORDER BY block DESC LIMIT {number}"
            first = int(self._statements.value(f"SELECT coalesce(min(block), 0) FROM ({newest})"))
            label = f"those registered last of the models in the bitmaps of {explain(settable)}"
            branch = Branch(self._members(settable, first, label), without(self._conjuncts, settable))
            page = self._statements.select(branch, self._statements.states, str(limit))
            edge = self._statements.value(f"SELECT CASE count(*) WHEN {limit} THEN min(updated) END FROM ({page})")
            if edge is not None:
                return branch, first << 6, edge
        return None

    def _members(self, settable: Node, first: int, label: str) -> Source:
        """Return the models of a set from a block on."""
        blocks = f"SELECT * FROM ({self._statements.blocks(settable)}) WHERE block >= {self._bind(first)}"
        return self._sources.chosen(label, intersect.members(blocks), 0, settable)

    def _covered(self, first: int, edge: int) -> bool:
        """Tell whether all models that were registered before a key and changed after the edge have one excluded tag.

        So it is when many were given a tag, and others are asked for. Counting a range of an index costs a tenth of
        testing what is in it; even so it is done only where the newest models are such.
        """
        recent = self._sources.recent()
        newest = self._statements.select(Branch(recent, TRUE), self._statements.states[:1], str(SAMPLE))
        early = self._statements.value(f"SELECT count(*) FROM ({newest}) WHERE model < {self._bind(first)}")
        if early <= EARLY:
            return False
        newer = self._count_newer(recent, edge)
        tags = sorted(_excluded(self._conjuncts), key=lambda tag: -self._sources.frequency(tag.name))
        for tag in tags[:_MAX_PROOFS]:
            carrying = self._sources.exact(tag)
            lacking = self._members(Not(tag), first >> 6, "")
            if carrying and newer - self._count_newer(carrying, edge) == self._count_newer(lacking, edge):
                self._statements.note(f"whatever else changed since then has the tag {explain(tag)}")
                return True
        return False

    def _count_newer(self, source: Source, edge: int) -> int:
        """Return how many models of a source changed after the edge and come behind the query's cursor."""
        newer = replace(source, where=f"{source.where} AND {source.alias}.updated >= {self._bind(edge)}")
        selects = [self._statements.select(Branch(newer, TRUE), (state,), "") for state in self._statements.states]
        return sum(int(self._statements.value(f"SELECT count(*) FROM ({select})")) for select in selects)


def _excluded(conjuncts: Sequence[Node]) -> list[HasTag]:
    """Return the tags that no model has for which all of several conditions hold."""
    found: list[HasTag] = []
    for conjunct in conjuncts:
        match conjunct:
            case Not(HasTag() as tag):
                found.append(tag)
            case Not(AnyOf(children)):
                found += [child for child in children if isinstance(child, HasTag)]
    return found

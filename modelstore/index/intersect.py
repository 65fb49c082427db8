"""Set algebra over `bitmaps`: conditions on tags, project and publication, 64 models at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from modelstore.index.bitmaps import PROJECT, PUBLISHED, STATE, TAG
from modelstore.index.compile import joined
from modelstore.query.tree import FALSE, TRUE, AllOf, AnyOf, Compare, FieldTarget, HasTag, Node, Not

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelstore.index.compile import Binder
    from modelstore.index.facts import Facts

__all__ = ["MAX_SETS", "blocks", "count", "is_set", "members", "sets_of"]

MAX_SETS: Final = 50
"""Sets in one statement; SQLite joins at most 64 tables."""


def is_set(node: Node) -> bool:
    """Tell whether a condition is made of nothing but tags, exact projects and publication."""
    match node:
        case HasTag() | Compare(FieldTarget("project"), "==") | Compare(FieldTarget("published"), "=="):
            return True
        case Not(child):
            return is_set(child)
        case AllOf(children) | AnyOf(children):
            return all(is_set(child) for child in children)
    return False


def sets_of(node: Node) -> set[Node]:
    """Return the sets (tags, projects, publication) that a condition for which `is_set` holds is about."""
    match node:
        case Not(child):
            return sets_of(child)
        case AllOf(children) | AnyOf(children):
            return {found for child in children for found in sets_of(child)}
    return {node}


def blocks(node: Node, states: Sequence[int], facts: Facts, bind: Binder) -> str:
    """Return the statement of the blocks, and the bits in them, of models in some states that satisfy a condition."""
    conjuncts = set(node.children if isinstance(node, AllOf) else (node,))
    leaves = sets_of(node)
    common = sorted((leaf for leaf in leaves if leaf in conjuncts and not _absent(leaf)), key=lambda s: _rows(s, facts))
    others = [leaf for leaf in leaves if leaf not in common]
    names = {leaf: f"b{n}.bits" for n, leaf in enumerate(common)}
    tables: list[str] = []
    met: list[str] = []
    first = state = f"s.facet = {STATE} AND s.value IN ({', '.join(map(str, states))})"
    for number, leaf in enumerate(common):
        met.append(f"b{number}.bits")
        if not tables:
            tables.append("bitmaps AS b0")
            first = _in(f"b{number}", leaf, facts, bind)
        else:
            # Each table narrows before the next is looked up: two sets that never meet end here.
            joint = " & ".join(met)
            tables.append(
                f"CROSS JOIN bitmaps AS b{number} ON {_in(f'b{number}', leaf, facts, bind)}"
                f" AND b{number}.block = b0.block AND ({joint}) <> 0"
            )
    tables.append(f"CROSS JOIN bitmaps AS s ON {state} AND s.block = b0.block" if tables else "bitmaps AS s")
    for number, leaf in enumerate(others, len(common)):
        alias = f"b{number}"
        names[leaf] = f"coalesce({alias}.bits, 0)"
        tables.append(f"LEFT JOIN bitmaps AS {alias} ON {_in(alias, leaf, facts, bind)} AND {alias}.block = s.block")
    bits = f"(s.bits & {_expression(node, names)})"
    return f"SELECT s.block AS block, {bits} AS bits FROM {' '.join(tables)} WHERE {first} AND {bits} <> 0"


def _absent(leaf: Node) -> bool:
    """Tell whether a set's bitmap has those that are not in it."""
    return isinstance(leaf, Compare) and leaf.value is False


def _rows(leaf: Node, facts: Facts) -> int:
    if isinstance(leaf, HasTag):
        fact = facts.tag(leaf.name)
        return 0 if fact is None else fact.visible + fact.archived
    return facts.size()


def _in(alias: str, leaf: Node, facts: Facts, bind: Binder) -> str:
    facet, value = PUBLISHED, 1
    match leaf:
        case HasTag(name):
            fact = facts.tag(name)
            facet, value = TAG, -1 if fact is None else fact.key
        case Compare(FieldTarget("project"), _, str(name)):
            key = facts.project(name)
            facet, value = PROJECT, -1 if key is None else key
    return f"{alias}.facet = {facet} AND {alias}.value = {bind(value)}"


def _expression(node: Node, names: dict[Node, str]) -> str:
    if node in (TRUE, FALSE):
        return "-1" if node == TRUE else "0"
    match node:
        case Not(child):
            return f"~{_expression(child, names)}"
        case AllOf(children):
            return joined((_expression(child, names) for child in children), "&")
        case AnyOf(children):
            return joined((_expression(child, names) for child in children), "|")
    return f"~{names[node]}" if _absent(node) else names[node]


def count(blocks_sql: str) -> str:
    """Return the statement that counts the models in blocks."""
    return f"SELECT coalesce(sum(bit_count(bits)), 0) FROM ({blocks_sql})"


def members(blocks_sql: str) -> str:
    """Return the statement that selects the keys of the models in blocks as ``model``, eight bits at a time."""
    octets, places = ("VALUES " + ", ".join(f"({n})" for n in numbers) for numbers in (range(0, 64, 8), range(8)))
    return (
        f"SELECT h.block * 64 + o.column1 + n.column1 AS model FROM ({blocks_sql}) AS h"
        f" CROSS JOIN ({octets}) AS o ON (h.bits >> o.column1) & 255 <> 0"
        f" CROSS JOIN ({places}) AS n ON (h.bits >> (o.column1 + n.column1)) & 1"
    )

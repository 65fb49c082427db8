"""Make a tree smaller without changing what it means."""

from __future__ import annotations

from modelstore.query.tree import FALSE, TRUE, AllOf, AnyOf, Compare, Node, Not, all_of, any_of, negate

__all__ = ["simplify"]


def simplify(node: Node) -> Node:
    """Return a tree that holds for exactly the same models, and is no larger.

    Nested groups of one kind become one, duplicates and double negations go, a group that holds always or never is
    replaced by `TRUE` or `FALSE`, and a group of negations only becomes the negation of a group (De Morgan), which
    leaves one negation to answer in place of many. Simplifying twice changes nothing more.
    """
    match node:
        case Not(child):
            return _complement(simplify(child))
        case AllOf(children):
            return _group(children, conjunction=True)
        case AnyOf(children):
            return _group(children, conjunction=False)
        case Compare(_, "in", ()):
            return FALSE
    return node


def _complement(node: Node) -> Node:
    if node == TRUE:
        return FALSE
    return TRUE if node == FALSE else negate(node)


def _group(children: tuple[Node, ...], *, conjunction: bool) -> Node:
    join, kind, neutral, absorbing = (all_of, AllOf, TRUE, FALSE) if conjunction else (any_of, AnyOf, FALSE, TRUE)
    joined = join(simplify(child) for child in children)
    # dict, not set: the order in which conditions were written is the order in which they are explained.
    found = dict.fromkeys(joined.children if isinstance(joined, kind) else (joined,))
    found.pop(neutral, None)
    if absorbing in found or any(negate(child) in found for child in found):
        return absorbing
    if len(found) > 1 and all(isinstance(child, Not) for child in found):
        opposite = any_of if conjunction else all_of
        return negate(simplify(opposite(child.child for child in found if isinstance(child, Not))))
    return join(found)

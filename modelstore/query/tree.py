"""The tree that every way of asking makes: tag lists, Python expressions and textual conditions.

Nodes are immutable, compare by structure, and combine with ``&``, ``|`` and ``~``. The logic has two values: a
comparison with something that is absent, or of another type, is false, and `Not` is the complement of its child.

    Node
    ├── HasTag(name)
    ├── Untagged()
    ├── Mentions(text)
    ├── Compare(target, op, value)      target: FieldTarget | MetaTarget | TextTarget | MetricTarget
    ├── Not(child)
    ├── AllOf(children)                 no children: true
    └── AnyOf(children)                 no children: false
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NoReturn

from modelstore.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "FALSE",
    "MAX_DEPTH",
    "MAX_TERMS",
    "TRUE",
    "AllOf",
    "AnyOf",
    "Compare",
    "FieldTarget",
    "HasTag",
    "Mentions",
    "MetaTarget",
    "MetricTarget",
    "Node",
    "Not",
    "Op",
    "Scalar",
    "Stat",
    "Target",
    "TextTarget",
    "Untagged",
    "Value",
    "all_of",
    "any_of",
    "has_search",
    "negate",
    "size_of",
]

MAX_DEPTH: Final = 64
"""Levels a tree may have; with it, no function that descends a tree can run out of stack."""

MAX_TERMS: Final = 10_000
"""Tags and comparisons that a tree may have."""

Op = Literal["==", "<", "<=", ">", ">=", "in", "contains", "matches", "exists"]
Stat = Literal["last", "min", "max", "mean"]
Scalar = bool | int | float | str
Value = Scalar | tuple[Scalar, ...] | None


class Node:
    """A condition on a model."""

    __slots__ = ()

    def __and__(self, other: object) -> Node:
        """Return the condition that both hold."""
        left = self.children if isinstance(self, AllOf) else (self,)
        right = _operand(other)
        return AllOf((*left, *(right.children if isinstance(right, AllOf) else (right,))))

    def __or__(self, other: object) -> Node:
        """Return the condition that at least one holds."""
        left = self.children if isinstance(self, AnyOf) else (self,)
        right = _operand(other)
        return AnyOf((*left, *(right.children if isinstance(right, AnyOf) else (right,))))

    def __rand__(self, other: object) -> NoReturn:
        _operand(other)
        raise AssertionError(other)

    def __ror__(self, other: object) -> NoReturn:
        _operand(other)
        raise AssertionError(other)

    def __invert__(self) -> Node:
        """Return the condition that this one does not hold."""
        return negate(self)

    def __bool__(self) -> NoReturn:
        raise InvalidRequestError(
            "A condition has no truth value of its own",
            "Combine conditions with &, | and ~ in place of and, or and not, and write "
            "(Meta('x') > 0) & (Meta('x') < 1) in place of 0 < Meta('x') < 1.",
        )


def _operand(other: object) -> Node:
    if isinstance(other, Node):
        return other
    raise InvalidRequestError(
        f"A condition cannot be combined with {other!r}",
        "Put comparisons in parentheses, (Meta('x') > 0.9) & Tag('a'), and tags in Tag(…).",
    )


@dataclass(frozen=True, slots=True)
class HasTag(Node):
    """The model carries the tag, compared character by character."""

    name: str


@dataclass(frozen=True, slots=True)
class Untagged(Node):
    """The model carries no tag at all."""


@dataclass(frozen=True, slots=True)
class Mentions(Node):
    """The words of a search are found in the model's name, comment, tags and metadata."""

    text: str


@dataclass(frozen=True, slots=True)
class FieldTarget:
    """A field of the model, one of `modelstore.query.fields.FIELDS`."""

    name: str


@dataclass(frozen=True, slots=True)
class MetaTarget:
    """A metadata value with its type: numbers compare with numbers, text with text."""

    key: str


@dataclass(frozen=True, slots=True)
class TextTarget:
    """A metadata value as text whatever its type, which is what ClearML compares."""

    key: str


@dataclass(frozen=True, slots=True)
class MetricTarget:
    """A statistic of a reported scalar series."""

    title: str
    series: str
    stat: Stat = "last"


Target = FieldTarget | MetaTarget | TextTarget | MetricTarget


@dataclass(frozen=True, slots=True)
class Compare(Node):
    """A comparison with a constant.

    Attributes:
        target: What is compared.
        op: How. `in` takes a tuple, `exists` nothing (None), the others a scalar.
        value: A constant of the target's type; times are milliseconds since 1970.
    """

    target: Target
    op: Op
    value: Value = None


@dataclass(frozen=True, slots=True)
class Not(Node):
    """The child does not hold."""

    child: Node
    _size: tuple[int, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_size", _measure((self.child,)))


@dataclass(frozen=True, slots=True)
class AllOf(Node):
    """Every child holds; true without children."""

    children: tuple[Node, ...]
    _size: tuple[int, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_size", _measure(self.children))


@dataclass(frozen=True, slots=True)
class AnyOf(Node):
    """At least one child holds; false without children."""

    children: tuple[Node, ...]
    _size: tuple[int, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_size", _measure(self.children))


def size_of(node: Node) -> tuple[int, int]:
    """Return how many levels a tree has, and how many tags and comparisons."""
    return node._size if isinstance(node, (Not, AllOf, AnyOf)) else (1, 1)  # noqa: SLF001 - of this module


def _measure(children: tuple[Node, ...]) -> tuple[int, int]:
    depth, terms = 1, 0
    for child in children:
        child_depth, child_terms = size_of(child)
        depth, terms = max(depth, child_depth + 1), terms + child_terms
    if depth > MAX_DEPTH:
        raise InvalidRequestError(f"The query is nested more than {MAX_DEPTH} levels deep", "Simplify it.")
    if terms > MAX_TERMS:
        raise InvalidRequestError(f"The query has more than {MAX_TERMS} terms", "Split it into several queries.")
    return depth, terms


def has_search(node: Node) -> bool:
    """Tell whether a condition looks for words anywhere."""
    return _any_leaf(node, lambda leaf: isinstance(leaf, Mentions))


def has_pattern(node: Node) -> bool:
    """Tell whether a condition tries a regular expression, which may take for ever."""
    return _any_leaf(node, lambda leaf: isinstance(leaf, Compare) and leaf.op == "matches")


def _any_leaf(node: Node, test: Callable[[Node], bool]) -> bool:
    match node:
        case Not(child):
            return _any_leaf(child, test)
        case AllOf(children) | AnyOf(children):
            return any(_any_leaf(child, test) for child in children)
    return test(node)


TRUE: Final = AllOf(())
FALSE: Final = AnyOf(())


def negate(node: Node) -> Node:
    """Return the complement of a condition, without stacking one negation on another."""
    return node.child if isinstance(node, Not) else Not(node)


def all_of(nodes: Iterable[Node]) -> Node:
    """Join conditions with AND: conjunctions among them are spliced in, a single one is returned as it is."""
    children: list[Node] = []
    for node in nodes:
        children.extend(node.children if isinstance(node, AllOf) else (node,))
    return children[0] if len(children) == 1 else AllOf(tuple(children))


def any_of(nodes: Iterable[Node]) -> Node:
    """Join conditions with OR: disjunctions among them are spliced in, a single one is returned as it is."""
    children: list[Node] = []
    for node in nodes:
        children.extend(node.children if isinstance(node, AnyOf) else (node,))
    return children[0] if len(children) == 1 else AnyOf(tuple(children))

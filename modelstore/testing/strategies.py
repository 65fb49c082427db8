"""Hypothesis strategies: tags as odd as users make them, tag lists, trees, and models to ask them of.

Vocabularies are small on purpose, so that generated questions and generated models meet.
"""

from __future__ import annotations

import math
import unicodedata
from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

from modelstore.query import (
    FIELDS,
    AllOf,
    AnyOf,
    Compare,
    FieldTarget,
    HasTag,
    Mentions,
    MetaTarget,
    MetricTarget,
    Not,
    Subject,
    TextTarget,
    Untagged,
)
from modelstore.query.words import phrases

if TYPE_CHECKING:
    from modelstore.query import Node

__all__ = [
    "IDS",
    "META_KEYS",
    "METRICS",
    "ODD_TAGS",
    "PROJECTS",
    "comparisons",
    "metadata_text",
    "odd_text",
    "page_tag_lists",
    "searches",
    "server_tag_lists",
    "subjects",
    "tags",
    "trees",
]

ODD_TAGS: Final = (
    "a",
    "b",
    "c",
    "A",
    "-a",
    "--",
    "-",
    "a b",
    " a",
    "%",
    "_",
    "a%",
    "a_",
    "'",
    '"',
    "';--",
    "\\",
    "\n",
    "a\x00b",
    "\N{ROBOT FACE}",
    unicodedata.normalize("NFC", "caf\u00e9"),
    unicodedata.normalize("NFD", "caf\u00e9"),
    "\u202eevil",
    "[1]",
    "NOT",
    "t1",
)
"""Tags that break naive quoting, matching or normalising; every one of them is different from every other."""

IDS: Final = tuple(f"{n:032x}" for n in range(1, 7))
PROJECTS: Final = ("vision", "vision/ocr", "Vision", "100%")
META_KEYS: Final = ("accuracy", "note", "odd.key", "%")
METRICS: Final = (("val", "iou"), ("val", "loss"), ("Summary", "it's"))
_TEXTS: Final = (
    "",
    "a",
    "A",
    "ab",
    "yolo small",
    "yolo",
    "1",
    "1.0",
    "%",
    "_",
    "\u00e9",
    "e\u0301",
    "\N{ROBOT FACE}",
    "a\x00b",
)
_NUMBERS: Final = (0, 1, -1, 2, 0.5, 1.5, -0.0, 1e300, 2**53, 2**53 + 1, 2**63 - 1, 2**64, 10**400, math.inf, -math.inf)
_PATTERNS: Final = ("a", "^a", "b$", "^$", "(?i)A", "yolo|1", r"\d", "[%_]", ".", "\u00e9", r"\.")
_TIMES: Final = (0, 1, 999, 1000, 86_400_000, 1_700_000_000_000, -1)


def tags() -> st.SearchStrategy[str]:
    """Return tags, most of them from a small odd vocabulary."""
    free = st.text(min_size=1, max_size=5, alphabet=st.characters(exclude_categories=["Cs"]))
    return st.sampled_from(ODD_TAGS) | free.filter(lambda tag: not tag.startswith("__$"))


def odd_text() -> st.SearchStrategy[str]:
    """Return text, possibly empty."""
    return st.sampled_from(_TEXTS) | st.text(max_size=4, alphabet=st.characters(exclude_categories=["Cs"]))


def page_tag_lists(names: st.SearchStrategy[str] | None = None) -> st.SearchStrategy[list[str]]:
    """Return well-formed tag lists with every operator, exclusion, duplication and empty group."""
    names = tags() if names is None else names
    term = names.filter(lambda tag: not tag.startswith("-")) | names.filter(lambda tag: tag != "-").map(
        lambda tag: f"-{tag}"
    )
    pieces = (
        term.map(lambda tag: [tag])
        | names.map(lambda tag: ["__$not", tag])
        | st.sampled_from(["__$and", "__$all", "__$or", "__$any", "__$nop"]).map(lambda word: [word])
    )
    return st.lists(pieces, max_size=12).map(lambda found: [token for piece in found for token in piece])


def server_tag_lists() -> st.SearchStrategy[list[Any]]:
    """Return lists of anything that a client may send, malformed ones included."""
    words = ["__$and", "__$all", "__$or", "__$any", "__$not", "__$nop", "__$xor", "-", "", None]
    return st.lists(st.sampled_from([*words, "a", "b", "-a", "c", 1]), max_size=8)


def comparisons() -> st.SearchStrategy[Node]:
    """Return comparisons of every target, operator and type of constant."""
    ordered = st.sampled_from(["==", "<", "<=", ">", ">="])
    number = st.sampled_from(_NUMBERS) | st.just(math.nan)
    text = odd_text() | st.sampled_from(IDS) | st.sampled_from(PROJECTS)

    def compares(target: Any, scalar: st.SearchStrategy[Any], *, textual: bool = False) -> st.SearchStrategy[Node]:
        made = [
            st.builds(Compare, target, ordered, scalar),
            st.builds(Compare, target, st.just("in"), st.lists(scalar, max_size=3).map(tuple)),
            st.builds(Compare, target, st.just("exists")),
        ]
        if textual:
            made.append(st.builds(Compare, target, st.just("contains"), odd_text()))
            made.append(st.builds(Compare, target, st.just("matches"), st.sampled_from(_PATTERNS)))
        return st.one_of(made)

    def fields(*kinds: str) -> st.SearchStrategy[FieldTarget]:
        return st.sampled_from([FieldTarget(name) for name, kind in FIELDS.items() if kind in kinds])

    keys = st.sampled_from(META_KEYS)
    metric = st.builds(
        lambda name, stat: MetricTarget(name[0], name[1], stat),
        st.sampled_from(METRICS),
        st.sampled_from(["last", "min", "max", "mean"]),
    )
    flag = st.builds(Compare, fields("flag"), st.just("=="), st.booleans())
    return st.one_of(
        flag,
        compares(fields("text"), text, textual=True),
        compares(fields("number"), number),
        compares(fields("time"), st.sampled_from(_TIMES)),
        compares(st.builds(MetaTarget, keys), number | st.booleans() | odd_text(), textual=True),
        compares(st.builds(TextTarget, keys), odd_text(), textual=True),
        compares(metric, number),
    )


def searches() -> st.SearchStrategy[Node]:
    """Return searches for words of the generated texts, parts of them, phrases, and whatever people may type."""
    part = st.sampled_from(
        ("yolo", "Yol", "small", "s", "a", "ab", "accu", "odd.key", "1", "CAF\u00c9", "\N{ROBOT FACE}")
    )
    quoted = st.lists(part, min_size=1, max_size=3).map(lambda words: f'"{" ".join(words)}"')
    typed = st.lists(part | quoted | odd_text(), min_size=1, max_size=3).map(" ".join)
    return typed.filter(phrases).map(Mentions)


def trees(leaves: st.SearchStrategy[Node] | None = None, *, max_leaves: int = 8) -> st.SearchStrategy[Node]:
    """Return trees over tags; pass ``comparisons() | …`` as leaves for more."""
    if leaves is None:
        leaves = st.builds(HasTag, st.sampled_from(ODD_TAGS[:8])) | st.just(Untagged())

    def groups(children: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
        several = st.lists(children, max_size=4).map(tuple)
        return st.builds(Not, children) | st.builds(AllOf, several) | st.builds(AnyOf, several)

    return st.recursive(leaves, groups, max_leaves=max_leaves)


def metadata_text(value: object) -> str:
    """Return a generated metadata value as text; generated values are scalars and lists of them."""
    return value if isinstance(value, str) else str(value)


@st.composite
def subjects(draw: st.DrawFn, names: st.SearchStrategy[str] | None = None) -> Subject:
    """Return a model to ask: any field may be absent, metadata of any type, tags from the odd vocabulary."""
    names = st.sampled_from(ODD_TAGS[:8]) if names is None else names
    number = st.sampled_from([n for n in _NUMBERS if isinstance(n, int) and abs(n) < 2**63])
    fields: dict[str, Any] = {}
    for name, kind in FIELDS.items():
        made: st.SearchStrategy[Any]
        if name == "project":
            made = st.sampled_from(PROJECTS) | st.none()
        elif name in ("task", "parent"):
            made = st.sampled_from(IDS) | st.none()
        else:
            made = {
                "text": odd_text() | st.none(),
                "number": number | st.none(),
                "time": st.sampled_from(_TIMES),
                "flag": st.booleans(),
            }[kind]
        fields[name] = draw(made)
    fields["id"] = draw(st.uuids()).hex
    scalar = st.sampled_from(_NUMBERS) | st.just(math.nan) | st.booleans() | odd_text() | st.none() | st.just([1, "a"])
    metadata = draw(st.dictionaries(st.sampled_from(META_KEYS), scalar, max_size=3))
    values = st.tuples(st.sampled_from(METRICS), st.sampled_from(["last", "min", "max", "mean"]))
    metrics = draw(st.dictionaries(values, st.sampled_from([0.0, 0.5, 1.0, math.nan, math.inf]), max_size=4))
    return Subject(
        tags=draw(st.frozensets(names, max_size=5)),
        fields=fields,
        metadata=metadata,
        texts={key: metadata_text(value) for key, value in metadata.items()},
        metrics={(*name, stat): value for (name, stat), value in metrics.items()},
    )

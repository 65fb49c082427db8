"""The tree: its algebra, its limits, Python expressions and what comparisons mean."""

import math
import pickle
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import modelstore.query
from modelstore.errors import InvalidRequestError
from modelstore.query import (
    FALSE,
    TRUE,
    AllOf,
    AnyOf,
    Compare,
    Field,
    FieldTarget,
    HasTag,
    Meta,
    MetaTarget,
    Metric,
    MetricTarget,
    Node,
    Not,
    Subject,
    Tag,
    TextTarget,
    Untagged,
    accepts,
    explain,
    matches,
    number_of,
    simplify,
    to_ms,
)
from modelstore.query.tree import MAX_DEPTH, MAX_TERMS, size_of
from modelstore.testing.strategies import ODD_TAGS, comparisons, searches, subjects, trees

LEAVES = comparisons() | searches() | st.builds(HasTag, st.sampled_from(ODD_TAGS[:8])) | st.just(Untagged())
TREES = trees(LEAVES)
NAN = float("nan")


@given(TREES, subjects())
def test_double_negation_is_nothing(node: Any, subject: Subject) -> None:
    """Two-valued logic, also where something is absent or NaN."""
    assert accepts(Not(Not(node)), subject) == accepts(node, subject) == (not accepts(~node, subject))


@given(TREES, TREES, subjects())
def test_de_morgan_holds(left: Node, right: Node, subject: Subject) -> None:
    """Also for comparisons with what is absent, which in SQL's own logic it would not."""
    assert accepts(~(left & right), subject) == accepts(~left | ~right, subject)
    assert accepts(~(left | right), subject) == accepts(~left & ~right, subject)


@given(TREES, TREES, TREES, subjects())
def test_and_and_or_obey_the_laws_of_algebra(a: Node, b: Node, c: Node, subject: Subject) -> None:
    """The laws that people count on when they rewrite a query."""
    for left, right in [
        (a & b, b & a),
        (a | b, b | a),
        ((a & b) & c, a & (b & c)),
        ((a | b) | c, a | (b | c)),
        (a & a, a),
        (a | a, a),
        (a & (b | c), (a & b) | (a & c)),
        (a | TRUE, TRUE),
        (a & FALSE, FALSE),
        (a & TRUE, a),
        (a | FALSE, a),
    ]:
        assert accepts(left, subject) == accepts(right, subject)


@given(TREES, subjects())
def test_simplifying_keeps_the_meaning_and_is_done_once(node: Any, subject: Subject) -> None:
    """The compiler sees only simplified trees."""
    simple = simplify(node)

    assert accepts(simple, subject) == accepts(node, subject)
    assert simplify(simple) == simple
    assert size_of(simple)[1] <= max(1, size_of(node)[1])


@pytest.mark.parametrize(
    ("node", "simple"),
    [
        (AllOf((HasTag("a"), AllOf((HasTag("b"), HasTag("a"))))), AllOf((HasTag("a"), HasTag("b")))),
        (AnyOf((HasTag("a"),)), HasTag("a")),
        (Not(Not(HasTag("a"))), HasTag("a")),
        (AllOf((HasTag("a"), FALSE)), FALSE),
        (AnyOf((HasTag("a"), TRUE)), TRUE),
        (AllOf((HasTag("a"), Not(HasTag("a")))), FALSE),
        (AnyOf((HasTag("a"), Not(HasTag("a")))), TRUE),
        (AllOf((Not(HasTag("a")), Not(HasTag("b")))), Not(AnyOf((HasTag("a"), HasTag("b"))))),
        (Compare(MetaTarget("x"), "in", ()), FALSE),
    ],
)
def test_simplify_removes(node: Any, simple: Node) -> None:
    """One row per rule."""
    assert simplify(node) == simple


def test_expressions_make_the_tree_that_lists_make() -> None:
    """One tree, whatever it was written in."""
    assert Tag("a") & ~Tag("-b") | Tag("c") == AnyOf((AllOf((HasTag("a"), Not(HasTag("-b")))), HasTag("c")))
    assert Tag("a") & Tag("b") & Tag("c") == AllOf((HasTag("a"), HasTag("b"), HasTag("c")))
    assert (Meta("x") > 0.9) == Compare(MetaTarget("x"), ">", 0.9)
    assert (Meta("x") > 0.9) == Compare(MetaTarget("x"), ">", 0.9)
    assert (Meta("x") != 1) == Not(Compare(MetaTarget("x"), "==", 1))
    assert (Meta("x").text == "1") == Compare(TextTarget("x"), "==", "1")
    assert (Metric("val", "iou") > 0.8) == Compare(MetricTarget("val", "iou", "last"), ">", 0.8)
    assert (Metric("val", "iou").max >= 1) == Compare(MetricTarget("val", "iou", "max"), ">=", 1)
    assert Field("name").in_(["a", "b"]) == Compare(FieldTarget("name"), "in", ("a", "b"))
    assert Meta("x").exists() == Compare(MetaTarget("x"), "exists")
    assert (Field("framework") == "ONNX") == Compare(FieldTarget("framework"), "==", "ONNX")


def test_times_become_milliseconds_wherever_they_come_from() -> None:
    """Dates and times without a zone are local time, as everywhere in Python."""
    moment = datetime(2026, 3, 1, 12, 30, 15, 123_999, tzinfo=timezone(timedelta(hours=2)))
    ms = int(datetime(2026, 3, 1, 10, 30, 15, tzinfo=UTC).timestamp()) * 1000 + 123

    assert to_ms(moment) == to_ms(moment.isoformat()) == ms
    assert to_ms("2026-03-01T10:30:15.123Z") == ms
    assert (
        to_ms(moment.replace(tzinfo=None))
        == int(datetime(2026, 3, 1, 12, 30, 15).astimezone().timestamp()) * 1000 + 123
    )
    assert to_ms(date(2026, 3, 1)) == to_ms("2026-03-01") == int(datetime(2026, 3, 1).astimezone().timestamp() * 1000)
    assert to_ms(5) == 5
    assert (Field("created") >= moment) == Compare(FieldTarget("created"), ">=", ms)
    wrong_ones: list[Any] = ["yesterday", "", None, True, [], math.inf, datetime.min]  # noqa: DTZ901 - out of range
    for wrong in wrong_ones:
        with pytest.raises(InvalidRequestError):
            to_ms(wrong)


@pytest.mark.parametrize(
    "misuse",
    [
        lambda: Tag("a") and Tag("b"),  # type: ignore[redundant-expr, unreachable]
        lambda: not Tag("a"),
        lambda: 0 < Meta("x") < 1,
        lambda: Tag("a") & Meta("x"),
        lambda: Tag("a") & "b",
        lambda: "b" | Tag("a"),
        lambda: True & Tag("a"),
        lambda: Meta("x") & Tag("a"),
        lambda: ~Meta("x"),
        lambda: bool(Meta("x")),
        lambda: "a" in Meta("x"),
    ],
)
def test_misused_operators_are_refused_with_the_way_out(misuse: Any) -> None:
    """`a and b` would silently mean b; & binds more tightly than >."""
    with pytest.raises(InvalidRequestError) as caught:
        misuse()

    assert caught.value.hint


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Tag(""),
        lambda: Tag(1),  # type: ignore[arg-type]
        lambda: Tag("\ud800"),
        lambda: Meta(""),
        lambda: Meta("x") == None,  # noqa: E711 - the misuse
        lambda: Meta("x") > [1],
        lambda: Meta("x") == "\ud800",
        lambda: Field("nmae"),
        lambda: Field("name") > 3,
        lambda: Field("size") == "big",
        lambda: Field("size") == True,  # noqa: E712
        lambda: Field("published") > True,
        lambda: Field("published") == 1,
        lambda: Field("created") > "soon",
        lambda: Field("size").contains("1"),
        lambda: Metric("a", "b") == "x",
        lambda: Metric("", "b"),
        lambda: Meta("x").matches("("),
        lambda: Field("name").matches("*"),
        lambda: Field("name").in_("abc"),
        lambda: Field("name").in_(3),  # type: ignore[arg-type]
        lambda: Field("name").in_(["a", 3]),
    ],
)
def test_constants_that_cannot_fit_are_refused_when_written(wrong: Any) -> None:
    """Not when the query runs, and not as an empty answer."""
    with pytest.raises(InvalidRequestError):
        wrong()


def test_the_nearest_field_is_suggested() -> None:
    """A typing error is the usual reason."""
    with pytest.raises(InvalidRequestError, match="Did you mean 'name'"):
        Field("nmae")


def test_numpy_scalars_are_constants_like_any_other() -> None:
    """What a comparison of a metric usually comes from."""
    assert (Meta("x") > np.float32(0.5)) == Compare(MetaTarget("x"), ">", 0.5)
    assert (Field("size") == np.int64(3)) == Compare(FieldTarget("size"), "==", 3)
    assert (Meta("x") == np.bool_(True)) == Compare(MetaTarget("x"), "==", value=True)


@pytest.mark.parametrize(
    ("value", "condition", "holds"),
    [
        (5, Meta("k") > 4.5, True),
        (True, Meta("k") == 1, True),
        ("5", Meta("k") > 4, False),
        ("5", Meta("k") == 5, False),
        (5, Meta("k") == "5", False),
        (5, Meta("k") != "5", True),
        ("b", Meta("k") > "a", True),
        (math.nan, Meta("k") == NAN, False),
        (math.nan, Meta("k") != NAN, True),
        (math.nan, Meta("k").exists(), True),
        (None, Meta("k").exists(), True),
        (None, Meta("k") == 0, False),
        ([1], Meta("k") == 1, False),
        (10**400, Meta("k") > 1e308, True),
        (-(10**400), Meta("k") < 0, True),
        ("yolo small", Meta("k").contains("o s"), True),
        ("yolo", Meta("k").contains("Y"), False),
        ("yolo", Meta("k").matches("^y.*o$"), True),
        (5, Meta("k").contains("5"), False),
        (5, Meta("k").in_(["5", 5]), True),
        (5, Meta("k").in_([]), False),
        ("5", Meta("k").text == "5", True),
        (5, Meta("k").text == "5", True),
    ],
)
def test_metadata_compares_by_type(value: Any, condition: Node, holds: bool) -> None:
    """Numbers with numbers, text with text, nothing else."""
    subject = Subject(metadata={"k": value}, texts={"k": str(value)})

    assert accepts(condition, subject) is holds
    assert accepts(~condition, subject) is not holds


@pytest.mark.parametrize(
    "condition",
    [
        Meta("k") == 1,
        Meta("k") < 1,
        Meta("k").in_([1]),
        Meta("k").exists(),
        Meta("k").text == "1",
        Field("size") >= 0,
        Field("comment") == "",
        Field("comment").exists(),
        Field("comment").contains(""),
        Metric("a", "b") > 0,
    ],
)
def test_a_comparison_with_what_is_absent_is_false_and_its_negation_true(condition: Node) -> None:
    """Two values, no third."""
    assert not accepts(condition, Subject(fields={"comment": None}))
    assert accepts(~condition, Subject())


def test_an_empty_text_is_not_absent() -> None:
    """`comment=""` really clears; it is a value."""
    assert accepts(Field("comment") == "", Subject(fields={"comment": ""}))
    assert accepts(Field("comment").exists(), Subject(fields={"comment": ""}))


def test_number_of_is_a_float_or_nothing() -> None:
    """What the index stores to compare numbers by."""
    assert [number_of(v) for v in (1, True, 0.5, math.nan, "1", None, 10**400)] == [
        1.0,
        1.0,
        0.5,
        None,
        None,
        None,
        math.inf,
    ]


def test_no_tree_is_too_deep_to_descend() -> None:
    """A recursion error is no answer to a generated query."""
    node: Node = HasTag("a")
    for _ in range(MAX_DEPTH - 1):
        node = Not(node)
    matches(node, set())
    assert explain(simplify(node))
    with pytest.raises(InvalidRequestError, match="levels"):
        Not(node)


def test_a_tree_has_a_limited_number_of_terms() -> None:
    """The limit is above what people write and below what a database refuses."""
    many = AnyOf(tuple(HasTag(str(n)) for n in range(MAX_TERMS)))

    assert matches(many, {"77"})
    with pytest.raises(InvalidRequestError, match="terms"):
        many | Tag("one more")


@given(TREES)
def test_trees_pickle_and_hash(node: Any) -> None:
    """They travel to other processes and serve as keys."""
    again = pickle.loads(pickle.dumps(node))

    assert explain(again) == explain(node)
    assert "nan" in explain(node) or (again == node and hash(again) == hash(node))


def test_tags_alone_decide_matches() -> None:
    """`matches` is the specification of the tag language."""
    assert matches(Untagged(), frozenset())
    assert not matches(Untagged(), {"a"})
    with pytest.raises(TypeError):
        matches("a", {"a"})  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        explain("a")  # type: ignore[arg-type]


def test_the_package_exports_what_it_says() -> None:
    """`__all__` is the public surface, sorted."""
    names = modelstore.query.__all__

    assert sorted(names, key=lambda n: (not n.isupper(), not n[0].isupper(), n)) == names
    assert all(hasattr(modelstore.query, name) for name in names)

"""Conditions written as text."""

from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstore.errors import InvalidRequestError, WhereSyntaxError
from modelstore.query import (
    FALSE,
    TRUE,
    AllOf,
    AnyOf,
    Field,
    HasTag,
    Meta,
    Metric,
    Node,
    Not,
    Subject,
    Tag,
    Untagged,
    accepts,
    explain,
    parse_where,
    simplify,
    to_ms,
)
from modelstore.query.explain import quote
from modelstore.testing.strategies import ODD_TAGS, comparisons, odd_text, searches, subjects, trees

LEAVES = comparisons() | searches() | st.builds(HasTag, st.sampled_from(ODD_TAGS)) | st.just(Untagged())


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("accuracy > 0.9", Meta("accuracy") > 0.9),
        ("accuracy>.9", Meta("accuracy") > 0.9),
        ("accuracy = 1", Meta("accuracy") == 1),
        ("accuracy != 1", Meta("accuracy") != 1),
        ("accuracy > -1e-3", Meta("accuracy") > -0.001),
        ("accuracy < inf and accuracy > -inf", (Meta("accuracy") < float("inf")) & (Meta("accuracy") > float("-inf"))),
        ("val.loss <= 2", Meta("val.loss") <= 2),
        ("good == true", Meta("good") == True),  # noqa: E712
        ("name == 'x'", Field("name") == "x"),
        ("meta('name') == 'x'", Meta("name") == "x"),
        ("meta('size').text == '5'", Meta("size").text == "5"),
        ("field('name') == 'x'", Field("name") == "x"),
        ("metric('val','iou') > 0.8", Metric("val", "iou") > 0.8),
        ("metric('val', 'iou') . max > 0.8", Metric("val", "iou").max > 0.8),
        ("metric('val', 'iou').min > 0.8", Metric("val", "iou").min > 0.8),
        ("tag('prod')", Tag("prod")),
        ('"prod"', Tag("prod")),
        ("TAG('-x')", Tag("-x")),
        ("untagged", Untagged()),
        ("true", TRUE),
        ("FALSE", FALSE),
        ("size > 10MB", Field("size") > 10_000_000),
        ("size > 1.5 and size < 2KiB", (Field("size") > 1.5) & (Field("size") < 2048)),
        ("name contains 'yolo'", Field("name").contains("yolo")),
        ("name not contains 'yolo'", ~Field("name").contains("yolo")),
        ("name matches '^a\\d+'", Field("name").matches(r"^a\d+")),
        ("accuracy in (1, 2)", Meta("accuracy").in_([1, 2])),
        ("framework not in ('a')", ~Field("framework").in_(["a"])),
        ("accuracy in ()", Meta("accuracy").in_([])),
        ("exists(accuracy)", Meta("accuracy").exists()),
        ("not exists(comment)", ~Field("comment").exists()),
        ("published", Field("published") == True),  # noqa: E712
        ("published == false", Field("published") == False),  # noqa: E712
        ("! archived", ~(Field("archived") == True)),  # noqa: E712
        ("created >= 2026-03-01", Field("created") >= "2026-03-01"),
        ("created >= '2026-03-01'", Field("created") >= "2026-03-01"),
        ("created >= 2026-03-01T10:30", Field("created") >= datetime(2026, 3, 1, 10, 30)),  # noqa: DTZ001
        ("updated < 2026-03-01T10:30:00.5Z", Field("updated") < "2026-03-01T10:30:00.5+00:00"),
        ("created in (2026-03-01, 0)", Field("created").in_(["2026-03-01", 0])),
        ("a > 1 and b > 2 or c > 3", (Meta("a") > 1) & (Meta("b") > 2) | (Meta("c") > 3)),
        ("a > 1 && (b > 2 || c > 3)", (Meta("a") > 1) & ((Meta("b") > 2) | (Meta("c") > 3))),
        ("NOT a > 1 AND b > 2", ~(Meta("a") > 1) & (Meta("b") > 2)),
        ("tag > 3", Meta("tag") > 3),
        ("true == 1", Meta("true") == 1),
        ("t\u00e9st > 1", Meta("t\u00e9st") > 1),
    ],
)
def test_a_text_makes_the_tree_of_the_expression(text: str, node: Any) -> None:
    """One row per construct."""
    assert simplify(parse_where(text)) == simplify(node)


def test_the_example_of_the_documentation_is_read() -> None:
    """All at once."""
    node = parse_where("accuracy > 0.9 and tag('prod') and not framework == \"ONNX\"")

    assert explain(node) == 'meta("accuracy") > 0.9 AND "prod" AND NOT framework == "ONNX"'


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("", 0, "empty"),
        ("   ", 3, "empty"),
        ("accuracy >", 10, "A value is expected"),
        ("accuracy >> 3", 10, "A value is expected"),
        ("accuracy", 8, "is expected here"),
        ("accuracy 3", 9, "is expected here"),
        ("framework == ONNX", 13, "quotes: 'ONNX'"),
        ("a > 1 b > 2", 6, "and, or"),
        ("a > 1 and", 9, "is expected here"),
        ("and a > 1", 0, "before 'and'"),
        ("(a > 1", 6, "')' is expected"),
        ("a > 1)", 5, "before ')'"),
        ("a in 1", 5, "'(' is expected"),
        ("a in (1 2)", 8, "',' is expected"),
        ("a in (1,", 8, "A value"),
        ("tag(prod)", 4, "in quotes"),
        ("tag('')", 4, "not be empty"),
        ("tga('x')", 0, "did you mean tag?"),
        ("name == 'x", 8, "not closed"),
        ("a > 1 # b", 6, "'#'"),
        ("a > 10XB", 4, "Unknown unit"),
        ("a > 1.2.3", 4, "neither a number nor a date"),
        ("created > 2026-13-01", 10, "no date"),
        ("created > 'soon'", 10, "no date"),
        ("a > 2026-03-01", 4, "Only created and updated"),
        ("size == 'big'", 8, "does not fit"),
        ("size contains 'x'", 14, "works on text"),
        ("name matches '('", 13, "no regular expression"),
        ("name contains 5", 14, "in quotes"),
        ("published > true", 12, "no order"),
        ("field('nmae') == 'x'", 6, "did you mean 'name'"),
        ("metric('a') > 1", 10, "',' is expected"),
        ("metric('a', 'b').median > 1", 17, "last or min or max or mean"),
        ("meta('a').size > 1", 10, "text"),
        ("name == '\\ud800'", 8, "no character"),
        ("0.9 < accuracy", 0, "is expected here"),
    ],
)
def test_an_error_points_at_the_offending_place(text: str, position: int, words: str) -> None:
    """With a caret under it, on the last line of the message."""
    with pytest.raises(WhereSyntaxError) as caught:
        parse_where(text)

    assert words in caught.value.reason
    assert caught.value.position == position
    assert str(caught.value).splitlines()[-1] == "  " + " " * position + "^"


def test_the_caret_fits_a_condition_of_several_lines() -> None:
    """Line breaks are shown as spaces."""
    with pytest.raises(WhereSyntaxError) as caught:
        parse_where("a > 1\n  and\tb >")

    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    "text",
    [
        "(" * 5000,
        "not (a > 1 and (a > 2 or " * 60 + "a > 1" + "))" * 60,
        "not " * 5000 + "a > 1",
        "!" * 5000,
        "(a > 1 and " * 500,
        "a in (" * 500,
    ],
)
def test_garbage_cannot_exhaust_the_stack(text: str) -> None:
    """A refusal, not a recursion error."""
    with pytest.raises(WhereSyntaxError):
        parse_where(text)


def test_the_formula_of_the_deepest_tree_reads_back() -> None:
    """What can be built can be printed and read."""
    node: Node = HasTag("a")
    for n in range(20):
        node = Not(AllOf((AnyOf((node, HasTag(f"{n}"))), HasTag("b"))))

    assert simplify(parse_where(explain(node))) == simplify(node)


def test_a_long_flat_condition_is_no_deep_one() -> None:
    """Generated conditions are long, not deep."""
    node = parse_where(" or ".join(f"a == {n}" for n in range(2000)))

    assert explain(node).count("OR") == 1999
    with pytest.raises(InvalidRequestError):
        parse_where(5)  # type: ignore[arg-type]


@given(trees(LEAVES), subjects())
def test_the_formula_reads_back_as_the_same_condition(node: Any, subject: Subject) -> None:
    """`explain` and `parse_where` are inverse to each other, whatever the text and numbers in between."""
    again = parse_where(explain(node))

    assert accepts(again, subject) == accepts(node, subject)
    assert explain(simplify(again)) == explain(simplify(node))


@given(odd_text())
def test_any_text_survives_quoting(text: str) -> None:
    """On one line, whatever is in it."""
    quoted = quote(text)

    assert parse_where(f"name == {quoted}") == (Field("name") == text)
    assert len(quoted.splitlines()) == 1


@given(
    st.text(max_size=30)
    | st.lists(st.sampled_from(["a", ">", "1", "(", ")", "and", "not", "'x'", "in", ",", ".", "tag", "!"])).map(
        " ".join
    )
)
def test_any_text_is_read_or_refused_with_a_position_in_it(text: str) -> None:
    """No other error gets out."""
    position = 0
    try:
        parse_where(text)
    except WhereSyntaxError as error:
        position = error.position

    assert 0 <= position <= len(text)


def test_dates_stand_for_their_first_moment_in_local_time() -> None:
    """As typed on the command line of the machine at hand."""
    assert parse_where("created == 2026-03-01") == (Field("created") == to_ms("2026-03-01"))

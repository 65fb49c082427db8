"""Reading lists of tags, in both dialects."""

import json
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelstore.errors import TagQueryError
from modelstore.query import AnyOf, HasTag, Node, Not, explain, matches, parse_tags, parse_where, simplify
from modelstore.testing.strategies import ODD_TAGS, page_tag_lists, server_tag_lists


def read(tags: Any, **options: Any) -> Node:
    """Return the condition of a list that asks something."""
    node = parse_tags(tags, **options)
    assert node is not None
    return node


PAGE = [
    (["a", "b", "c"], '"a" OR "b" OR "c"', lambda t: t.a or t.b or t.c),
    (["__$and", "a", "b", "c"], '"a" AND "b" AND "c"', lambda t: t.a and t.b and t.c),
    (["__$all", "a", "b", "c"], '"a" AND "b" AND "c"', lambda t: t.a and t.b and t.c),
    (["__$any", "a", "b"], '"a" OR "b"', lambda t: t.a or t.b),
    (["__$not", "a", "b", "__$not", "c"], 'NOT "a" AND "b" AND NOT "c"', lambda t: not t.a and t.b and not t.c),
    (["-a", "b", "-c"], 'NOT "a" AND "b" AND NOT "c"', lambda t: not t.a and t.b and not t.c),
    (["a", "b", "__$and", "c", "d"], '"a" OR "b" OR ("c" AND "d")', lambda t: t.a or t.b or (t.c and t.d)),
    (
        ["__$and", "__$or", "a", "b", "__$and", "c", "d"],
        '("a" OR "b") AND "c" AND "d"',
        lambda t: (t.a or t.b) and t.c and t.d,
    ),
    (["a", "-b"], '"a" OR NOT "b"', lambda t: t.a or not t.b),
    (["__$or", "a", "__$not", "b"], '"a" OR NOT "b"', lambda t: t.a or not t.b),
    (["__$or", "-a", "-b"], 'NOT "a" OR NOT "b"', lambda t: not t.a or not t.b),
    (["-a", "-b"], 'NOT "a" AND NOT "b"', lambda t: not t.a and not t.b),
    (["-a", "__$or", "b", "c"], 'NOT "a" AND ("b" OR "c")', lambda t: not t.a and (t.b or t.c)),
    (["a", "__$and", "__$or", "b"], '"a" OR "b"', lambda t: t.a or t.b),
    (["__$and", "a", "b", "__$nop", "c"], '"a" AND "b" AND "c"', lambda t: t.a and t.b and t.c),
    (
        ["__$or", "__$and", "a", "b", "__$nop", "c", "d"],
        '("a" AND "b") OR "c" OR "d"',
        lambda t: (t.a and t.b) or t.c or t.d,
    ),
    (["__$and", "a", "-b"], '"a" AND NOT "b"', lambda t: t.a and not t.b),
    (["a", "a"], '"a" OR "a"', lambda t: t.a),
]


@pytest.mark.parametrize(("tags", "formula", "law"), PAGE, ids=[" ".join(row[0]) for row in PAGE])
def test_a_list_means_what_the_page_says(tags: Any, formula: str, law: Any) -> None:
    """The rows of ClearML's page and of the grammar's corners, for every set of the tags."""
    node = read(tags)

    assert explain(node) == formula
    for present in product((False, True), repeat=4):
        carried = {name for name, there in zip("abcd", present, strict=True) if there}
        assert matches(node, carried) == law(SimpleNamespace(**dict(zip("abcd", present, strict=True))))


def test_the_documented_example_of_seven_tags_means_what_the_page_says() -> None:
    """The longest documented list: mixed groups, an exclusion inside an OR."""
    node = read(["__$all", "a", "b", "c", "__$or", "d", "__$not", "e", "__$and", "__$or", "f", "g"])

    for a, b, c, d, e, f, g in product((False, True), repeat=7):
        carried = {n for n, there in zip("abcdefg", (a, b, c, d, e, f, g), strict=True) if there}
        assert matches(node, carried) == (a and b and c and (d or not e) and (f or g))


def test_a_list_that_begins_with_an_exclusion_is_a_conjunction_and_others_are_not() -> None:
    """`demo, -TF` is demo OR NOT TF on the page; `-TF, demo` begins with an exclusion."""
    assert explain(read(["demo", "-TF"])) == '"demo" OR NOT "TF"'
    assert explain(read(["-TF", "demo"])) == 'NOT "TF" AND "demo"'


@pytest.mark.parametrize("tags", [None, [], (), ["__$and"], ["__$or", "__$and", "__$nop"]])
def test_a_list_without_tags_asks_nothing(tags: Any) -> None:
    """No filter is different from a filter that nothing passes."""
    assert parse_tags(tags) is None


def test_after_not_the_next_string_is_taken_literally() -> None:
    """How tags with a leading dash are excluded."""
    assert parse_tags(["__$not", "-a"]) == Not(HasTag("-a"))
    assert parse_tags(["__$not", "-"]) == Not(HasTag("-"))
    assert parse_tags(["--a"]) == Not(HasTag("-a"))


@pytest.mark.parametrize(
    ("tags", "position", "words"),
    [
        (["a", "__$not"], 1, "at the end"),
        (["__$not", "__$and", "a"], 0, "before '__$and'"),
        (["__$not", "__$not", "a"], 0, "before '__$not'"),
        (["__$not", "__$nop", "a"], 0, "before '__$nop'"),
        (["a", "__$notc"], 1, "did you forget a comma, '__$not', 'c'?"),
        (["__$not", "__$notc"], 1, "did you forget a comma"),
        (["__$an", "a"], 0, "did you mean '__$any'?"),
        (["__$xyzzy"], 0, "operators are"),
        (["__$"], 0, "operator"),
        (["a", "-"], 1, "a dash alone"),
        (["a", ""], 1, "not empty"),
        (["__$not", ""], 1, "not empty"),
        (["a", None], 1, "not NoneType"),
        (["a", 1], 1, "not int"),
        (["a", ["b"]], 1, "not list"),
        (["\ud800"], 0, "Unicode"),
        ("a", 0, "write ['a']"),
        ({"a": 1}, 0, "not dict"),
        ({"a"}, 0, "not set"),
        (5, 0, "not int"),
        (["a"] * 10_001, 3, "more than 10000"),
    ],
)
def test_a_malformed_list_is_refused_at_the_position_at_fault(tags: Any, position: int, words: str) -> None:
    """Each is a mistake that ClearML lets pass or answers with nothing."""
    with pytest.raises(TagQueryError) as caught:
        parse_tags(tags)

    assert caught.value.position == position
    assert words in str(caught.value)
    assert isinstance(caught.value, ValueError)


@given(page_tag_lists(), st.frozensets(st.sampled_from(ODD_TAGS)))
def test_a_dash_means_the_same_as_not(tags: Any, carried: frozenset[str]) -> None:
    """The page: `-tag` is another way of writing `__$not`, `tag`."""
    spelled, after_not = [], False
    for token in tags:
        spelled += ["__$not", token[1:]] if token.startswith("-") and not after_not else [token]
        after_not = token == "__$not"
    node = parse_tags(tags)

    assert parse_tags(spelled) == node
    if node is not None:
        assert matches(read(spelled), carried) == matches(node, carried)


@given(st.data(), st.sampled_from(["__$and", "__$or"]), st.frozensets(st.sampled_from("abcd")))
def test_order_and_duplicates_within_a_group_change_nothing(
    data: st.DataObject, operator: str, carried: frozenset[str]
) -> None:
    """A group is a set of terms."""
    terms = data.draw(st.lists(st.sampled_from(["a", "b", "-c", "-d"]), min_size=1))
    shuffled = data.draw(st.permutations(terms + data.draw(st.lists(st.sampled_from(terms), max_size=3))))

    assert matches(read([operator, *shuffled]), carried) == matches(read([operator, *terms]), carried)


@given(page_tag_lists())
@example(["-\u202eevil", "__$not", "-"])
def test_the_formula_of_a_list_reads_back_as_the_same_question(tags: Any) -> None:
    """What `explain` prints can be given to `--where`."""
    node = parse_tags(tags)

    if node is not None:
        assert simplify(parse_where(explain(node))) == simplify(node)


SERVER = [
    json.loads(line)
    for line in (Path(__file__).parent.parent / "data" / "clearml_server_tags.jsonl").read_text("utf-8").splitlines()
]


def test_the_server_dialect_reads_every_recorded_list_as_the_server_did() -> None:
    """Recorded from ClearML's server: the list, a model's tags, and whether it was found or why it was refused."""
    for row in SERVER:
        if row["match"] is None:
            with pytest.raises(TagQueryError) as caught:
                parse_tags(row["filter"], dialect="clearml-server")
            assert caught.value.reason == row["error"]["msg"], row
        else:
            node = parse_tags(row["filter"], dialect="clearml-server")
            assert (True if node is None else matches(node, set(row["tags"]))) == row["match"], row


@given(server_tag_lists())
def test_the_server_dialect_answers_or_refuses_whatever_it_is_sent(tags: Any) -> None:
    """A list from the network never ends in another error."""
    try:
        node = parse_tags(tags, dialect="clearml-server")
    except TagQueryError as error:
        position = error.position
    else:
        position = 0
        # An empty tag, which the server takes, exists nowhere; conditions refuse it as a slip.
        assert node is None or "" in tags or simplify(parse_where(explain(node))) == simplify(node)

    assert 0 <= position <= len(tags)


def test_the_two_dialects_differ_where_the_server_differs_from_the_page() -> None:
    """The reason for having both."""
    tags = ["a", "b", "__$and", "c", "d"]

    assert isinstance(parse_tags(tags), AnyOf)
    assert explain(read(tags, dialect="clearml-server")) == '("a" OR "b") AND "c" AND "d"'

"""Full-text search: how texts are cut into words, and what a search finds in them."""

import sqlite3
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelstore import Search
from modelstore.errors import InvalidRequestError, WhereSyntaxError
from modelstore.index.schema import SEARCH_TABLE
from modelstore.index.texts import _expression
from modelstore.query import Subject, accepts, explain, parse_where
from modelstore.query.words import document, mentions, phrases

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("yolo-v8_small.pt", ["yolo", "v8", "small", "pt"]),
        ("Größe CAFÉ cafe\u0301", ["grosse", "cafe", "cafe"]),
        ("ﬁne ½ Ⅷ", ["fine", "1", "2", "viii"]),
        ("İstanbul ΣΊΣΥΦΟΣ", ["istanbul", "σισυφοσ"]),
        ("模型 small 한국어", ["模", "型", "small", "\u1112\u1161\u11ab\u1100\u116e\u11a8\u110b\u1165"]),
        ("a\N{ROBOT FACE}b \u2764\ufe0f", ["a", "\N{ROBOT FACE}", "b", "\u2764"]),
        ("soft\u00adhyphen zero\u200bwidth", ["softhyphen", "zerowidth"]),
        ("0.93 -5 1e-3", ["0", "93", "5", "1e", "3"]),
        ("हिन्दी", ["हिनदी"]),
        ("\x00 \n\t ¶ !?", []),
        ("x" * 100, ["x" * 64]),
    ],
)
def test_text_is_cut_into_words(text: str, words: list[str]) -> None:
    """Names are written with dashes, dots and underscores; accents and case are not what people remember."""
    assert document([text]) == words


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("yolo", True),
        ("yolo small", True),
        ("small YOLO", True),
        ("yo sm", True),
        ("olo", False),
        ("yolo large", False),
        ('"yolo small"', True),
        ('"small yolo"', False),
        ('"yol"', False),
        ('"yolo smal"', False),
        ("yolo-sm", True),
        ("small-yolo", False),
        ('"yolo small', True),
        ("“yolo small”", True),
        ('"" yolo', True),
        ("small prod", True),
        ('"small prod"', False),
        ("prod eu", True),
        ('"eu prod"', False),
        ("accuracy 0.93", True),
        ("0.9", True),
        ("0.93.5", False),
        ("CAFE", True),
        ("* OR NOT ( yolo", False),
        ("yolo*", True),
        ("yolo\x1fsmall", True),
    ],
)
def test_a_search_finds_beginnings_of_words_and_quoted_phrases(search: str, found: bool) -> None:
    """All of it must be there, anywhere; a phrase in one text, not across two."""
    subject = Subject(
        tags=frozenset({"prod", "eu"}),
        fields={"name": "YOLO small", "comment": None},
        texts={"accuracy": "0.93", "note": "café"},
    )

    assert accepts(Search(search), subject) is found
    assert accepts(parse_where(explain(Search(search))), subject) is found


@pytest.mark.parametrize("search", ["", "!?", '""', " - ", "\x1f", "¶", 7, None, "a " * 3 + "b-" * 64, "\ud800"])
def test_what_has_no_word_or_too_many_is_refused(search: Any) -> None:
    """Finding nothing must mean that there is nothing."""
    with pytest.raises(InvalidRequestError):
        Search(search)


def test_an_error_in_a_condition_points_at_the_search() -> None:
    """As for every other part of a condition."""
    with pytest.raises(WhereSyntaxError, match="no word"):
        parse_where("name == 'x' and search('!')")


@given(st.lists(TEXT, max_size=4), TEXT | st.lists(TEXT, max_size=3).map(" ".join))
@example(["a\x1fb"], '"a b"')
@example(["¶"], '"a ¶ b"')
@example(["a", "b"], "a\x1fb")
def test_the_index_finds_what_the_evaluator_finds(fields: list[str], search: str) -> None:
    """Whatever is typed is no syntax of the index, and the index cuts nothing into words by itself."""
    connection = sqlite3.connect(":memory:")
    connection.execute(SEARCH_TABLE)
    connection.execute("INSERT INTO search_words (rowid, words) VALUES (1, ?)", (" ".join(document(fields)),))
    asked = phrases(search)
    for text in (search, f'"{search}"', *fields):
        asked = phrases(text)
        if asked:
            rows = connection.execute("SELECT 1 FROM search_words WHERE words MATCH ?", (_expression(asked),))

            assert bool(rows.fetchall()) is mentions(text, fields)
    connection.close()


@given(TEXT)
def test_every_word_of_a_text_is_found_in_it(text: str) -> None:
    """In one text, a search for the text itself finds it."""
    assert mentions(text, ["before", text, "after"])

"""What is stored comes back as it went in."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstore.errors import InvalidRequestError
from modelstore.records.values import decode, dumps, encode, loads, metadata_text, metadata_type

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.binary(max_size=4)
HASHABLE = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT | st.tuples(TEXT, st.integers())
)
DOLLARS = st.sampled_from(["$float", "$dict", "$tuple", "$bytes", "$x"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(HASHABLE | DOLLARS, inner, max_size=3)
    ),
    max_leaves=12,
)


def same(left: Any, right: Any) -> bool:
    """Equality that tells 1 from True and finds NaN equal to itself."""
    return repr(left) == repr(right)


@given(VALUES)
def test_any_value_survives_a_round_trip(value: Any) -> None:
    """NaN stays NaN, tuples stay tuples, keys keep their types."""
    assert same(loads(dumps(value)), value)


@given(VALUES)
def test_the_text_is_strict_json(value: Any) -> None:
    """SQLite's JSON functions, other languages and browsers must be able to read it."""

    def refuse(word: str) -> float:
        raise AssertionError(word)

    assert same(decode(json.loads(dumps(value), parse_constant=refuse)), value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(np.float32(0.5), 0.5), (np.int64(3), 3), (np.bool_(True), True), (np.array([[1, 2]]), [[1, 2]])],
)
def test_numpy_values_become_plain_ones(value: Any, expected: Any) -> None:
    """Without numpy being imported by the package."""
    assert same(decode(encode(value)), expected)


@pytest.mark.parametrize("value", [object(), {1, 2}, lambda: None, 1j])
def test_what_has_no_representation_is_refused(value: Any) -> None:
    """Better than a string that looks like it."""
    with pytest.raises(InvalidRequestError, match="cannot be stored"):
        encode(value)


def test_endless_nesting_is_refused() -> None:
    """A list that contains itself must not end in a RecursionError."""
    value: list[Any] = []
    value.append(value)

    with pytest.raises(InvalidRequestError, match="nested"):
        dumps(value)


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (0.9, "float", "0.9"),
        (True, "bool", "True"),
        (5, "int", "5"),
        ("x", "str", "x"),
        (None, "None", "None"),
        ([1, "a"], "list", '[1, "a"]'),
        ({"a": 1, "b": 2}, "dict", '{"a": 1, "b": 2}'),
        ((1, 2), "tuple", "(1, 2)"),
        ({1: math.inf}, "dict", "{1: inf}"),
    ],
)
def test_metadata_has_a_type_and_a_text(value: Any, kind: str, text: str) -> None:
    """The text is what plain equality compares, so it must not change from version to version."""
    assert (metadata_type(value), metadata_text(value)) == (kind, text)

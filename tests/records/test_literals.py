"""Literals that others wrote."""

from __future__ import annotations

import ast
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstore.records.literals import literal

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


@given(VALUES)
def test_what_python_writes_it_reads(value: object) -> None:
    """Backslashes and quotes included."""
    assert literal(f" {value!r}\n") == value


@pytest.mark.parametrize("text", [r"{'\d': 1}", r"'\777'", "[1if 1else 2]", "f()", "1 +", "", "{'a': b}", "'\0'"])
def test_what_is_none_is_an_error_and_never_a_warning(text: str) -> None:
    """Whoever runs the program did not write the file that the warning would be about."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises((SyntaxError, ValueError)):
            literal(text)

    assert seen == []


def test_filters_of_warnings_stay_as_they_are() -> None:
    """They belong to the process, and several threads may read headers."""
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(literal, [repr("a\\b")] * 200))

    assert warnings.filters == before
    assert literal(repr("a\\b")) == ast.literal_eval(repr("a\\b"))

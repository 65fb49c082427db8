"""The exception tree is part of the interface."""

from __future__ import annotations

import inspect
import pickle

import pytest

from modelstore import errors

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__]
SPECIAL = {
    errors.TagQueryError: (("a", "__$nto"), 1, "unknown operator"),
    errors.WhereSyntaxError: ("a >", 3, "a value is missing"),
}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_every_error_is_ours_and_a_builtin(cls: type[errors.ModelStoreError]) -> None:
    """A caller may catch what it would catch from Python itself."""
    assert issubclass(cls, errors.ModelStoreError)
    if cls is not errors.ModelStoreError:
        assert any(issubclass(cls, builtin) for builtin in (ValueError, LookupError, OSError, RuntimeError))


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_every_error_survives_pickling(cls: type[errors.ModelStoreError]) -> None:
    """Errors cross process borders in pools and test runners."""
    error = cls(*SPECIAL.get(cls, ("It broke: x", "Mend it.")))
    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is cls
    assert str(copy) == str(error)
    assert copy.__dict__ == error.__dict__


def test_all_names_every_class_and_the_drawing_shows_it() -> None:
    """What is public is listed; the tree in the module's docstring is complete."""
    names = sorted(c.__name__ for c in CLASSES)

    assert sorted(errors.__all__) == names
    assert all(name in (errors.__doc__ or "") for name in names)


def test_the_hint_follows_the_message_as_a_sentence() -> None:
    """One line, readable."""
    assert str(errors.ModelStoreError("It broke", "Mend it.")) == "It broke. Mend it."
    assert str(errors.ModelStoreError("It broke.", "Mend it.")) == "It broke. Mend it."
    assert str(errors.ModelStoreError("It broke")) == "It broke"


def test_a_where_error_points_at_the_place() -> None:
    """A caret under the offending token."""
    assert str(errors.WhereSyntaxError("acc >> 1", 5, "Unexpected '>'")).splitlines() == [
        "Unexpected '>'",
        "  acc >> 1",
        "       ^",
    ]

"""Conditions written in Python: ``Tag("a") & ~Tag("b") | (Meta("accuracy") > 0.9)``.

`&`, `|` and `~` bind more tightly than comparisons, so comparisons go in parentheses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from modelstore.errors import InvalidRequestError
from modelstore.query.fields import KINDS, check_field, check_text, constant
from modelstore.query.tree import (
    Compare,
    FieldTarget,
    HasTag,
    Mentions,
    MetaTarget,
    MetricTarget,
    Node,
    Not,
    Op,
    Target,
    TextTarget,
)
from modelstore.query.words import MAX_WORDS, phrases

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Field", "Meta", "Metric", "Search", "Tag"]


def Tag(name: str) -> Node:  # noqa: N802 - reads as the thing it makes, like Meta and Field beside it
    """Return the condition that a model carries a tag.

    Args:
        name: The tag, taken literally: a leading dash or ``__$`` means nothing here.

    Raises:
        InvalidRequestError: It is empty or no string.
    """
    return HasTag(check_text(name, "A tag"))


def Search(text: str) -> Node:  # noqa: N802 - as above
    """Return the condition that words are found in the model's name, comment, tags and metadata.

    Args:
        text: Words, each of which must begin a word there; in double quotes, whole words that must follow one another.
            Case, accents and punctuation make no difference.

    Raises:
        InvalidRequestError: It is no text, has no word in it, or more than 64.
    """
    asked = phrases(check_text(text, "A search"))
    if not asked:
        raise InvalidRequestError(f"There is no word in the search {text!r}", "Search for letters, digits or symbols.")
    if sum(len(phrase.words) for phrase in asked) > MAX_WORDS:
        raise InvalidRequestError(f"A search has at most {MAX_WORDS} words", "Leave some out.")
    return Mentions(text)


class _Comparable:
    """Something with a value, which comparison operators turn into conditions."""

    __slots__ = ("_target",)

    def __init__(self, target: Target) -> None:
        self._target = target

    def _compare(self, op: Op, value: Any = None) -> Node:
        return Compare(self._target, op, constant(self._target, op, value))

    def __eq__(self, value: object) -> Node:  # type: ignore[override]
        return self._compare("==", value)

    def __ne__(self, value: object) -> Node:  # type: ignore[override]
        return Not(self._compare("==", value))

    def __lt__(self, value: Any) -> Node:
        return self._compare("<", value)

    def __le__(self, value: Any) -> Node:
        return self._compare("<=", value)

    def __gt__(self, value: Any) -> Node:
        return self._compare(">", value)

    def __ge__(self, value: Any) -> Node:
        return self._compare(">=", value)

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return repr(self._target)

    def in_(self, values: Iterable[Any]) -> Node:
        """Return the condition that the value equals one of several; never holds for none."""
        return self._compare("in", values)

    def contains(self, text: str) -> Node:
        """Return the condition that the value is text with ``text`` somewhere in it, case included."""
        return self._compare("contains", text)

    def matches(self, pattern: str) -> Node:
        """Return the condition that a regular expression (Python's `re.search`) is found in the value.

        Raises:
            InvalidRequestError: The pattern is malformed.
        """
        return self._compare("matches", pattern)

    def exists(self) -> Node:
        """Return the condition that there is a value at all."""
        return self._compare("exists")

    def _refuse(self, hint: str) -> NoReturn:
        raise InvalidRequestError(f"{self!r} is not a condition", hint)

    def __bool__(self) -> NoReturn:  # noqa: PLE0304 - refusing is the point
        self._refuse("Compare it, or use .exists().")

    def __contains__(self, item: object) -> NoReturn:
        self._refuse("Use .contains(text) in place of `in`.")

    def __and__(self, other: object) -> NoReturn:
        self._refuse("Put comparisons in parentheses: (Meta('x') > 0) & (Meta('y') > 0).")

    __or__ = __rand__ = __ror__ = __and__

    def __invert__(self) -> NoReturn:
        self._refuse("Use ~….exists(), or put the comparison in parentheses: ~(Meta('x') > 0).")


class Field(_Comparable):
    """A field of the model: ``Field("framework") == "ONNX"``, ``Field("created") >= date(2026, 3, 1)``.

    Args:
        name: One of `modelstore.query.FIELDS`, or of `TASK_FIELDS` for tasks. Times take datetimes, dates and ISO 8601
            text; a time without a zone is local time.

    Raises:
        InvalidRequestError: There is no such field.
    """

    __slots__ = ()

    def __init__(self, name: str) -> None:
        super().__init__(FieldTarget(check_field(name, KINDS)))


class Meta(_Comparable):
    """A metadata value: ``Meta("accuracy") > 0.9``.

    Numbers (int, float, bool) compare with numbers and text with text; any other pair is unequal and has no order.
    """

    __slots__ = ()

    def __init__(self, key: str) -> None:
        super().__init__(MetaTarget(check_text(key, "A metadata key")))

    @property
    def text(self) -> _Comparable:
        """The value as text whatever its type, which is what ClearML's ``metadata={…}`` compares."""
        assert isinstance(self._target, MetaTarget)  # noqa: S101 - set by the constructor
        return _Comparable(TextTarget(self._target.key))


class Metric(_Comparable):
    """A reported scalar: ``Metric("val", "iou") > 0.8`` is about its last value.

    ``.min``, ``.max`` and ``.mean`` are about those. The last value is that of the greatest iteration; NaN is left out
    of the others, and compares with nothing.
    """

    __slots__ = ()

    def __init__(self, title: str, series: str) -> None:
        super().__init__(MetricTarget(check_text(title, "A metric's title"), check_text(series, "A metric's series")))

    def _of(self, stat: Any) -> _Comparable:
        assert isinstance(self._target, MetricTarget)  # noqa: S101 - set by the constructor
        return _Comparable(MetricTarget(self._target.title, self._target.series, stat))

    @property
    def last(self) -> _Comparable:
        """The value at the greatest iteration, which is also what the metric itself compares."""
        return self._of("last")

    @property
    def min(self) -> _Comparable:
        """The smallest value reported."""
        return self._of("min")

    @property
    def max(self) -> _Comparable:
        """The greatest value reported."""
        return self._of("max")

    @property
    def mean(self) -> _Comparable:
        """The mean of all values reported."""
        return self._of("mean")

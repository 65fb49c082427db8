"""What the planner may ask the index: how often things occur, and bounded counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Facts", "IndexFacts", "TagFact"]


@dataclass(frozen=True, slots=True)
class TagFact:
    """A tag and how many models carry it, by state."""

    key: int
    visible: int
    archived: int


class Facts(Protocol):
    """What a plan depends on; asked in the same transaction in which the plan is run."""

    def tag(self, name: str) -> TagFact | None:
        """Return a tag, or None if no model ever carried it."""
        ...

    def project(self, name: str) -> int | None:
        """Return the key of the project of that full name, or None."""
        ...

    def size(self) -> int:
        """Return about how many models there are."""
        ...

    def count(self, sql: str, parameters: Sequence[Any]) -> int:
        """Return the one number that a statement selects; the planner bounds what it reads."""
        ...

    def value(self, sql: str, parameters: Sequence[Any]) -> Any:
        """Return the one value that a statement selects; the planner bounds what it reads."""
        ...


class IndexFacts:
    """The facts of one database, each asked once.

    Args:
        one: Runs a statement and returns its first row, or None.
    """

    def __init__(self, one: Callable[[str, Sequence[Any]], Sequence[Any] | None]) -> None:
        self._one = one
        self._tags: dict[str, TagFact | None] = {}
        self._size: int | None = None

    def tag(self, name: str) -> TagFact | None:
        """Return a tag, or None if no model ever carried it."""
        if name not in self._tags:
            row = self._one("SELECT key, visible, archived FROM tags WHERE name = ?", (name,))
            self._tags[name] = None if row is None else TagFact(*row)
        return self._tags[name]

    def project(self, name: str) -> int | None:
        """Return the key of the project of that full name, or None."""
        row = self._one("SELECT key FROM projects WHERE name = ?", (name,))
        return None if row is None else row[0]

    def size(self) -> int:
        """Return the greatest key: what an estimate needs, without counting."""
        if self._size is None:
            self._size = self.count("SELECT coalesce(max(key), 0) FROM models", ())
        return self._size

    def count(self, sql: str, parameters: Sequence[Any]) -> int:
        """Return the one number that a statement selects."""
        row = self._one(sql, parameters)
        return 0 if row is None else int(row[0])

    def value(self, sql: str, parameters: Sequence[Any]) -> Any:
        """Return the one value that a statement selects."""
        row = self._one(sql, parameters)
        return None if row is None else row[0]

"""Tags of models in the index: who carries which, in which order they are walked, and how often each occurs.

`model_tags` is the truth, `tag_walk` the same pairs in the order in which pages are read (for models in state 0 and 1
only), `tags` the names with their frequencies, and `models.tags` the names once more, so that a row is read whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from modelstore.index.driver import sqlite3
from modelstore.index.schema import ARCHIVED, VISIBLE

__all__ = ["WALKED", "TagKeys", "Walked", "add", "count", "reindex", "remove", "tag_key"]

WALKED = (VISIBLE, ARCHIVED)
"""States of the models that `tag_walk` has."""

Walked = tuple[Iterable[int], int, int]
"""Keys of a model's tags, its state, and the clock reading of its last change."""

_COUNTER = {VISIBLE: "visible", ARCHIVED: "archived"}


def tag_key(connection: sqlite3.Connection, name: str) -> int:
    """Return the key of a tag, made when it is new."""
    row = connection.execute("SELECT key FROM tags WHERE name = ?", (name,)).fetchone()
    if row is not None:
        key: int = row[0]
        return key
    cursor = connection.execute("INSERT INTO tags (name) VALUES (?)", (name,))
    assert cursor.lastrowid is not None  # noqa: S101 - an INSERT always has one
    return cursor.lastrowid


class TagKeys(dict[str, int]):
    """Keys of tags by name, each looked up once, and made when it is new; part of the caller's transaction.

    Args:
        connection: Inside a write transaction.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __missing__(self, name: str) -> int:
        """Look one up."""
        key = self[name] = tag_key(self._connection, name)
        return key


def add(connection: sqlite3.Connection, model: int, tag: int, op: int) -> None:
    """Add one tag, or let a later operation be the one that added it; `reindex` must follow."""
    connection.execute(
        "INSERT INTO model_tags VALUES (?,?,?) ON CONFLICT DO UPDATE SET op = excluded.op", (tag, model, op)
    )


def remove(connection: sqlite3.Connection, model: int, tag: int) -> None:
    """Take one tag away, if it is there; `reindex` must follow."""
    connection.execute("DELETE FROM model_tags WHERE model = ? AND tag = ?", (model, tag))


def reindex(connection: sqlite3.Connection, changes: Iterable[tuple[int, Walked, Walked]]) -> None:
    """Bring the walk and the frequencies from one situation to the next.

    Args:
        connection: Inside a write transaction.
        changes: Of each model its key and, as they were and as they are now, the keys of its tags, its state and the
            clock reading of its last change.
    """
    gone: list[tuple[int, int, int, int]] = []
    come: list[tuple[int, int, int, int]] = []
    more: Counter[tuple[int, int]] = Counter()
    for model, old, new in changes:
        before, after = _entries(model, old), _entries(model, new)
        gone += before - after
        come += after - before
        more.subtract(entry[:2] for entry in before)
        more.update(entry[:2] for entry in after)
    connection.executemany(
        "DELETE FROM tag_walk WHERE tag = ? AND state = ? AND updated = ? AND model = ?", sorted(gone)
    )
    connection.executemany("INSERT INTO tag_walk VALUES (?,?,?,?)", sorted(come))
    count(connection, more)


def count(connection: sqlite3.Connection, more: Mapping[tuple[int, int], int]) -> None:
    """Change frequencies: tag and state to how many models more (or, below zero, fewer) carry it."""
    for state, column in _COUNTER.items():
        changes = [(number, tag) for (tag, where), number in more.items() if where == state and number]
        if changes:
            connection.executemany(f"UPDATE tags SET {column} = {column} + ? WHERE key = ?", changes)


def _entries(model: int, situation: Walked) -> set[tuple[int, int, int, int]]:
    tags, state, updated = situation
    return {(tag, state, updated, model) for tag in tags} if state in WALKED else set()

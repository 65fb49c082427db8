"""Tags of models in the index: who carries which, in which order they are walked, and how often each occurs.

`model_tags` is the truth, `tag_walk` the same pairs in the order in which pages are read (for models in state 0 and 1
only), `tags` the names with their frequencies, and `models.tags` the names once more, so that a row is read whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from modelstore.index.driver import sqlite3
from modelstore.index.schema import ARCHIVED, VISIBLE

__all__ = ["WALKED", "add", "count", "forget", "reindex", "remove", "tag_key"]

WALKED = (VISIBLE, ARCHIVED)
"""States of the models that `tag_walk` has."""

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


def add(connection: sqlite3.Connection, model: int, name: str, op: int) -> None:
    """Add one tag, or let a later operation be the one that added it; `reindex` must follow."""
    connection.execute(
        "INSERT INTO model_tags VALUES (?,?,?) ON CONFLICT DO UPDATE SET op = excluded.op",
        (tag_key(connection, name), model, op),
    )


def remove(connection: sqlite3.Connection, model: int, name: str) -> None:
    """Take one tag away, if it is there; `reindex` must follow."""
    connection.execute(
        "DELETE FROM model_tags WHERE model = ? AND tag = (SELECT key FROM tags WHERE name = ?)", (model, name)
    )


def keys_of(connection: sqlite3.Connection, model: int) -> list[int]:
    """Return the keys of a model's tags."""
    return [row[0] for row in connection.execute("SELECT tag FROM model_tags WHERE model = ?", (model,))]


def reindex(
    connection: sqlite3.Connection,
    model: int,
    old: tuple[Iterable[int], int, int],
    new: tuple[Iterable[int], int, int],
) -> None:
    """Bring the walk and the frequencies from one situation to the next.

    Args:
        connection: Inside a write transaction.
        model: The model's key.
        old: Tag keys, state and clock reading of the last change, as they were.
        new: The same, as they are now.
    """
    if (set(old[0]), old[1], old[2]) == (set(new[0]), new[1], new[2]):
        return
    _unwalk(connection, model, old[0], old[1], old[2])
    _walk(connection, model, new[0], new[1], new[2])


def names_cell(connection: sqlite3.Connection, model: int) -> str:
    """Return the model's tag names as the JSON text of `models.tags`."""
    rows = connection.execute(
        "SELECT name FROM model_tags JOIN tags ON tags.key = model_tags.tag WHERE model = ? ORDER BY name", (model,)
    )
    return json.dumps([row[0] for row in rows], ensure_ascii=False, separators=(",", ":"))


def forget(connection: sqlite3.Connection, model: int, state: int, updated: int) -> None:
    """Remove every trace of a model's tags."""
    _unwalk(connection, model, keys_of(connection, model), state, updated)
    connection.execute("DELETE FROM model_tags WHERE model = ?", (model,))


def count(connection: sqlite3.Connection, more: Mapping[tuple[int, int], int]) -> None:
    """Change frequencies: tag and state to how many models more (or, below zero, fewer) carry it."""
    for state, column in _COUNTER.items():
        changes = [(number, tag) for (tag, where), number in more.items() if where == state]
        connection.executemany(f"UPDATE tags SET {column} = {column} + ? WHERE key = ?", changes)


def _walk(connection: sqlite3.Connection, model: int, keys: Iterable[int], state: int, updated: int) -> None:
    if state in WALKED:
        connection.executemany("INSERT INTO tag_walk VALUES (?,?,?,?)", [(k, state, updated, model) for k in keys])
        count(connection, {(key, state): 1 for key in keys})


def _unwalk(connection: sqlite3.Connection, model: int, keys: Iterable[int], state: int, updated: int) -> None:
    if state in WALKED:
        connection.executemany(
            "DELETE FROM tag_walk WHERE tag = ? AND state = ? AND updated = ? AND model = ?",
            [(k, state, updated, model) for k in keys],
        )
        count(connection, {(key, state): -1 for key in keys})

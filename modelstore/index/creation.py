"""New models in the index, any number at once: the one place that writes the rows of a creation.

One model or ten thousand, the rows are the same. What many gain is that each table gets all its rows in one call and
in the order of its key, that a tag or project is looked up once, and that a bitmap's block is written once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, Final

from modelstore.ids import clock_of, project_id
from modelstore.index import bitmaps, tagging
from modelstore.index.driver import sqlite3
from modelstore.index.schema import ARCHIVED, DELETED, VISIBLE
from modelstore.records.operations import MODEL_FIELDS, Operation
from modelstore.records.values import decode, metadata_text

__all__ = ["cell", "column", "dump", "find_project", "insert_models", "metadata_row", "sets_of", "state_of"]

_JSON_FIELDS: Final = frozenset(("labels", "config", "script", "runtime"))
_FLAGS: Final = frozenset(("package", "deleted"))
_COLUMNS: Final = ("key", "id", "state", "tags", "system_tags", "created_op", "created", "updated", *MODEL_FIELDS)
_INSERT: Final = f"INSERT INTO models ({', '.join(_COLUMNS)}) VALUES ({','.join('?' * len(_COLUMNS))})"
_POSITIONS: Final = {field: position for position, field in enumerate(MODEL_FIELDS)}
_PROJECT: Final = _POSITIONS["project"]
_NOTHING: Final[list[Any]] = [0 if field in _FLAGS else None for field in MODEL_FIELDS]


def insert_models(
    connection: sqlite3.Connection, creations: Sequence[tuple[int, Operation]], key: int | None = None
) -> None:
    """Insert the models that operations create; part of the caller's transaction.

    Args:
        connection: Inside a write transaction.
        creations: Number in the journal and operation; each creates a model of its own that has no row yet.
        key: Key of the first model; None takes the next that is free.
    """
    if key is None:
        key = 1 + connection.execute("SELECT coalesce(max(key), 0) FROM models").fetchone()[0]
    rows = _Rows(connection)
    for number, (seq, operation) in enumerate(creations, key):
        rows.add(number, seq, operation)
    rows.write()


class _Rows:
    """The rows of several new models, table by table."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._tags = tagging.TagKeys(connection)
        self._projects: dict[str, int | None] = {}
        self._models: list[tuple[Any, ...]] = []
        self._model_tags: list[tuple[int, int, int]] = []
        self._walk: list[tuple[int, int, int, int]] = []
        self._metadata: list[tuple[Any, ...]] = []
        self._items: list[tuple[str, str, str, int]] = []
        self._sets: dict[tuple[int, int, int], int] = {}

    def add(self, key: int, seq: int, operation: Operation) -> None:
        """Take in one creation, number ``seq`` of the journal."""
        entity, changes, clock = operation.entity, operation.changes, clock_of(operation.stamp)
        tags: list[str] = []
        system_tags: list[str] = []
        values: list[Any] = _NOTHING.copy()
        for change, value in changes.items():
            if value is None:
                continue
            prefix, colon, name = change.partition(":")
            if not colon:
                position = _POSITIONS.get(change)
                if position is not None:
                    values[position] = self._value(change, value)
                continue
            if prefix == "tag":
                tags.append(name)
            elif prefix == "meta":
                self._metadata.append(metadata_row(key, name, value, seq))
            else:
                system_tags.append(name)
                self._items.append((entity, change, dump(value), seq))
        tags.sort()
        system_tags.sort()
        state = state_of(changes.get("deleted"), "archived" in system_tags)
        keys = [self._tags[name] for name in tags]
        self._models.append((key, entity, state, cell(tags), cell(system_tags), seq, clock, clock, *values))
        self._model_tags.extend((tag, key, seq) for tag in keys)
        if state in tagging.WALKED:
            self._walk.extend((tag, state, clock, key) for tag in keys)
        block, bit = bitmaps.place(key)
        for facet, value in sets_of(state, keys, values[_PROJECT], published=False):
            self._sets[facet, value, block] = self._sets.get((facet, value, block), 0) | bit

    def write(self) -> None:
        """Write everything that was taken in."""
        run = self._connection.executemany
        run(_INSERT, self._models)
        # Rows in the order of the key go to neighbouring pages.
        run("INSERT INTO model_tags VALUES (?,?,?)", sorted(self._model_tags))
        run("INSERT INTO tag_walk VALUES (?,?,?,?)", sorted(self._walk))
        tagging.count(self._connection, Counter(map(itemgetter(0, 1), self._walk)))
        run("INSERT INTO metadata VALUES (?,?,?,?,?,?,?)", self._metadata)
        run("INSERT INTO items VALUES (?,?,?,?)", sorted(self._items))
        bitmaps.add_blocks(self._connection, self._sets)

    def _value(self, field: str, value: Any) -> Any:
        if field != "project":
            return column(self._connection, field, value)
        if value not in self._projects:
            self._projects[value] = find_project(self._connection, value)
        return self._projects[value]


def state_of(deleted: Any, archived: Any) -> int:
    """Return the state of a model or task."""
    return DELETED if deleted else ARCHIVED if archived else VISIBLE


def sets_of(state: int, tags: Iterable[int], project: int | None, *, published: bool) -> set[tuple[int, int]]:
    """Return the bitmaps that a model belongs to."""
    sets = {(bitmaps.TAG, tag) for tag in tags}
    sets.add((bitmaps.STATE, state))
    if project is not None:
        sets.add((bitmaps.PROJECT, project))
    if published:
        sets.add((bitmaps.PUBLISHED, 1))
    return sets


def column(connection: sqlite3.Connection, field: str, value: Any) -> Any:
    """Return a field's value as its column holds it."""
    if field == "project":
        return find_project(connection, value)
    if field in _FLAGS:
        return int(bool(value))
    if field in _JSON_FIELDS and value is not None:
        return dump(value)
    return value


def find_project(connection: sqlite3.Connection, name: str | None) -> int | None:
    """Return the key of the project with that full name, made when it is new; None for no project."""
    if name is None:
        return None
    row = connection.execute("SELECT key FROM projects WHERE name = ?", (name,)).fetchone()
    if row is not None:
        key: int = row[0]
        return key
    cursor = connection.execute(
        "INSERT INTO projects (id, name) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET name = excluded.name"
        " RETURNING key",
        (project_id(name), name),
    )
    made: int = cursor.fetchone()[0]
    return made


def metadata_row(model: int, name: str, pair: Any, seq: int) -> tuple[Any, ...]:
    """Return a row of `metadata` for a pair of type and encoded value."""
    kind, stored = pair
    value = decode(stored)
    number: float | None = None
    if isinstance(value, (int, float)) and value == value:  # noqa: PLR0124 - NaN is no number to compare with
        try:
            number = float(value)
        except OverflowError:
            number = float("inf") if value > 0 else float("-inf")
    return model, name, kind, metadata_text(value), number, dump(stored), seq


_encode_json: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def dump(value: Any) -> str:
    """Write JSON in its shortest form."""
    return _encode_json(value)


def cell(names: list[str]) -> str:
    """Return names as the JSON text of `tags` and `system_tags`."""
    return dump(names) if names else "[]"

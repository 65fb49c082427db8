"""The rows of models and tasks while operations are folded into them: read for many at once, each written once.

What follows from a model's row (the order in which pages are walked, frequencies, bitmaps) is brought up to date when
the rows are written, in one call a table, however many operations were on them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from modelstore.index import bitmaps, tagging
from modelstore.index.creation import cell, sets_of
from modelstore.index.driver import sqlite3
from modelstore.records.operations import Operation

__all__ = ["TABLES", "Row", "Rows", "contested", "find", "tags_cell"]

TABLES: Final = {"model": "models", "task": "tasks"}
_COLUMNS: Final = "e.id, e.key, e.state, e.deleted, e.updated, c.stamp, p.stamp, e.stamps, e.project"
_STAMPS: Final = "LEFT JOIN ops AS c ON c.seq = e.created_op LEFT JOIN ops AS p ON p.seq = e.published_op"


@dataclass(slots=True)
class Row:
    """One entity's row while operations are applied to it.

    Attributes:
        kind: "model" or "task".
        id: The entity's id.
        key: Its number in the index.
        state: As the column, and so `deleted`, `updated` and `project` (a key).
        created: Stamp of the creation; None for what is only known from edits.
        published: Stamp of the publication; None when there is none.
        stamps: Field to stamp, for fields set after the creation.
        tags: Key to name; of models only.
        contested: Whether conflicts are noted of it.
        changed: Columns that are to be written, and their values.
        indexed: What walk, frequencies and bitmaps hold of a model.
    """

    kind: str
    id: str
    key: int
    state: int
    deleted: int
    updated: int
    created: str | None
    published: str | None
    stamps: dict[str, str]
    project: int | None
    tags: dict[int, str] = field(default_factory=dict)
    contested: bool = False
    changed: dict[str, Any] = field(default_factory=dict)
    indexed: Situation | None = None

    def situation(self) -> Situation:
        """Return what walk, frequencies and bitmaps should hold of a model."""
        return Situation(frozenset(self.tags), self.state, self.updated, self.project, self.published is not None)


@dataclass(frozen=True, slots=True)
class Situation:
    """What decides where a model stands in the walks, frequencies and bitmaps."""

    tags: frozenset[int]
    state: int
    updated: int
    project: int | None
    published: bool

    @property
    def sets(self) -> set[tuple[int, int]]:
        """Facet and value of the bitmaps that the model belongs to."""
        return sets_of(self.state, self.tags, self.project, published=self.published)


class Rows:
    """The rows that a run of operations needs; part of the caller's transaction, which ends after `write`.

    Args:
        connection: Inside a write transaction.

    Attributes:
        connection: The same.
        tags: Keys of tags by name.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._rows: dict[tuple[str, str], Row | None] = {}
        self.tags = tagging.TagKeys(connection)

    def read(self, operations: Iterable[Operation]) -> None:
        """Read what these operations are on."""
        wanted: dict[str, set[str]] = {kind: set() for kind in TABLES}
        for operation in operations:
            if operation.kind in TABLES and (operation.kind, operation.entity) not in self._rows:
                wanted[operation.kind].add(operation.entity)
        for kind, entities in wanted.items():
            if entities:
                self._read(kind, entities)

    def get(self, kind: str, entity: str) -> Row | None:
        """Return the row of an entity, as it will be; None when it has none."""
        if (kind, entity) not in self._rows:
            self._read(kind, {entity})
        return self._rows[kind, entity]

    def forget(self, kind: str, entity: str) -> None:
        """Have a row read anew that was made or removed; what was to be written of it is not."""
        self._rows.pop((kind, entity), None)

    def unindex(self, row: Row) -> None:
        """Take a model out of walks, frequencies and bitmaps."""
        self._index([(row.key, row.indexed, None)])

    def write(self) -> None:
        """Write what was changed."""
        moved: list[tuple[int, Situation | None, Situation | None]] = []
        for row in self._rows.values():
            if row is None or not row.changed:
                continue
            assignments = ", ".join(f"{column} = ?" for column in row.changed)
            self.connection.execute(
                f"UPDATE {TABLES[row.kind]} SET {assignments} WHERE key = ?", (*row.changed.values(), row.key)
            )
            row.changed = {}
            if row.kind == "model":
                situation = row.situation()
                moved.append((row.key, row.indexed, situation))
                row.indexed = situation
        self._index(moved)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _read(self, kind: str, entities: set[str]) -> None:
        rows = self.connection.execute(
            f"SELECT {_COLUMNS} FROM json_each(?) AS wanted CROSS JOIN {TABLES[kind]} AS e ON e.id = wanted.value"
            f" {_STAMPS}",
            (json.dumps(list(entities)),),
        )
        self._rows.update(((kind, entity), None) for entity in entities)
        found = {row.key: row for row in (_row(kind, columns) for columns in rows)}
        self._rows.update(((kind, row.id), row) for row in found.values())
        for entity in contested(self.connection, entities):
            row = self._rows[kind, entity]
            if row is not None:
                row.contested = True
        if kind == "model":
            tags = self.connection.execute(
                "SELECT t.model, t.tag, n.name FROM json_each(?) AS wanted CROSS JOIN model_tags AS t"
                " ON t.model = wanted.value JOIN tags AS n ON n.key = t.tag",
                (json.dumps(list(found)),),
            )
            for model, tag, name in tags:
                found[model].tags[tag] = name
            for row in found.values():
                row.indexed = row.situation()

    def _index(self, moved: list[tuple[int, Situation | None, Situation | None]]) -> None:
        gone: dict[tuple[int, int, int], int] = {}
        come: dict[tuple[int, int, int], int] = {}
        for model, old, new in moved:
            block, bit = bitmaps.place(model)
            before, after = (set() if one is None else one.sets for one in (old, new))
            for target, sets in ((gone, before - after), (come, after - before)):
                for facet, value in sets:
                    target[facet, value, block] = target.get((facet, value, block), 0) | bit
        tagging.reindex(self.connection, [(model, _walked(old), _walked(new)) for model, old, new in moved])
        bitmaps.remove_blocks(self.connection, gone)
        bitmaps.add_blocks(self.connection, come)


def find(connection: sqlite3.Connection, kind: str, entity: str) -> Row | None:
    """Return what the row of an entity says, without its tags and conflicts; None when it has none."""
    columns = connection.execute(
        f"SELECT {_COLUMNS} FROM {TABLES[kind]} AS e {_STAMPS} WHERE e.id = ?", (entity,)
    ).fetchone()
    return None if columns is None else _row(kind, columns)


def contested(connection: sqlite3.Connection, entities: Iterable[str]) -> list[str]:
    """Return those of these entities of which conflicts are noted."""
    rows = connection.execute(
        "SELECT DISTINCT entity FROM conflicts WHERE entity IN (SELECT value FROM json_each(?))",
        (json.dumps(list(entities)),),
    )
    return [row[0] for row in rows]


def tags_cell(row: Row) -> str:
    """Return a model's tag names as the JSON text of `models.tags`."""
    return cell(sorted(row.tags.values()))


def _row(kind: str, columns: Any) -> Row:
    entity, key, state, deleted, updated, created, published, stamps, project = columns
    known = json.loads(stamps) if stamps else {}
    return Row(kind, entity, key, state, deleted, updated, created, published, known, project)


def _walked(situation: Situation | None) -> tuple[frozenset[int], int, int]:
    return (frozenset(), 0, 0) if situation is None else (situation.tags, situation.state, situation.updated)

"""From rows of the index to records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from modelstore.index.database import Database
from modelstore.index.schema import DELETED
from modelstore.records.entities import Link, MetadataItem, ModelRecord, ProjectRecord, TaskRecord, UploadRecord
from modelstore.records.values import decode, loads

__all__ = [
    "MODEL_COLUMNS",
    "TASK_COLUMNS",
    "items",
    "links_of_model",
    "links_of_task",
    "model",
    "models",
    "projects",
    "task",
    "tasks",
    "uploads",
]

MODEL_COLUMNS: Final = (
    "m.key, m.id, m.state, m.name, p.name, p.id, m.task, m.parent, m.comment, m.framework, m.uri, m.digest, m.size,"
    " m.package, m.labels, m.config, m.iteration, m.tags, m.system_tags, m.published_op, m.created, m.updated"
)
"""Columns of a `ModelRecord`, of `models AS m LEFT JOIN projects AS p`."""

TASK_COLUMNS: Final = (
    "t.key, t.id, t.state, t.name, p.name, p.id, t.type, t.status, t.status_reason, t.status_message, t.comment,"
    " t.parent, t.output_uri, t.labels, t.script, t.runtime, t.last_iteration, t.started, t.completed, t.tags,"
    " t.system_tags, t.published_op, t.created, t.updated"
)

_CHUNK: Final = 10_000
_parse: Final = json.JSONDecoder().raw_decode
"""Reads JSON of our own writing, which has no blanks around it: half the time of `json.loads` on a short text."""


def _strings(cell: str) -> tuple[str, ...]:
    return () if cell == "[]" else tuple(_parse(cell)[0])


def model_from_row(row: Sequence[Any], metadata: dict[str, MetadataItem]) -> ModelRecord:
    """Build a record from the columns of `MODEL_COLUMNS`."""
    values = (
        *row[:13],
        bool(row[13]),
        json.loads(row[14]) if row[14] else {},
        json.loads(row[15]) if row[15] else None,
        row[16],
        _strings(row[17]),
        _strings(row[18]),
        row[19] is not None,
        row[20],
        row[21],
        metadata,
    )
    return ModelRecord(*values)


def model(database: Database, model_id: str) -> ModelRecord | None:
    """Return one model, deleted or not; None when there is none, or its creation has not arrived."""
    row = database.one(
        f"SELECT {MODEL_COLUMNS} FROM models AS m LEFT JOIN projects AS p ON p.key = m.project"
        " WHERE m.id = ? AND m.created_op IS NOT NULL",
        (model_id,),
    )
    return None if row is None else model_from_row(row, _metadata(database, [row[0]]).get(row[0], {}))


def models(database: Database, keys: Sequence[int]) -> list[ModelRecord]:
    """Return the models with these keys, in that order, each with its metadata: two statements per 10,000."""
    found: list[ModelRecord] = []
    for start in range(0, len(keys), _CHUNK):
        chunk = keys[start : start + _CHUNK]
        rows = database.all(
            f"SELECT {MODEL_COLUMNS} FROM json_each(?) AS wanted CROSS JOIN models AS m ON m.key = wanted.value"
            " LEFT JOIN projects AS p ON p.key = m.project ORDER BY wanted.key",
            (json.dumps(list(chunk)),),
        )
        metadata = _metadata(database, chunk)
        found.extend(model_from_row(row, metadata.get(row[0], {})) for row in rows)
    return found


def _metadata(database: Database, keys: Sequence[int]) -> dict[int, dict[str, MetadataItem]]:
    if len(keys) == 1:
        rows = database.all("SELECT model, key, type, value, json FROM metadata WHERE model = ?", (keys[0],))
    else:
        rows = database.all(
            "SELECT d.model, d.key, d.type, d.value, d.json FROM json_each(?) AS wanted"
            " CROSS JOIN metadata AS d ON d.model = wanted.value",
            (json.dumps(list(keys)),),
        )
    result: dict[int, dict[str, MetadataItem]] = {}
    for owner, key, kind, text, value in rows:
        # A plain string is its own text; parsing it would be the larger part of reading a page.
        item = MetadataItem(kind, text, text if kind == "str" else decode(_parse(value)[0]))
        result.setdefault(owner, {})[key] = item
    return result


def task(database: Database, task_id: str) -> TaskRecord | None:
    """Return one task, deleted or not; None when there is none."""
    row = database.one(
        f"SELECT {TASK_COLUMNS} FROM tasks AS t LEFT JOIN projects AS p ON p.key = t.project"
        " WHERE t.id = ? AND t.created_op IS NOT NULL",
        (task_id,),
    )
    return None if row is None else _task_from_row(row)


def tasks(rows: Iterable[Sequence[Any]]) -> list[TaskRecord]:
    """Return the tasks of rows in the columns of `TASK_COLUMNS`."""
    return [_task_from_row(row) for row in rows]


def _task_from_row(row: Sequence[Any]) -> TaskRecord:
    values = (
        *row[:13],
        json.loads(row[13]) if row[13] else None,
        decode(json.loads(row[14])) if row[14] else {},
        decode(json.loads(row[15])) if row[15] else {},
        row[16],
        row[17],
        row[18],
        _strings(row[19]),
        _strings(row[20]),
        row[21] is not None,
        row[22],
        row[23],
    )
    return TaskRecord(*values)


def items(database: Database, entity: str, prefix: str) -> dict[str, Any]:
    """Return the keyed values of an entity whose keys begin with a prefix, the prefix removed, sorted by key."""
    rows = database.all(
        "SELECT key, value FROM items WHERE entity = ? AND substr(key, 1, ?) = ? AND value IS NOT NULL ORDER BY key",
        (entity, len(prefix), prefix),
    )
    return {row[0][len(prefix) :]: loads(row[1]) for row in rows}


def links_of_task(database: Database, task_id: str, direction: str) -> list[Link]:
    """Return a task's links in the order in which they were made."""
    rows = database.all(
        "SELECT task, direction, name, model FROM links WHERE task = ? AND direction = ? ORDER BY op, name",
        (task_id, direction),
    )
    return [Link(*row) for row in rows]


def links_of_model(database: Database, model_id: str, direction: str | None = None) -> list[Link]:
    """Return the links that tasks have to a model, oldest first."""
    rows = database.all(
        "SELECT task, direction, name, model FROM links WHERE model = ? AND (? IS NULL OR direction = ?) ORDER BY op",
        (model_id, direction, direction),
    )
    return [Link(*row) for row in rows]


def models_of_task(database: Database, task_id: str) -> list[str]:
    """Return the ids of the models that a task made, oldest first."""
    rows = database.all("SELECT id FROM models WHERE task = ? AND state <> ? ORDER BY created, key", (task_id, DELETED))
    return [row[0] for row in rows if row[0]]


def projects(database: Database, names: Iterable[str] | None = None, *, counted: bool = False) -> list[ProjectRecord]:
    """Return projects by name, or all that anything belongs to, sorted by name.

    Args:
        database: The index.
        names: Only these; None for all.
        counted: Count their models and tasks, which takes the longer the more there are.
    """
    wanted = None if names is None else json.dumps(list(names))
    counts = (
        "(SELECT count(*) FROM models AS m WHERE m.project = p.key AND m.state = 0),"
        " (SELECT count(*) FROM tasks AS t WHERE t.project = p.key AND t.state = 0)"
    )
    rows = database.all(
        f"SELECT p.id, p.name, p.description, p.output_uri, {counts if counted else 'NULL, NULL'}"
        " FROM projects AS p WHERE p.name IS NOT NULL AND (? IS NULL OR p.name IN (SELECT value FROM json_each(?)))"
        " ORDER BY p.name",
        (wanted, wanted),
    )
    return [ProjectRecord(*row) for row in rows]


def uploads(database: Database, model_id: str | None = None) -> list[UploadRecord]:
    """Return unfinished uploads, oldest first, of one model or of all."""
    rows = database.all(
        "SELECT id, model, snapshot, destination, changes, status, attempts, error, host, pid, created FROM uploads"
        " WHERE ? IS NULL OR model = ? ORDER BY id",
        (model_id, model_id),
    )
    values = [(*row[:4], json.loads(row[4]), *row[5:]) for row in rows]
    return [UploadRecord(*value) for value in values]

"""The fold: how one operation changes the index.

Operations may arrive in any order and more than once; the index depends only on which have arrived. Each key of an
entity is a register that the greatest stamp wins. The rules beyond that:

* An entity exists from its creation on. Operations that arrive before it wait in the journal; when the creation comes,
  everything on the entity is folded in order of stamps. Of several creations of one id the smallest stamp is the
  creation, the others are edits of what they list.
* The creation sets every field, those it does not list to nothing.
* A publication fixes the frozen fields; of several the smallest stamp decides.
* Reports are added (`modelstore.index.reports`), also to what does not exist yet; they change nothing else.

The same rules over plain dictionaries are in `modelstore.testing.reference`; tests hold the two against each other.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from modelstore.ids import clock_of, project_id
from modelstore.index import bitmaps, reports, tagging
from modelstore.index.creation import (
    cell,
    column,
    dump,
    find_project,
    insert_models,
    metadata_row,
    sets_of,
    state_of,
)
from modelstore.index.driver import sqlite3
from modelstore.index.ops import of_entity
from modelstore.index.schema import INCOMPLETE, TRIGGERS
from modelstore.records.conflicts import find_conflicts
from modelstore.records.operations import FROZEN_FIELDS, MODEL_FIELDS, PROJECT_FIELDS, TASK_FIELDS, Operation

__all__ = ["apply", "reconcile", "winners"]

_FROZEN: Final = frozenset(FROZEN_FIELDS)
_FIELDS: Final[dict[str, tuple[str, ...]]] = {"model": MODEL_FIELDS, "task": TASK_FIELDS, "project": PROJECT_FIELDS}
_TABLES: Final = {"model": "models", "task": "tasks", "project": "projects"}


@dataclass(slots=True)
class _Row:
    """One entity's row while an operation is applied to it."""

    kind: str
    key: int
    id: str
    state: int
    updated: int
    created: str | None  # stamp of the creation
    published: str | None  # stamp of the publication
    stamps: dict[str, str]
    project: int | None


def apply(connection: sqlite3.Connection, operation: Operation, seq: int) -> None:
    """Let one operation, already in the journal as number ``seq``, change the index.

    Part of the caller's transaction. Applying an operation a second time changes nothing.
    """
    if operation.kind == "project":
        _apply_to_project(connection, operation)
        return
    row = _find(connection, operation.kind, operation.entity)
    creates = operation.action == "create"
    if row is None and creates:
        _insert(connection, operation, seq)
    elif row is None:
        cursor = connection.execute(
            f"INSERT INTO {_TABLES[operation.kind]} (id, state) VALUES (?, ?)", (operation.entity, INCOMPLETE)
        )
        if operation.kind == "model" and cursor.lastrowid is not None:
            bitmaps.add(connection, cursor.lastrowid, [(bitmaps.STATE, INCOMPLETE)])
    elif operation.action == "report":
        pass
    elif creates and (row.created is None or operation.stamp < row.created):
        _refold(connection, row)
    elif row.created is not None and operation.stamp != row.created:
        _edit(connection, row, operation, seq)
    if operation.action == "report":
        reports.add(connection, operation, seq)


def _find(connection: sqlite3.Connection, kind: str, entity: str) -> _Row | None:
    row = connection.execute(
        "SELECT e.key, e.state, e.updated, c.stamp, p.stamp, e.stamps, e.project"
        f" FROM {_TABLES[kind]} AS e LEFT JOIN ops AS c ON c.seq = e.created_op"
        " LEFT JOIN ops AS p ON p.seq = e.published_op WHERE e.id = ?",
        (entity,),
    ).fetchone()
    if row is None:
        return None
    return _Row(kind, row[0], entity, row[1], row[2], row[3], row[4], json.loads(row[5]) if row[5] else {}, row[6])


# -- creation ----------------------------------------------------------------------------------------------------------


def _insert(connection: sqlite3.Connection, operation: Operation, seq: int, key: int | None = None) -> None:
    if operation.kind == "model":
        insert_models(connection, [(seq, operation)], key)
        return
    changes, clock = operation.changes, clock_of(operation.stamp)
    system_tags = sorted(k[7:] for k, v in changes.items() if v and k.startswith("systag:"))
    tags = sorted(k[4:] for k, v in changes.items() if v and k.startswith("tag:"))
    values: dict[str, Any] = {f: column(connection, f, changes[f]) for f in TASK_FIELDS if f in changes}
    values |= {
        "key": key,
        "id": operation.entity,
        "state": state_of(changes.get("deleted"), "archived" in system_tags),
        "tags": cell(tags),
        "system_tags": cell(system_tags),
        "created_op": seq,
        "created": clock,
        "updated": clock,
    }
    cursor = connection.execute(
        f"INSERT INTO tasks ({', '.join(values)}) VALUES ({','.join('?' * len(values))})", tuple(values.values())
    )
    assert cursor.lastrowid is not None  # noqa: S101 - an INSERT always has one
    for change, value in changes.items():
        if ":" in change and value is not None:
            _write_keyed(connection, "task", cursor.lastrowid, operation.entity, change, value, seq)


def _refold(connection: sqlite3.Connection, row: _Row) -> None:
    """Fold everything known of one entity anew, in order of stamps, its creation first."""
    operations = sorted(of_entity(connection, row.id), key=lambda pair: pair[1].stamp)
    creation = next(pair for pair in operations if pair[1].action == "create")
    _forget(connection, row)
    _insert(connection, creation[1], creation[0], row.key)
    for seq, operation in operations:
        if seq != creation[0]:
            current = _find(connection, row.kind, row.id)
            assert current is not None  # noqa: S101 - inserted above
            _edit(connection, current, operation, seq)


def _forget(connection: sqlite3.Connection, row: _Row) -> None:
    table = _TABLES[row.kind]
    if row.kind == "model":
        keys = tagging.keys_of(connection, row.key)
        sets = sets_of(row.state, keys, row.project, published=row.published is not None)
        bitmaps.remove(connection, row.key, sets)
        tagging.forget(connection, row.key, row.state, row.updated)
        connection.execute("DELETE FROM metadata WHERE model = ?", (row.key,))
    else:
        connection.execute("DELETE FROM task_tags WHERE task = ?", (row.key,))
        connection.execute("DELETE FROM links WHERE task = ?", (row.id,))
    connection.execute("DELETE FROM items WHERE entity = ?", (row.id,))
    if row.published is not None:
        connection.execute("DROP TRIGGER models_published_kept")
    connection.execute(f"DELETE FROM {table} WHERE key = ?", (row.key,))
    if row.published is not None:
        connection.execute(TRIGGERS["models_published_kept"])


# -- edits -------------------------------------------------------------------------------------------------------------


def _edit(connection: sqlite3.Connection, row: _Row, operation: Operation, seq: int) -> None:
    is_model = row.kind == "model"
    was_published = row.published is not None
    old_keys = tagging.keys_of(connection, row.key) if is_model else []
    changed: dict[str, Any] = _merge_fields(connection, row, operation, seq)
    touched = set()
    for change, value in operation.changes.items():
        if ":" in change and _merge_keyed(connection, row, operation.stamp, seq, change, value):
            touched.add(change.split(":", 1)[0])
    if "tag" in touched:
        changed["tags"] = tagging.names_cell(connection, row.key) if is_model else _task_tags(connection, row.key)
    if "systag" in touched:
        changed["system_tags"] = _system_tags(connection, row.id)
    if "systag" in touched or "deleted" in changed:
        changed["state"] = _state(connection, row, changed)
    changed["updated"] = max(row.updated, clock_of(operation.stamp))
    changed["stamps"] = json.dumps(row.stamps, separators=(",", ":")) if row.stamps else None
    assignments = ", ".join(f"{column} = ?" for column in changed)
    connection.execute(f"UPDATE {_TABLES[row.kind]} SET {assignments} WHERE key = ?", (*changed.values(), row.key))
    if is_model:
        new_keys = tagging.keys_of(connection, row.key) if "tag" in touched else old_keys
        new = (new_keys, changed.get("state", row.state), changed["updated"])
        tagging.reindex(connection, row.key, (old_keys, row.state, row.updated), new)
        before = sets_of(row.state, old_keys, row.project, published=was_published)
        after = sets_of(new[1], new_keys, changed.get("project", row.project), published=row.published is not None)
        bitmaps.remove(connection, row.key, before - after)
        bitmaps.add(connection, row.key, after - before)


def _merge_fields(connection: sqlite3.Connection, row: _Row, operation: Operation, seq: int) -> dict[str, Any]:
    """Decide field by field; returns the columns to write and updates the row's stamps."""
    assert row.created is not None  # noqa: S101 - only existing entities are edited
    changed: dict[str, Any] = {}
    if operation.action == "publish" and (row.published is None or operation.stamp < row.published):
        changed["published_op"] = seq
        if row.kind == "model":
            for field in FROZEN_FIELDS:
                changed[field] = column(connection, field, operation.changes.get(field))
                row.stamps.pop(field, None)  # no stamp decides it any more
            row.published = operation.stamp
    frozen = _FROZEN if row.kind == "model" and (row.published or operation.action == "publish") else frozenset[str]()
    for field, value in operation.changes.items():
        if ":" in field:
            continue
        if field == "project":
            find_project(connection, value)
        if field not in frozen and operation.stamp > row.stamps.get(field, row.created):
            changed[field] = column(connection, field, value)
            row.stamps[field] = operation.stamp
    return changed


def _apply_to_project(connection: sqlite3.Connection, operation: Operation) -> None:
    connection.execute("INSERT OR IGNORE INTO projects (id) VALUES (?)", (operation.entity,))
    row = connection.execute("SELECT key, stamps FROM projects WHERE id = ?", (operation.entity,)).fetchone()
    stamps = json.loads(row[1]) if row[1] else {}
    changed = {}
    for field, value in operation.changes.items():
        if ":" in field:
            continue  # a resolution: only `find_conflicts` reads it
        if field != "name" and operation.stamp > stamps.get(field, ""):
            changed[field] = value
            stamps[field] = operation.stamp
        elif field == "name" and isinstance(value, str) and project_id(value) == operation.entity:
            changed[field] = value  # the id says which name is true
    changed["stamps"] = json.dumps(stamps, separators=(",", ":")) if stamps else None
    assignments = ", ".join(f"{column} = ?" for column in changed)
    connection.execute(f"UPDATE projects SET {assignments} WHERE key = ?", (*changed.values(), row[0]))


def _state(connection: sqlite3.Connection, row: _Row, changed: dict[str, Any]) -> int:
    deleted = changed.get("deleted")
    if deleted is None:
        found = connection.execute(f"SELECT deleted FROM {_TABLES[row.kind]} WHERE key = ?", (row.key,)).fetchone()
        deleted = found[0]
    archived = connection.execute(
        "SELECT 1 FROM items WHERE entity = ? AND key = 'systag:archived' AND value IS NOT NULL", (row.id,)
    ).fetchone()
    return state_of(deleted, archived)


# -- keyed values ------------------------------------------------------------------------------------------------------


def _merge_keyed(connection: sqlite3.Connection, row: _Row, stamp: str, seq: int, change: str, value: Any) -> bool:
    """Let one keyed value be decided; returns whether it was written."""
    current = _keyed_stamp(connection, row.kind, row.key, row.id, change)
    if current is not None and current >= stamp:
        return False
    if value is None:
        _erase_keyed(connection, row.kind, row.key, row.id, change)
        _set_item(connection, row.id, change, None, seq)
    else:
        if not _lives_in_items(change):
            connection.execute("DELETE FROM items WHERE entity = ? AND key = ?", (row.id, change))
        _write_keyed(connection, row.kind, row.key, row.id, change, value, seq)
    return True


def _lives_in_items(change: str) -> bool:
    return change.startswith(("systag:", "param:", "config:", "resolved:"))


def _keyed_stamp(connection: sqlite3.Connection, kind: str, key: int, entity: str, change: str) -> str | None:
    """Return the stamp of the operation that decides a keyed value now; None when there was none."""
    prefix, _, name = change.partition(":")
    row = connection.execute(
        "SELECT stamp FROM items JOIN ops ON ops.seq = op WHERE items.entity = ? AND items.key = ?", (entity, change)
    ).fetchone()
    if row is None and prefix == "tag":
        table, owner = ("model_tags", "model") if kind == "model" else ("task_tags", "task")
        row = connection.execute(
            f"SELECT stamp FROM {table} AS t JOIN ops ON ops.seq = t.op"
            f" WHERE t.{owner} = ? AND t.tag = (SELECT key FROM tags WHERE name = ?)",
            (key, name),
        ).fetchone()
    elif row is None and prefix == "meta":
        row = connection.execute(
            "SELECT stamp FROM metadata AS m JOIN ops ON ops.seq = m.op WHERE m.model = ? AND m.key = ?", (key, name)
        ).fetchone()
    elif row is None and prefix == "link":
        direction, _, link = name.partition(":")
        row = connection.execute(
            "SELECT stamp FROM links AS l JOIN ops ON ops.seq = l.op"
            " WHERE l.task = ? AND l.direction = ? AND l.name = ?",
            (entity, direction, link),
        ).fetchone()
    return None if row is None else row[0]


def _write_keyed(
    connection: sqlite3.Connection, kind: str, key: int, entity: str, change: str, value: Any, seq: int
) -> None:
    prefix, _, name = change.partition(":")
    if prefix == "tag" and kind == "model":
        tagging.add(connection, key, name, seq)
    elif prefix == "tag":
        connection.execute(
            "INSERT INTO task_tags VALUES (?,?,?) ON CONFLICT DO UPDATE SET op = excluded.op",
            (tagging.tag_key(connection, name), key, seq),
        )
    elif prefix == "meta":
        row = metadata_row(key, name, value, seq)
        connection.execute("INSERT OR REPLACE INTO metadata VALUES (?,?,?,?,?,?,?)", row)
    elif prefix == "link":
        direction, _, link = name.partition(":")
        connection.execute("INSERT OR REPLACE INTO links VALUES (?,?,?,?,?)", (entity, direction, link, value, seq))
    else:
        _set_item(connection, entity, change, value, seq)


def _erase_keyed(connection: sqlite3.Connection, kind: str, key: int, entity: str, change: str) -> None:
    prefix, _, name = change.partition(":")
    if prefix == "tag" and kind == "model":
        tagging.remove(connection, key, name)
    elif prefix == "tag":
        connection.execute(
            "DELETE FROM task_tags WHERE task = ? AND tag = (SELECT key FROM tags WHERE name = ?)", (key, name)
        )
    elif prefix == "meta":
        connection.execute("DELETE FROM metadata WHERE model = ? AND key = ?", (key, name))
    elif prefix == "link":
        direction, _, link = name.partition(":")
        connection.execute("DELETE FROM links WHERE task = ? AND direction = ? AND name = ?", (entity, direction, link))


def _set_item(connection: sqlite3.Connection, entity: str, change: str, value: Any, seq: int) -> None:
    stored = None if value is None else dump(value)
    connection.execute("INSERT OR REPLACE INTO items VALUES (?,?,?,?)", (entity, change, stored, seq))


def _task_tags(connection: sqlite3.Connection, task: int) -> str:
    rows = connection.execute(
        "SELECT name FROM task_tags JOIN tags ON tags.key = task_tags.tag WHERE task = ? ORDER BY name", (task,)
    )
    return cell([row[0] for row in rows])


def _system_tags(connection: sqlite3.Connection, entity: str) -> str:
    rows = connection.execute(
        "SELECT substr(key, 8) FROM items WHERE entity = ? AND key >= 'systag:' AND key < 'systag;'"
        " AND value IS NOT NULL ORDER BY key",
        (entity,),
    )
    return cell([row[0] for row in rows])


# -- what the writer needs to know -------------------------------------------------------------------------------------


def winners(connection: sqlite3.Connection, kind: str, entity: str, changes: list[str]) -> dict[str, str]:
    """Return, key by key, the stamp of the operation whose value stands now; keys never set are absent."""
    if kind == "project":
        row = connection.execute("SELECT stamps FROM projects WHERE id = ?", (entity,)).fetchone()
        stamps = json.loads(row[0]) if row is not None and row[0] else {}
        return {key: stamps[key] for key in changes if key in stamps}
    found = _find(connection, kind, entity)
    if found is None or found.created is None:
        return {}
    result = {}
    for change in changes:
        if ":" in change:
            stamp = _keyed_stamp(connection, kind, found.key, entity, change)
            if stamp is not None:
                result[change] = stamp
        elif kind == "model" and found.published is not None and change in _FROZEN:
            result[change] = found.published
        else:
            result[change] = found.stamps.get(change, found.created)
    return result


def all_winners(connection: sqlite3.Connection, kind: str, entity: str) -> dict[str, str]:
    """Return the deciding stamp of every key of an entity that has been set: what a deletion has seen."""
    found = _find(connection, kind, entity)
    if found is None or found.created is None:
        return {}
    keys = {k for _, operation in of_entity(connection, entity) for k in operation.changes}
    return winners(connection, kind, entity, sorted(keys))


def reconcile(connection: sqlite3.Connection, entity: str) -> None:
    """Compute the conflicts of one entity anew, from its operations."""
    conflicts = find_conflicts(entity, (operation for _, operation in of_entity(connection, entity)))
    connection.execute("DELETE FROM conflicts WHERE entity = ?", (entity,))
    connection.executemany(
        "INSERT INTO conflicts VALUES (?,?,?,?,?)",
        [(c.entity, c.key, c.fork, dump(list(c.branches)), int(c.agree)) for c in conflicts],
    )

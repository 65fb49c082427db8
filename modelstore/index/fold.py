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
    state_of,
)
from modelstore.index.driver import sqlite3
from modelstore.index.ops import of_entity
from modelstore.index.rows import TABLES, Row, Rows, find, tags_cell
from modelstore.index.schema import INCOMPLETE, TRIGGERS
from modelstore.records.conflicts import find_conflicts
from modelstore.records.operations import FROZEN_FIELDS, TASK_FIELDS, Operation

__all__ = ["apply", "reconcile", "winners"]

_FROZEN: Final = frozenset(FROZEN_FIELDS)


def apply(rows: Rows, operation: Operation, seq: int) -> bool:
    """Let one operation, already in the journal as number ``seq``, change the index.

    Part of the caller's transaction, before whose end the rows are written. Applying an operation a second time changes
    nothing.

    Returns:
        Whether it certainly conflicts with nothing; False only means: look closely.
    """
    if operation.kind == "project":
        _apply_to_project(rows.connection, operation)
        return False
    row = rows.get(operation.kind, operation.entity)
    creates = operation.action == "create"
    settled = True
    if row is None:
        _insert(rows, operation, seq) if creates else _insert_incomplete(rows, operation)
        settled = creates
    elif operation.action == "report":
        pass
    elif creates and (row.created is None or operation.stamp < row.created):
        _refold(rows, row)
        settled = False
    elif row.created is not None and operation.stamp != row.created:
        settled = _edit(rows, row, operation, seq)
    else:
        settled = False
    if operation.action == "report":
        reports.add(rows.connection, operation, seq)
        return True
    return settled


# -- creation ----------------------------------------------------------------------------------------------------------


def _insert_incomplete(rows: Rows, operation: Operation) -> None:
    cursor = rows.connection.execute(
        f"INSERT INTO {TABLES[operation.kind]} (id, state) VALUES (?, ?)", (operation.entity, INCOMPLETE)
    )
    if operation.kind == "model" and cursor.lastrowid is not None:
        bitmaps.add(rows.connection, cursor.lastrowid, [(bitmaps.STATE, INCOMPLETE)])
    rows.forget(operation.kind, operation.entity)


def _insert(rows: Rows, operation: Operation, seq: int, key: int | None = None) -> None:
    connection = rows.connection
    rows.forget(operation.kind, operation.entity)
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
            _write_item(connection, cursor.lastrowid, operation.entity, change, value, seq)


def _refold(rows: Rows, row: Row) -> None:
    """Fold everything known of one entity anew, in order of stamps, its creation first."""
    operations = sorted(of_entity(rows.connection, row.id), key=lambda pair: pair[1].stamp)
    creation = next(pair for pair in operations if pair[1].action == "create")
    _forget(rows, row)
    _insert(rows, creation[1], creation[0], row.key)
    for seq, operation in operations:
        if seq != creation[0]:
            current = rows.get(row.kind, row.id)
            assert current is not None  # noqa: S101 - inserted above
            _edit(rows, current, operation, seq)


def _forget(rows: Rows, row: Row) -> None:
    connection, table = rows.connection, TABLES[row.kind]
    if row.kind == "model":
        rows.unindex(row)
        connection.execute("DELETE FROM model_tags WHERE model = ?", (row.key,))
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


def _edit(rows: Rows, row: Row, operation: Operation, seq: int) -> bool:
    """Apply an operation that is not the creation; returns whether it certainly conflicts with nothing."""
    plain = operation.action == "edit" and row.published is None and not row.deleted and not row.contested
    standing = _merge_fields(rows.connection, row, operation, seq)
    touched = set()
    for change, value in operation.changes.items():
        if ":" not in change:
            continue
        stamp = _keyed_stamp(rows.connection, row, change)
        if stamp is not None:
            standing[change] = stamp
        if stamp is None or stamp < operation.stamp:
            _write_keyed(rows, row, change, value, seq)
            touched.add(change.split(":", 1)[0])
    if "tag" in touched:
        row.changed["tags"] = tags_cell(row) if row.kind == "model" else _task_tags(rows.connection, row.key)
    if "systag" in touched:
        row.changed["system_tags"] = _system_tags(rows.connection, row.id)
    if "systag" in touched or "deleted" in row.changed:
        row.state = row.changed["state"] = _state(rows.connection, row)
    row.updated = row.changed["updated"] = max(row.updated, clock_of(operation.stamp))
    row.changed["stamps"] = json.dumps(row.stamps, separators=(",", ":")) if row.stamps else None
    return plain and standing == operation.parents


def _merge_fields(connection: sqlite3.Connection, row: Row, operation: Operation, seq: int) -> dict[str, str]:
    """Decide field by field; returns the stamps that decided them before."""
    assert row.created is not None  # noqa: S101 - only existing entities are edited
    standing: dict[str, str] = {}
    is_model = row.kind == "model"
    if operation.action == "publish" and (row.published is None or operation.stamp < row.published):
        row.changed["published_op"] = seq
        if is_model:
            for field in FROZEN_FIELDS:
                row.changed[field] = column(connection, field, operation.changes.get(field))
                row.stamps.pop(field, None)  # no stamp decides it any more
        row.published = operation.stamp
    frozen = _FROZEN if is_model and row.published is not None else frozenset[str]()
    for field, value in operation.changes.items():
        if ":" in field:
            continue
        if field == "project":
            find_project(connection, value)
        standing[field] = row.stamps.get(field, row.created)
        if field not in frozen and operation.stamp > standing[field]:
            row.changed[field] = stored = column(connection, field, value)
            row.stamps[field] = operation.stamp
            if field == "project":
                row.project = stored
            elif field == "deleted":
                row.deleted = stored
    return standing


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


def _state(connection: sqlite3.Connection, row: Row) -> int:
    archived = connection.execute(
        "SELECT 1 FROM items WHERE entity = ? AND key = 'systag:archived' AND value IS NOT NULL", (row.id,)
    ).fetchone()
    return state_of(row.deleted, archived)


# -- keyed values ------------------------------------------------------------------------------------------------------

_ITEM_STAMP: Final = "SELECT stamp FROM items JOIN ops ON ops.seq = op WHERE items.entity = ? AND items.key = ?"
"""Of what lives in `items`, and of what was removed."""
_KEYED_STAMP: Final[dict[tuple[str, str], str]] = {
    ("model", "tag"): "SELECT stamp FROM model_tags AS t JOIN ops ON ops.seq = t.op WHERE t.model = ? AND t.tag ="
    " (SELECT key FROM tags WHERE name = ?)",
    ("task", "tag"): "SELECT stamp FROM task_tags AS t JOIN ops ON ops.seq = t.op WHERE t.task = ? AND t.tag ="
    " (SELECT key FROM tags WHERE name = ?)",
    ("model", "meta"): "SELECT stamp FROM metadata AS m JOIN ops ON ops.seq = m.op WHERE m.model = ? AND m.key = ?",
    ("task", "link"): "SELECT stamp FROM links AS l JOIN ops ON ops.seq = l.op WHERE l.task = ? AND l.direction = ?"
    " AND l.name = ?",
}


def _keyed_stamp(connection: sqlite3.Connection, row: Row, change: str) -> str | None:
    """Return the stamp of the operation that decides a keyed value now; None when there was none."""
    prefix, _, name = change.partition(":")
    sql = _ITEM_STAMP
    values: list[Any] = [row.id, change]
    elsewhere = _KEYED_STAMP.get((row.kind, prefix))
    if elsewhere is not None:
        sql = f"{sql} UNION ALL {elsewhere}"
        values += [row.id, *name.split(":", 1)] if prefix == "link" else [row.key, name]
    found = connection.execute(sql, values).fetchone()
    return None if found is None else found[0]


def _write_keyed(rows: Rows, row: Row, change: str, value: Any, seq: int) -> None:
    """Let an operation be the one that decides a keyed value."""
    connection = rows.connection
    prefix, _, name = change.partition(":")
    if value is None:
        _set_item(connection, row.id, change, None, seq)
    elif (row.kind, prefix) in _KEYED_STAMP:
        connection.execute("DELETE FROM items WHERE entity = ? AND key = ?", (row.id, change))
    if row.kind == "model" and prefix == "tag":
        tag = rows.tags[name]
        if value is None:
            tagging.remove(connection, row.key, tag)
            row.tags.pop(tag, None)
        else:
            tagging.add(connection, row.key, tag, seq)
            row.tags[tag] = name
    elif value is None:
        _erase_item(connection, row, change)
    else:
        _write_item(connection, row.key, row.id, change, value, seq)


def _write_item(connection: sqlite3.Connection, key: int, entity: str, change: str, value: Any, seq: int) -> None:
    """Write a keyed value that is no tag of a model."""
    prefix, _, name = change.partition(":")
    if prefix == "tag":
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


def _erase_item(connection: sqlite3.Connection, row: Row, change: str) -> None:
    prefix, _, name = change.partition(":")
    if prefix == "tag":
        connection.execute(
            "DELETE FROM task_tags WHERE task = ? AND tag = (SELECT key FROM tags WHERE name = ?)", (row.key, name)
        )
    elif prefix == "meta":
        connection.execute("DELETE FROM metadata WHERE model = ? AND key = ?", (row.key, name))
    elif prefix == "link":
        direction, _, link = name.partition(":")
        connection.execute("DELETE FROM links WHERE task = ? AND direction = ? AND name = ?", (row.id, direction, link))


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
    found = find(connection, kind, entity)
    if found is None or found.created is None:
        return {}
    result = {}
    for change in changes:
        if ":" in change:
            stamp = _keyed_stamp(connection, found, change)
            if stamp is not None:
                result[change] = stamp
        elif kind == "model" and found.published is not None and change in _FROZEN:
            result[change] = found.published
        else:
            result[change] = found.stamps.get(change, found.created)
    return result


def all_winners(connection: sqlite3.Connection, kind: str, entity: str) -> dict[str, str]:
    """Return the deciding stamp of every key of an entity that has been set: what a deletion has seen."""
    found = find(connection, kind, entity)
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

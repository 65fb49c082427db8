"""What an index holds, freed of everything that depends on the order of arrival: for comparing two of them."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from typing import Any

from modelstore.index import bitmaps, reports, texts
from modelstore.records.operations import MODEL_FIELDS, TASK_FIELDS

__all__ = ["check_copies", "read_index"]


def read_index(connection: Any) -> dict[str, Any]:
    """Return what an index holds, freed of everything that depends on the order of arrival (keys, numbers).

    Args:
        connection: A DB-API connection to the index.
    """
    return {
        "model": _read_entities(connection, "model"),
        "task": _read_entities(connection, "task"),
        "project": {
            row[0]: {
                k: v for k, v in (("name", row[1]), ("description", row[2]), ("output_uri", row[3])) if v is not None
            }
            for row in connection.execute("SELECT id, name, description, output_uri FROM projects")
        },
        "conflicts": _read_conflicts(connection),
        "scalars": _read_scalars(connection),
        "plots": _read_plots(connection),
    }


def _read_entities(connection: Any, kind: str) -> dict[str, Any]:
    table, names = ("models", MODEL_FIELDS) if kind == "model" else ("tasks", TASK_FIELDS)
    columns = ", ".join("p.name" if n == "project" else f"e.{n}" for n in names)
    rows = connection.execute(
        f"SELECT e.id, e.key, e.published_op IS NOT NULL, e.created, e.updated, e.state, e.tags, e.system_tags,"
        f" {columns}"
        f" FROM {table} AS e LEFT JOIN projects AS p ON p.key = e.project WHERE e.created_op IS NOT NULL"
    ).fetchall()
    entities = {}
    for row in rows:
        values = dict(zip(names, row[8:], strict=True))
        fields = {
            name: _field(name, value)
            for name, value in values.items()
            if value is not None and _field(name, value) is not False
        }
        keyed = _read_keyed(connection, kind, row[0], row[1])
        _check_row(kind, row, keyed, fields)
        entities[row[0]] = {
            "fields": fields,
            "keyed": dict(sorted(keyed.items())),
            "published": bool(row[2]),
            "created": row[3],
            "updated": row[4],
        }
    return entities


def _field(name: str, value: Any) -> Any:
    if name in ("package", "deleted"):
        return bool(value)
    return json.loads(value) if name in ("labels", "config", "script", "runtime") else value


def _read_keyed(connection: Any, kind: str, entity: str, key: int) -> dict[str, Any]:
    keyed: dict[str, Any] = {}
    for item, value in connection.execute("SELECT key, value FROM items WHERE entity = ?", (entity,)):
        if value is not None:
            keyed[item] = json.loads(value)
    table, owner = ("model_tags", "model") if kind == "model" else ("task_tags", "task")
    for (name,) in connection.execute(
        f"SELECT name FROM {table} AS t JOIN tags ON tags.key = t.tag WHERE t.{owner} = ?", (key,)
    ):
        keyed[f"tag:{name}"] = True
    if kind == "model":
        for name, value_type, value in connection.execute(
            "SELECT key, type, json FROM metadata WHERE model = ?", (key,)
        ):
            keyed[f"meta:{name}"] = [value_type, json.loads(value)]
    else:
        for direction, name, model in connection.execute(
            "SELECT direction, name, model FROM links WHERE task = ?", (entity,)
        ):
            keyed[f"link:{direction}:{name}"] = model
    return keyed


def _check_row(kind: str, row: Any, keyed: dict[str, Any], fields: dict[str, Any]) -> None:
    """See that the copies inside a row agree with the tables they are copies of."""
    tags = sorted(k[4:] for k in keyed if k.startswith("tag:"))
    system_tags = sorted(k[7:] for k in keyed if k.startswith("systag:"))
    state = 2 if fields.get("deleted") else 1 if "archived" in system_tags else 0
    expected = (state, tags, system_tags)
    actual = (row[5], json.loads(row[6]), json.loads(row[7]))
    if actual != expected:
        raise AssertionError(f"The {kind} {row[0]} says {actual} of itself, the tables {expected}")


def _read_conflicts(connection: Any) -> dict[str, Any]:
    found: dict[str, Any] = defaultdict(list)
    for entity, key, fork, branches, agree in connection.execute(
        "SELECT entity, key, fork, branches, agree FROM conflicts ORDER BY entity, key, fork"
    ):
        found[entity].append((key, fork, json.loads(branches), bool(agree)))
    return dict(found)


def _read_scalars(connection: Any) -> dict[str, Any]:
    """Return what is known of each series, and each block of points as stamp and sha256 of its three columns."""
    found: dict[str, Any] = defaultdict(dict)
    for row in connection.execute(
        "SELECT key, entity, title, series, points, finite, last, last_iteration, last_stamp, min, max, mean"
        " FROM scalar_series ORDER BY entity, title, series"
    ).fetchall():
        blocks = connection.execute(
            "SELECT o.stamp, iterations, times, numbers FROM scalar_blocks AS b JOIN ops AS o ON o.seq = b.op"
            " WHERE b.series = ? ORDER BY o.stamp",
            (row[0],),
        )
        known = {block[0]: hashlib.sha256(block[1] + block[2] + block[3]).hexdigest() for block in blocks}
        found[row[1]][row[2], row[3]] = (*row[4:], known)
    return dict(found)


def _read_plots(connection: Any) -> dict[str, Any]:
    found: dict[str, Any] = defaultdict(dict)
    for row in connection.execute(
        "SELECT p.entity, o.stamp, kind, title, series, iteration, time, digest, size, name, url"
        " FROM plots AS p JOIN ops AS o ON o.seq = p.op ORDER BY p.entity, o.stamp"
    ):
        found[row[0]][row[1]] = tuple(row[2:])
    return dict(found)


def check_copies(connection: Any) -> None:
    """See that the structures made for searching agree with the rows they are made from.

    Raises:
        AssertionError: They do not.
    """
    wanted = connection.execute(
        "SELECT t.tag, m.state, m.updated, m.key FROM model_tags AS t JOIN models AS m ON m.key = t.model"
        " WHERE m.state < 2 ORDER BY 1, 2, 3, 4"
    ).fetchall()
    found = connection.execute("SELECT tag, state, updated, model FROM tag_walk ORDER BY 1, 2, 3, 4").fetchall()
    _same("tag_walk", wanted, found)
    counts = connection.execute(
        "SELECT key, (SELECT count(*) FROM tag_walk WHERE tag = key AND state = 0),"
        " (SELECT count(*) FROM tag_walk WHERE tag = key AND state = 1) FROM tags ORDER BY key"
    ).fetchall()
    _same("tag counts", counts, connection.execute("SELECT key, visible, archived FROM tags ORDER BY key").fetchall())
    _same("models with other words than search finds them by", [], texts.check(connection))
    metrics = connection.execute(
        "SELECT model, title, series, last, min, max, mean, points FROM metrics ORDER BY 1, 2, 3"
    ).fetchall()
    _same("metrics", list(reports.refill_metrics(connection)), metrics)
    kept = connection.execute("SELECT * FROM bitmaps ORDER BY 1, 2, 3").fetchall()
    connection.execute("SAVEPOINT check_copies")
    try:
        bitmaps.refill(connection)
        _same("bitmaps", connection.execute("SELECT * FROM bitmaps ORDER BY 1, 2, 3").fetchall(), kept)
    finally:
        connection.execute("ROLLBACK TO check_copies")
        connection.execute("RELEASE check_copies")


def _same(what: str, wanted: list[Any], found: list[Any]) -> None:
    left, right = [tuple(row) for row in wanted], [tuple(row) for row in found]
    if left != right:
        raise AssertionError(f"{what}: expected {left[:10]}…, found {right[:10]}…")

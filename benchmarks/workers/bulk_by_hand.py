"""What one would write by hand to fill the very tables and indexes of a registry: `executemany`, batch by batch.

The schema is that of an empty registry, so that every table, index and trigger is there, and what is written is row for
row what modelstore writes, the journal included. Nothing is checked, no id may be taken, no other writer may be there.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from benchmarks import catalogue
from benchmarks.workers.protocol import peak_rss_since, serve, start_peak

BATCH = 10_000
VISIBLE, STATE, TAG, PROJECT = 0, 0, 1, 2
FIELDS = ("name", "project", "comment", "uri", "framework", "iteration")


class State:
    connection: sqlite3.Connection
    baseline: float
    key = 0
    tags: dict[str, int]
    projects: dict[str, int]
    writer = os.urandom(8).hex()


def start(folder: str) -> None:
    """Open the database of an empty registry."""
    State.connection = sqlite3.connect(Path(folder) / "registry.db", isolation_level=None)
    State.connection.execute("PRAGMA journal_mode=WAL")
    State.connection.execute("PRAGMA synchronous=FULL")
    State.tags, State.projects = {}, {}
    State.baseline = start_peak()


def append(first: int, count: int, total: int) -> dict[str, float]:
    """Write so many models more; the seconds that took, without those for making them up."""
    seconds = 0.0
    for start_number in range(first, first + count, BATCH):
        until = min(start_number + BATCH, first + count)
        models = list(catalogue.models(until, start_number, total))
        begin = time.perf_counter()
        _write(models)
        seconds += time.perf_counter() - begin
    return {"seconds": seconds, "peak_mib": peak_rss_since(State.baseline)}


def _write(models: list[dict[str, Any]]) -> None:
    db = State.connection
    ops, rows, pairs, walk, metadata = [], [], [], [], []
    bits: defaultdict[tuple[int, int, int], int] = defaultdict(int)
    counts: Counter[int] = Counter()
    new_tags, new_projects = [], []
    ms = time.time_ns() // 1_000_000
    batch = f"{ms:012x}0000{State.writer}"
    dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    for counter, model in enumerate(models):
        State.key += 1
        key = State.key
        clock = (ms << 16) + counter
        changes = {field: model[field] for field in FIELDS}
        for tag in model["tags"]:
            changes[f"tag:{tag}"] = True
        for name, value in model["metadata"].items():
            kind = type(value).__name__
            changes[f"meta:{name}"] = [kind, value]
            number = value if kind == "float" else None
            metadata.append((key, name, kind, str(value), number, dump(value), key))
        stamp = f"{clock:016x}{State.writer}"
        ops.append(
            (key, stamp, "model", model["model_id"], "create", dump(changes), None, "me@here", batch, len(models))
        )
        project = State.projects.get(model["project"])
        if project is None:
            project = State.projects[model["project"]] = len(State.projects) + 1
            identity = hashlib.sha256(b"modelstore:project:" + model["project"].encode()).hexdigest()[:32]
            new_projects.append((project, identity, model["project"]))
        block, bit = key >> 6, 1 << (key & 63)
        for tag in model["tags"]:
            number = State.tags.get(tag)
            if number is None:
                number = State.tags[tag] = len(State.tags) + 1
                new_tags.append((number, tag))
            pairs.append((number, key, key))
            walk.append((number, VISIBLE, clock, key))
            counts[number] += 1
            bits[TAG, number, block] |= bit
        bits[STATE, VISIBLE, block] |= bit
        bits[PROJECT, project, block] |= bit
        rows.append(
            (
                *(key, model["model_id"], VISIBLE, dump(model["tags"]), key, clock, clock, project),
                *(model[field] for field in ("name", "comment", "uri", "framework", "iteration")),
            )
        )
    db.execute("BEGIN IMMEDIATE")
    db.executemany("INSERT INTO projects (key, id, name) VALUES (?,?,?)", new_projects)
    db.executemany("INSERT INTO tags (key, name) VALUES (?,?)", new_tags)
    db.executemany("INSERT INTO ops VALUES (?,?,?,?,?,?,?,?,?,?)", ops)
    db.executemany(
        "INSERT INTO models (key, id, state, tags, created_op, created, updated, project, name, comment, uri,"
        " framework, iteration) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
        rows,
    )
    db.executemany("INSERT INTO model_tags VALUES (?,?,?)", sorted(pairs))
    db.executemany("INSERT INTO tag_walk VALUES (?,?,?,?)", sorted(walk))
    db.executemany("UPDATE tags SET visible = visible + ? WHERE key = ?", [(n, tag) for tag, n in counts.items()])
    db.executemany("INSERT INTO metadata VALUES (?,?,?,?,?,?,?)", metadata)
    db.executemany(
        "INSERT INTO bitmaps VALUES (?,?,?,?) ON CONFLICT DO UPDATE SET bits = bits | excluded.bits",
        sorted((*where, b - (1 << 64) if b >> 63 else b) for where, b in bits.items()),
    )
    db.execute("COMMIT")


def close() -> None:
    State.connection.close()


if __name__ == "__main__":
    serve({"start": start, "append": append, "close": close})

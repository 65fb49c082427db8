"""The physical limit: what one would write by hand for this job alone, as durable as the registry is.

A file copied beside, flushed, renamed; its folder flushed; one row in one table, in a WAL database whose commits are
flushed (synchronous=FULL). No hashing, no journal, no history, no classes.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import time
from pathlib import Path

from benchmarks.workers.protocol import serve, unique_file

SCHEMA = """
    CREATE TABLE models (
        id TEXT PRIMARY KEY, name TEXT, project TEXT, framework TEXT, uri TEXT, size INTEGER, tags TEXT,
        created INTEGER, updated INTEGER
    )
"""


class State:
    durable: bool
    connection: sqlite3.Connection
    objects: Path


def start(folder: str, *, durable: bool = True) -> None:
    State.durable = durable
    State.objects = Path(folder) / "objects"
    State.objects.mkdir(parents=True)
    State.connection = sqlite3.connect(Path(folder) / "registry.db", isolation_level=None)
    State.connection.execute("PRAGMA journal_mode=WAL")
    State.connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
    State.connection.execute(SCHEMA)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _register(path: str, name: str) -> None:
    identity = os.urandom(16).hex()
    with open(path, "rb") as file:
        content = file.read()
    temporary = State.objects / f".{identity}"
    with temporary.open("wb") as file:
        file.write(content)
        if State.durable:
            file.flush()
            os.fsync(file.fileno())
    target = State.objects / identity
    os.rename(temporary, target)
    if State.durable:
        _flush(State.objects)
    now = time.time_ns() // 1_000_000
    State.connection.execute("BEGIN IMMEDIATE")
    State.connection.execute(
        "INSERT INTO models VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (identity, name, "bench", "PyTorch", str(target), len(content), json.dumps(["bench", "small"]), now, now),
    )
    State.connection.execute("COMMIT")


def register(folder: str, first: int, count: int, size: int) -> list[float]:
    seconds = []
    for number in range(first, first + count):
        path = unique_file(folder, number, size)
        begin = time.perf_counter()
        _register(path, f"model-{number}")
        seconds.append(time.perf_counter() - begin)
        os.unlink(path)
    return seconds


def copy(source: str, target: str) -> float:
    """`cp`, then flush the copy and its folder."""
    begin = time.perf_counter()
    subprocess.run(["cp", "--reflink=auto", source, target], check=True)
    _flush(Path(target))
    _flush(Path(target).parent)
    return time.perf_counter() - begin


def sha256(source: str) -> float:
    """Hash the file, all of it in the page cache."""
    begin = time.perf_counter()
    with open(source, "rb") as file:
        hashlib.file_digest(file, "sha256").hexdigest()
    return time.perf_counter() - begin


if __name__ == "__main__":
    serve({"start": start, "register": register, "copy": copy, "sha256": sha256})

"""modelstore's reports, through its public classes; and the same bytes read with sqlite3 alone."""

from __future__ import annotations

import os
import sqlite3
import time
from typing import Any

from benchmarks.workers.protocol import peak_rss_since, serve, start_peak


class State:
    model: Any
    stored = 0


def start() -> None:
    from modelstore import OutputModel, Task

    State.model = OutputModel(Task.init(project_name="bench", task_name="bench"), name="bench")
    State.model.report_scalar("warm", "up", 0.0, 0)
    State.model.get_reported_scalars()


def report(count: int, series: str) -> float:
    """Return seconds a point, until all are on disk."""
    model, begin = State.model, time.perf_counter()
    for number in range(count):
        model.report_scalar("train", series, number * 0.1, number)
    model._registry.reports.flush()
    return (time.perf_counter() - begin) / count


def call(count: int, series: str) -> float:
    """Return seconds a call, as the training loop sees them."""
    model, begin = State.model, time.perf_counter()
    for number in range(count):
        model.report_scalar("train", series, number * 0.1, number)
    return (time.perf_counter() - begin) / count


def fill(count: int) -> float:
    """Report the series that is read; returns by how many MiB memory rose."""
    baseline = start_peak()
    report(count, "long")
    return peak_rss_since(baseline)


def read() -> float:
    begin = time.perf_counter()
    found = State.model.scalar_arrays("train", "long")
    seconds = time.perf_counter() - begin
    State.stored = len(found.values)
    return seconds


def read_raw() -> float:
    """Read the same blobs with one statement of a fresh cursor, and do nothing with them."""
    connection = sqlite3.connect(os.path.join(os.environ["MODELSTORE_REGISTRY"], "registry.db"))
    (key,) = connection.execute("SELECT key FROM scalar_series WHERE title = 'train' AND series = 'long'").fetchone()
    begin = time.perf_counter()
    statement = "SELECT iterations, times, numbers FROM scalar_blocks WHERE series = ?"
    rows = connection.execute(statement, (key,)).fetchall()
    seconds = time.perf_counter() - begin
    connection.close()
    if sum(len(row[0]) for row in rows) != State.stored * 8:
        message = "other bytes than the arrays hold"
        raise RuntimeError(message)
    return seconds


def size() -> int:
    """Return the bytes of the database."""
    connection = sqlite3.connect(os.path.join(os.environ["MODELSTORE_REGISTRY"], "registry.db"))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return os.path.getsize(os.path.join(os.environ["MODELSTORE_REGISTRY"], "registry.db"))


if __name__ == "__main__":
    jobs = (start, report, call, fill, read, read_raw, size)
    serve({job.__name__: job for job in jobs})

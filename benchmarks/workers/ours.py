"""modelstore, through its public classes."""

from __future__ import annotations

import os
import sqlite3
import time
from typing import Any

from benchmarks.workers.protocol import peak_rss_since, serve, start_peak, unique_file

_statements: list[str] = []


class State:
    task: Any


def _count_statements() -> None:
    """Record every SQL statement of every connection opened from now on."""
    connect = sqlite3.connect

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(_statements.append)
        return connection

    sqlite3.connect = traced  # type: ignore[assignment]
    sqlite3.dbapi2.connect = traced  # type: ignore[assignment]


def start(*, trace: bool = False) -> None:
    if trace:
        _count_statements()
    from modelstore import Task

    State.task = Task.init(project_name="bench", task_name="bench")


def _register(path: str, name: str, tags: list[str]) -> Any:
    from modelstore import OutputModel

    model = OutputModel(task=State.task, name=name, framework="PyTorch", tags=tags)
    model.update_weights(weights_filename=path, async_enable=False, auto_delete_file=False)
    return model


def register(folder: str, first: int, count: int, size: int) -> list[float]:
    """Register ``count`` new models, each with a file of its own; the seconds each took."""
    seconds = []
    for number in range(first, first + count):
        path = unique_file(folder, number, size)
        begin = time.perf_counter()
        _register(path, f"model-{number}", ["bench", "small"])
        seconds.append(time.perf_counter() - begin)
        os.unlink(path)
    return seconds


def register_file(path: str, name: str) -> dict[str, float]:
    """Register one existing file; seconds, and the MiB that memory rose by."""
    baseline = start_peak()
    begin = time.perf_counter()
    _register(path, name, ["bench", "large"])
    return {"seconds": time.perf_counter() - begin, "peak_mib": peak_rss_since(baseline)}


def fill(folder: str, count: int) -> None:
    """Fill the registry with models that carry a common tag, one of twenty group tags, and one of their own."""
    for number in range(count):
        path = unique_file(folder, number, 1024)
        _register(path, f"model-{number}", ["common", f"group-{number % 20}", f"only-{number}"])
        os.unlink(path)


def properties(count: int) -> dict[str, float]:
    """Query ``count`` models and read their properties; SQL statements for the list, and for the reading."""
    from modelstore import Model

    _statements.clear()
    begin = time.perf_counter()
    models = Model.query_models(tags=["common"], max_results=count)
    listed = time.perf_counter()
    for_list = len(_statements)
    seen = 0
    for model in models:
        seen += all(
            value is not None
            for value in (model.id, model.name, model.tags, model.url, model.framework, model.project, model.published)
        )
        _ = (model.comment, model.labels, model.task, model.system_tags)
    read = time.perf_counter()
    if seen != count:
        message = f"{seen} of {count} models came back complete"
        raise RuntimeError(message)
    return {
        "list_statements": for_list,
        "read_statements": len(_statements) - for_list,
        "list_seconds": listed - begin,
        "read_seconds": read - listed,
    }


if __name__ == "__main__":
    serve(
        {
            "start": start,
            "register": register,
            "register_file": register_file,
            "fill": fill,
            "properties": properties,
        }
    )

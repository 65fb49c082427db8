"""MLflow's registry on SQLite, its tables filled directly, since its API takes 16 ms a model: the same models and tags.

Each model is there twice, as people do it: as a registered model, and as the version of it; tags on both.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from benchmarks import catalogue
from benchmarks.shapes import LIMIT, SHAPES
from benchmarks.workers.protocol import per_call, serve

SEARCH = {"models": "search_registered_models", "versions": "search_model_versions"}
BATCH = 10_000
VERSION = (
    "name, version, creation_time, last_updated_time, description, current_stage, source, status, storage_location,"
    " workspace"
)


class State:
    client: Any
    total: int
    turn = 0


def start(folder: str, total: int) -> None:
    """Open the registry, and fill it when it is not there."""
    from mlflow import MlflowClient

    path = Path(folder) / "mlflow.db"
    filled = Path(folder) / "filled"
    State.total = total
    State.client = MlflowClient(f"sqlite:///{path}")
    State.client.search_registered_models(max_results=1)
    if not filled.exists():
        _fill(path, total)
        filled.touch()


def _fill(path: Path, total: int) -> None:
    db = sqlite3.connect(path)
    with db:
        for first in range(0, total, BATCH):
            _add(db, first, min(first + BATCH, total), total)
    db.execute("ANALYZE")
    db.commit()
    db.close()


def _add(db: sqlite3.Connection, first: int, until: int, total: int) -> None:
    models, model_tags, versions, version_tags = [], [], [], []
    for number, model in enumerate(catalogue.models(until, first, total), first):
        name, at, url = _name(number), 1_700_000_000_000 + number, model["uri"]
        models.append((name, at, at, model["comment"], "default"))
        versions.append((name, 1, at, at, model["comment"], "None", url, "READY", url, "default"))
        metadata = [(key, str(value)) for key, value in model["metadata"].items()]
        for key, value in [*((tag, "1") for tag in model["tags"]), *metadata]:
            model_tags.append((key, value, name, "default"))
            version_tags.append((key, value, name, 1, "default"))
    for table, rows, columns in (
        ("registered_models", models, "name, creation_time, last_updated_time, description, workspace"),
        ("registered_model_tags", model_tags, "key, value, name, workspace"),
        ("model_versions", versions, VERSION),
        ("model_version_tags", version_tags, "key, value, name, version, workspace"),
    ):
        db.executemany(f"INSERT INTO {table} ({columns}) VALUES ({','.join('?' * len(rows[0]))})", rows)


def _name(number: int) -> str:
    return f"model-{number:08}"


def newest(shape: str, kind: str) -> float:
    return per_call(lambda: _search(kind, SHAPES[shape].mlflow), least=1)


def _search(kind: str, words: str) -> Any:
    order = ["last_updated_timestamp DESC"]
    return getattr(State.client, SEARCH[kind])(filter_string=words, max_results=LIMIT, order_by=order)


def answer(shape: str, kind: str) -> list[str]:
    """Return the ids of the models that were found."""
    return [catalogue.model_id(int(found.name.rpartition("-")[2])) for found in _search(kind, SHAPES[shape].mlflow)]


def get() -> float:
    def look_up() -> Any:
        State.turn += 1
        return State.client.get_registered_model(_name(State.turn * 7919 % State.total))

    return per_call(look_up)


if __name__ == "__main__":
    serve({"start": start, "newest": newest, "answer": answer, "get": get})

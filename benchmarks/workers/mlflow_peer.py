"""MLflow with an SQLite registry and local artifacts, as its documentation sets it up for one machine."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from benchmarks.workers.protocol import peak_rss_since, serve, start_peak, unique_file


class State:
    client: Any
    run: Any


def start(folder: str) -> None:
    from mlflow import MlflowClient

    State.client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = State.client.create_experiment("bench", artifact_location=str(Path(folder) / "artifacts"))
    State.run = State.client.create_run(experiment)
    State.client.create_registered_model("bench")


def _register(path: str, name: str, tags: dict[str, str]) -> None:
    """Store the file with the run, and make it a version of ``name``."""
    State.client.log_artifact(State.run.info.run_id, path)
    source = f"{State.run.info.artifact_uri}/{os.path.basename(path)}"
    State.client.create_model_version(name, source, run_id=State.run.info.run_id, tags=tags)


def register(folder: str, first: int, count: int, size: int) -> list[float]:
    """Register each file as one more version of one model."""
    seconds = []
    for number in range(first, first + count):
        path = unique_file(folder, number, size)
        begin = time.perf_counter()
        _register(path, "bench", {"bench": "1", "small": "1"})
        seconds.append(time.perf_counter() - begin)
        os.unlink(path)
    return seconds


def register_new(folder: str, first: int, count: int, size: int) -> list[float]:
    """Register each file as the first version of a model of its own."""
    seconds = []
    for number in range(first, first + count):
        path = unique_file(folder, number, size)
        begin = time.perf_counter()
        State.client.create_registered_model(f"model-{number}")
        _register(path, f"model-{number}", {"bench": "1", "small": "1"})
        seconds.append(time.perf_counter() - begin)
        os.unlink(path)
    return seconds


def register_file(path: str, name: str) -> dict[str, float]:
    baseline = start_peak()
    begin = time.perf_counter()
    _register(path, "bench", {"large": "1"})
    return {"seconds": time.perf_counter() - begin, "peak_mib": peak_rss_since(baseline)}


def fill(folder: str, count: int) -> None:
    for number in range(count):
        path = unique_file(folder, number, 1024)
        State.client.create_registered_model(f"model-{number}")
        _register(path, f"model-{number}", {"common": "1", "group": str(number % 20), "only": str(number)})
        os.unlink(path)


if __name__ == "__main__":
    serve(
        {
            "start": start,
            "register": register,
            "register_new": register_new,
            "register_file": register_file,
            "fill": fill,
        }
    )

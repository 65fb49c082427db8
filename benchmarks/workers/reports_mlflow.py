"""MLflow's metrics with SQLite: one call a point, and its batches of a thousand."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.workers.protocol import serve

_BATCH = 1000


class State:
    client: Any
    run: str


def start(folder: str) -> None:
    from mlflow import MlflowClient

    State.client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    State.run = State.client.create_run(State.client.create_experiment("bench")).info.run_id
    State.client.log_metric(State.run, "warm", 0.0, step=0)


def report(count: int, series: str) -> float:
    begin = time.perf_counter()
    for number in range(count):
        State.client.log_metric(State.run, series, number * 0.1, step=number)
    return (time.perf_counter() - begin) / count


def report_batch(count: int, series: str) -> float:
    from mlflow.entities import Metric

    begin = time.perf_counter()
    for first in range(0, count, _BATCH):
        now = int(time.time() * 1000)
        points = [Metric(series, n * 0.1, now, n) for n in range(first, min(first + _BATCH, count))]
        State.client.log_batch(State.run, metrics=points)
    return (time.perf_counter() - begin) / count


def fill(count: int) -> None:
    report_batch(count, "long")


def read() -> float:
    begin = time.perf_counter()
    found = State.client.get_metric_history(State.run, "long")
    values = [(metric.step, metric.value, metric.timestamp) for metric in found]
    seconds = time.perf_counter() - begin
    if not values:
        message = "nothing was read"
        raise RuntimeError(message)
    return seconds


if __name__ == "__main__":
    serve({"start": start, "report": report, "report_batch": report_batch, "fill": fill, "read": read})

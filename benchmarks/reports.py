"""Reporting scalars in a training loop, and reading a long series back."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from benchmarks.arena import Arena, Bar, Outcome
from benchmarks.measure import Series, Worker, in_turns

__all__ = ["JOBS"]

OURS = "modelstore"
CALL = "modelstore, the call alone"
MLFLOW, BATCH = "mlflow, log_metric", "mlflow, log_batch of 1,000"
BOARD = "tensorboardX"
RAW = "sqlite3, the same bytes"


def _workers(arena: Arena, stack: ExitStack) -> dict[str, Worker]:
    found = {OURS: stack.enter_context(arena.worker("reports_ours", arena.folder("reports")))}
    for peer in ("mlflow", "tensorboardx"):
        if python := arena.peers.get(peer):
            home = arena.folder(peer)
            found[peer] = stack.enter_context(arena.worker(f"reports_{peer}", home, python, folder=str(home)))
    return found


def _ratio(top: Series | None, bottom: Series) -> float | None:
    return top.ratio_to(bottom) if top is not None and top.values and bottom.values else None


def reporting(arena: Arena) -> Outcome:
    """Time one point after another, until all are on disk."""
    many = 1_000 if arena.quick else 100_000
    few = 20 if arena.quick else 300
    numbers = itertools.count()

    def run(worker: Worker, job: str, count: int) -> float:
        return float(worker.ask(job, count=count, series=f"s{next(numbers)}")) * 1e6

    with ExitStack() as stack:
        workers = _workers(arena, stack)
        contenders: dict[str, Callable[[], float]] = {
            OURS: partial(run, workers[OURS], "report", many),
            CALL: partial(run, workers[OURS], "call", 10_000 if not arena.quick else 1_000),
        }
        if "mlflow" in workers:
            contenders[MLFLOW] = partial(run, workers["mlflow"], "report", few)
            contenders[BATCH] = partial(run, workers["mlflow"], "report_batch", 10 * few)
        if "tensorboardx" in workers:
            contenders[BOARD] = partial(run, workers["tensorboardx"], "report", many)
        series = in_turns(contenders, arena.turns(9))
    for one in series.values():
        one.unit = "µs"
    ours = series[OURS]
    bars = [
        Bar("a point, until it is on disk", ours.median if ours.values else None, 20, unit="µs"),
        Bar("mlflow's log_metric on SQLite / modelstore", _ratio(series.get(MLFLOW), ours), 10, at_least=True),
        Bar("tensorboardX / modelstore", _ratio(series.get(BOARD), ours), 1, at_least=True),
    ]
    notes = [
        f"{many:,} points of one series in a loop, {few:,} with log_metric; then what was not written yet is flushed.",
        "modelstore flushes to the disk (fsync); tensorboardX hands its file to the system, and one series is one tag.",
        "mlflow commits each call, and reads and updates the row of the metric's latest value in it.",
    ]
    return Outcome("Report scalars", list(series.values()), bars, notes)


def reading(arena: Arena) -> Outcome:
    """Time reading a long series as arrays, beside reading the same bytes and doing nothing with them."""
    count = 20_000 if arena.quick else 1_000_000
    with ExitStack() as stack:
        workers = _workers(arena, stack)
        memory = workers[OURS].ask("fill", count=count)
        size = workers[OURS].ask("size")
        contenders: dict[str, Callable[[], float]] = {
            OURS: partial(workers[OURS].ask, "read"),
            RAW: partial(workers[OURS].ask, "read_raw"),
        }
        theirs = min(count, 100_000)
        if "mlflow" in workers:
            workers["mlflow"].ask("fill", count=theirs)
            contenders["mlflow"] = partial(_scaled, workers["mlflow"], count / theirs)
        series = in_turns(contenders, arena.turns(9))
    ours = series[OURS]
    bars = [
        Bar(f"{count:,} points as numpy arrays / {RAW}", _ratio(ours, series[RAW]), 3),
        Bar("mlflow's get_metric_history / modelstore", _ratio(series.get("mlflow"), ours), 10, at_least=True),
    ]
    scaled = f"mlflow reads {theirs:,}, and its time is multiplied: filling it with all takes longer than all else here"
    stored = f"The registry takes {size / count:.1f} bytes a point, journal and index, of values that grow evenly"
    notes = [
        f"{count:,} points of iteration, value and time. {scaled}.",
        f"{stored}; reporting them took {memory:.0f} MiB of memory over the baseline.",
    ]
    return Outcome("Read a long series", list(series.values()), bars, notes)


def _scaled(worker: Worker, factor: float) -> float:
    return float(worker.ask("read")) * factor


JOBS: dict[str, Callable[[Arena], Any]] = {"report": reporting, "read": reading}

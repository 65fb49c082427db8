"""modelstore, registering many models at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from benchmarks import catalogue
from benchmarks.workers.protocol import peak_rss_since, serve, start_peak
from modelstore.registry.registry import Registry

STEP = 10_000


class State:
    registry: Registry
    baseline: float


def start(folder: str) -> None:
    State.registry = Registry(folder)
    State.registry.models.create_many([])
    State.baseline = start_peak()


def append(first: int, count: int, total: int) -> dict[str, float]:
    """Register so many models more; the seconds that took, without those for making them up."""
    spent = 0.0

    def source() -> Iterator[dict[str, Any]]:
        nonlocal spent
        for number in range(first, first + count, STEP):
            begin = time.perf_counter()
            models = list(catalogue.models(min(number + STEP, first + count), number, total))
            spent += time.perf_counter() - begin
            yield from models

    begin = time.perf_counter()
    State.registry.models.create_many(source())
    seconds = time.perf_counter() - begin - spent
    return {"seconds": seconds, "peak_mib": peak_rss_since(State.baseline)}


def close() -> None:
    State.registry.close()


if __name__ == "__main__":
    serve({"start": start, "append": append, "close": close})

"""BentoML's local model store."""

from __future__ import annotations

import os
import shutil
import time

from benchmarks.workers.protocol import peak_rss_since, serve, start_peak, unique_file


def start(folder: str) -> None:
    import bentoml  # noqa: F401 - so that the first registration does not pay for it


def _register(path: str, name: str, labels: dict[str, str]) -> None:
    import bentoml

    with bentoml.models.create(name, labels=labels) as model:
        shutil.copy(path, model.path_of("weights.bin"))


def register(folder: str, first: int, count: int, size: int) -> list[float]:
    seconds = []
    for number in range(first, first + count):
        path = unique_file(folder, number, size)
        begin = time.perf_counter()
        _register(path, "bench", {"bench": "1", "small": "1"})
        seconds.append(time.perf_counter() - begin)
        os.unlink(path)
    return seconds


def register_file(path: str, name: str) -> dict[str, float]:
    baseline = start_peak()
    begin = time.perf_counter()
    _register(path, name, {"large": "1"})
    return {"seconds": time.perf_counter() - begin, "peak_mib": peak_rss_since(baseline)}


def fill(folder: str, count: int) -> None:
    for number in range(count):
        path = unique_file(folder, number, 1024)
        _register(path, f"model-{number}", {"common": "1", "group": str(number % 20), "only": str(number)})
        os.unlink(path)


if __name__ == "__main__":
    serve({"start": start, "register": register, "register_file": register_file, "fill": fill})

"""Measure a shared registry on a network filesystem that is mounted here, beside what the mount itself can do.

    python -m benchmarks.shared FOLDER [WRITERS] > result.json
    python -m benchmarks.shared FOLDER WRITERS ours|naive    on several hosts at once: what the writers of each do

Prints one JSON object: milliseconds, rates and ratios, all of one run.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelstore.registry import Registry
from modelstore.registry.search import ModelSearch

TURNS = 60
WRITER_S = 8.0


def milliseconds(action: Callable[[int], object], turns: int = TURNS) -> float:
    """Return the median time of an action."""
    times = []
    for turn in range(turns):
        begin = time.perf_counter()
        action(turn)
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1000


def by_hand(folder: Path, turn: int) -> None:
    """Create, write, flush, rename: the least that a durable file costs."""
    temporary = folder / f"{os.getpid()}-{turn}.tmp"
    with temporary.open("wb") as file:
        file.write(bytes(1024))
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(folder / f"{os.getpid()}-{turn}")


def register(registry: Registry, scratch: Path, turn: int) -> None:
    """Register a model with a file of 1 KiB."""
    file = scratch / "weights.bin"
    file.write_bytes(os.urandom(1024))
    objects = registry.weights.objects
    uri = objects.put(*objects.snapshot(file), "weights.bin")
    registry.models.create(name=f"m{turn}", uri=uri, tags=["t"])


def ours(folder: Path, _number: int, results: Any) -> None:
    """One of several processes of this host, which share its index."""
    with Registry(folder) as registry:
        results.send(_count(lambda: registry.models.create(name="n", tags=["t"])))


def naive(folder: Path, _number: int, results: Any) -> None:
    """One of several processes that write one SQLite file on the share, with a rollback journal."""
    connection = sqlite3.connect(folder / "naive.db", timeout=120, isolation_level=None)
    results.send(_count(lambda: connection.execute("INSERT INTO models (name, tags) VALUES ('n', 't')")))
    connection.close()


def _count(action: Callable[[], object]) -> float:
    end = time.monotonic() + WRITER_S
    done = 0
    begin = time.monotonic()
    while time.monotonic() < end:
        action()
        done += 1
    return done / (time.monotonic() - begin)


def writers(work: Callable[..., None], folder: Path, number: int) -> float:
    """Return what several processes do in a second together."""
    pipes = [multiprocessing.Pipe() for _ in range(number)]
    processes = [multiprocessing.Process(target=work, args=(folder, n, far)) for n, (_, far) in enumerate(pipes)]
    for process in processes:
        process.start()
    total = sum(float(near.recv()) for near, _ in pipes)
    for process in processes:
        process.join()
    return total


def _make_naive(folder: Path) -> None:
    connection = sqlite3.connect(folder / "naive.db", timeout=120)
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("CREATE TABLE IF NOT EXISTS models (id INTEGER PRIMARY KEY, name TEXT, tags TEXT)")
    connection.close()


def _writers_only(folder: Path, number: int, kind: str) -> None:
    os.environ["MODELSTORE_INDEX"] = str(Path(tempfile.mkdtemp(), "index"))
    if kind == "naive":
        _make_naive(folder)
    else:
        Registry(folder / "team", shared=True).close()
    print(json.dumps({kind: writers(ours if kind == "ours" else naive, folder, number)}))


def main() -> None:
    """Run everything."""
    folder, number = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 8
    if len(sys.argv) > 3:
        _writers_only(folder, number, sys.argv[3])
        return
    (folder / "hand").mkdir(parents=True)
    scratch = Path(tempfile.mkdtemp())
    os.environ["MODELSTORE_INDEX"] = str(scratch / "index-a")
    found: dict[str, float] = {}
    with Registry(folder / "team", shared=True) as team, Registry(scratch / "local") as local:
        found["by hand, ms"] = milliseconds(lambda turn: by_hand(folder / "hand", turn))
        found["registration, ms"] = milliseconds(lambda turn: register(team, scratch, turn))
        for registry in (team, local):
            registry.models.create_many({"name": f"m{n}", "tags": [f"t{n % 50}"]} for n in range(10_000))
        ModelSearch(tags=["t5"], limit=100).run(team)
        found["listing, ms"] = milliseconds(lambda _: os.listdir(folder / "team" / "journal"))
        found["query, shared, ms"] = milliseconds(lambda _: ModelSearch(tags=["t5"], limit=100).run(team))
        found["query, one machine, ms"] = milliseconds(lambda _: ModelSearch(tags=["t5"], limit=100).run(local))
        os.environ["MODELSTORE_INDEX"] = str(scratch / "index-b")
        with Registry(folder / "team") as other:
            other.refresh()
            team.models.create_many({"name": f"n{n}", "tags": [f"t{n % 50}"]} for n in range(10_000))
            begin = time.perf_counter()
            other.refresh()
            found["taking in, operations/s"] = 10_000 / (time.perf_counter() - begin)
    _make_naive(folder)
    found["writers, ours, registrations/s"] = writers(ours, folder / "team", number)
    found["writers, SQLite on the share, rows/s"] = writers(naive, folder, number)
    ratios = {
        "registration / by hand": found["registration, ms"] / found["by hand, ms"],
        "query / (one machine + listing)": found["query, shared, ms"]
        / (found["query, one machine, ms"] + found["listing, ms"]),
        "writers, ours / SQLite on the share": found["writers, ours, registrations/s"]
        / found["writers, SQLite on the share, rows/s"],
    }
    print(json.dumps({"writers": number, "measured": found, "ratios": ratios}, indent=1))


if __name__ == "__main__":
    main()

"""The download cache: what a hit costs, what a race costs, and whether size matters."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.arena import Arena, Bar, Outcome
from benchmarks.measure import ContenderFailedError, Series, Worker, in_turns, settle
from benchmarks.origin import RunningOrigin, running
from modelstore.cache import Cache
from modelstore.cache.process import forget_processes
from modelstore.testing.cache_origin import FolderOrigin

__all__ = ["JOBS"]

MIB = 2**20
URI = "s3://bucket/models/net.pt"
STAT = "os.stat"
HIT = "hit, warm process"
LOOK_UP = "one SQLite look-up"
COLD = "hit, first in a process"
ALONE, EIGHT = "one process alone", "eight processes"

HIT_PEERS = {
    "diskcache": "transfer",
    "pooch": "transfer",
    "fsspec": "transfer",
    "huggingface_hub_offline": "transfer",
    "huggingface_hub": "transfer",
    "clearml": "clearml",
}
RACE_PEERS = ("huggingface_hub", "pooch", "fsspec", "clearml")
# Where huggingface_hub looks for a file; the others take any URL.
PLACE = "bench/net/resolve/main/net.bin"


def _per_call(job: Callable[[], object], calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        job()
    return (time.perf_counter() - begin) / calls * 1e6


def _filled(arena: Arena, entries: int) -> tuple[Cache, FolderOrigin]:
    """Make a cache with one real object of 10 MiB and so many rows beside it."""
    folder = arena.folder(f"cache-{entries}")
    origin = FolderOrigin(folder / "origin", block_bytes=MIB)
    origin.put(URI, os.urandom(10 * MIB))
    cache = Cache(folder / "cache", max_bytes=1 << 60, min_free_bytes=0)
    cache.fetch(URI, origin)
    db = sqlite3.connect(cache.folder / "cache.db")
    with db:
        db.executemany(
            "INSERT INTO entries VALUES(?, 'objects', 1000, 1000, 0, ?)",
            ((f"objects/sha256/00/{n:064x}", n) for n in range(entries)),
        )
        db.executemany(
            "INSERT INTO uris VALUES(?, ?, ?, 'net.pt', NULL, 0)",
            ((n.to_bytes(32), f"s3://bucket/{n}", f"objects/sha256/00/{n:064x}") for n in range(entries)),
        )
    db.close()
    return cache, origin


def hits(arena: Arena) -> Outcome:
    """Time hits in a cache of 100 and of 100,000 entries, beside the one system call they cannot do without."""
    calls = 200 if arena.quick else 5000
    many = 1000 if arena.quick else 100_000
    small, origin = _filled(arena, 100)
    large, other_origin = _filled(arena, many)
    path = str(small.fetch(URI, origin).path)
    db = sqlite3.connect(small.folder / "cache.db")
    key = (50).to_bytes(32)

    def first() -> object:
        forget_processes()
        return Cache(large.folder, max_bytes=1 << 60, min_free_bytes=0).fetch(URI, other_origin)

    large_hit = f"{HIT}, {many:,} entries"
    stack = ExitStack()
    peers = _peer_hits(arena, stack, calls)
    contenders: dict[str, Callable[[], float]] = {
        STAT: lambda: _per_call(lambda: os.stat(path), calls),
        LOOK_UP: lambda: _per_call(
            lambda: db.execute("SELECT entry, name FROM uris WHERE key = ?", (key,)).fetchone(), calls
        ),
        HIT: lambda: _per_call(lambda: small.fetch(URI, origin), calls),
        large_hit: lambda: _per_call(lambda: large.fetch(URI, other_origin), calls),
        f"{COLD}, {many:,} entries": lambda: _per_call(first, max(calls // 100, 5)),
        **peers,
    }
    with stack:
        series = in_turns(contenders, arena.turns(15))
    for one in series.values():
        one.unit = "µs"
    db.close()
    bars = [
        Bar("a hit / os.stat", series[HIT].ratio_to(series[STAT]), 6),
        Bar(f"a hit among {many:,} entries / os.stat", series[large_hit].ratio_to(series[STAT]), 6),
        Bar(f"a hit among {many:,} entries / among 100", series[large_hit].ratio_to(series[HIT]), 1.2),
        *(
            Bar(
                f"{peer} / a hit", series[peer].ratio_to(series[HIT]) if series[peer].values else None, 1, at_least=True
            )
            for peer in peers
        ),
    ]
    if origin.reads() != 1 or other_origin.reads() != 1:
        raise ContenderFailedError("a hit touched the origin")
    forget_processes()
    notes = [
        "The first hit of a process opens the index and writes down that the file is in use.",
        "diskcache leads from key to path and does not look at the file; pooch is told no hash, so it compares none.",
        "huggingface_hub asks the server at every call, unless it is told to stay offline.",
    ]
    return Outcome("A cached file, once more", list(series.values()), bars, notes)


def _peer_hits(arena: Arena, stack: ExitStack, calls: int) -> dict[str, Callable[[], float]]:
    """Have each peer cache one object of 10 MiB; return jobs that time its hits, in microseconds."""
    served, home = arena.folder("origin"), arena.folder("peers")
    (served / PLACE).parent.mkdir(parents=True)
    (served / PLACE).write_bytes(os.urandom(10 * MIB))
    origin = stack.enter_context(running(served))
    jobs: dict[str, Callable[[], float]] = {}
    for peer, place in HIT_PEERS.items():
        if python := arena.peers.get(place):
            environment = origin.environment()
            worker = stack.enter_context(arena.worker("bytes_peers", home, python, tool=peer, environment=environment))
            folder = home / peer.removesuffix("_offline")
            folder.mkdir(exist_ok=True)
            if peer == "huggingface_hub_offline":
                with arena.worker(
                    "bytes_peers", home, python, tool="huggingface_hub", environment=environment
                ) as first:
                    first.ask("cached", uri=f"{origin.url}/{PLACE}", folder=str(folder))
            jobs[peer] = partial(
                worker.ask, "hits", uri=f"{origin.url}/{PLACE}", folder=str(folder), calls=max(calls // 50, 10)
            )
    return jobs


def planning(arena: Arena) -> Outcome:
    """Time the plan of an eviction, beside a walk over the same number of files."""
    many = 1000 if arena.quick else 100_000
    cache, _ = _filled(arena, many)
    walked = arena.folder("walked")
    for n in range(many):
        folder = walked / f"{n % 256:02x}" / f"{n:064x}"
        folder.mkdir(parents=True)
        (folder / "net.pt").touch()

    def walk() -> float:
        begin = time.perf_counter()
        sum(path.stat().st_size for path in walked.glob("*/*/*"))
        return time.perf_counter() - begin

    def plan(max_bytes: int) -> float:
        begin = time.perf_counter()
        cache.prune(max_bytes, dry_run=True)
        return time.perf_counter() - begin

    tenth = f"plan to evict a tenth of {many:,}"
    scan = f"a walk over {many:,} files"
    series = in_turns(
        {tenth: lambda: plan(10 * MIB + many * 900), f"plan to evict {many:,}": lambda: plan(1), scan: walk},
        arena.turns(5),
    )
    forget_processes()
    return Outcome(
        "Planning an eviction",
        list(series.values()),
        [Bar("a plan for a tenth / a walk", series[tenth].ratio_to(series[scan]), 0.2)],
    )


class _Racers:
    """Processes of one contender that ask for one cold object at one moment, as often as wanted."""

    def __init__(self, arena: Arena, origin: RunningOrigin, workers: list[Worker], digest: str) -> None:
        self._arena, self._origin, self._workers, self._digest = arena, origin, workers, digest
        self.downloads: list[float] = []

    def run(self) -> float:
        """Return the seconds until the last of them had the file."""
        folder = self._arena.folder("race")
        size = (self._origin.folder / PLACE).stat().st_size
        settle()
        before = self._origin.counts()["sent"]
        at = time.time() + 0.2
        # The query makes the address a new one to those whose cache is not in that folder.
        job = {"uri": f"{self._origin.url}/{PLACE}?{folder.name}", "folder": str(folder), "at": at}
        with ThreadPoolExecutor(len(self._workers)) as pool:
            answers = list(pool.map(lambda worker: worker.ask("race", **job), self._workers))
        self.downloads.append((self._origin.counts()["sent"] - before) / size)
        shutil.rmtree(folder)
        if any(answer["sha256"] != self._digest for answer in answers):
            raise ContenderFailedError("it handed out a file with the wrong bytes")
        return max(float(answer["seconds"]) for answer in answers)


def race(arena: Arena) -> Outcome:
    """Let eight processes ask for one cold object at the same moment, beside one that asks alone."""
    served, home = arena.folder("origin"), arena.folder("racers")
    (served / PLACE).parent.mkdir(parents=True)
    content = os.urandom(MIB) * arena.mib
    (served / PLACE).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    with ExitStack() as stack:
        origin = stack.enter_context(running(served))

        def racers(count: int, module: str, python: Path | None = None, **start: str) -> _Racers:
            start_all: dict[str, Any] = {"environment": origin.environment(), **start}
            workers = [stack.enter_context(arena.worker(module, home, python, **start_all)) for _ in range(count)]
            return _Racers(arena, origin, workers, digest)

        entered = {ALONE: racers(1, "bytes_ours"), EIGHT: racers(8, "bytes_ours")}
        for peer in RACE_PEERS:
            if python := arena.peers.get(HIT_PEERS[peer]):
                entered[f"eight of {peer}"] = racers(8, "bytes_peers", python, tool=peer)
        series = in_turns({name: one.run for name, one in entered.items()}, arena.turns(5))
    downloads = [
        Series(f"{name}: downloads' worth of bytes", "×", one.downloads)
        for name, one in entered.items()
        if name != ALONE
    ]
    bars = [
        Bar("bytes that the eight had sent to them / size", max(entered[EIGHT].downloads), 1.0),
        Bar("eight processes / one alone", series[EIGHT].ratio_to(series[ALONE]), 1.2),
    ]
    notes = ["modelstore hashes and flushes what it fetched; the others do not."]
    return Outcome(f"{arena.mib} MiB that eight processes want", [*series.values(), *downloads], bars, notes)


JOBS: dict[str, Callable[[Arena], Outcome]] = {"cache-hit": hits, "cache-plan": planning, "cache-race": race}

"""The download cache: what a hit costs, what a race costs, and whether size matters."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.arena import Arena, Bar, Outcome
from benchmarks.measure import ROOT, ContenderFailedError, Series, in_turns
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

_CHILD = """
import sys, time
from pathlib import Path
from modelstore.cache import Cache
from modelstore.testing.cache_origin import FolderOrigin
import filelock, xxhash
folder, start = Path(sys.argv[1]), float(sys.argv[2])
origin = FolderOrigin(folder / "origin", block_bytes=1 << 20)
cache = Cache(folder / "cache")
while time.time() < start:
    time.sleep(0.001)
cache.fetch(sys.argv[3], origin)
print(time.time() - start)
"""


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
    contenders: dict[str, Callable[[], float]] = {
        STAT: lambda: _per_call(lambda: os.stat(path), calls),
        LOOK_UP: lambda: _per_call(
            lambda: db.execute("SELECT entry, name FROM uris WHERE key = ?", (key,)).fetchone(), calls
        ),
        HIT: lambda: _per_call(lambda: small.fetch(URI, origin), calls),
        large_hit: lambda: _per_call(lambda: large.fetch(URI, other_origin), calls),
        f"{COLD}, {many:,} entries": lambda: _per_call(first, max(calls // 100, 5)),
    }
    series = in_turns(contenders, arena.turns(15))
    for one in series.values():
        one.unit = "µs"
    db.close()
    bars = [
        Bar("a hit / os.stat", series[HIT].ratio_to(series[STAT]), 6),
        Bar(f"a hit among {many:,} entries / os.stat", series[large_hit].ratio_to(series[STAT]), 6),
        Bar(f"a hit among {many:,} entries / among 100", series[large_hit].ratio_to(series[HIT]), 1.2),
    ]
    if origin.reads() != 1 or other_origin.reads() != 1:
        raise ContenderFailedError("a hit touched the origin")
    forget_processes()
    notes = ["The first hit of a process opens the index and writes down that the file is in use."]
    return Outcome("A cached file, once more", list(series.values()), bars, notes)


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


def race(arena: Arena) -> Outcome:
    """Let eight processes ask for one cold object at the same moment, beside one that asks alone."""
    size = 8 * MIB if arena.quick else 256 * MIB
    reads: list[float] = []

    def fetch(count: int) -> float:
        folder = arena.folder("race")
        origin = FolderOrigin(folder / "origin", block_bytes=MIB)
        origin.put(URI, os.urandom(MIB) * (size // MIB))
        # All have imported what they need by then, so that only the race is timed.
        start = time.time() + 3.0
        children = [
            subprocess.Popen(
                [str(arena.python), "-c", _CHILD, str(folder), str(start), URI],
                env=arena.env(Path(folder)) | {"PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(count)
        ]
        needed = [child.communicate()[0] for child in children]
        if not all(needed):
            raise ContenderFailedError(f"{needed.count('')} of {count} processes failed")
        if count > 1:
            reads.append(origin.bytes_read() / size)
        shutil.rmtree(folder)
        return max(map(float, needed))

    alone, eight = "one process alone", "eight processes"
    series = in_turns({alone: lambda: fetch(1), eight: lambda: fetch(8)}, arena.turns(5))
    bytes_read = Series("downloads of the eight", "×", reads)
    bars = [
        Bar("bytes read from the origin / size", max(reads), 1.0),
        Bar("eight processes / one alone", series[eight].ratio_to(series[alone]), 1.2),
    ]
    notes = ["The origin is a folder on the same disk; the bytes are hashed as they come, and synced."]
    return Outcome(f"{size // MIB} MiB that eight processes want", [*series.values(), bytes_read], bars, notes)


JOBS: dict[str, Callable[[Arena], Outcome]] = {"cache-hit": hits, "cache-plan": planning, "cache-race": race}

"""What is in a cache: totals, a listing, and the check of everything."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from modelstore.cache.files import CacheEntry, CacheInfo, CheckReport
from modelstore.cache.index import add_found, rows
from modelstore.cache.layout import digest_of, size_on_disk

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from modelstore.cache.process import Process

__all__ = ["check_all", "describe", "listing"]


def describe(process: Process, limit_bytes: Callable[[int], int]) -> CacheInfo:
    """Return the totals; see `Cache.info`."""
    layout, index = process.layout, process.index
    totals = {kind: (count, size) for kind, count, size in index.read(lambda db: rows(db, "SELECT * FROM totals"))}
    used = sum(size for _, size in totals.values())
    return CacheInfo(
        folder=Path(layout.root),
        objects=totals["objects"][0],
        trees=totals["trees"][0],
        bytes=used,
        limit_bytes=limit_bytes(used),
        free_bytes=shutil.disk_usage(layout.root).free,
        partial_bytes=size_on_disk(layout.path("partial")),
        quarantine_bytes=size_on_disk(layout.path("quarantine")),
        in_use=len(index.write(lambda _: process.leases.in_use())),
        pinned=len(layout.names("pins")),
    )


def listing(process: Process) -> list[CacheEntry]:
    """Return the entries; see `Cache.ls`. Four queries, however many entries."""
    process.flush()
    index = process.index
    sql = "SELECT entry, stored, created_ms, used_us FROM entries ORDER BY used_us DESC, entry"
    entries = index.read(lambda db: rows(db, sql))
    names = index.read(lambda db: _grouped(db, "SELECT entry, name FROM files ORDER BY entry, name"))
    uris = index.read(lambda db: _grouped(db, "SELECT entry, uri FROM uris ORDER BY entry, uri"))
    held = index.write(lambda _: process.leases.in_use())
    pins = set(process.layout.names("pins"))
    return [
        CacheEntry(
            digest=digest_of(entry),
            kind="object" if entry.startswith("objects/") else "tree",
            size=stored,
            names=tuple(names.get(entry, ())),
            uris=tuple(uris.get(entry, ())),
            created_at=_time(created_ms),
            last_used_at=_time(used_us / 1000),
            in_use=entry in held,
            pinned=entry[-64:] in pins,
        )
        for entry, stored, created_ms, used_us in entries
    ]


def check_all(process: Process) -> CheckReport:
    """Read everything and deal with what is wrong; see `Cache.verify`."""
    layout, index = process.layout, process.index
    known = {row[0] for row in index.read(lambda db: rows(db, "SELECT entry FROM entries"))}
    found = {entry for entry in layout.entries() if entry not in known}
    for entry in found:
        _take_in(process, entry)
    verdicts: dict[str, list[str]] = {"ok": [], "corrupt": [], "missing": []}
    for entry in sorted(known | found):
        check = process.objects.check if entry.startswith("objects/") else process.folders.check
        verdicts[check(entry)].append(entry)
    process.memo.clear()  # what was quarantined must not be answered from memory
    return CheckReport(
        checked=len(verdicts["ok"]) + len(verdicts["corrupt"]),
        corrupt=tuple(map(digest_of, verdicts["corrupt"])),
        missing=tuple(map(digest_of, verdicts["missing"])),
        found=tuple(digest_of(entry) for entry in verdicts["ok"] if entry in found),
    )


def _take_in(process: Process, entry: str) -> None:
    process.index.write(lambda db: add_found(db, process.layout, entry))


def _grouped(db: sqlite3.Connection, sql: str) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for key, value in db.execute(sql):
        grouped.setdefault(key, []).append(value)
    return grouped


def _time(ms: float) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)

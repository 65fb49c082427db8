"""Keeping the cache within its bounds: what goes is what was used longest ago and nobody holds."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from modelstore.cache.layout import digest_of, size_on_disk
from modelstore.cache.partials import sweep
from modelstore.cache.steps import step

if TYPE_CHECKING:
    import sqlite3

    from modelstore.cache.index import Index
    from modelstore.cache.layout import Layout
    from modelstore.cache.leases import Leases

__all__ = ["Evictor", "Removal"]

_BATCH: Final = 256
"""Entries per transaction: others wait for the index no longer than some milliseconds."""
_BY_AGE: Final = (
    f"SELECT entry, stored, used_us FROM entries WHERE (used_us, entry) > (?, ?) ORDER BY used_us, entry LIMIT {_BATCH}"
)
_STALE_S: Final = 7 * 24 * 3600.0
"""Age at which unfinished downloads and quarantined files go on their own."""
_MOST_SPARE: Final = 2 << 30


@dataclass(frozen=True, slots=True)
class Removal:
    """What was removed, or would be.

    Attributes:
        objects: Digests of the files, the one used longest ago first.
        trees: Digests of the archives whose extracted folders went, likewise.
        freed_bytes: By these entries and by left-overs: unfinished downloads, quarantined files.
        in_use: Entries that would have gone as well, but a live process holds them or they are pinned.
        dry_run: True when nothing was touched.
    """

    objects: tuple[str, ...]
    trees: tuple[str, ...]
    freed_bytes: int
    in_use: int
    dry_run: bool


class Evictor:
    """Applies the bounds of one cache.

    Args:
        layout: The folder.
        index: Its index.
        leases: What processes hold.
        max_bytes: Bound on the cache's content; None for half of what would be free without the cache.
        min_free_bytes: What is to stay free on the disk; None for a fiftieth of it, at most 2 GiB.
    """

    def __init__(
        self, layout: Layout, index: Index, leases: Leases, max_bytes: int | None, min_free_bytes: int | None
    ) -> None:
        self._layout, self._index, self._leases = layout, index, leases
        self._max, self._min_free = max_bytes, min_free_bytes

    def limit_bytes(self, used: int) -> int:
        """Return how many bytes the cache may hold at this moment, when it holds ``used``."""
        disk = shutil.disk_usage(self._layout.root)
        most = (used + disk.free) // 2 if self._max is None else self._max
        spare = min(disk.total // 50, _MOST_SPARE) if self._min_free is None else self._min_free
        return max(0, min(most, used + disk.free - spare))

    def used_bytes(self) -> int:
        """Return the bytes that all entries take, from the index's running total."""
        return self._index.read(lambda db: int(db.execute("SELECT sum(bytes) FROM totals").fetchone()[0]))

    def make_room(self, need_bytes: int = 0) -> None:
        """Evict until ``need_bytes`` more fit within the bounds, as far as that goes; cheap when they fit already."""
        used = self.used_bytes()
        excess = used + need_bytes - self.limit_bytes(used)
        if excess > 0:
            excess -= sweep(self._layout, _STALE_S) + self._empty_quarantine(_STALE_S) + self._layout.empty_trash()
            if excess > 0:
                self.evict(excess)
        self._layout.keep_reserve()

    def reclaim(self, need_bytes: int) -> int:
        """Free ``need_bytes`` on a full disk, left-overs first; return the bytes freed."""
        freed = sweep(self._layout) + self._empty_quarantine(0) + self._layout.empty_trash()
        if freed < need_bytes:
            freed += self.evict(need_bytes - freed).freed_bytes
        return freed

    def prune(self, max_bytes: int | None, *, dry_run: bool, leftovers_s: float = 0.0) -> Removal:
        """Remove left-overs older than that, and entries down to ``max_bytes`` (None: down to the bounds)."""
        left = 0
        if not dry_run:
            left = sweep(self._layout, leftovers_s) + self._empty_quarantine(_STALE_S if leftovers_s else 0.0)
            left += self._layout.empty_trash()
        used = self.used_bytes()
        excess = used - (self.limit_bytes(used) if max_bytes is None else max_bytes)
        # Entries of no bytes go with a bound of 0 as well: "remove all" means all.
        removal = self.evict(excess, dry_run=dry_run, all_of_them=max_bytes == 0)
        return replace(removal, freed_bytes=removal.freed_bytes + left)

    def evict(self, excess: int, *, dry_run: bool = False, all_of_them: bool = False) -> Removal:
        """Remove entries, least recently used first, until ``excess`` bytes went."""
        gone: list[str] = []
        freed = in_use = 0
        after: tuple[int, str] = (-1, "")
        while all_of_them or freed < excess:
            batch = self._take_out(excess - freed, after, dry_run=dry_run, all_of_them=all_of_them)
            gone += [entry for entry, _ in batch.out]
            freed += sum(size for _, size in batch.out)
            in_use += batch.kept
            after = batch.last
            if not batch.more:
                break
        if gone and not dry_run:
            # 5. Only now, outside the transaction: deleting gigabytes takes time.
            step("cache.evict.5")
            self._layout.empty_trash()
        objects, trees = (
            tuple(digest_of(entry) for entry in gone if entry.startswith(kind)) for kind in ("objects/", "trees/")
        )
        return Removal(objects, trees, freed, in_use, dry_run)

    def _take_out(self, excess: int, after: tuple[int, str], *, dry_run: bool, all_of_them: bool) -> _Batch:
        def choose(db: sqlite3.Connection) -> _Batch:
            # tests/cache/test_kills.py kills at each of these numbers.
            # 1. Leases are read inside the transaction: whoever is handed an entry writes its lease inside one, too,
            #    after looking whether the entry is still there. So either they see our removal or we see their lease.
            step("cache.evict.1")
            held, pins = self._leases.in_use(), set(self._layout.names("pins"))
            batch = _Batch([], 0, after, more=False)
            freed = 0
            for entry, stored, used_us in db.execute(_BY_AGE, after):
                if not all_of_them and freed >= excess:
                    break
                batch.last = (used_us, entry)
                batch.more = True
                if entry in held or entry[-64:] in pins:
                    batch.kept += 1
                else:
                    batch.out.append((entry, stored))
                    freed += stored
            return batch

        def remove(db: sqlite3.Connection) -> _Batch:
            batch = choose(db)
            for entry, _ in batch.out:
                step("cache.evict.2")
                # 2. The folder leaves its place in one rename. Killed after it, a row without bytes remains: its next
                #    use finds nothing there and fetches, its next eviction removes the row.
                self._layout.trash(self._layout.path(entry))
                # 3. The row, and with it names, URIs and the total.
                step("cache.evict.3")
                db.execute("DELETE FROM entries WHERE entry = ?", (entry,))
            step("cache.evict.4")  # 4. Commit.
            return batch

        return self._index.read(choose) if dry_run else self._index.write(remove)

    def _empty_quarantine(self, older_than_s: float) -> int:
        freed = 0
        for name in self._layout.names("quarantine"):
            path = self._layout.path("quarantine", name)
            try:
                # The change time: a rename into the quarantine sets it, and keeps the modification time.
                if time.time() - os.stat(path).st_ctime < older_than_s:
                    continue
            except FileNotFoundError:
                continue
            freed += size_on_disk(path)
            self._layout.discard(path)
        return freed


@dataclass(slots=True)
class _Batch:
    out: list[tuple[str, int]]
    kept: int
    last: tuple[int, str]
    more: bool

"""Extracted archives: made once, handed out whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from modelstore.cache.index import add_entry, rows
from modelstore.cache.owners import this_process
from modelstore.cache.steps import step
from modelstore.cache.trees import is_whole, seal

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from modelstore.cache.index import Index
    from modelstore.cache.layout import Layout
    from modelstore.cache.leases import Leases

__all__ = ["Folders"]


class Folders:
    """The extracted archives of one cache. Safe for threads and processes, like `Objects`."""

    def __init__(self, layout: Layout, index: Index, leases: Leases) -> None:
        self._layout, self._index, self._leases = layout, index, leases
        self.memo: dict[str, tuple[Path, int, int]] = {}

    def remembered(self, entry: str) -> Path | None:
        """Return the folder if this process was handed it before and it has not been replaced or touched since."""
        memo = self.memo.get(entry)
        if memo is None:
            return None
        try:
            info = os.stat(memo[0])
        except OSError:
            return None
        return memo[0] if (info.st_ino, info.st_mtime_ns) == memo[1:] else None

    def look_up(self, entry: str, *, verify: bool = False) -> Path | None:
        """Return the folder, leased and whole; None when it has to be made."""
        if not self._index.read(lambda db: rows(db, "SELECT 1 FROM entries WHERE entry = ?", entry)):
            return None

        def hand_out(db: sqlite3.Connection) -> bool:
            # As with objects: either the row is gone by now, or evictions will see the lease.
            if not rows(db, "SELECT 1 FROM entries WHERE entry = ?", entry):
                return False
            self._leases.take(entry)
            return True

        folder = self._layout.path(entry)
        if not self._index.write(hand_out) or not is_whole(folder, verify=verify):
            return None
        return self._remember(entry)

    def make(
        self, entry: str, archive: Path, extract: Callable[[Path, Path], object], *, replace: bool = False
    ) -> Path:
        """Extract into a folder of our own, then put it into place in one rename.

        Args:
            entry: The folder's key.
            archive: What to extract.
            extract: How.
            replace: Put it in the place of one that looks whole: its bytes were read and are not right.
        """
        draft = self._layout.path("partial", f"tree.{this_process().token}.{os.urandom(8).hex()}")
        folder = self._layout.path(entry)
        try:
            # tests/cache/test_kills.py kills at each of these numbers.
            # 1. Where nobody looks.
            os.makedirs(os.path.join(draft, "content"))
            step("cache.extract.1")
            extract(archive, Path(draft, "content"))
            # 2. Durable and checkable.
            step("cache.extract.2")
            size = seal(draft)
            # 3. As for objects: row and lease first, so that nothing lies there with nothing to evict it.
            step("cache.extract.3")
            self._index.write(lambda db: self._announce(db, entry, size))
            os.makedirs(os.path.dirname(folder), exist_ok=True)
            # 4. Into place, where nothing lies, or something broken.
            step("cache.extract.4")
            self._index.write(lambda db: self._place(db, entry, draft, size, replace=replace))
            step("cache.extract.5")
        finally:
            self._layout.discard(draft)
        self._layout.empty_trash()
        return self._remember(entry)

    def check(self, entry: str) -> str:
        """Read a folder in full; return ``ok``, ``corrupt`` or ``missing``, after removing what is not whole."""
        folder = self._layout.path(entry)
        seen = _identity(folder)
        if is_whole(folder, verify=True):
            return "ok"
        there = os.path.isdir(folder)

        def remove(db: sqlite3.Connection) -> None:
            if _identity(folder) == seen:  # else it was made again meanwhile
                self._layout.trash(folder)
                db.execute("DELETE FROM entries WHERE entry = ?", (entry,))

        self._index.write(remove)
        self.memo.pop(entry, None)
        return "corrupt" if there else "missing"

    def _announce(self, db: sqlite3.Connection, entry: str, size: int) -> None:
        add_entry(db, entry, size)
        self._leases.take(entry)

    def _place(self, db: sqlite3.Connection, entry: str, draft: str, size: int, *, replace: bool) -> None:
        folder = self._layout.path(entry)
        if replace or not is_whole(folder):
            self._layout.trash(folder)
            os.rename(draft, folder)
        add_entry(db, entry, size)
        db.execute("UPDATE entries SET size = ?, stored = ? WHERE entry = ?", (size, size, entry))

    def _remember(self, entry: str) -> Path:
        path = Path(self._layout.path(entry), "content")
        info = os.stat(path)
        self.memo[entry] = (path, info.st_ino, info.st_mtime_ns)
        return path


def _identity(folder: str) -> tuple[int, int] | None:
    try:
        info = os.stat(os.path.join(folder, "content"))
    except OSError:
        return None
    return info.st_ino, info.st_ctime_ns

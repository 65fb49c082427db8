"""What all `Cache` objects of one process on one folder share, also across a fork."""

from __future__ import annotations

import atexit
import os
import threading
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from modelstore.cache.folders import Folders
from modelstore.cache.index import Index
from modelstore.cache.layout import Layout
from modelstore.cache.leases import Leases
from modelstore.cache.objects import Objects
from modelstore.errors import StorageError

if TYPE_CHECKING:
    import sqlite3

    from modelstore.cache.files import CachedFile

__all__ = ["Memo", "Process", "forget_processes", "process_for"]

_FLUSH_S: Final = 60.0
"""How often the times of last use are written down."""


class Memo(NamedTuple):
    """What a hit is answered from: the file, and how it must look on disk for the answer to hold."""

    filename: str | None
    path: str
    size: int
    inode: int
    mtime_ns: int
    entry: str
    file: CachedFile


class Process:
    """What all `Cache` objects of this process on one folder share: index, leases, memory."""

    def __init__(self, root: str, index_path: str) -> None:
        self.layout = Layout(root)
        self.index = Index(index_path, self.layout)
        self.leases = Leases(self.layout)
        self.objects = Objects(self.layout, self.index, self.leases)
        self.folders = Folders(self.layout, self.index, self.leases)
        self.memo: dict[str, Memo] = {}
        self.touched: dict[str, float] = {}  # entry to time.monotonic()
        self.next_flush = time.monotonic() + _FLUSH_S

    def flush(self) -> None:
        """Write down which entries were used since the last time; called once a minute, at most."""
        self.next_flush = time.monotonic() + _FLUSH_S
        touched, self.touched = self.touched, {}
        if not touched or not os.path.exists(self.index.path):
            return
        started = time.time() - time.monotonic()
        used = [(int((started + at) * 1_000_000), entry) for entry, at in touched.items()]

        def job(db: sqlite3.Connection) -> None:
            db.executemany("UPDATE entries SET used_us = ? WHERE entry = ?", used)
            self.leases.restore()

        try:
            self.index.write(job)
        except (StorageError, OSError):
            # A hit must not fail for this; what was used is told again a minute later.
            self.touched = touched | self.touched

    def finish(self) -> None:
        """At the end of the process."""
        self.flush()
        self.leases.forget()
        self.index.close()

    def after_fork(self, *, child: bool) -> None:
        """On both sides of a fork; `Index.before_fork` came before it."""
        if child:
            # The child has no leases yet, so it must not answer from memory.
            self.memo.clear()
            self.folders.memo.clear()
            self.touched.clear()
            self.leases.after_fork()
        self.index.after_fork(child=child)


_processes: dict[tuple[str, str], Process] = {}
_processes_lock = threading.Lock()


def process_for(root: str, index_path: str) -> Process:
    """Return what this process shares on that folder; the same object for every caller."""
    with _processes_lock:
        key = (root, index_path)
        if key not in _processes:
            _processes[key] = Process(root, index_path)
        return _processes[key]


def forget_processes() -> None:
    """Start as a new process would: indexes closed, nothing remembered. What was handed out is still held."""
    with _processes_lock:
        for process in _processes.values():
            process.flush()
            process.index.close()
        _processes.clear()


def _before_fork() -> None:
    _processes_lock.acquire()
    for process in _processes.values():
        process.index.before_fork()


def _after_fork(*, child: bool) -> None:
    for process in _processes.values():
        process.after_fork(child=child)
    _processes_lock.release()


def _at_exit() -> None:
    for process in list(_processes.values()):
        process.finish()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=lambda: _after_fork(child=False),
        after_in_child=lambda: _after_fork(child=True),
    )
atexit.register(_at_exit)

"""The cache's index: which URI leads to which bytes, how large they are and when they were last used.

It speeds things up and remembers; it is never believed. A file found through it is compared with its recorded size,
inode and modification time, and hashed when they differ. So the index may be deleted or damaged at any time: it is made
again from the folder, with every file due for hashing at its next use.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from modelstore.cache.layout import size_on_disk
from modelstore.cache.steps import step
from modelstore.errors import (
    CacheBusyError,
    ReadOnlyStorageError,
    StorageError,
    StorageFullError,
    StorageUnavailableError,
)
from modelstore.storage.failures import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from modelstore.cache.layout import Layout

__all__ = ["Index"]

T = TypeVar("T")

_VERSION: Final = 1
_WAIT_S: Final = 30.0
_ATTEMPTS: Final = 8
_SCHEMA: Final = """
CREATE TABLE entries(
    entry TEXT PRIMARY KEY,         -- its folder, relative to the cache
    kind TEXT NOT NULL,             -- objects | trees
    size INTEGER NOT NULL,          -- of the content, bytes
    stored INTEGER NOT NULL,        -- on disk, bytes; more than size where a second name had to be a copy
    created_ms INTEGER NOT NULL,
    used_us INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX entries_used ON entries(used_us, entry, stored);
CREATE TABLE files(
    entry TEXT NOT NULL, name TEXT NOT NULL,
    inode INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,  -- as they were when the bytes were last known to be right
    PRIMARY KEY(entry, name)
) WITHOUT ROWID;
CREATE TABLE uris(
    key BLOB PRIMARY KEY,           -- sha256 of the URI
    uri TEXT NOT NULL,              -- to show: without its secrets
    entry TEXT NOT NULL, name TEXT NOT NULL, etag TEXT, fetched_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX uris_entry ON uris(entry);
CREATE TABLE totals(kind TEXT PRIMARY KEY, entries INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO totals VALUES('objects', 0, 0), ('trees', 0, 0);
CREATE TRIGGER entries_added AFTER INSERT ON entries BEGIN
    UPDATE totals SET entries = entries + 1, bytes = bytes + new.stored WHERE kind = new.kind;
END;
CREATE TRIGGER entries_changed AFTER UPDATE OF stored ON entries BEGIN
    UPDATE totals SET bytes = bytes + new.stored - old.stored WHERE kind = new.kind;
END;
CREATE TRIGGER entries_removed AFTER DELETE ON entries BEGIN
    UPDATE totals SET entries = entries - 1, bytes = bytes - old.stored WHERE kind = old.kind;
    DELETE FROM files WHERE entry = old.entry;
    DELETE FROM uris WHERE entry = old.entry;
END;
"""
_TABLES: Final = {
    "entries": "entry, kind, size, stored, created_ms, used_us",
    "files": "entry, name, inode, mtime_ns",
    "uris": "key, uri, entry, name, etag, fetched_ms",
    "totals": "kind, entries, bytes",
}
_BROKEN: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


@contextmanager
def _hinting_at_the_setting() -> Iterator[None]:
    """Say what to do where the folder is no good: homes on clusters are often full, or not to be written."""
    try:
        yield
    except ReadOnlyStorageError as error:
        hint = "Check its permissions, or name another folder with MODELSTORE_CACHE."
        raise ReadOnlyStorageError(error.message, hint) from error


class Index:
    """One connection to the index, shared by the threads of a process under a lock and closed around forks.

    A connection per thread would gain nothing: what is done here takes microseconds, and writers exclude each other
    anyway.

    Args:
        path: The database; on a local disk, because SQLite's locks and write-ahead log fail on network filesystems.
        layout: The folder that the index describes, and that it is rebuilt from.
    """

    def __init__(self, path: str, layout: Layout) -> None:
        self.path = path
        self._layout = layout
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._inode = 0

    def read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``job``, which only reads; it may be run again if the index had to be rebuilt.

        Raises:
            StorageError: The index cannot be read, and not be rebuilt either.
        """
        return self._run(job, writing=False)

    def write(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``job`` in a transaction that excludes all other writers, in any process, from its start.

        What ``job`` does on disk is not undone with the transaction, and it may be run again if the index had to be
        rebuilt: it must bear that.

        Raises:
            CacheBusyError: Other processes kept the index locked for half a minute.
            StorageFullError: The disk is full.
            ReadOnlyStorageError: The folder does not accept writes.
            StorageUnavailableError: The index failed otherwise.
        """
        return self._run(job, writing=True)

    def stamp(self) -> tuple[int, ...]:
        """Return what changes with every commit, but for rare ones within a tick of the clock; costs one `os.stat`."""
        try:
            info = os.stat(self.path + "-wal")
        except OSError:
            return ()
        return info.st_ino, info.st_size, info.st_mtime_ns

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    def __del__(self) -> None:
        if self._db is not None:  # an unclosed connection is a warning since Python 3.13
            self._db.close()

    def before_fork(self) -> None:
        """Close, and keep other threads out: a child must inherit neither a connection nor a held lock."""
        self._lock.acquire()
        self.close()

    def after_fork(self, *, child: bool) -> None:
        """Let threads in again."""
        if child:
            self._lock = threading.RLock()
        else:
            self._lock.release()

    def _run(self, job: Callable[[sqlite3.Connection], T], *, writing: bool) -> T:
        with self._lock:
            attempt = 0
            while True:
                try:
                    db = self._connect()
                    return self._transact(db, job) if writing else job(db)
                except sqlite3.Error as error:
                    self._recover(error, attempt)
                except OSError as error:
                    if error.errno != errno.ENOSPC or attempt >= _ATTEMPTS or not self._layout.spend_reserve():
                        raise
                attempt += 1

    @staticmethod
    def _transact(db: sqlite3.Connection, job: Callable[[sqlite3.Connection], T]) -> T:
        # IMMEDIATE: a deferred transaction that reads first and writes later fails under two writers.
        try:
            db.execute("BEGIN IMMEDIATE")  # in here: an interruption shows when the call has returned
            result = job(db)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        return result

    def _recover(self, error: sqlite3.Error, attempt: int) -> None:
        """Make another attempt worth while, or tell in our own terms what is wrong."""
        code = getattr(error, "sqlite_errorcode", 0)
        self.close()
        if code & 0xFF in _BUSY:
            raise CacheBusyError(f"The cache index {self.path!r} stayed locked.", "Try again.") from error
        if code & 0xFF == sqlite3.SQLITE_FULL:
            if attempt < _ATTEMPTS and self._layout.spend_reserve():
                return
            raise StorageFullError(
                f"No space is left for the cache {self._layout.root!r}.", "Free some space and try again."
            ) from error
        # A database deleted under its writers can end up with another's log, hence without its tables.
        if attempt < _ATTEMPTS and (code & 0xFF in _BROKEN or str(error).startswith("no such ")):
            self._set_aside()
        elif attempt < _ATTEMPTS and (code == sqlite3.SQLITE_READONLY_DBMOVED or code & 0xFF == sqlite3.SQLITE_IOERR):
            # Deleted under us, and perhaps being made again, its old log still beside it: that settles in a moment.
            time.sleep(0.01 * attempt)
            if attempt > _ATTEMPTS // 2:
                self._set_aside()
        elif code & 0xFF in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}:
            raise ReadOnlyStorageError(
                f"The cache {self._layout.root!r} does not accept writes.", "Choose another cache folder."
            ) from error
        else:
            raise StorageUnavailableError(f"The cache index {self.path!r} failed: {error}.") from error

    def _set_aside(self) -> None:
        """Move a damaged index to the quarantine, unless another process has replaced it already."""
        # The log first: a new database must not find the old one's.
        if _is_sound(self.path):
            return
        for suffix in ("-wal", "-shm", ""):
            try:
                os.replace(self.path + suffix, self._layout.unique("quarantine", "cache.db" + suffix))
            except FileNotFoundError:
                continue

    def _connect(self) -> sqlite3.Connection:
        try:
            inode = os.stat(self.path).st_ino
        except (FileNotFoundError, PermissionError):  # what is forbidden is told below
            inode = 0
        if self._db is not None:
            if inode == self._inode:
                return self._db
            self.close()
        with _hinting_at_the_setting(), translated(self._layout.root, writing=True):
            self._layout.make()
            # SQLite would create it 0644 whatever the umask; its log and shared memory take the database's mode.
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            self._inode = os.fstat(descriptor).st_ino
            os.close(descriptor)
        db = sqlite3.connect(self.path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        self._db = db
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        _set_wal(db)
        db.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost the latest rows, never the consistency
        if db.execute("PRAGMA user_version").fetchone()[0] == 0:
            self._transact(db, self._create)
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version != _VERSION:
            raise StorageError(
                f"The cache {self._layout.root!r} is of version {version}, and this modelstore knows {_VERSION}.",
                "Upgrade modelstore, or choose another cache folder.",
            )

    def _create(self, db: sqlite3.Connection) -> None:
        if db.execute("PRAGMA user_version").fetchone()[0]:
            return  # another process was first
        step("cache.rebuild.1")
        for statement in _statements(_SCHEMA):
            db.execute(statement)
        for entry in self._layout.entries():
            add_found(db, self._layout, entry)
        step("cache.rebuild.2")
        db.execute(f"PRAGMA user_version = {_VERSION}")


def add_found(db: sqlite3.Connection, layout: Layout, entry: str) -> None:
    """Index an entry found on disk; its files are not believed before they are hashed."""
    folder = layout.path(entry)
    used_us = int(os.stat(folder).st_mtime * 1_000_000)
    names = [] if entry.startswith("trees/") else layout.names(entry)
    size = max((size_on_disk(os.path.join(folder, name)) for name in names), default=0)
    add_entry(db, entry, size_on_disk(folder) if not names else size, used_us=used_us)
    # Inode 0 is nobody's: the first use compares, finds a difference, and hashes.
    db.executemany("INSERT OR IGNORE INTO files VALUES(?, ?, 0, 0)", [(entry, name) for name in names])


def add_entry(db: sqlite3.Connection, entry: str, size: int, used_us: int | None = None) -> None:
    """Index an entry, or mark one that is there as used."""
    now = time.time_ns() // 1000
    db.execute(
        "INSERT INTO entries VALUES(?, ?, ?, ?, ?, ?) ON CONFLICT(entry) DO UPDATE SET used_us = excluded.used_us",
        (entry, entry.partition("/")[0], size, size, now // 1000, now if used_us is None else used_us),
    )


def put_file(db: sqlite3.Connection, entry: str, name: str, stat: os.stat_result) -> None:
    """Record that the file's bytes are right as it lies there."""
    db.execute("INSERT OR REPLACE INTO files VALUES(?, ?, ?, ?)", (entry, name, stat.st_ino, stat.st_mtime_ns))


def put_uri(db: sqlite3.Connection, key: bytes, shown: str, target: tuple[str, str, str | None]) -> None:
    """Let a URI lead to an entry: ``target`` is entry, file name, ETag."""
    row = (key, shown, *target, time.time_ns() // 1_000_000)
    db.execute("INSERT OR REPLACE INTO uris VALUES(?, ?, ?, ?, ?, ?)", row)


def rows(db: sqlite3.Connection, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """Return all rows of a query."""
    return db.execute(sql, values).fetchall()


def _is_sound(path: str) -> bool:
    try:
        db = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None)
        try:
            if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                return False
            if db.execute("PRAGMA user_version").fetchone()[0]:
                for table, columns in _TABLES.items():
                    db.execute(f"SELECT {columns} FROM {table} LIMIT 1")
            return True
        finally:
            db.close()
    except sqlite3.DatabaseError:
        return False


def _set_wal(db: sqlite3.Connection) -> None:
    # The switch to WAL does not wait for other openers as other statements do, so the waiting is done here.
    deadline = time.monotonic() + _WAIT_S
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _statements(script: str) -> list[str]:
    """Split a script: `executescript` would commit the transaction we are in."""
    statements, buffer = [], ""
    for line in script.splitlines(keepends=True):
        buffer += line
        if sqlite3.complete_statement(buffer):
            statements.append(buffer)
            buffer = ""
    return statements

"""The one place that decides which SQLite is used, and how its calls and a fork of the process keep apart.

`pysqlite3`, when installed, brings a newer SQLite than Python's own; sqlite-utils prefers it too, and its exception
classes are not those of the standard module. So nothing else imports `sqlite3`.

SQLite has locks of its own that belong to the whole process. A child that is forked while another thread holds one of
them (it opens a connection, say, because a background upload begins) would wait for ever in its first use of SQLite.
So a fork first waits until no thread is inside SQLite, and no thread enters while the process is being forked. It waits
a second at the most: a thread that SQLite lets wait for another process's transaction holds none of those locks.

The same goes for modules that are loaded at their first use: a child cannot import what another thread was importing
when it was forked. So a fork also waits, as long, until no thread is at it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import sqlite3
else:
    try:
        from pysqlite3 import dbapi2 as sqlite3
    except ImportError:
        import sqlite3

__all__ = ["MINIMUM_VERSION", "Connection", "connect", "open_connections", "sqlite3"]

MINIMUM_VERSION = (3, 37, 0)
"""STRICT tables came with this version of SQLite."""

_FORK_WAIT_S: Final = 1.0
_FORK_PAUSE_S: Final = 0.001
_LOADED_LATE: Final = ("modelstore", "adlfs", "filelock", "fsspec", "gcsfs", "numpy", "s3fs", "sqlite_utils", "sshfs")
_READ_AHEAD: Final = 50

_opening = threading.RLock()  # reentrant: collecting garbage while one is opened may close another
_connections: weakref.WeakSet[Connection] = weakref.WeakSet()


class Cursor(sqlite3.Cursor):
    """A cursor whose calls and forks exclude each other."""

    connection: Connection

    def execute(self, *arguments: Any) -> Cursor:
        """Run one statement."""
        with self.connection.inside:
            try:
                super().execute(*arguments)
            except UnicodeEncodeError as error:  # which is no error of SQLite's to those who translate these
                raise sqlite3.InterfaceError(f"{error.object!r:.80} is no valid Unicode") from error
            except KeyboardInterrupt:
                self._end()
                raise
        return self

    def _end(self) -> None:
        """End the statement after ctrl-C, which shows when a call has returned.

        A traceback that somebody keeps, as notebooks do, keeps the cursor too; one in the middle of its rows holds its
        connection at that moment, so that it can write no more.
        """
        super().close()

    def executemany(self, *arguments: Any) -> Cursor:
        """Run one statement for each of several sets of parameters."""
        with self.connection.inside:
            super().executemany(*arguments)
        return self

    def fetchone(self) -> Any:
        """Return the next row; None after the last."""
        with self.connection.inside:
            try:
                return super().fetchone()
            except KeyboardInterrupt:
                self._end()
                raise

    def fetchmany(self, *arguments: Any, **options: Any) -> list[Any]:
        """Return the next rows."""
        with self.connection.inside:
            try:
                return super().fetchmany(*arguments, **options)
            except KeyboardInterrupt:
                self._end()
                raise

    def fetchall(self) -> list[Any]:
        """Return all rows that are left."""
        with self.connection.inside:
            try:
                return super().fetchall()
            except KeyboardInterrupt:
                self._end()
                raise

    def __next__(self) -> Any:
        with self.connection.inside:
            return super().__next__()

    def __iter__(self) -> Any:
        """Yield the rows that are left, read several at a time: a lock for each row would double what it costs."""
        while rows := self.fetchmany(_READ_AHEAD):
            yield from rows


class Connection(sqlite3.Connection):
    """A connection whose calls and forks exclude each other; for one thread at a time.

    Attributes:
        closed: Whether it was closed.
        inside: Held by the thread that is in a call, which may be entered again by a generator of parameters.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.inside = threading.RLock()
        self.closed = False
        super().__init__(*arguments, **options)

    def cursor(self, factory: Any = Cursor) -> Any:
        """Return a cursor."""
        return super().cursor(factory)

    def execute(self, *arguments: Any) -> Cursor:
        """Run one statement with a new cursor."""
        cursor: Cursor = self.cursor()
        return cursor.execute(*arguments)

    def executemany(self, *arguments: Any) -> Cursor:
        """Run one statement for each of several sets of parameters, with a new cursor."""
        cursor: Cursor = self.cursor()
        return cursor.executemany(*arguments)

    def close(self) -> None:
        """Close it; closing twice is the same as once."""
        with _opening:
            super().close()
            self.closed = True


def connect(database: Any, **options: Any) -> Connection:
    """Return a connection; the arguments are those of `sqlite3.connect`."""
    with _opening:
        connection: Connection = sqlite3.connect(database, factory=Connection, **options)
        _connections.add(connection)
        return connection


def open_connections() -> list[Connection]:
    """Return the connections of this process that nobody closed: whoever looks for a leak finds it here."""
    return [connection for connection in _connections.copy() if not connection.closed]


class _Holding(threading.local):
    """The locks that a thread took to fork; each thread its own, since a fork that waited too long goes on anyway."""

    def __init__(self) -> None:
        self.locks: list[Any] = []


_holding = _Holding()


def _importing() -> bool:
    """Tell whether a module that we load at first use is half loaded."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in _LOADED_LATE and getattr(
            getattr(module, "__spec__", None), "_initializing", False
        ):
            return True
    return False


def _before_fork() -> None:
    deadline = time.monotonic() + _FORK_WAIT_S
    while threading.active_count() > 1 and _importing() and time.monotonic() < deadline:
        time.sleep(_FORK_PAUSE_S)
    held = _holding.locks
    if _opening.acquire(timeout=_FORK_WAIT_S):
        held.append(_opening)
    for connection in _connections.copy():
        if connection.inside.acquire(timeout=max(deadline - time.monotonic(), 0)):
            held.append(connection.inside)  # one by one: what is held so far must be known if this is interrupted


def _after_fork() -> None:
    while _holding.locks:
        _holding.locks.pop().release()


def _after_fork_in_child() -> None:
    global _opening, _connections  # noqa: PLW0603 - a lock that another thread held stays held here: all begins anew
    _holding.locks.clear()
    _opening = threading.RLock()
    _connections = weakref.WeakSet()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)

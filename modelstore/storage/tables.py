"""Small objects in a table of PostgreSQL, or of what speaks like it: the same questions that a bucket answers.

One table, one primary key, byte strings that compare as bytes, upserts: what CockroachDB and YugabyteDB take as well.
Credentials come from where libpq looks for them: `PGPASSWORD`, `~/.pgpass`, a service file, certificates.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

from modelstore.errors import BlobNotFoundError, InvalidUriError, MissingDriverError
from modelstore.storage.buckets import Entry, Span
from modelstore.storage.failures import translated
from modelstore.storage.retries import Patience, retrying
from modelstore.storage.uris import normalise, redact, refuse_secrets, scheme

if TYPE_CHECKING:
    import psycopg

__all__ = ["SCHEMES", "TableStorage"]

T = TypeVar("T")

SCHEMES: Final = frozenset({"postgresql", "postgres"})

_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS modelstore_objects (registry TEXT NOT NULL, name BYTEA NOT NULL, size BIGINT NOT NULL,"
    " changed_at DOUBLE PRECISION NOT NULL, data BYTEA NOT NULL, PRIMARY KEY (registry, name))"
)
_NOW: Final = "extract(epoch FROM clock_timestamp())"
_INSERT: Final = (
    f"INSERT INTO modelstore_objects (registry, name, size, changed_at, data) VALUES (%s, %s, %s, {_NOW}, %s)"
    " ON CONFLICT (registry, name) DO "
)
_REPLACE: Final = "UPDATE SET size = excluded.size, changed_at = excluded.changed_at, data = excluded.data"
_LARGEST: Final = 1_000_000_000
"""Bytes of one value: PostgreSQL's own limit is a little above."""
_CONNECT_S: Final = 10
_IDLE: Final = 4
_LOST: Final = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}
"""A connection is given up when its other end is silent for so long; a system's own times come to hours."""
# Of the SQLSTATEs; what a connection that broke says has none.
_RACES: Final = frozenset({"23505", "42P07"})  # two that make the table at once
_REFUSED: Final = frozenset({"28000", "28P01", "42501", "25006", "3D000"})
_FULL: Final = frozenset({"53100"})
# A server that refuses a connection says why in words alone; these refusals pass.
_PASSING: Final = ("starting up", "shutting down", "too many", "remaining connection slots", "terminating", "recovery")


class TableStorage:
    """A registry's small objects in a database; see `modelstore.storage.buckets.ObjectStorage`.

    Safe for any number of threads, processes and hosts; a forked child connects by itself. Every call is one statement,
    and durable when it returns, as far as the server is set up to be.

    Args:
        uri: ``postgresql://user@host:port/database/registry``; several registries can be in one database.
        patience: How long to go on through failures that may pass.

    Raises:
        InvalidUriError: It names no database, or carries a password.
        MissingDriverError: psycopg is not installed.
    """

    settled_after_s: ClassVar[float] = 0.0
    """A listing is one statement, and sees one moment."""

    def __init__(self, uri: str, patience: Patience | None = None) -> None:
        whole = refuse_secrets(normalise(uri)).rstrip("/")
        parts = urlsplit(whole)
        database, _, registry = parts.path.strip("/").partition("/")
        if scheme(whole) not in SCHEMES or not database:
            raise InvalidUriError(f"{redact(whole)!r} names no database", "Write postgresql://host/database.")
        self.uri = whole
        self._registry = unquote(registry)
        self._target = urlunsplit(("postgresql", parts.netloc, f"/{database}", parts.query, ""))
        self._patience = patience or Patience(attempts=8, deadline_s=60.0)
        self._lock = threading.Lock()
        self._idle: list[psycopg.Connection[Any]] = []
        self._pid = os.getpid()
        self._made = False
        _psycopg()

    def __repr__(self) -> str:
        return f"TableStorage({redact(self.uri)!r})"

    # -- reading ---------------------------------------------------------------------------------------------------

    def entries(self, folder: str) -> list[Entry]:
        """List what is right below a folder."""
        rows = self._below(folder)
        found = [Entry(path, size, changed_at) for path, size, changed_at in rows]
        return [entry for entry in found if "/" not in entry.name]

    def tree(self, folder: str) -> dict[str, Entry]:
        """List everything below a folder, by its path from there."""
        return {path: Entry(path.rpartition("/")[2], size, then) for path, size, then in self._below(folder)}

    def _below(self, folder: str) -> list[tuple[str, int, float]]:
        head = f"{folder}/" if folder else ""
        sql = "SELECT name, size, changed_at FROM modelstore_objects WHERE registry = %s AND name >= %s AND name < %s"
        rows = self._rows(sql, self._registry, head.encode(), _beyond(head))
        return [(name.decode()[len(head) :], size, changed_at) for name, size, changed_at in rows]

    def read(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        """Return an object, or a part of it.

        Raises:
            BlobNotFoundError: There is none.
        """
        values: tuple[int, ...] = ()
        what = "data"
        if end is not None:
            what, values = "substring(data FROM %s FOR %s)", (start + 1, end - start)
        elif start:
            what, values = "substring(data FROM %s)", (start + 1,)
        sql = f"SELECT {what} FROM modelstore_objects WHERE registry = %s AND name = %s"
        rows = self._rows(sql, *values, self._registry, name.encode())
        if not rows:
            raise BlobNotFoundError(f"There is nothing at {self.address(name)!r}.", "Check that it still exists.")
        return bytes(rows[0][0])

    def read_many(self, spans: Sequence[Span]) -> list[bytes | None]:
        """Return parts of many objects; None for those that are not there."""
        whole = [span.name.encode() for span in spans if (span.start, span.end) == (0, None)]
        sql = "SELECT name, data FROM modelstore_objects WHERE registry = %s AND name = ANY(%s)"
        rows = self._rows(sql, self._registry, whole) if whole else []
        found = {bytes(name).decode(): bytes(data) for name, data in rows}
        return [found.get(s.name) if (s.start, s.end) == (0, None) else self._read_or_none(s) for s in spans]

    def _read_or_none(self, span: Span) -> bytes | None:
        try:
            return self.read(span.name, span.start, span.end)
        except BlobNotFoundError:
            return None

    def size(self, name: str) -> int | None:
        """Return the size of an object in bytes; None when there is none."""
        sql = "SELECT size FROM modelstore_objects WHERE registry = %s AND name = %s"
        rows = self._rows(sql, self._registry, name.encode())
        return int(rows[0][0]) if rows else None

    def download(self, name: str, target: Path) -> None:
        """Copy an object to a local file."""
        data = self.read(name)
        with translated(target, writing=True):
            target.write_bytes(data)

    # -- writing ---------------------------------------------------------------------------------------------------

    def write(self, name: str, data: bytes) -> None:
        """Write an object in place of one of that name."""
        self._rows(_INSERT + _REPLACE, self._registry, name.encode(), len(data), data, writing=True)

    def create(self, name: str, data: bytes) -> bool:
        """Write an object unless there is one of that name; tells whether this call did."""
        sql = _INSERT + "NOTHING RETURNING 1"
        if self._rows(sql, self._registry, name.encode(), len(data), data, writing=True):
            return True
        return self.read(name) == data  # or the answer to a repeated call was lost

    def upload(self, name: str, path: Path) -> None:
        """Copy a local file to an object."""
        with translated(path):
            size = path.stat().st_size
            if size > _LARGEST:
                raise InvalidUriError(f"{path} has {size:,} bytes, too many for a table of {self.uri}")
            data = path.read_bytes()
        self.write(name, data)

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; those that are gone already are no error."""
        keys = [name.encode() for name in names]
        if keys:
            sql = "DELETE FROM modelstore_objects WHERE registry = %s AND name = ANY(%s)"
            self._rows(sql, self._registry, keys, writing=True)

    def address(self, name: str) -> str:
        """Return what stands for an object in messages."""
        return f"{self.uri}#{name}" if name else self.uri

    def now(self, probe: str) -> float:  # noqa: ARG002 - a database can be asked
        """Return the database's own time."""
        return float(self._rows(f"SELECT {_NOW}")[0][0])

    # -- the database ----------------------------------------------------------------------------------------------

    def _rows(self, sql: str, *values: Any, writing: bool = False) -> list[tuple[Any, ...]]:
        def ask() -> list[tuple[Any, ...]]:
            with self._connected() as connection:
                cursor = connection.execute(sql, values)
                return cursor.fetchall() if cursor.description else []

        with translated(self.uri, writing=writing):
            return retrying(lambda: _told(ask), self._patience)

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[Any]]:
        connection = self._take()
        try:
            yield connection
        except BaseException:
            with suppress(Exception):
                connection.close()
            raise
        with self._lock:
            if len(self._idle) < _IDLE and self._pid == os.getpid():
                self._idle.append(connection)
                return
        connection.close()

    def _take(self) -> psycopg.Connection[Any]:
        with self._lock:
            if self._pid != os.getpid():
                self._inherited, self._idle, self._pid = self._idle, [], os.getpid()  # the parent's: left alone
            if self._idle:
                return self._idle.pop()
        connection: psycopg.Connection[Any] = _psycopg().connect(
            self._target, autocommit=True, connect_timeout=_CONNECT_S, application_name="modelstore", **_LOST
        )
        if not self._made:
            try:
                self._make(connection)
            except BaseException:
                connection.close()
                raise
        return connection

    def _make(self, connection: psycopg.Connection[Any]) -> None:
        """Make the table; several that do so at once disturb each other, and one of them succeeds."""
        if not connection.execute("SELECT 1 FROM pg_tables WHERE tablename = 'modelstore_objects'").fetchone():
            try:
                connection.execute(_TABLE)
            except _psycopg().Error as error:
                if error.sqlstate not in _RACES:
                    raise
        self._made = True

    def close(self) -> None:
        """Drop the connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle if self._pid == os.getpid() else ():
            connection.close()


def _beyond(head: str) -> bytes:
    """Return the least byte string that is greater than all that begin with ``head``."""
    return head.encode()[:-1] + b"0" if head else b"\xff"  # "0" follows "/"


def _told(action: Callable[[], T]) -> T:
    """Return what ``action`` returns; errors of the driver become those of the system that mean the same."""
    psycopg = _psycopg()
    try:
        return action()
    except psycopg.Error as error:
        state = error.sqlstate or ""
        text = " ".join(str(error).split())
        if state in _REFUSED or (not state and "FATAL:" in text and not any(one in text for one in _PASSING)):
            raise PermissionError(errno.EACCES, text) from error
        if state in _FULL:
            raise OSError(errno.ENOSPC, text) from error
        if not state or state[:2] in {"08", "40", "53", "57"}:  # lost, rolled back, too many, shut down
            raise ConnectionResetError(errno.ECONNRESET, text) from error
        raise


def _psycopg() -> Any:
    try:
        import psycopg
    except ImportError as error:
        raise MissingDriverError(
            "The driver for postgresql:// is not installed", 'Run: pip install "modelstore-local[postgres]"'
        ) from error
    return psycopg

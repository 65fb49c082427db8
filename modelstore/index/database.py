"""The database file: how it is opened, and who may write.

Why not the obvious ways. A deferred transaction that reads and then writes fails at once with "database is locked"
when another process wrote in between, whatever the busy timeout: so every write transaction here begins IMMEDIATE.
Several processes that create one file at the same moment collide in the switch to WAL: so creation and migration
happen under a file lock, and only they do.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from modelstore.errors import (
    CorruptRegistryError,
    NewerRegistryError,
    ReadOnlyRegistryError,
    RegistryBusyError,
    RegistryError,
)
from modelstore.index.bitmaps import bit_count
from modelstore.index.driver import MINIMUM_VERSION, connect, sqlite3
from modelstore.index.endings import Action, Endings
from modelstore.index.failures import BUSY_TIMEOUT_S, translated
from modelstore.index.reports import points_json
from modelstore.index.schema import APPLICATION_ID, SCHEMA_VERSION
from modelstore.index.texts import mentioned, words_of
from modelstore.index.turns import Turns
from modelstore.query.evaluate import regexp
from modelstore.records.values import scalar_of

if TYPE_CHECKING:
    import sqlite_utils


class Journal(Protocol):
    """Where operations are kept that are not kept in the database alone.

    Attributes:
        written: Whether this process has put something there.
    """

    written: bool

    def take_in(self) -> None:
        """Bring the database up to date."""

    def begin(self, connection: sqlite3.Connection) -> int:
        """Note the beginning of a write transaction."""

    def append(self, connection: sqlite3.Connection, after: int) -> bool:
        """Keep the operations written since `begin`; returns whether there were any."""


__all__ = ["Database", "Journal"]

_PATIENCE_MS = 20
_SYNCHRONOUS_NORMAL = 1
_SYNCHRONOUS_FULL = 2
_CACHE_KIB = 8_000
"""Pages that a connection keeps: with SQLite's 2,000, a walk among a million models reads the same ones many times."""


class _Held:
    """Closes a thread's connection when the thread is gone: else each upload, and each thread of a pool, leaves one."""

    def __init__(self, connection: sqlite3.Connection, others: list[sqlite3.Connection]) -> None:
        self._connection, self._others, self._pid = connection, others, os.getpid()

    def __del__(self, getpid: Callable[[], int] = os.getpid) -> None:  # os may be gone when the interpreter ends
        if getpid() != self._pid:
            _inherited.append(self._connection)  # a fork ends the parent's other threads here, see `_forget_parent`
            return
        with suppress(ValueError):
            self._others.remove(self._connection)
        self._connection.close()


_inherited: list[sqlite3.Connection] = []


class Database:
    """One registry database, for any number of threads and forked children of this process.

    Each thread has a connection of its own, opened at first use; a forked child opens its own too, since SQLite
    connections do not survive a fork.

    Args:
        path: The file.
        backups: Folder that gets a copy of the file before a migration.
        create: Make the file when it is missing. Without it, a missing file is an error.
        durable: Commits survive a power cut. Without it they may be lost, the last ones first; never half of one.

    Attributes:
        path: The file.
        journal: Where operations are kept as well; None for the database alone.
        read_only: Whether this user cannot write it.
        generation: Grows whenever a write transaction of this process has ended, well or not.

    Raises:
        NewerRegistryError: A newer modelstore wrote the file.
        CorruptRegistryError: It is no SQLite database, or damaged.
        ReadOnlyRegistryError: It must be created or migrated, and cannot be written.
    """

    def __init__(self, path: Path, backups: Path, *, create: bool = True, durable: bool = True) -> None:
        self.path = path
        self.journal: Journal | None = None
        self._synchronous = _SYNCHRONOUS_FULL if durable else _SYNCHRONOUS_NORMAL
        self._backups = backups
        self._local = threading.local()
        self._open_lock = threading.Lock()
        self._connections: list[sqlite3.Connection] = []
        self._pid = os.getpid()
        self._closed = False
        self._turns = Turns()
        self.generation = 0
        self.read_only = False
        self._frozen = ""
        if sqlite3.sqlite_version_info < MINIMUM_VERSION:
            raise RegistryError(
                f"SQLite {sqlite3.sqlite_version} is too old; {'.'.join(map(str, MINIMUM_VERSION))} is needed",
                'Install a newer one with: pip install "modelstore-local[newsqlite]"',
            )
        try:
            with translated(path):
                self._prepare(create=create)
        except BaseException:
            self.close()
            raise

    # -- opening ---------------------------------------------------------------------------------------------------

    def _prepare(self, *, create: bool) -> None:
        if not self.path.exists():
            if not create:
                raise RegistryError(f"There is no registry database at {self.path}")
            self._migrate()
            return
        self.read_only = not (os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK))
        version = self._version(self.connection)
        if version > SCHEMA_VERSION:
            raise NewerRegistryError(
                f"The registry at {self.path.parent} has format {version}; this modelstore reads up to "
                f"{SCHEMA_VERSION}",
                'Upgrade with: pip install -U "modelstore-local"',
            )
        if version < SCHEMA_VERSION:
            self._migrate()

    def _version(self, connection: sqlite3.Connection) -> int:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0 and connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is not None:
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            if application != APPLICATION_ID:
                raise CorruptRegistryError(
                    f"{self.path} is a database, but no modelstore registry", "Open the folder of a registry."
                )
        return version

    def _migrate(self) -> None:
        """Create the file or bring it up to date; any number of processes may do so at the same moment.

        1. take the file lock  2. switch to WAL  3. copy the file, when there is something in it  4. all steps and
        the new version number in one transaction. A process killed anywhere leaves the old version or the new one
        (tests/index/test_database.py kills it at each).
        """
        from filelock import FileLock

        from modelstore.index.schema import migrations

        lock = FileLock(str(self.path) + ".lock", timeout=BUSY_TIMEOUT_S)
        try:
            if not self.path.parent.is_dir():  # moved away a moment ago; FileLock would make an empty one
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path.parent))
            lock.acquire()
        except OSError as error:
            raise ReadOnlyRegistryError(
                f"A registry cannot be created or upgraded in {self.path.parent} ({error.strerror or error})",
                "Check the permissions of the folder.",
            ) from error
        with lock:
            connection = self.connection
            if self._version(connection) == SCHEMA_VERSION:  # another process was first
                return
            if connection.execute("SELECT 1 FROM pragma_module_list WHERE name = 'fts5'").fetchone() is None:
                raise RegistryError(
                    f"SQLite {sqlite3.sqlite_version} was built without FTS5, which search needs",
                    'Install another with: pip install "modelstore-local[newsqlite]"',
                )
            connection.execute("PRAGMA journal_mode = WAL")
            if self._version(connection):
                self._back_up(connection)
            try:
                connection.execute("BEGIN IMMEDIATE")
                migrations().apply(self.tools)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def _back_up(self, connection: sqlite3.Connection) -> None:
        self._backups.mkdir(parents=True, exist_ok=True)
        version = self._version(connection)
        target = self._backups / f"registry-format{version}-{os.urandom(4).hex()}.db"
        self.copy_to(target)

    def freeze(self, reason: str) -> None:
        """Refuse every further write of this process, with these words."""
        self._frozen, self.read_only = reason, True

    def copy_to(self, target: Path) -> None:
        """Write a consistent copy of the database into a new file, while others go on reading and writing.

        Raises:
            StorageFullError: There is no room.
        """
        with translated(target):
            copy = connect(target)
            try:
                self.connection.backup(copy)
            finally:
                copy.close()

    @property
    def connection(self) -> sqlite3.Connection:
        """This thread's connection."""
        if self._closed:
            raise RegistryError(f"The registry at {self.path.parent} was closed", "Open it again.")
        if self._pid != os.getpid():
            self._forget_parent()
        found: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if found is None:
            found = self._connect()
            with self._open_lock:
                self._connections.append(found)
            self._local.connection = found
            self._local.held = _Held(found, self._connections)
        return found

    def _forget_parent(self) -> None:
        # Closing a parent's connection in the child would drop the parent's file locks: keep it, unused, for ever.
        self._inherited = (self._local, self._connections)
        self._local = threading.local()
        self._connections = []
        self._open_lock = threading.Lock()
        self._turns = Turns()
        self._pid = os.getpid()

    def _connect(self) -> sqlite3.Connection:
        with translated(self.path):
            if self.read_only:
                return self.connect_read_only()
            connection = connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
            try:
                connection.execute(f"PRAGMA synchronous = {self._synchronous}")
                return self._furnish(connection)
            except BaseException:
                connection.close()
                raise

    def connect_read_only(self) -> sqlite3.Connection:
        """Return a connection of the caller's own, through which nothing can be written; the caller closes it.

        Raises:
            ReadOnlyRegistryError: The file cannot be read.
        """
        from urllib.parse import quote

        for options in ("mode=ro", "mode=ro&immutable=1"):
            # A WAL database in a folder without write permission opens only as immutable, unless a writer has it open.
            uri = f"file:{quote(str(self.path))}?{options}"
            connection = connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
            try:
                connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
            except sqlite3.OperationalError:
                connection.close()
                continue
            except BaseException:
                connection.close()
                raise
            return self._furnish(connection)
        raise ReadOnlyRegistryError(f"The registry database {self.path} cannot be read", "Check its permissions.")

    def _furnish(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.create_function("regexp", 2, regexp, deterministic=True)
        connection.create_function("words_of", 4, words_of, deterministic=True)
        connection.create_function("mentioned", 5, mentioned, deterministic=True)
        connection.create_function("points_json", 3, points_json, deterministic=True)
        connection.create_function("scalar_of", 1, scalar_of, deterministic=True)
        connection.create_function("bit_count", 1, bit_count, deterministic=True)
        return connection

    # -- use -------------------------------------------------------------------------------------------------------

    @property
    def tools(self) -> sqlite_utils.Database:
        """This thread's connection through sqlite-utils: schema, introspection, bulk work, full-text search."""
        import sqlite_utils

        return sqlite_utils.Database(self.connection, execute_plugins=False)

    def all(self, sql: str, parameters: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """Return every row of a query."""
        with translated(self.path):
            return self.connection.execute(sql, parameters).fetchall()

    def one(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Row | None:
        """Return the first row of a query, or None."""
        with translated(self.path):
            row: sqlite3.Row | None = self.connection.execute(sql, parameters).fetchone()
            return row

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all reads of the block see one state of the database."""
        connection = self.connection
        nested = connection.in_transaction
        if nested:
            yield
            return
        with translated(self.path):
            try:
                connection.execute("BEGIN")
                yield
            finally:
                if connection.in_transaction:
                    connection.execute("COMMIT")

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    @property
    def in_transaction(self) -> bool:
        """Whether this thread has a write transaction open."""
        return bool(getattr(self._local, "depth", 0)) and self._pid == os.getpid()

    def at_end(self, *, well: Action | None = None, undone: Action | None = None) -> None:
        """Leave something to the end of this thread's transaction, for what cannot be rolled back.

        Args:
            well: Done when it was committed, in order; at once where no transaction is open.
            undone: Done when it, or the `savepoint` that this call is in, was rolled back, the latest first.
        """
        if self.in_transaction:
            self._local.endings.add(well, undone)
        elif well is not None:
            well()

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo what the block wrote when it raises, and no more: its caller may go on with the transaction."""
        connection, endings = self.connection, self._local.endings
        count = endings.count
        connection.execute("SAVEPOINT step")
        try:
            yield
        except BaseException:
            if connection.in_transaction:  # a full disk ends all of it
                connection.execute("ROLLBACK TO step")
                connection.execute("RELEASE step")
            endings.undo(count)
            self.generation += 1
            raise
        connection.execute("RELEASE step")

    @contextmanager
    def write(self, *, private: bool = False) -> Iterator[sqlite3.Connection]:
        """Give the connection inside a write transaction; nested use joins the outer one.

        Everything in it is committed together, durable on disk when the outermost block ends, or, when the block
        raises or the process dies, not at all.

        Args:
            private: Leave the journal alone: what is written came from it, or is of this machine alone.

        Raises:
            ReadOnlyRegistryError: The registry cannot be written.
            RegistryBusyError: Others kept it locked too long.
            StorageFullError: No space; nothing was changed.
            StorageError: The journal could not be read or written; nothing was changed, or the error says so.
        """
        if self._frozen:
            raise ReadOnlyRegistryError(self._frozen)
        if self.read_only:
            raise ReadOnlyRegistryError(
                f"The registry at {self.path.parent} is read-only for this user", "Check the folder's permissions."
            )
        connection = self.connection
        if self.in_transaction:
            if not connection.in_transaction:
                raise RegistryError("An error has ended this transaction, and undone it", "Begin it again.")
            yield connection
            return
        journal = None if private else self.journal
        if journal is not None:
            journal.take_in()
        endings = self._local.endings = Endings()
        try:
            with self._writing(connection, journal):
                yield connection
        except BaseException:
            endings.done() if endings.committed else endings.undo()
            raise
        endings.done()

    @contextmanager
    def _writing(self, connection: sqlite3.Connection, journal: Journal | None) -> Iterator[None]:
        with self._turns.mine(), translated(self.path):
            try:
                # Ctrl-C shows when a call has returned: what it began must be ended, and what it ended is.
                connection.execute("BEGIN IMMEDIATE")
                self._local.depth = 1
                after = 0 if journal is None else journal.begin(connection)
                yield
                kept = journal is not None and journal.append(connection, after)
                self._commit(connection, kept=kept)
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            finally:
                self._local.depth = 0
                self.generation += 1  # in this thread's turn: none is lost

    def _commit(self, connection: sqlite3.Connection, *, kept: bool) -> None:
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if not kept:
                raise
            raise RegistryError(
                f"The change is made, and in the journal; the index {self.path} could not note it ({error})",
                "Do not repeat it: the index takes it in later.",
            ) from error
        except BaseException:
            self._local.endings.committed = not connection.in_transaction
            raise
        else:
            self._local.endings.committed = True

    @contextmanager
    def write_if_free(self) -> Iterator[sqlite3.Connection | None]:
        """Like `write`, for what can as well be done later: gives None where the registry cannot be written now."""
        with ExitStack() as stack:
            yield self._enter_if_free(stack)

    def _enter_if_free(self, stack: ExitStack) -> sqlite3.Connection | None:
        if self.in_transaction:
            return stack.enter_context(self.write())
        if self.read_only or self._turns.taken:
            return None
        connection = self.connection
        try:
            connection.execute(f"PRAGMA busy_timeout = {_PATIENCE_MS}")
            return stack.enter_context(self.write())
        except RegistryBusyError:
            return None
        finally:
            connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000:.0f}")

    def close(self) -> None:
        """Close every connection of this process. Later use raises `RegistryError`."""
        self._closed = True
        if self._pid != os.getpid():
            return
        with self._open_lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()

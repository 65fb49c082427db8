"""A registry database that nobody else has open, for as long as it takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelstore.errors import RegistryBusyError
from modelstore.index.driver import connect, sqlite3
from modelstore.index.failures import translated

__all__ = ["exclusive"]

_PATIENCE_S = 2.0


@contextmanager
def exclusive(path: Path) -> Iterator[sqlite3.Connection]:
    """Give a connection while no other process has the database open; all of it is in the file itself then.

    In this mode, chosen before the first access, SQLite locks the file as a whole: that fails while anybody has it
    open, and whoever opens it meanwhile waits. Nothing else in this process may open and close the file: that
    would drop the lock.

    Raises:
        RegistryBusyError: Somebody has it open.
    """
    with translated(path):
        connection = connect(path, timeout=_PATIENCE_S, isolation_level=None)
        try:
            try:
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")
                connection.execute("BEGIN EXCLUSIVE")
                connection.execute("COMMIT")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) and "busy" not in str(error):
                    raise
                raise RegistryBusyError(
                    f"The registry at {path.parent} is in use by another process", "Try again when nobody uses it."
                ) from error
            yield connection
        finally:
            connection.close()

"""SQL that people write themselves, on a connection through which nothing can be changed.

Three locks on one door, since each alone has a key: the file is opened for reading only (but ATTACH would open
another), `query_only` refuses to write anywhere (but a PRAGMA takes it back), and an authorizer lets through nothing
but reading, so neither of these can be said.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final, Self

from modelstore.errors import InvalidRequestError
from modelstore.index.database import Database
from modelstore.index.driver import sqlite3
from modelstore.index.failures import translated

__all__ = ["Selection", "select"]

# Numbers of sqlite3.h; the module has names for only some of them in every version.
_FUNCTION: Final = 31
_PRAGMA: Final = 19
_READING: Final = frozenset({20, 21, 33})  # READ, SELECT, RECURSIVE
_OK: Final = 0
_DENY: Final = 1
_PRAGMAS: Final = frozenset(
    {
        "application_id", "compile_options", "data_version", "foreign_key_list", "function_list", "index_info",
        "index_list", "index_xinfo", "table_info", "table_list", "table_xinfo", "user_version",
    }
)  # fmt: skip
_STATE: Final = frozenset({"application_id", "user_version"})
"""Pragmas that set something when they are given a value."""

_FORBIDDEN_FUNCTIONS: Final = frozenset({"load_extension", "fts3_tokenizer", "writefile", "edit"})
_BUSY: Final = ("locked", "busy", "malformed", "not a database", "disk i/o", "unable to open", "full")
_OPCODES: Final = 100_000
"""Steps of SQLite's machine between two chances to be interrupted: some milliseconds."""


class Selection:
    """The rows of one statement, read as they are asked for; a context manager that ends the reading.

    Attributes:
        columns: Names of the columns, as SQLite gives them; they need not be unique.
    """

    def __init__(self, connection: sqlite3.Connection, cursor: sqlite3.Cursor, database: Database) -> None:
        self._connection, self._cursor, self._database = connection, cursor, database
        self.columns: tuple[str, ...] = tuple(column[0] for column in cursor.description)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Yield the rows.

        Raises:
            InvalidRequestError: SQLite refused in the middle, for instance because a function was given nonsense.
        """
        while True:
            with _explained(self._database):
                row = self._cursor.fetchone()
            if row is None:
                return
            yield tuple(row)

    def close(self) -> None:
        """End the reading."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def select(database: Database, statement: str) -> Selection:
    """Run one statement that reads; the rows are those of the moment of the call, whatever others write meanwhile.

    Args:
        database: The index.
        statement: One SELECT (or VALUES, EXPLAIN, a PRAGMA that tells about tables).

    Raises:
        InvalidRequestError: It is no such statement, or SQLite cannot run it.
        RegistryError: The database cannot be read.
    """
    connection = database.connect_read_only()
    try:
        connection.execute("PRAGMA query_only = ON")
        if "search_words" in statement.lower():  # FTS5 declares its table when it is first met, which would be refused
            with _explained(database):
                connection.execute("SELECT 1 FROM search_words LIMIT 0")
        connection.set_progress_handler(_continue, _OPCODES)
        connection.set_authorizer(_authorize)
        with _explained(database):
            cursor = connection.execute(statement)
        if cursor.description is None:
            raise InvalidRequestError("The statement gives no rows", "Write a SELECT.")
        return Selection(connection, cursor, database)
    except BaseException:
        connection.close()
        raise


def _continue() -> int:
    # Python looks for signals when it comes here; a KeyboardInterrupt then ends the statement as "interrupted".
    return 0


def _authorize(action: int, first: str | None, second: str | None, _schema: str | None, _trigger: str | None) -> int:
    if action in _READING:
        return _OK
    if action == _FUNCTION:
        return _DENY if (second or "").lower() in _FORBIDDEN_FUNCTIONS else _OK
    if action == _PRAGMA:
        name = (first or "").lower()
        return _OK if name in _PRAGMAS and not (second and name in _STATE) else _DENY
    return _DENY


class _explained:  # noqa: N801 - reads as a statement: with _explained(database): …
    """Tell a mistake in the statement from trouble with the database."""

    def __init__(self, database: Database) -> None:
        self._path = database.path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Before Python 3.12 a second statement is a sqlite3.Warning, which is no sqlite3.Error. ValueError and
        # OverflowError come from what Python cannot hand over (NUL in a statement, half a surrogate pair).
        if not isinstance(error, (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError)):
            return
        text = str(error)
        lowered = text.lower()
        if isinstance(error, sqlite3.OperationalError) and lowered == "interrupted":
            raise KeyboardInterrupt from error
        if isinstance(error, sqlite3.Error) and any(word in lowered for word in _BUSY):
            with translated(self._path):
                raise error
        if "not authorized" in lowered or "prohibited" in lowered or "readonly" in lowered:
            raise InvalidRequestError(
                f"The statement does more than read ({text})", "Nothing can be changed through SQL; write a SELECT."
            ) from error
        if "one statement" in lowered:
            raise InvalidRequestError("Only one statement can be run at a time", "Leave out what follows.") from error
        raise InvalidRequestError(f"The statement cannot be run: {text}") from error

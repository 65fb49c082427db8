"""The journal of a one-machine registry: a table beside the index, written in the same transactions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

from modelstore.errors import InvalidOperationError
from modelstore.records.operations import Operation

__all__ = [
    "COLUMNS",
    "append",
    "between",
    "contains",
    "count",
    "from_stamp",
    "get",
    "last_number",
    "last_stamp",
    "of_entities",
    "of_entity",
    "of_writer",
    "operation_from_row",
    "read",
    "rows",
    "touched",
]

COLUMNS = "seq, stamp, entity_kind, entity, action, changes, parents, actor, batch, batch_size"


class Connection(Protocol):
    """What is needed of a database connection: the DB-API's `execute` and `executemany`."""

    def execute(self, sql: str, parameters: Any = ..., /) -> Any:
        """Run one statement."""

    def executemany(self, sql: str, parameters: Any, /) -> Any:
        """Run one statement for each of several sets of parameters."""


_dump: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def append(connection: Connection, operations: Sequence[Operation]) -> range:
    """Add operations at the end, in their order; part of the caller's transaction.

    Returns:
        Their sequence numbers in this journal.

    Raises:
        InvalidOperationError: One has a value that no JSON has, or text that is no Unicode.
    """
    first = 1 + last_number(connection)
    numbers = range(first, first + len(operations))
    try:
        connection.executemany(
            f"INSERT INTO ops ({COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?)",
            [
                (
                    seq,
                    operation.stamp,
                    operation.kind,
                    operation.entity,
                    operation.action,
                    _dump(operation.changes),
                    _dump(operation.parents) if operation.parents else None,
                    operation.actor,
                    operation.batch,
                    operation.batch_size,
                )
                for seq, operation in zip(numbers, operations, strict=True)
            ],
        )
    except ValueError as error:  # NaN, infinity, halves of surrogate pairs: Python reads them, and no journal has them
        raise InvalidOperationError(f"A change has a value that cannot be written down: {error}") from error
    return numbers


def last_stamp(connection: Connection) -> str | None:
    """Return the greatest stamp in the journal; None when it is empty."""
    row = connection.execute("SELECT max(stamp) FROM ops").fetchone()
    stamp: str | None = row[0]
    return stamp


def contains(connection: Connection, stamp: str) -> bool:
    """Tell whether the operation with that stamp is here."""
    return connection.execute("SELECT 1 FROM ops WHERE stamp = ?", (stamp,)).fetchone() is not None


def count(connection: Connection) -> int:
    """Return how many operations there are."""
    number: int = connection.execute("SELECT count(*) FROM ops").fetchone()[0]
    return number


def read(connection: Connection, after: int = 0, limit: int | None = None) -> Iterator[tuple[int, Operation]]:
    """Yield operations in order of arrival, with their sequence numbers.

    Args:
        connection: The database.
        after: Start behind this sequence number; 0 starts at the beginning.
        limit: At most so many; None for all.
    """
    for row in rows(connection, after, limit):
        yield row[0], operation_from_row(row)


def rows(connection: Connection, after: int = 0, limit: int | None = None) -> Iterator[Any]:
    """Yield operations as `read` does, as rows that `operation_from_row` may find unreadable."""
    yield from connection.execute(
        f"SELECT {COLUMNS} FROM ops WHERE seq > ? ORDER BY seq LIMIT ?", (after, -1 if limit is None else limit)
    )


def get(connection: Connection, stamp: str) -> Operation | None:
    """Return the operation with that stamp; None when it is not here."""
    row = connection.execute(f"SELECT {COLUMNS} FROM ops WHERE stamp = ?", (stamp,)).fetchone()
    return None if row is None else operation_from_row(row)


def between(connection: Connection, after: str, last: str, limit: int | None = None) -> Iterator[Operation]:
    """Yield the operations with stamps behind ``after`` up to ``last``, ascending, at most ``limit`` of them."""
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM ops WHERE stamp > ? AND stamp <= ? ORDER BY stamp LIMIT ?",
        (after, last, -1 if limit is None else limit),
    )
    for row in rows:
        yield operation_from_row(row)


def last_number(connection: Connection) -> int:
    """Return the number of the operation that arrived last; 0 when there is none."""
    return int(connection.execute("SELECT coalesce(max(seq), 0) FROM ops").fetchone()[0])


def of_writer(connection: Connection, writer: str, after: str, last: str) -> list[Operation]:
    """Return the operations of one writer with stamps behind ``after`` up to ``last``, ascending."""
    sql = f"SELECT {COLUMNS} FROM ops WHERE stamp > ? AND stamp <= ? AND substr(stamp, 17) = ? ORDER BY stamp"
    return [operation_from_row(row) for row in connection.execute(sql, (after, last, writer))]


def from_stamp(connection: Connection, first: str) -> Iterator[Operation]:
    """Yield the operations from a stamp on, ascending, as they are asked for."""
    for row in connection.execute(f"SELECT {COLUMNS} FROM ops WHERE stamp >= ? ORDER BY stamp", (first,)):
        yield operation_from_row(row)


def of_entity(connection: Connection, entity: str) -> list[tuple[int, Operation]]:
    """Return every operation on one entity but reports, in order of arrival."""
    rows: Iterable[Any] = connection.execute(
        f"SELECT {COLUMNS} FROM ops WHERE entity = ? AND action <> 'report' ORDER BY seq", (entity,)
    )
    return [(row[0], operation_from_row(row)) for row in rows]


def touched(connection: Connection, entity: str, after: int) -> bool:
    """Tell whether an operation on an entity arrived behind a sequence number."""
    row = connection.execute("SELECT 1 FROM ops WHERE entity = ? AND seq > ? LIMIT 1", (entity, after)).fetchone()
    return row is not None


def of_entities(connection: Connection, entities: Sequence[str]) -> Iterator[Operation]:
    """Yield every operation on these entities, reports too, in order of stamps."""
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM ops WHERE entity IN (SELECT value FROM json_each(?)) ORDER BY stamp",
        (json.dumps(list(entities)),),
    )
    for row in rows:
        yield operation_from_row(row)


def operation_from_row(row: Any) -> Operation:
    """Build the operation that a row of `ops` holds (columns in the order of the table)."""
    return Operation(
        stamp=row[1],
        kind=row[2],
        entity=row[3],
        action=row[4],
        changes=json.loads(row[5]),
        parents=json.loads(row[6]) if row[6] else {},
        actor=row[7],
        batch=row[8],
        batch_size=row[9],
    )

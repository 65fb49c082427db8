"""Letting operations in: this registry's own, and those of others in any order and any number of times."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from modelstore.index import fold, ops
from modelstore.index.driver import sqlite3
from modelstore.index.schema import FOLDED_TABLES, TRIGGERS
from modelstore.records.operations import Operation, check_operation

__all__ = ["Ingested", "append_own", "ingest", "rebuild"]

_FROZEN_GUARDS = ("models_published_frozen", "models_published_once", "models_published_kept")


@dataclass(frozen=True, slots=True)
class Ingested:
    """What came of operations from elsewhere: how many were new, and which entities they touched."""

    new: int
    known: int
    entities: frozenset[str]


def append_own(connection: sqlite3.Connection, operation: Operation) -> int:
    """Append and apply an operation made here, which by construction has seen everything that is here.

    Returns:
        Its sequence number.
    """
    seq = ops.append(connection, operation)
    fold.apply(connection, operation, seq)
    if connection.execute("SELECT 1 FROM conflicts WHERE entity = ? LIMIT 1", (operation.entity,)).fetchone():
        fold.reconcile(connection, operation.entity)
    return seq


def ingest(connection: sqlite3.Connection, operations: Iterable[Operation]) -> Ingested:
    """Append and apply operations made elsewhere; part of the caller's transaction.

    The result does not depend on their order, nor on how often each arrives.

    Raises:
        InvalidOperationError: One breaks the format; the caller's transaction should be rolled back.
    """
    new = known = 0
    touched: set[str] = set()
    doubtful: set[str] = set()
    for operation in operations:
        check_operation(operation)
        if ops.contains(connection, operation.stamp):
            known += 1
            continue
        if not _has_seen_everything(connection, operation):
            doubtful.add(operation.entity)
        fold.apply(connection, operation, ops.append(connection, operation))
        touched.add(operation.entity)
        new += 1
    for entity in doubtful:
        fold.reconcile(connection, entity)
    return Ingested(new, known, frozenset(touched))


def _has_seen_everything(connection: sqlite3.Connection, operation: Operation) -> bool:
    """Tell cheaply that an operation conflicts with nothing here; False only means: look closely."""
    if operation.kind == "project":
        return not ops.of_entity(connection, operation.entity)
    table = {"model": "models", "task": "tasks"}[operation.kind]
    row = connection.execute(
        f"SELECT created_op, published_op, deleted FROM {table} WHERE id = ?", (operation.entity,)
    ).fetchone()
    if row is None:
        return operation.action == "create"
    if row[0] is None or row[1] is not None or row[2] or operation.action != "edit":
        return False
    if connection.execute("SELECT 1 FROM conflicts WHERE entity = ? LIMIT 1", (operation.entity,)).fetchone():
        return False
    return fold.winners(connection, operation.kind, operation.entity, list(operation.changes)) == operation.parents


def rebuild(connection: sqlite3.Connection) -> int:
    """Empty the index and fold the journal into it anew; part of the caller's transaction.

    Returns:
        How many operations were folded.
    """
    for trigger in _FROZEN_GUARDS:
        connection.execute(f"DROP TRIGGER IF EXISTS {trigger}")
    for table in FOLDED_TABLES:
        connection.execute(f"DELETE FROM {table}")
    for trigger in _FROZEN_GUARDS:
        connection.execute(TRIGGERS[trigger])
    count = 0
    entities: set[str] = set()
    edited: set[str] = set()
    for seq, operation in ops.read(connection):
        fold.apply(connection, operation, seq)
        if operation.entity in entities:
            edited.add(operation.entity)
        entities.add(operation.entity)
        count += 1
    for entity in edited:
        fold.reconcile(connection, entity)
    return count

"""Letting operations in: this registry's own, and those of others in any order and any number of times."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from modelstore.index import fold, ops, texts
from modelstore.index.creation import insert_models
from modelstore.index.driver import sqlite3
from modelstore.index.heads import note_arrivals, raise_own
from modelstore.index.schema import FOLDED_TABLES, TRIGGERS
from modelstore.records.operations import Operation, check_operation

__all__ = ["Creations", "Ingested", "append_own", "ingest", "rebuild"]

_FROZEN_GUARDS = ("models_published_frozen", "models_published_once", "models_published_kept")
_TOGETHER: Final = 1_000
"""Creations that are written together: more gain little, and all of them are held in memory."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """What came of operations from elsewhere: how many were new, and which entities they touched."""

    new: int
    known: int
    entities: frozenset[str]


class Creations:
    """Gathers creations of new models that follow one another, so that they are written together.

    Args:
        connection: Inside a write transaction.
        journal: Whether the operations go into the journal too; False where they come from it.
    """

    def __init__(self, connection: sqlite3.Connection, *, journal: bool = True) -> None:
        self._connection = connection
        self._journal = journal
        self._waiting: dict[str, tuple[int, Operation]] = {}
        self._stamps: set[str] = set()

    def __contains__(self, operation: Operation) -> bool:
        """Tell whether an operation waits here, or one on its entity."""
        return operation.entity in self._waiting or operation.stamp in self._stamps

    def add(self, operation: Operation, seq: int = 0) -> None:
        """Take in the creation of a model that has no row, and of which nothing waits here."""
        self._waiting[operation.entity] = seq, operation
        self._stamps.add(operation.stamp)
        if len(self._waiting) >= _TOGETHER:
            self.write()

    def write(self) -> None:
        """Write what waits."""
        if not self._waiting:
            return
        waiting = list(self._waiting.values())
        if self._journal:
            operations = [operation for _, operation in waiting]
            waiting = list(zip(ops.append(self._connection, operations), operations, strict=True))
        insert_models(self._connection, waiting)
        self._waiting.clear()
        self._stamps.clear()


def append_own(connection: sqlite3.Connection, operations: Sequence[Operation]) -> range:
    """Append and apply operations made here, which by construction have seen everything that is here.

    Returns:
        Their sequence numbers.
    """
    numbers = ops.append(connection, operations)
    raise_own(connection, operations)
    creations = Creations(connection, journal=False)
    fresh = _without_row(connection, operations)
    for seq, operation in zip(numbers, operations, strict=True):
        if operation.entity in fresh and operation.action == "create" and operation not in creations:
            creations.add(operation, seq)
            fresh.discard(operation.entity)
            continue
        creations.write()
        fold.apply(connection, operation, seq)
        if operation.action == "report":
            continue
        if connection.execute("SELECT 1 FROM conflicts WHERE entity = ? LIMIT 1", (operation.entity,)).fetchone():
            fold.reconcile(connection, operation.entity)
    creations.write()
    return numbers


def _without_row(connection: sqlite3.Connection, operations: Sequence[Operation]) -> set[str]:
    """Return the entities of creations of models of which the index has no row yet."""
    wanted = {o.entity for o in operations if o.kind == "model" and o.action == "create"}
    if not wanted:
        return wanted
    rows = connection.execute(
        "SELECT m.id FROM json_each(?) AS wanted CROSS JOIN models AS m ON m.id = wanted.value",
        (json.dumps(list(wanted)),),
    )
    return wanted.difference(row[0] for row in rows)


def ingest(
    connection: sqlite3.Connection,
    operations: Iterable[Operation],
    heads: Mapping[str, str] | None = None,
    *,
    checked: bool = False,
) -> Ingested:
    """Append and apply operations made elsewhere; part of the caller's transaction.

    The result does not depend on their order, nor on how often each arrives.

    Args:
        connection: Inside a write transaction.
        operations: The operations.
        heads: By writer, the stamp up to which all his operations are here when these have arrived. Writers of whom
            only some arrive (a few models in a bundle, say) are absent. Looked at when all operations were taken.
        checked: They were checked already, as those that `Operation.from_json` reads are.

    Raises:
        InvalidOperationError: One breaks the format; the caller's transaction should be rolled back.
    """
    known = 0
    new: list[str] = []
    touched: set[str] = set()
    doubtful: set[str] = set()
    creations = Creations(connection)
    for operation in operations:
        if not checked:
            check_operation(operation)
        if operation in creations:
            creations.write()
        if ops.contains(connection, operation.stamp):
            known += 1
            continue
        new.append(operation.stamp)
        touched.add(operation.entity)
        if operation.action == "create" and operation.kind == "model" and not _has_row(connection, operation):
            creations.add(operation)
            continue
        creations.write()
        if not _has_seen_everything(connection, operation):
            doubtful.add(operation.entity)
        (seq,) = ops.append(connection, [operation])
        fold.apply(connection, operation, seq)
    creations.write()
    for entity in doubtful:
        fold.reconcile(connection, entity)
    note_arrivals(connection, new, heads or {})
    return Ingested(len(new), known, frozenset(touched))


def _has_row(connection: sqlite3.Connection, operation: Operation) -> bool:
    return connection.execute("SELECT 1 FROM models WHERE id = ?", (operation.entity,)).fetchone() is not None


def _has_seen_everything(connection: sqlite3.Connection, operation: Operation) -> bool:
    """Tell cheaply that an operation conflicts with nothing here; False only means: look closely."""
    if operation.action == "report":
        return True
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
    texts.forget(connection)
    count = 0
    entities: set[str] = set()
    edited: set[str] = set()
    creations = Creations(connection, journal=False)
    for seq, operation in ops.read(connection):
        count += 1
        if operation.entity not in entities and operation.action == "create" and operation.kind == "model":
            creations.add(operation, seq)
        else:
            creations.write()
            fold.apply(connection, operation, seq)
            if operation.entity in entities:
                edited.add(operation.entity)
        entities.add(operation.entity)
    creations.write()
    for entity in edited:
        fold.reconcile(connection, entity)
    while texts.behind(connection) > 0:
        texts.take_in(connection)
    return count

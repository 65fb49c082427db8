"""Letting operations in: this registry's own, and those of others in any order and any number of times."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from modelstore.index import fold, ops, texts
from modelstore.index.creation import insert_models
from modelstore.index.driver import sqlite3
from modelstore.index.heads import note_arrivals, raise_own
from modelstore.index.rows import Rows, contested
from modelstore.index.schema import FOLDED_TABLES, TRIGGERS
from modelstore.records.operations import Operation, check_operation

__all__ = ["Ingested", "append_own", "ingest", "rebuild"]

_FROZEN_GUARDS = ("models_published_frozen", "models_published_once", "models_published_kept")
_TOGETHER: Final = 2_000
"""Operations that are taken in together: more gain little, and all of them are held in memory."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """What came of operations from elsewhere: how many were new, and which entities they touched."""

    new: int
    known: int
    entities: frozenset[str]


def append_own(connection: sqlite3.Connection, operations: Sequence[Operation]) -> range:
    """Append and apply operations made here, which by construction have seen everything that is here.

    Returns:
        Their sequence numbers.
    """
    numbers = ops.append(connection, operations)
    raise_own(connection, operations)
    _fold_in(connection, list(zip(numbers, operations, strict=True)))
    touched = {operation.entity for operation in operations if operation.action != "report"}
    for entity in contested(connection, touched):
        fold.reconcile(connection, entity)
    return numbers


def _fold_in(connection: sqlite3.Connection, numbered: Sequence[tuple[int, Operation]]) -> set[str]:
    """Let operations that are in the journal change the index: new models together, and first.

    Returns:
        The entities that may be in conflict.
    """
    fresh = _without_row(connection, [operation for _, operation in numbered])
    created: list[tuple[int, Operation]] = []
    others: list[tuple[int, Operation]] = []
    for seq, operation in numbered:
        if operation.kind == "model" and operation.action == "create" and operation.entity in fresh:
            fresh.discard(operation.entity)
            created.append((seq, operation))
        else:
            others.append((seq, operation))
    if created:
        insert_models(connection, created)
    rows = Rows(connection)
    rows.read(operation for _, operation in others)
    doubtful = {operation.entity for seq, operation in others if not fold.apply(rows, operation, seq)}
    rows.write()
    return doubtful


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
    arriving = iter(operations)
    while some := list(islice(arriving, _TOGETHER)):
        if not checked:
            for operation in some:
                check_operation(operation)
        unknown = _unknown(connection, some)
        known += len(some) - len(unknown)
        new += [operation.stamp for operation in unknown]
        touched.update(operation.entity for operation in unknown)
        numbers = ops.append(connection, unknown)
        doubtful |= _fold_in(connection, list(zip(numbers, unknown, strict=True)))
    for entity in doubtful:
        fold.reconcile(connection, entity)
    note_arrivals(connection, new, heads or {})
    return Ingested(len(new), known, frozenset(touched))


def _unknown(connection: sqlite3.Connection, operations: Sequence[Operation]) -> list[Operation]:
    """Return the operations that are not in the journal, each once."""
    found: dict[str, Operation] = {}
    for operation in operations:
        found.setdefault(operation.stamp, operation)
    known = connection.execute(
        "SELECT ops.stamp FROM json_each(?) AS wanted CROSS JOIN ops ON ops.stamp = wanted.value",
        (json.dumps(list(found)),),
    )
    for (stamp,) in known.fetchall():
        del found[stamp]
    return list(found.values())


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
    doubtful: set[str] = set()
    arriving = ops.read(connection)
    while some := list(islice(arriving, _TOGETHER)):
        count += len(some)
        doubtful |= _fold_in(connection, some)
    for entity in doubtful:
        fold.reconcile(connection, entity)
    while texts.behind(connection) > 0:
        texts.take_in(connection)
    return count

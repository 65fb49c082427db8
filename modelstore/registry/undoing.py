"""Taking a change back, by a new one: history stays, and an undo can be undone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from modelstore.errors import InvalidRequestError, NotFoundError, PublishedModelError
from modelstore.index import fold, ops
from modelstore.journal import Draft
from modelstore.records.conflicts import RESOLVED
from modelstore.records.operations import Operation
from modelstore.registry.history import plain

if TYPE_CHECKING:
    from modelstore.registry.registry import Registry

__all__ = ["Undone", "undo"]


@dataclass(frozen=True, slots=True)
class Undone:
    """One value that an undo brings back, or cannot.

    Attributes:
        kind: "model", "task" or "project".
        entity: The id of what was changed.
        key: What was changed: a field, "tag:prod" …, or "deleted".
        now: The value that stands.
        back: The value that it had before the change.
        later: Stamp of a later change of the same value, which stays; None where there is none.
    """

    kind: str
    entity: str
    key: str
    now: Any
    back: Any
    later: str | None


def undo(registry: Registry, stamp: str | None, *, dry_run: bool = False, force: bool = False) -> list[Undone]:
    """Bring back what an operation, with its whole transaction, replaced; see `Registry.undo`."""
    registry.flush_reports()
    with registry.database.write() as connection:
        found: list[Undone] = []
        drafts: list[Draft] = []
        for operations in _by_entity(_operations(connection, stamp)):
            _undo_entity(connection, operations, found, drafts)
        blocked = [one for one in found if one.later is not None]
        if blocked and not force:
            keys = ", ".join(f"{one.key} of {one.entity[:8]} (by {one.later})" for one in blocked[:5])
            raise InvalidRequestError(
                f"Changed since: {keys}", "Undo the later change first, or bring back the rest with force."
            )
        if drafts and not dry_run:
            registry.commit(drafts)
    return found


def _operations(connection: Any, stamp: str | None) -> list[Operation]:
    """Return an operation with those of its transaction, in order of stamps."""
    if stamp is None:
        row = connection.execute(
            "SELECT stamp FROM ops WHERE action <> 'report' AND substr(stamp, 17) IN (SELECT id FROM writers)"
            " ORDER BY seq DESC LIMIT 1"
        ).fetchone()
        if row is None:
            raise NotFoundError("Nothing has been changed here yet")
        stamp = str(row[0])
    operation = ops.get(connection, stamp)
    if operation is None:
        raise NotFoundError(f"There is no operation {stamp}", "`modelstore history` shows their stamps.")
    if operation.batch is None:
        return [operation]
    following = (o for o in ops.from_stamp(connection, operation.batch) if o.batch == operation.batch)
    return list(islice(following, operation.batch_size))


def _by_entity(operations: list[Operation]) -> list[list[Operation]]:
    """Return the operations entity by entity, what was changed last first."""
    found: dict[str, list[Operation]] = {}
    for operation in reversed(operations):
        found.setdefault(operation.entity, []).insert(0, operation)
    return list(found.values())


def _undo_entity(connection: Any, operations: list[Operation], found: list[Undone], drafts: list[Draft]) -> None:
    for operation in operations:
        _check_possible(operation)
    if operations[0].action == "create":
        _undo_creation(connection, operations, found, drafts)
    else:
        _undo_values(connection, operations, found, drafts)


def _check_possible(operation: Operation) -> None:
    if operation.action == "publish":
        raise PublishedModelError(
            f"The {operation.kind} {operation.entity} was published by {operation.stamp}, which cannot be taken back",
            "Archive it, or register a new one.",
        )
    if operation.action == "report":
        raise InvalidRequestError("Reports are only added, and cannot be taken back")


def _undo_creation(connection: Any, operations: list[Operation], found: list[Undone], drafts: list[Draft]) -> None:
    kind, entity, own = operations[0].kind, operations[0].entity, {operation.stamp for operation in operations}
    since = [o.stamp for _, o in ops.of_entity(connection, entity) if o.stamp not in own]  # it would go with it
    found.append(Undone(kind, entity, "deleted", now=None, back=True, later=max(since, default=None)))
    if not since:
        drafts.append(Draft(kind, entity, "delete", {"deleted": True}))


def _undo_values(connection: Any, operations: list[Operation], found: list[Undone], drafts: list[Draft]) -> None:
    """Go back to what was before the first of the operations, where one of them decides the value now."""
    kind, entity, own = operations[0].kind, operations[0].entity, {operation.stamp for operation in operations}
    values = {key: value for operation in operations for key, value in operation.changes.items()}
    parents = {key: operation.parents.get(key) for operation in reversed(operations) for key in operation.changes}
    changes: dict[str, Any] = {}
    for key, standing in fold.winners(connection, kind, entity, list(values)).items():
        if key.startswith(RESOLVED):
            continue
        parent = parents[key]
        before = None if parent is None else ops.get(connection, parent)
        back = None if before is None else before.changes.get(key)
        if key in ("deleted", "package"):
            back = bool(back)
        later = None if standing in own else standing
        found.append(Undone(kind, entity, key, plain(key, values[key]), plain(key, back), later))
        if later is None:
            changes[key] = back
    deleted = changes.pop("deleted", None)
    if changes:
        drafts.append(Draft(kind, entity, "edit", changes))
    if deleted is not None:
        drafts.append(Draft(kind, entity, "delete" if deleted else "restore", {"deleted": deleted}))

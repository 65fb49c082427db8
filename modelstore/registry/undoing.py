"""Taking a change back, by a new one: history stays, and an undo can be undone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelstore.errors import InvalidRequestError, NotFoundError, PublishedModelError
from modelstore.index import fold, ops
from modelstore.journal import Draft
from modelstore.records.operations import Operation
from modelstore.registry.models import plain

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
    """Bring back what an operation, with its whole transaction, replaced.

    Args:
        registry: The registry.
        stamp: The operation; None for the last change made on this host.
        dry_run: Only say what would be done.
        force: Bring back what nothing has changed since, and leave the rest; else that is refused.

    Returns:
        What was brought back, and, with ``force``, what was not.

    Raises:
        NotFoundError: There is no such operation.
        InvalidRequestError: Something has been changed since, or the operation only reported.
        PublishedModelError: A publication cannot be taken back.
    """
    registry.flush_reports()
    with registry.database.write() as connection:
        operations = _operations(connection, stamp)
        found: list[Undone] = []
        drafts: list[Draft] = []
        for operation in reversed(operations):
            _undo_one(connection, operation, found, drafts)
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
    rows = connection.execute("SELECT stamp FROM ops WHERE batch = ? ORDER BY stamp", (operation.batch,)).fetchall()
    found = (ops.get(connection, row[0]) for row in rows)
    return [one for one in found if one is not None]


def _undo_one(connection: Any, operation: Operation, found: list[Undone], drafts: list[Draft]) -> None:
    kind, entity, action = operation.kind, operation.entity, operation.action
    if action == "publish":
        raise PublishedModelError(
            f"The {kind} {entity} was published by {operation.stamp}, which cannot be taken back",
            "Archive it, or register a new one.",
        )
    if action == "report":
        raise InvalidRequestError("Reports are only added, and cannot be taken back")
    if action == "create":
        found.append(Undone(kind, entity, "deleted", now=None, back=True, later=None))
        drafts.append(Draft(kind, entity, "delete", {"deleted": True}))
        return
    changes: dict[str, Any] = {}
    standing = fold.winners(connection, kind, entity, list(operation.changes))
    for key, value in operation.changes.items():
        if key.startswith("resolved:"):
            continue
        parent = operation.parents.get(key)
        before = ops.get(connection, parent) if parent is not None else None
        back = before.changes.get(key) if before is not None else None
        if key in ("deleted", "package"):
            back = bool(back)
        later = standing.get(key)
        blocked = later if later != operation.stamp else None
        found.append(Undone(kind, entity, key, plain(key, value), plain(key, back), blocked))
        if blocked is None:
            changes[key] = back
    if "deleted" in changes:
        drafts.append(Draft(kind, entity, "delete" if changes["deleted"] else "restore", changes))
    elif changes:
        drafts.append(Draft(kind, entity, "edit", changes))

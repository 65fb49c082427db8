"""Edits that did not know of each other: which there are, and settling them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from modelstore.errors import InvalidRequestError, NotFoundError
from modelstore.ids import to_datetime
from modelstore.index import ops
from modelstore.journal import Draft
from modelstore.records.conflicts import Conflict, members, resolution_key
from modelstore.records.operations import FROZEN_FIELDS, EntityKind, Operation, check_operation
from modelstore.registry.history import plain

if TYPE_CHECKING:
    from modelstore.registry.registry import Registry

__all__ = ["Branch", "Conflicts", "OpenConflict"]

_TABLES: Final = {"model": "models", "task": "tasks", "project": "projects"}


@dataclass(frozen=True, slots=True)
class Branch:
    """One side of a conflict.

    Attributes:
        value: What it ended in; None for "removed" or "cleared".
        actor: Who changed it last.
        at: When (aware, UTC).
        ours: Whether this registry made one of its changes.
        stands: Whether its value is the one that holds now.
        stamps: The operations, oldest first.
    """

    value: Any
    actor: str
    at: datetime
    ours: bool
    stands: bool
    stamps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OpenConflict:
    """Two or more edits of one value that did not know of each other, and that nobody has settled.

    Attributes:
        id: Names it in `Conflicts.resolve`: entity, key and fork.
        kind: "model", "task" or "project".
        entity: Id of what was edited.
        name: Its name; None where it is not known.
        key: What was edited: a field, "tag:prod", "meta:accuracy" …; "deleted" for edits a removal did not know of.
        before: What all sides had seen; None for nothing.
        branches: The sides, in the order in which they began.
        fixed: Whether the value is that of a publication, so that it can only be kept.
    """

    id: str
    kind: EntityKind
    entity: str
    name: str | None
    key: str
    before: Any
    branches: tuple[Branch, ...]
    fixed: bool


class Conflicts:
    """The conflicts of one registry.

    Args:
        registry: The registry.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def count(self) -> int:
        """Return how many conflicts are open."""
        row = self._registry.database.one("SELECT count(*) FROM conflicts WHERE agree = 0")
        return 0 if row is None else int(row[0])

    def open(self, entities: Iterable[str] | None = None) -> list[OpenConflict]:
        """Return the conflicts that nobody has settled, ordered by entity and key.

        Args:
            entities: Only those of these; None for all.
        """
        wanted = None if entities is None else set(entities)
        database = self._registry.database
        self._registry.refresh()
        with database.snapshot():
            rows = database.all(
                "SELECT entity, key, fork, branches FROM conflicts WHERE agree = 0 ORDER BY entity, key, fork"
            )
            return [
                self._described(Conflict(entity, key, fork, tuple(json.loads(branches)), agree=False))
                for entity, key, fork, branches in rows
                if wanted is None or entity in wanted
            ]

    def get(self, conflict_id: str) -> OpenConflict:
        """Return one conflict that is open.

        Raises:
            NotFoundError: There is none of that id; it may have been settled.
        """
        entity, _, rest = conflict_id.partition("/")
        found = [c for c in self.open() if c.entity.startswith(entity) and c.id.partition("/")[2].startswith(rest)]
        if len(found) != 1:
            raise NotFoundError(
                f"There is no open conflict {conflict_id!r}" if not found else f"{conflict_id!r} names {len(found)}",
                "`modelstore conflicts` lists them.",
            )
        return found[0]

    def resolve(self, conflict_id: str, *, take: int | None = None, value: Any = ...) -> None:
        """Settle a conflict for good, here and wherever this registry's operations go.

        Args:
            conflict_id: As `OpenConflict.id`; the beginning suffices where it is unambiguous.
            take: Number of the branch whose value shall stand, from 0.
            value: Another value, in the form in which `Branch.value` shows them. None removes or clears.
                With neither, what stands now stays.

        Raises:
            NotFoundError: There is no such conflict, or it was settled meanwhile.
            InvalidRequestError: There is no such branch; the value does not fit; or another value than the published
                one is asked for.
        """
        if take is not None and value is not ...:
            raise InvalidRequestError("take= and value= exclude each other")
        with self._registry.database.write() as connection:
            conflict = self.get(conflict_id)
            if take is not None and not 0 <= take < len(conflict.branches):
                raise InvalidRequestError(f"The conflict has branches 0 to {len(conflict.branches) - 1}, none {take}")
            fork = conflict.id.rsplit("/", 1)[1]
            fork = "" if fork == "-" else fork
            seen = sorted({branch.stamps[-1] for branch in conflict.branches})
            changes: dict[str, Any] = {resolution_key(conflict.key, fork): seen}
            if conflict.key == "deleted":
                self._check_kept(conflict, take, value)
            elif value is not ... or take is not None:
                raw = self._raw(connection, conflict, take, value)
                stands = next((b for b in conflict.branches if b.stands), None)
                if stands is None or conflict.fixed or raw != self._value_of(connection, stands, conflict.key):
                    self._check_changeable(conflict, take)
                    changes[conflict.key] = raw
            draft = Draft(conflict.kind, conflict.entity, "edit", changes)
            check_operation(Operation("f" * 32, draft.kind, draft.entity, "edit", changes))
            self._registry.commit([draft])

    # -- inside ----------------------------------------------------------------------------------------------------

    def _check_kept(self, conflict: OpenConflict, take: int | None, value: Any) -> None:
        if take is not None or value is not ...:
            raise InvalidRequestError(
                f"The {conflict.kind} {conflict.entity} was removed by somebody who did not know of these changes",
                "Keep it removed (no value), or bring it back with `modelstore restore`.",
            )

    def _check_changeable(self, conflict: OpenConflict, take: int | None) -> None:
        if conflict.fixed and not (take is not None and conflict.branches[take].stands):
            raise InvalidRequestError(
                f"The {conflict.kind} {conflict.entity} is published; {conflict.key!r} stays as it is",
                "Settle it without a value, and register a new model if the other is needed.",
            )

    def _raw(self, connection: Any, conflict: OpenConflict, take: int | None, value: Any) -> Any:
        if take is not None:
            return self._value_of(connection, conflict.branches[take], conflict.key)
        if conflict.key.startswith("meta:") and value is not None:
            from modelstore.registry.rules import metadata_pair

            return metadata_pair(conflict.key[5:], value, None)
        if conflict.key.startswith(("tag:", "systag:")):
            return True if value else None
        if conflict.kind == "model" and ":" not in conflict.key:
            return self._registry.models.checked({conflict.key: value})[conflict.key]
        return value

    @staticmethod
    def _value_of(connection: Any, branch: Branch, key: str) -> Any:
        operation = ops.get(connection, branch.stamps[-1])
        assert operation is not None  # noqa: S101 - the branch was read in this transaction
        return operation.changes[key]

    def _described(self, conflict: Conflict) -> OpenConflict:
        connection = self._registry.database.connection
        entity, key, fork = conflict.entity, conflict.key, conflict.fork
        operations = [operation for _, operation in ops.of_entity(connection, entity)]
        kind = operations[0].kind
        own = {row[0] for row in connection.execute("SELECT id FROM writers")}
        sides = members(operations, conflict)
        published = kind == "model" and key in FROZEN_FIELDS and any(o.action == "publish" for o in operations)
        standing = self._standing(connection, kind, entity, key, operations, published=published)
        named = connection.execute(f"SELECT name FROM {_TABLES[kind]} WHERE id = ?", (entity,)).fetchone()
        branches = tuple(_branch(side, key, own, standing) for side in sides)
        before = next((o.changes.get(key) for o in operations if o.stamp == fork), None)
        conflict_id = f"{entity}/{key}/{fork or '-'}"
        return OpenConflict(
            conflict_id, kind, entity, None if named is None else named[0], key, plain(key, before), branches, published
        )

    @staticmethod
    def _standing(
        connection: Any, kind: str, entity: str, key: str, operations: list[Operation], *, published: bool
    ) -> str | None:
        from modelstore.index import fold

        if published:
            return min(o.stamp for o in operations if o.action == "publish")
        return fold.winners(connection, kind, entity, [key]).get(key)


def _branch(side: list[Operation], key: str, own: set[str], standing: str | None) -> Branch:
    last = side[-1]
    at = to_datetime(last.ms)
    assert at is not None  # noqa: S101 - milliseconds were given
    stamps = tuple(operation.stamp for operation in side)
    ours = any(stamp[16:] in own for stamp in stamps)
    return Branch(plain(key, last.changes.get(key)), last.actor, at, ours, standing in stamps, stamps)

"""From what a caller wants changed to operations with stamps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from modelstore.ids import next_stamp
from modelstore.records.operations import Action, EntityKind, Operation

__all__ = ["Draft", "ParentsOf", "seal"]

ParentsOf = Callable[[EntityKind, str, Action, list[str]], dict[str, str]]
"""Tells which operation decides each key of an entity now."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A change that has no stamp yet.

    Attributes:
        kind: What sort of entity it changes.
        entity: The entity's id.
        action: What is done to it.
        changes: Key to new value, encoded for JSON.
    """

    kind: EntityKind
    entity: str
    action: Action
    changes: dict[str, Any]


def seal(
    drafts: Sequence[Draft], *, last: str | None, writer: str, actor: str, parents_of: ParentsOf
) -> list[Operation]:
    """Give drafts their stamps and parents; drafts of one call form one batch.

    Args:
        drafts: In the order in which they happen. No two may touch the same key of one entity.
        last: The greatest stamp known; None for none.
        writer: This registry's writer id.
        actor: Who makes the change.
        parents_of: Looks up what is replaced.
    """
    operations: list[Operation] = []
    size = len(drafts)
    batch: str | None = None
    for draft in drafts:
        last = next_stamp(last, writer)
        if size > 1 and batch is None:
            batch = last
        kind, entity, action, changes = draft.kind, draft.entity, draft.action, draft.changes
        parents = {} if action == "create" else parents_of(kind, entity, action, list(changes))
        operations.append(Operation(last, kind, entity, action, changes, parents, actor, batch, size))
    return operations

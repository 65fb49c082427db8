"""Which edits did not know of each other: computed from the operations on one entity alone.

Every operation names, key by key, the operation whose value it replaced. Where two or more replaced the same one, the
history of that key forks there, and each child begins a branch. A fork is a conflict; it *agrees* when all its branches
lead to the same value. A publication replaces all frozen fields at once, and an edit of a frozen field that it had not
seen shows up as a second child like any other. A deletion names the newest operation per key that its author had seen;
a branch it had not seen is reported under the key "deleted".

All of this is a function of the set of operations, so every registry that has the same ones reports the same conflicts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from modelstore.records.operations import Operation

__all__ = ["Conflict", "find_conflicts"]


@dataclass(frozen=True, slots=True)
class Conflict:
    """One fork in the history of one key.

    Attributes:
        entity: The entity's id.
        key: The field or keyed value.
        fork: Stamp of the last common operation on that key; "" when the key had none.
        branches: Stamps of the operations that each replaced it, ascending.
        agree: Whether all branches lead to the same value.
    """

    entity: str
    key: str
    fork: str
    branches: tuple[str, ...]
    agree: bool


def find_conflicts(entity: str, operations: Iterable[Operation]) -> list[Conflict]:
    """Return the conflicts in the history of one entity, ordered by key and fork.

    Args:
        entity: The entity's id.
        operations: Every operation on it, in any order, duplicates allowed.
    """
    by_stamp = {operation.stamp: operation for operation in operations}
    children: dict[tuple[str, str], list[str]] = defaultdict(list)
    for stamp, operation in by_stamp.items():
        for key in operation.changes:
            if operation.action == "create" and key not in operation.parents:
                continue
            if operation.kind == "project" and key == "name":
                continue  # the id says which name is true
            children[key, operation.parents.get(key, "")].append(stamp)
    found = []
    for (key, fork), stamps in children.items():
        if len(stamps) < 2 or key == "deleted":
            continue
        ends = [_end_of_branch(by_stamp, children, key, stamp) for stamp in stamps]
        agree = all(end == ends[0] for end in ends)
        found.append(Conflict(entity, key, fork, tuple(sorted(stamps)), agree))
    found.extend(_unseen_by_deletion(entity, by_stamp))
    return sorted(found, key=lambda c: (c.key, c.fork))


def _end_of_branch(
    by_stamp: dict[str, Operation], children: dict[tuple[str, str], list[str]], key: str, stamp: str
) -> Any:
    """Follow a branch to its greatest end and return the value there."""
    while following := children.get((key, stamp)):
        stamp = max(following)
    return by_stamp[stamp].changes[key]


def _unseen_by_deletion(entity: str, by_stamp: dict[str, Operation]) -> list[Conflict]:
    flags = [o for o in by_stamp.values() if "deleted" in o.changes]
    last = max(flags, key=lambda o: o.stamp, default=None)
    if last is None or last.changes["deleted"] is not True:
        return []
    if last.stamp < min((s for s, o in by_stamp.items() if o.action == "create"), default=""):
        return []  # the creation sets every field, this flag too
    seen = _ancestry(by_stamp, last)
    unseen = sorted(s for s, o in by_stamp.items() if s not in seen and o.action != "create")
    return [Conflict(entity, "deleted", last.stamp, tuple(unseen), agree=False)] if unseen else []


def _ancestry(by_stamp: dict[str, Operation], operation: Operation) -> set[str]:
    """Return every operation that the author of one had seen, through the parents it names."""
    seen = {operation.stamp}
    waiting = list(operation.parents.values())
    while waiting:
        stamp = waiting.pop()
        if stamp not in seen:
            seen.add(stamp)
            if stamp in by_stamp:
                waiting.extend(by_stamp[stamp].parents.values())
    return seen

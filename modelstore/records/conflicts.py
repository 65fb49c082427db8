"""Which edits did not know of each other: computed from the operations on one entity alone.

Every operation names, key by key, the operation whose value it replaced. Where two or more replaced the same one, the
history of that key forks there, and each child begins a branch. A fork is a conflict; it *agrees* when all its branches
lead to the same value. A publication replaces all frozen fields at once, and an edit of a frozen field that it had not
seen shows up as a second child like any other. A deletion names the newest operation per key that its author had seen;
a branch it had not seen is reported under the key "deleted".

A conflict is over when somebody has resolved it who had seen all of its branches: a later operation on one of them
whose author knew neither the resolution nor what follows from it opens it again.

All of this is a function of the set of operations, so every registry that has the same ones reports the same conflicts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from modelstore.records.operations import Operation

__all__ = ["RESOLVED", "Conflict", "find_conflicts", "members", "resolution_key"]

RESOLVED: Final = "resolved:"

_Children = dict[tuple[str, str], list[str]]


@dataclass(frozen=True, slots=True)
class Conflict:
    """One fork in the history of one key.

    Attributes:
        entity: The entity's id.
        key: The field or keyed value.
        fork: Stamp of the last common operation on that key; "" when the key had none.
        branches: Stamps of the operations that each replaced it, ascending.
        agree: Whether there is nothing to decide: all branches lead to the same value, or somebody has resolved it.
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
    children = _children(by_stamp)
    found = []
    for (key, fork), stamps in children.items():
        if len(stamps) < 2 or key == "deleted":
            continue
        ends = [_end_of_branch(by_stamp, children, key, stamp) for stamp in stamps]
        agree = all(end == ends[0] for end in ends)
        found.append(Conflict(entity, key, fork, tuple(sorted(stamps)), agree))
    found.extend(_unseen_by_deletion(entity, by_stamp))
    resolutions = _resolutions(by_stamp.values())
    found = [
        replace(c, agree=True)
        if not c.agree and any(_covers(o, by_stamp, children, c) for o in resolutions.get((c.key, c.fork), ()))
        else c
        for c in found
    ]
    return sorted(found, key=lambda c: (c.key, c.fork))


def _children(by_stamp: dict[str, Operation]) -> _Children:
    """Return, for each key and operation, those that replaced its value."""
    children: dict[tuple[str, str], list[str]] = defaultdict(list)
    for stamp, operation in by_stamp.items():
        for key in operation.changes:
            if operation.action == "create" and key not in operation.parents:
                continue
            if operation.kind == "project" and key == "name":
                continue  # the id says which name is true
            if key.startswith(RESOLVED):
                continue
            children[key, operation.parents.get(key, "")].append(stamp)
    return children


def resolution_key(key: str, fork: str) -> str:
    """Return the key under which the resolution of a conflict is kept."""
    return f"{RESOLVED}{key}:{fork}"


def members(entity_operations: Iterable[Operation], conflict: Conflict) -> list[list[Operation]]:
    """Return the operations of each branch of a conflict, ascending; the last of a branch has its value."""
    by_stamp = {operation.stamp: operation for operation in entity_operations}
    if conflict.key == "deleted":
        return [[by_stamp[stamp]] for stamp in conflict.branches]
    children = _children(by_stamp)
    return [
        sorted((by_stamp[s] for s in _following(children, conflict.key, branch)), key=lambda o: o.stamp)
        for branch in conflict.branches
    ]


def _resolutions(operations: Iterable[Operation]) -> dict[tuple[str, str], list[Operation]]:
    found: dict[tuple[str, str], list[Operation]] = defaultdict(list)
    for operation in operations:
        for key, value in operation.changes.items():
            if key.startswith(RESOLVED) and value:
                name, _, fork = key.removeprefix(RESOLVED).rpartition(":")
                found[name, fork].append(operation)
    return found


def _covers(resolution: Operation, by_stamp: dict[str, Operation], children: _Children, conflict: Conflict) -> bool:
    """Tell whether a resolution's author had seen every operation of a conflict that does not follow from it."""
    key = conflict.key
    seen = set(resolution.changes[resolution_key(key, conflict.fork)])
    if key == "deleted":
        return seen.issuperset(conflict.branches)
    for stamp in list(seen):
        while (operation := by_stamp.get(stamp)) is not None and (stamp := operation.parents.get(key, "")):
            seen.add(stamp)
    seen |= _following(children, key, resolution.stamp)
    return all(seen >= _following(children, key, branch) for branch in conflict.branches)


def _following(children: _Children, key: str, stamp: str) -> set[str]:
    """Return an operation and all that descend from it, by stamp."""
    found: set[str] = set()
    waiting = [stamp]
    while waiting:
        stamp = waiting.pop()
        if stamp not in found:
            found.add(stamp)
            waiting += children.get((key, stamp), ())
    return found


def _end_of_branch(by_stamp: dict[str, Operation], children: _Children, key: str, stamp: str) -> Any:
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
    unseen = sorted(s for s, o in by_stamp.items() if s not in seen and o.action != "create" and not _only_resolves(o))
    return [Conflict(entity, "deleted", last.stamp, tuple(unseen), agree=False)] if unseen else []


def _only_resolves(operation: Operation) -> bool:
    return bool(operation.changes) and all(key.startswith(RESOLVED) for key in operation.changes)


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

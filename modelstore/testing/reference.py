"""The fold over plain dictionaries: what the index must be, for any set of operations in any order.

Written for being obviously right, not fast: it sorts the operations of an entity by stamp and plays them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from modelstore.ids import clock_of, project_id
from modelstore.index.contents import check_copies, read_index
from modelstore.records.conflicts import find_conflicts
from modelstore.records.operations import FROZEN_FIELDS, MODEL_FIELDS, TASK_FIELDS, Operation

__all__ = ["check_copies", "fold", "read_index"]


def fold(operations: Iterable[Operation]) -> dict[str, Any]:
    """Return the state that a set of operations makes, in the form of `read_index`."""
    by_entity: dict[tuple[str, str], dict[str, Operation]] = defaultdict(dict)
    for operation in operations:
        by_entity[operation.kind, operation.entity][operation.stamp] = operation
    state: dict[str, Any] = {"model": {}, "task": {}, "project": {}, "conflicts": {}}
    for (kind, entity), known in by_entity.items():
        ordered = [known[stamp] for stamp in sorted(known)]
        conflicts = find_conflicts(entity, ordered)
        if conflicts:
            state["conflicts"][entity] = [(c.key, c.fork, list(c.branches), c.agree) for c in conflicts]
        if kind == "project":
            state["project"].setdefault(entity, {}).update(_project(entity, ordered))
            continue
        found = _entity(kind, ordered)
        if found is not None:
            state[kind][entity] = found
            for name in found.pop("projects"):
                state["project"].setdefault(project_id(name), {"name": name})
                state["project"][project_id(name)]["name"] = name
    return state


def _entity(kind: str, ordered: list[Operation]) -> dict[str, Any] | None:  # noqa: C901, PLR0912 - all rules at once
    creation = next((o for o in ordered if o.action == "create"), None)
    if creation is None:
        return None
    fields: dict[str, tuple[str, Any]] = {}
    keyed: dict[str, tuple[str, Any]] = {}
    publication: Operation | None = None
    names = MODEL_FIELDS if kind == "model" else TASK_FIELDS
    for name in names:
        fields[name] = (creation.stamp, creation.changes.get(name))
    for key, value in creation.changes.items():
        if ":" in key and value is not None:
            keyed[key] = (creation.stamp, value)
    for operation in ordered:
        if operation is creation:
            continue
        if operation.action == "publish" and publication is None:
            publication = operation
        for key, value in operation.changes.items():
            if ":" in key:
                if key not in keyed or operation.stamp > keyed[key][0]:
                    keyed[key] = (operation.stamp, value)
            elif kind == "model" and key in FROZEN_FIELDS and operation.action == "publish":
                continue
            elif operation.stamp > fields[key][0]:
                fields[key] = (operation.stamp, value)
    if publication is not None and kind == "model":
        for name in FROZEN_FIELDS:
            fields[name] = ("", publication.changes.get(name))
    projects = {o.changes["project"] for o in ordered if o.changes.get("project") is not None}
    return {
        "fields": {name: value for name, (_, value) in fields.items() if value is not None and value is not False},
        "keyed": {key: value for key, (_, value) in sorted(keyed.items()) if value is not None},
        "published": publication is not None,
        "created": clock_of(creation.stamp),
        "updated": max(clock_of(o.stamp) for o in ordered),
        "projects": projects,
    }


def _project(entity: str, ordered: list[Operation]) -> dict[str, Any]:
    project: dict[str, Any] = {}
    for operation in ordered:
        for field, value in operation.changes.items():
            if field != "name":
                project[field] = value
            elif isinstance(value, str) and project_id(value) == entity:
                project["name"] = value
    return {field: value for field, value in project.items() if value is not None}

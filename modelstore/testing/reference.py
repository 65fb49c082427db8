"""The fold over plain dictionaries: what the index must be, for any set of operations in any order.

Written for being obviously right, not fast: it sorts the operations of an entity by stamp and plays them.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections import defaultdict
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from modelstore.ids import clock_of, project_id
from modelstore.index.contents import check_copies, read_index
from modelstore.records.conflicts import find_conflicts
from modelstore.records.operations import FROZEN_FIELDS, MODEL_FIELDS, TASK_FIELDS, Operation
from modelstore.records.points import unpack

__all__ = ["check_copies", "fold", "read_index"]


def fold(operations: Iterable[Operation]) -> dict[str, Any]:
    """Return the state that a set of operations makes, in the form of `read_index`."""
    by_entity: dict[tuple[str, str], dict[str, Operation]] = defaultdict(dict)
    for operation in operations:
        by_entity[operation.kind, operation.entity][operation.stamp] = operation
    state: dict[str, Any] = {"model": {}, "task": {}, "project": {}, "conflicts": {}, "scalars": {}, "plots": {}}
    for (kind, entity), known in by_entity.items():
        everything = [known[stamp] for stamp in sorted(known)]
        ordered = [operation for operation in everything if operation.action != "report"]
        scalars, plots = _reports([operation for operation in everything if operation.action == "report"])
        state["scalars"] |= {entity: scalars} if scalars else {}
        state["plots"] |= {entity: plots} if plots else {}
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


def _reports(ordered: list[Operation]) -> tuple[dict[Any, Any], dict[str, Any]]:
    """Gather points and plots; the sum is that of fractions, which is exact."""
    columns: dict[Any, list[tuple[int, str, int, int, float]]] = defaultdict(list)
    hashes: dict[Any, dict[str, str]] = defaultdict(dict)
    plots: dict[str, Any] = {}
    for operation in ordered:
        for block in unpack(operation.changes["scalars"]) if "scalars" in operation.changes else ():
            rows = list(zip(block.iterations, block.times, block.values, strict=True))
            columns_of = zip("qqd", zip(*rows, strict=True), strict=True)
            data = b"".join(struct.pack(f"<{len(rows)}{kind}", *column) for kind, column in columns_of)
            hashes[block.title, block.series][operation.stamp] = hashlib.sha256(data).hexdigest()
            columns[block.title, block.series] += [
                (iteration, operation.stamp, place, time, value) for place, (iteration, time, value) in enumerate(rows)
            ]
        if "plot" in operation.changes:
            plot = operation.changes["plot"]
            names = ("kind", "title", "series", "iteration", "time", "digest", "size", "name", "url")
            plots[operation.stamp] = tuple(plot.get(name) for name in names)
    return {name: (*_statistics(points), hashes[name]) for name, points in sorted(columns.items())}, plots


def _statistics(points: list[tuple[int, str, int, int, float]]) -> tuple[Any, ...]:
    last = max(points, key=lambda point: point[:3])
    numbers = [point[4] for point in points if not math.isnan(point[4])]
    finite = [number for number in numbers if math.isfinite(number)]
    mean: float | None = None
    if len(finite) == len(numbers) and numbers:
        scaled = sum((Fraction(number * 2.0**-64) for number in finite), Fraction())  # so that it is in the range
        mean = min(max(float(scaled) / len(finite) / 2.0**-64, min(finite)), max(finite))
    elif numbers and not {math.inf, -math.inf} <= set(numbers):
        mean = next(number for number in numbers if math.isinf(number))
    value = None if math.isnan(last[4]) else last[4]
    extremes = (min(numbers, default=None), max(numbers, default=None))
    return len(points), len(finite), value, last[0], last[1], *extremes, mean


def _project(entity: str, ordered: list[Operation]) -> dict[str, Any]:
    project: dict[str, Any] = {}
    for operation in ordered:
        for field, value in operation.changes.items():
            if ":" in field:
                continue
            if field != "name":
                project[field] = value
            elif isinstance(value, str) and project_id(value) == entity:
                project["name"] = value
    return {field: value for field, value in project.items() if value is not None}

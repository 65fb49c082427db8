"""Records as plain values for `--json`; the keys are kept stable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelstore.ids import clock_to_datetime, to_datetime
from modelstore.records.values import encode

if TYPE_CHECKING:
    from datetime import datetime

    from modelstore.inspection import Inspection
    from modelstore.records.entities import Change, ModelRecord, ProjectRecord, TaskRecord, UploadRecord
    from modelstore.registry import Registry
    from modelstore.registry.checks import Finding
    from modelstore.registry.lookup import Lineage

__all__ = [
    "change",
    "finding",
    "glance",
    "iso",
    "lineage_of",
    "looks",
    "model",
    "model_reference",
    "project",
    "row",
    "task",
    "task_reference",
    "upload",
]


def iso(moment: datetime | None) -> str | None:
    """Return a moment as ISO 8601 in UTC, to the millisecond; None for None."""
    return None if moment is None else moment.isoformat(timespec="milliseconds")


def model(registry: Registry, record: ModelRecord) -> dict[str, Any]:
    """Return a model, as `Model.to_dict` does."""
    from modelstore.sdk.model import model_to_dict

    return model_to_dict(record, registry.weights.address(record))


def finding(one: Finding) -> dict[str, Any]:
    """Return something that deserves attention."""
    return {"severity": one.severity, "what": one.what, "means": one.means, "todo": one.todo}


def model_reference(record: ModelRecord) -> dict[str, Any]:
    """Return what is said of a model in passing."""
    return {"id": record.id, "name": record.name}


def task_reference(record: TaskRecord) -> dict[str, Any]:
    """Return what is said of a task in passing."""
    return {"id": record.id, "name": record.name, "project": record.project, "status": record.status}


def lineage_of(found: Lineage) -> dict[str, Any]:
    """Return a model's lineage."""
    return {
        "task": None if found.task is None else task_reference(found.task),
        "parent": None if found.parent is None else model_reference(found.parent),
        "children": [model_reference(child) for child in found.children],
        "consumers": [task_reference(consumer) for consumer in found.consumers],
    }


def task(record: TaskRecord) -> dict[str, Any]:
    """Return a task."""
    return {
        "id": record.id,
        "name": record.name,
        "project": record.project,
        "type": record.type,
        "status": record.status,
        "status_message": record.status_message,
        "comment": record.comment,
        "tags": list(record.tags),
        "parent": record.parent,
        "output_uri": record.output_uri or None,
        "last_iteration": record.last_iteration,
        "published": record.published,
        "archived": record.archived,
        "created": iso(clock_to_datetime(record.created)),
        "last_update": iso(clock_to_datetime(record.updated)),
        "started": iso(to_datetime(record.started)),
        "completed": iso(to_datetime(record.completed)),
    }


def project(record: ProjectRecord) -> dict[str, Any]:
    """Return a project."""
    return {
        "id": record.id,
        "name": record.name,
        "description": record.description,
        "output_uri": record.output_uri,
        "models": record.models,
        "tasks": record.tasks,
    }


def upload(record: UploadRecord) -> dict[str, Any]:
    """Return an unfinished upload."""
    from modelstore.storage.uris import redact

    return {
        "id": record.id,
        "model": record.model,
        "filename": record.changes["filename"],
        "size": record.changes["size"],
        "destination": redact(record.destination),
        "status": record.status,
        "attempts": record.attempts,
        "error": record.error,
        "host": record.host,
        "pid": record.pid,
        "created": iso(to_datetime(record.created)),
    }


def glance(inspection: Inspection | None) -> dict[str, Any] | None:
    """Return what a file of weights holds, in a few words; None for None."""
    if inspection is None:
        return None
    return {
        "format": inspection.format,
        "tensors": len(inspection.tensors),
        "parameters": inspection.parameters,
        "dtypes": inspection.dtypes,
    }


def looks(registry: Registry, record: ModelRecord, inside: Inspection | None) -> dict[str, Any]:
    """Return what a model holds and was reported, in a few words."""
    from modelstore.storage.uris import redact

    names = ("title", "series", "points", "last", "last_iteration", "min", "max", "mean")
    found = registry.reports.series(record.id)
    scalars = [{name: encode(getattr(one, name)) for name in names} for one in found]
    plots = [
        {name: getattr(one, name) for name in ("title", "series", "kind", "iteration", "name", "size")}
        | {"url": None if one.url is None else redact(one.url)}
        for one in registry.reports.plots(record.id)
    ]
    return {"weights": glance(inside), "scalars": scalars, "plots": plots}


def change(entry: Change) -> dict[str, Any]:
    """Return one change."""
    return {
        "kind": entry.kind,
        "entity": entry.entity,
        "name": entry.name,
        "at": iso(entry.at),
        "actor": entry.actor,
        "action": entry.action,
        "key": entry.key,
        "old": encode(entry.old),
        "new": encode(entry.new),
        "stamp": entry.stamp,
    }


def row(columns: tuple[str, ...], cells: tuple[Any, ...]) -> dict[str, Any]:
    """Return a row of an SQL query; of columns with one name the last counts."""
    return {column: encode(cell) for column, cell in zip(columns, cells, strict=True)}

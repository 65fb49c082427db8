"""What changed between two moments."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Literal

from modelstore.errors import ModelNotFoundError
from modelstore.registry.moments import Moment, last_stamp_of

if TYPE_CHECKING:
    from modelstore.records.entities import ModelRecord
    from modelstore.registry.registry import Registry

__all__ = ["ModelChange", "changes_between"]

_NOT_TOLD: Final = frozenset(("id", "key", "created", "updated", "project_id", "last_update"))


@dataclass(frozen=True, slots=True)
class ModelChange:
    """What became of one model.

    Attributes:
        id: The model's id.
        name: Its name, the later one.
        what: "added", "removed" or "changed".
        values: By field, tag ("tag:prod") or metadata key ("metadata.accuracy"), the value before and after.
    """

    id: str
    name: str | None
    what: Literal["added", "removed", "changed"]
    values: dict[str, tuple[Any, Any]]


def changes_between(
    registry: Registry, first: Moment, second: Moment | None = None, *, project: str | None = None
) -> list[ModelChange]:
    """Return what became of models between two moments; see `Registry.changes_between`."""
    begin = last_stamp_of(first)
    end = "f" * 32 if second is None else last_stamp_of(second)
    before = registry.at(begin)
    after = registry if second is None else registry.at(end)
    rows = registry.database.all(
        "SELECT DISTINCT entity FROM ops WHERE stamp > ? AND stamp <= ? AND entity_kind = 'model' ORDER BY entity",
        (begin, end),
    )
    found = []
    for (model,) in rows:
        old, new = _get(before, model), _get(after, model)
        if project is not None and project not in {one.project for one in (old, new) if one is not None}:
            continue
        values = _values(old, new)
        if old is None and new is not None:
            found.append(ModelChange(model, new.name, "added", values))
        elif new is None and old is not None:
            found.append(ModelChange(model, old.name, "removed", {}))
        elif old is not None and new is not None and values:
            found.append(ModelChange(model, new.name, "changed", values))
    return found


def _get(registry: Registry, model: str) -> ModelRecord | None:
    try:
        return registry.models.get(model)
    except ModelNotFoundError:
        return None


def _values(old: ModelRecord | None, new: ModelRecord | None) -> dict[str, tuple[Any, Any]]:
    one, other = _flat(old), _flat(new)
    keys = sorted(one.keys() | other.keys())
    return {key: (one.get(key), other.get(key)) for key in keys if repr(one.get(key)) != repr(other.get(key))}


def _flat(record: ModelRecord | None) -> dict[str, Any]:
    if record is None:
        return {}
    flat: dict[str, Any] = {}
    for field in fields(record):
        value = getattr(record, field.name)
        if field.name in ("tags", "system_tags"):
            flat.update((f"tag:{tag}", True) for tag in value)
        elif field.name == "metadata":
            flat.update((f"metadata.{key}", item.text) for key, item in value.items())
        elif field.name not in _NOT_TOLD and value is not None:
            flat[field.name] = value
    return flat

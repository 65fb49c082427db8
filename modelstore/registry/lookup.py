"""From what people type to a model, and from a model to what surrounds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from modelstore.errors import InvalidRequestError, ModelNotFoundError
from modelstore.index import reader
from modelstore.records.entities import ModelRecord, TaskRecord

if TYPE_CHECKING:
    from modelstore.registry.registry import Registry

__all__ = ["Lineage", "beginning_with", "find_model", "lineage"]

_HEX: Final = frozenset("0123456789abcdef")
_SHOWN: Final = 5
Which = Literal["present", "removed", "any"]
_STATES: Final[dict[Which, tuple[int, ...]]] = {"present": (0, 1), "removed": (2,), "any": (0, 1, 2)}


def find_model(registry: Registry, text: str, *, which: Which = "present") -> ModelRecord:
    """Return the one model that a text stands for: an id, the beginning of one, or a name.

    A whole id wins over everything; a text that is one model's name and begins another's id is ambiguous.

    Args:
        registry: The registry.
        text: Id, at least 4 digits of one, or an exact name. Case matters in names.
        which: "present" models (archived ones too), "removed" ones, or "any".

    Raises:
        ModelNotFoundError: Nothing fits; the message says so where a removed model would, or names the nearest.
        InvalidRequestError: Several do; the message names them.
    """
    wanted = text.strip()
    registry.refresh()
    found = _candidates(registry, wanted, _STATES[which])
    if which == "any" and len(found) > 1:
        found = [record for record in found if not record.deleted] or found
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(f"{r.id[:12]} {r.name!r}" for r in found[:_SHOWN]) + (" and more" * (len(found) > _SHOWN))
        raise InvalidRequestError(f"{wanted!r:.200} stands for several models: {names}", "Give more of the id.")
    raise _missing(registry, wanted, which)


def _candidates(registry: Registry, text: str, states: tuple[int, ...]) -> list[ModelRecord]:
    conditions, parameters = ["name = ?"], [text]
    digits = text.lower()
    if 4 <= len(digits) <= 32 and _HEX.issuperset(digits):
        conditions.append("(id >= ? AND id < ?)")
        parameters += [digits, f"{digits}g"]  # g follows the last hexadecimal digit: a range of the index on ids
    # A UNION, and not an OR: each half is then answered by its own index, whatever the other is.
    halves = [
        f"SELECT key FROM models WHERE {condition} AND created_op IS NOT NULL"
        f" AND state IN ({', '.join(map(str, states))})"
        for condition in conditions
    ]
    statement = f"SELECT key FROM ({' UNION '.join(halves)}) ORDER BY key DESC LIMIT {_SHOWN + 1}"
    records = reader.models(registry.database, [row[0] for row in registry.database.all(statement, parameters)])
    return [record for record in records if record.id == digits] or records


def _missing(registry: Registry, text: str, which: Which) -> ModelNotFoundError:
    others: dict[Which, tuple[Which, str, str]] = {
        "present": ("removed", "was removed", "Bring it back with `modelstore restore`."),
        "removed": ("present", "is there, and was not removed", "There is nothing to restore."),
    }
    if which in others:
        other, state, hint = others[which]
        found = _candidates(registry, text, _STATES[other])
        if found:
            return ModelNotFoundError(f"The model {found[0].name!r} ({found[0].id}) {state}", hint)
    near = _nearest(registry, text)
    hint = "Did you mean " + " or ".join(repr(name) for name in near) + "?" if near else "Check the id or name."
    return ModelNotFoundError(f"No model has the id or name {text!r:.200} in {registry.place}", hint)


def _nearest(registry: Registry, text: str) -> list[str]:
    """Return up to three names that are like a text, the nearest first, from those of the 1,000 newest models."""
    import difflib

    rows = registry.database.all(
        "SELECT name FROM models WHERE state = 0 AND name IS NOT NULL ORDER BY updated DESC, key DESC LIMIT 1000"
    )
    return difflib.get_close_matches(text, list(dict.fromkeys(row[0] for row in rows)), n=3, cutoff=0.6)


def beginning_with(registry: Registry, text: str, limit: int) -> list[tuple[str, str]]:
    """Return what `find_model` would take and begins with a text: ids, or names where no id begins so.

    Args:
        registry: The registry.
        text: The beginning; "" for any.
        limit: At most so many, newest change first.

    Returns:
        Id or name, and the model's name.
    """
    registry.refresh()
    for column in ("id", "name"):
        rows = registry.database.all(
            f"SELECT {column}, name FROM models WHERE state = 0 AND name IS NOT NULL AND substr({column}, 1, ?) = ?"
            " ORDER BY updated DESC, key DESC LIMIT ?",
            (len(text), text, limit),
        )
        if rows:
            return list(dict.fromkeys((row[0], row[1]) for row in rows))
    return []


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a model comes from and where it went.

    Attributes:
        task: The task that made it; None when none did, or it is not in this registry.
        parent: The model it was made from; None likewise.
        children: Models made from it, oldest first.
        consumers: Tasks that use it as input, in the order in which they were linked.
    """

    task: TaskRecord | None
    parent: ModelRecord | None
    children: tuple[ModelRecord, ...]
    consumers: tuple[TaskRecord, ...]


def lineage(registry: Registry, record: ModelRecord) -> Lineage:
    """Return what surrounds a model; what was removed meanwhile is left out."""
    registry.refresh()
    database = registry.database
    with database.snapshot():
        task = reader.task(database, record.task) if record.task else None
        parent = reader.model(database, record.parent) if record.parent else None
        keys = database.all("SELECT key FROM models WHERE parent = ? AND state < 2 ORDER BY created, key", (record.id,))
        used_by = dict.fromkeys(link.task for link in reader.links_of_model(database, record.id, "input"))
        tasks = [reader.task(database, task_id) for task_id in used_by]
        return Lineage(
            task if task is not None and not task.deleted else None,
            parent if parent is not None and not parent.deleted else None,
            tuple(reader.models(database, [row[0] for row in keys])),
            tuple(found for found in tasks if found is not None and not found.deleted),
        )

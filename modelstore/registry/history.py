"""Who changed what, when: of one model, task or project, or of the whole registry."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal

from modelstore.errors import InvalidRequestError
from modelstore.ids import project_id, to_datetime
from modelstore.index import ops
from modelstore.records.entities import Change, HistoryEntry
from modelstore.records.values import decode
from modelstore.registry import rules
from modelstore.registry.moments import Moment, first_stamp_of, last_stamp_of

if TYPE_CHECKING:
    from modelstore.records.operations import Operation
    from modelstore.registry.registry import Registry

__all__ = ["History", "entries_of", "plain"]

_TOGETHER: Final = 500
"""Operations that are read at once: between two of these, others can write and nothing is held."""
_NAMES: Final = {"model": "models", "task": "tasks", "project": "projects"}

Before = Callable[[str], "Operation | None"]
"""Returns the operation with a stamp; None where it is not here."""


def entries_of(operation: Operation, before: Before) -> Iterator[HistoryEntry]:
    """Yield what one operation changed, value by value.

    Args:
        operation: The operation; of a report, nothing is told.
        before: Where the values that it replaced are found.
    """
    at = to_datetime(operation.ms)
    assert at is not None  # noqa: S101 - an operation always has a time
    if operation.action == "report":
        return
    for key, value in operation.changes.items():
        parent = operation.parents.get(key)
        former = None if parent is None else before(parent)
        old = None if former is None else plain(key, former.changes.get(key))
        new = plain(key, value)
        if operation.action == "publish" and (old == new or not (old or new)):
            continue  # it fixes what is there already
        yield HistoryEntry(at, operation.actor, operation.action, key, old, new, operation.stamp)
    if operation.action == "publish":
        yield HistoryEntry(at, operation.actor, "publish", "published", None, new=True, stamp=operation.stamp)


def plain(key: str, value: Any) -> Any:
    """Return a value as operations keep it in the form in which people gave it."""
    if key.startswith("meta:") and value is not None:
        return decode(value[1])
    if key == "config" and value is not None:
        return value.get("text") if "text" in value else decode(value.get("dict"))
    return decode(value) if not isinstance(value, dict) else value


@dataclass(frozen=True, slots=True)
class History:
    """What is asked of the past; every part that is given must hold. See `Registry.history`."""

    model: str | None = None
    task: str | None = None
    project: str | None = None
    since: Moment | None = None
    until: Moment | None = None
    key: str | None = None
    limit: int | None = None

    def run(self, registry: Registry) -> Iterator[Change]:
        """Return the changes, the latest first, read as they are asked for; what is not acceptable raises at once."""
        if sum(one is not None for one in (self.model, self.task, self.project)) > 1:
            raise InvalidRequestError("A history is of one model, task or project", "Ask for them one by one.")
        limit = None if self.limit is None else rules.check_integer("limit", self.limit)
        if limit is not None and limit < 1:
            raise InvalidRequestError(f"A limit is a number of 1 or more, not {limit}", "None asks for all.")
        key = None if self.key is None else rules.check_text("key", self.key)
        begin = "" if self.since is None else first_stamp_of(self.since)
        end = "g" if self.until is None else f"{last_stamp_of(self.until)}g"  # g follows the last hexadecimal digit
        condition = self._condition(registry)
        registry.refresh()
        return islice(self._changes(registry, condition, begin, end, key), limit)

    def _condition(self, registry: Registry) -> tuple[str, tuple[Any, ...]]:
        if self.model is not None:
            return "entity = ?", (registry.models.get(self.model, deleted=True).id,)
        if self.task is not None:
            return "entity = ?", (registry.tasks.get(self.task, deleted=True).id,)
        if self.project is None:
            return "1", ()
        name = registry.tasks.project(self.project).name
        return _IN_PROJECT, (project_id(name), name, name, json.dumps(_once_in(registry, name)))

    def _changes(
        self, registry: Registry, condition: tuple[str, tuple[Any, ...]], begin: str, end: str, key: str | None
    ) -> Iterator[Change]:
        names = _Names(registry)
        for operations in _pages(registry, condition, begin, end):
            for operation in operations:
                found = [one for one in entries_of(operation, partial(_operation, registry)) if _fits(one.key, key)]
                name = names.of(operation.kind, operation.entity) if found else None
                for one in found:
                    yield Change(
                        one.at, one.actor, one.action, one.key, one.old, one.new, one.stamp,
                        operation.kind, operation.entity, name,
                    )  # fmt: skip


_IN_PROJECT: Final = (
    "(entity = ? OR EXISTS (SELECT 1 FROM models AS m JOIN projects AS p ON p.key = m.project"
    " WHERE m.id = o.entity AND p.name = ?)"
    " OR EXISTS (SELECT 1 FROM tasks AS t JOIN projects AS p ON p.key = t.project WHERE t.id = o.entity AND p.name = ?)"
    " OR entity IN (SELECT value FROM json_each(?)))"
)


def _once_in(registry: Registry, name: str) -> list[str]:
    """Return the models and tasks that were ever put into a project and are elsewhere now."""
    rows = registry.database.all(
        "SELECT DISTINCT o.entity FROM ops AS o LEFT JOIN models AS m ON m.id = o.entity"
        " LEFT JOIN tasks AS t ON t.id = o.entity LEFT JOIN projects AS p ON p.key = coalesce(m.project, t.project)"
        " WHERE o.action IN ('create', 'edit') AND p.name IS NOT ? AND instr(o.changes, '\"project\":')"
        " AND json_extract(o.changes, '$.project') = ?",
        (name, name),
    )
    return [row[0] for row in rows]


def _pages(
    registry: Registry, condition: tuple[str, tuple[Any, ...]], begin: str, end: str
) -> Iterator[list[Operation]]:
    where, values = condition
    while True:
        # Of one entity, the index on entities says which operations; else the walk goes along the stamps.
        rows = registry.database.all(
            f"SELECT {ops.COLUMNS} FROM ops AS o WHERE {where} AND action <> 'report' AND stamp >= ? AND stamp < ?"
            " ORDER BY stamp DESC LIMIT ?",
            (*values, begin, end, _TOGETHER),
        )
        if not rows:
            return
        yield [ops.operation_from_row(row) for row in rows]
        end = rows[-1]["stamp"]


def _operation(registry: Registry, stamp: str) -> Operation | None:
    return ops.get(registry.database.connection, stamp)


def _fits(key: str, wanted: str | None) -> bool:
    return wanted is None or key == wanted or key.startswith(f"{wanted}:")


class _Names:
    """What models, tasks and projects are called now; the last few thousand are remembered."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: dict[str, str | None] = {}

    def of(self, kind: Literal["model", "task", "project"], entity: str) -> str | None:
        if entity not in self._known:
            if len(self._known) >= 10_000:
                self._known.clear()
            row = self._registry.database.one(f"SELECT name FROM {_NAMES[kind]} WHERE id = ?", (entity,))
            self._known[entity] = None if row is None else row[0]
        return self._known[entity]

"""Who refers to which of the bytes that a registry keeps itself: the one answer that checking, freeing and copying use.

What the current state refers to is in use. What only the history refers to (weights of removed models, weights that
newer ones replaced) is *former*: a restoration or a look into the past may ask for it, so it is kept for a while.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from modelstore.errors import InvalidUriError
from modelstore.ids import project_id, stamp_ms
from modelstore.storage.objects import parse_object_uri

if TYPE_CHECKING:
    from modelstore.index.database import Database
    from modelstore.registry.registry import Registry

__all__ = ["Reference", "around", "former", "is_used", "references", "used"]

_MODELS: Final = (
    "SELECT id, name, uri, size FROM models WHERE state <> 2 AND uri >= 'modelstore://' AND uri < 'modelstore:/0'"
    " ORDER BY key"
)
_PLOTS: Final = (
    "SELECT p.entity, p.title, p.series, p.digest, p.name, p.size FROM plots AS p LEFT JOIN models AS m"
    " ON m.id = p.entity WHERE p.digest IS NOT NULL AND m.state IS NOT 2"
)
"""Stored files of plots, but those of removed models."""
_MADE_BY: Final = (
    "SELECT DISTINCT m.task, p.name FROM json_each(?) AS wanted CROSS JOIN models AS m ON m.id = wanted.value"
    " LEFT JOIN projects AS p ON p.key = m.project"
)
_LINKED_BY: Final = "SELECT DISTINCT l.task FROM json_each(?) AS wanted CROSS JOIN links AS l ON l.model = wanted.value"
_WORKED_IN: Final = (
    "SELECT DISTINCT p.name FROM json_each(?) AS wanted CROSS JOIN tasks AS t ON t.id = wanted.value"
    " JOIN projects AS p ON p.key = t.project"
)


@dataclass(frozen=True, slots=True)
class Reference:
    """Something that needs an object.

    Attributes:
        digest: Of the object.
        name: Its file name.
        size: Its size, where that is known.
        entity: Id of the model or task.
        what: Model or plot, in words.
    """

    digest: str
    name: str
    size: int | None
    entity: str
    what: str


def references(database: Database) -> list[Reference]:
    """Return what the state of the registry needs, an entry for each user."""
    found = []
    for entity, name, uri, size in database.all(_MODELS):
        parsed = _parsed(uri)
        if parsed is not None:
            found.append(Reference(*parsed, size, entity, f"weights of model {name!r} ({entity})"))
    for entity, title, series, digest, name, size in database.all(_PLOTS):
        what = f"file of plot {title!r} / {series!r} of {entity}"
        found.append(Reference(digest, name or "file", size, entity, what))
    return found


def used(database: Database) -> set[str]:
    """Return the digests of the objects that are in use."""
    return {one.digest for one in references(database)}


def is_used(database: Database, digest: str) -> bool:
    """Tell whether an object is in use; inside a write transaction the answer holds until its end."""
    address = f"modelstore://{digest.replace(':', '/')}/"  # all names of this content: "0" follows "/"
    row = database.one(
        "SELECT 1 FROM models WHERE uri >= ? AND uri < ? AND state <> 2 UNION ALL"
        " SELECT 1 FROM plots AS p LEFT JOIN models AS m ON m.id = p.entity WHERE p.digest = ? AND m.state IS NOT 2"
        " LIMIT 1",
        (address, address[:-1] + "0", digest),
    )
    return row is not None


def around(registry: Registry, models: Iterable[str]) -> set[str]:
    """Return the models, the tasks that made or use them, and the projects of both with those above."""
    found = set(models)
    everything = registry.database.all
    wanted = (json.dumps(list(found)),)
    rows = everything(_MADE_BY, wanted)
    tasks = {row[0] for row in rows} | {row[0] for row in everything(_LINKED_BY, wanted)}
    tasks.discard(None)
    names = {row[1] for row in rows} | {row[0] for row in everything(_WORKED_IN, (json.dumps(list(tasks)),))}
    for name in names - {None, ""}:
        parts = name.split("/")
        found |= {project_id("/".join(parts[: n + 1])) for n in range(len(parts))}
    return found | tasks


def former(database: Database) -> dict[str, int]:
    """Return what the history refers to: digest to when it was last in use, in milliseconds since 1970.

    What is still in use is among it, with the time of the last change before now.
    """
    # Read as they come: a million registrations are too much to hold at once.
    rows = database.connection.execute(
        "SELECT entity, stamp, changes FROM ops WHERE entity_kind = 'model' AND action <> 'report'"
        " AND (changes LIKE '%\"uri\":%' OR changes LIKE '%\"deleted\":%') ORDER BY stamp"
    )
    left: dict[str, int] = {}
    current: dict[str, str] = {}
    deleted: dict[str, int] = {}
    for entity, stamp, text in rows:
        changes, ms = json.loads(text), stamp_ms(stamp)
        if entity in current:
            left[current[entity]] = max(ms, left.get(current[entity], 0))
        if "uri" in changes:
            parsed = _parsed(changes["uri"])
            current.pop(entity, None)
            if parsed is not None:
                current[entity] = parsed[0]
                left[parsed[0]] = max(ms, left.get(parsed[0], 0))
        if changes.get("deleted"):
            deleted[entity] = ms
    for entity, digest in database.all(
        "SELECT entity, json_extract(changes, '$.plot.digest') FROM ops"
        " WHERE action = 'report' AND json_type(changes, '$.plot.digest') = 'text'"
    ):
        if entity in deleted:
            left[digest] = max(deleted[entity], left.get(digest, 0))
    return left


def _parsed(uri: object) -> tuple[str, str] | None:
    try:
        return parse_object_uri(uri) if isinstance(uri, str) else None
    except InvalidUriError:
        return None  # from elsewhere; no object can be meant

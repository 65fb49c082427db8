"""The other registries that this one knows by a name."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from modelstore.errors import InvalidRequestError, NotFoundError
from modelstore.ids import to_datetime
from modelstore.storage import uris

if TYPE_CHECKING:
    from modelstore.registry.registry import Registry

__all__ = ["Remote", "Remotes"]

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Remote:
    """Another registry.

    Attributes:
        name: What it is called here.
        uri: Where it is; credentials come from the environment and are never in it.
        synced: When both sides last had the same (aware, UTC); None for never.
    """

    name: str
    uri: str
    synced: datetime | None


class Remotes:
    """The named remotes of one registry; they belong to this machine and are not synced themselves.

    Args:
        registry: The registry.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def all(self) -> list[Remote]:
        """Return the remotes, by name."""
        rows = self._registry.database.all("SELECT name, uri, synced FROM remotes ORDER BY name")
        return [Remote(row[0], row[1], to_datetime(row[2])) for row in rows]

    def add(self, name: str, uri: str) -> Remote:
        """Note where a registry is; an existing name is moved there.

        Raises:
            InvalidRequestError: The name is none (letters, digits, ``_.-``), or the URI carries credentials.
        """
        if not _NAME.fullmatch(name):
            raise InvalidRequestError(
                f"{name!r} is no name for a remote", "Use letters, digits, '_', '.' and '-', at most 64."
            )
        kept = uris.refuse_secrets(uris.normalise(uri))
        with self._registry.database.write() as connection:
            connection.execute(
                "INSERT INTO remotes VALUES (?,?,NULL)"
                " ON CONFLICT (name) DO UPDATE SET synced = NULL, uri = excluded.uri",
                (name, kept),
            )
        return Remote(name, kept, None)

    def remove(self, name: str) -> None:
        """Forget a remote; nothing there is touched.

        Raises:
            NotFoundError: There is none of that name.
        """
        with self._registry.database.write() as connection:
            if connection.execute("DELETE FROM remotes WHERE name = ?", (name,)).rowcount == 0:
                raise NotFoundError(f"There is no remote {name!r}", "`modelstore remote ls` lists them.")

    def resolve(self, name_or_uri: str) -> str:
        """Return the URI of a remote given by name, or a URI or path as it is.

        Raises:
            NotFoundError: It looks like a name, and there is no remote and no folder of that name.
        """
        rows = self._registry.database.all("SELECT uri FROM remotes WHERE name = ?", (name_or_uri,))
        if rows:
            return str(rows[0][0])
        if _NAME.fullmatch(name_or_uri) and not os.path.exists(name_or_uri):
            raise NotFoundError(
                f"There is no remote {name_or_uri!r}",
                "`modelstore remote ls` lists them; a folder is given as ./folder.",
            )
        return name_or_uri

"""Whose operations somebody may bring to a server; both sides ask the same question."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

__all__ = ["Scribe"]


@dataclass(frozen=True, slots=True)
class Scribe:
    """Somebody who brings what he himself has made.

    Attributes:
        name: Who.
        actors: Patterns of further actors that he writes as.
    """

    name: str
    actors: tuple[str, ...] = ()

    def writes_as(self, actor: str) -> bool:
        """Tell whether operations of an actor are his own."""
        own = actor == self.name or actor.startswith(f"{self.name}@")
        return own or any(fnmatchcase(actor, pattern) for pattern in self.actors)

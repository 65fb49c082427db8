"""What a server has, written down once for all who ask until something changes."""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING

import msgspec

from modelstore.server import forms

if TYPE_CHECKING:
    from modelstore.sync import RegistryPartner

__all__ = ["Told"]


class Told:
    """The answer to what a registry has; each thread keeps its own.

    Args:
        partner: The registry.
    """

    def __init__(self, partner: RegistryPartner) -> None:
        self._partner = partner
        self._kept = threading.local()

    def heads(self) -> tuple[bytes, str]:
        """Return what the registry has as JSON, and its ETag; with many writers that is long, and the same for long."""
        registry = self._partner.registry
        registry.flush_reports()
        registry.refresh()
        connection = registry.database.connection
        # The first changes with what others commit, the second with what this connection does. Looked at before what
        # they stand for is read: what comes in between is read twice, and never passed over.
        version = connection.execute("PRAGMA data_version").fetchone()[0], connection.total_changes
        if getattr(self._kept, "seen", None) != (connection, version):
            knowledge = self._partner.knowledge()
            form = forms.Knowledge(dict(sorted(knowledge.heads.items())), sorted(knowledge.strays))
            body = msgspec.json.encode(form)
            self._kept.answer = body, f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            self._kept.seen = connection, version
        answer: tuple[bytes, str] = self._kept.answer
        return answer

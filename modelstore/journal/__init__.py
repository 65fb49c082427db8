"""The journal: how changes become operations. Where operations are kept depends on the kind of registry."""

from __future__ import annotations

from modelstore.journal.drafts import Draft, seal

__all__ = ["Draft", "seal"]

"""The server: one registry over HTTP, for the exchange between registries, for bytes and for queries.

Needs the extra `server`. See docs/design/014-server.md.
"""

from __future__ import annotations

from modelstore.server.settings import Settings
from modelstore.server.tokens import Role, Token, Tokens

__all__ = ["Role", "Settings", "Token", "Tokens"]

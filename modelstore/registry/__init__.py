"""A registry and what can be done with it: the use cases behind the SDK classes and the command line."""

from __future__ import annotations

from modelstore.registry.registry import Registry, open_registry

__all__ = ["Registry", "open_registry"]

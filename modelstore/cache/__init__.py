"""The download cache: local copies that are complete, verified, read-only and stored once.

See docs/design/005-cache.md for how it is made.
"""

from __future__ import annotations

from modelstore.cache.eviction import Removal
from modelstore.cache.files import CachedFile, CacheEntry, CacheInfo, CheckReport, Download, Fetcher
from modelstore.cache.partials import Partial
from modelstore.cache.store import Cache

__all__ = [
    "Cache",
    "CacheEntry",
    "CacheInfo",
    "CachedFile",
    "CheckReport",
    "Download",
    "Fetcher",
    "Partial",
    "Removal",
]

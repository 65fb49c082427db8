"""The cache behaves as a dictionary would, whatever is fetched, changed, damaged, deleted, evicted, in any order."""

from __future__ import annotations

from modelstore.testing.cache import CacheMachine

TestCache = CacheMachine.TestCase

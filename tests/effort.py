"""How much the tests try: one place for what grows in long runs and shrinks where several Pythons share the work."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator

from hypothesis import settings

__all__ = ["in_turn", "share"]

_QUICK = 50
"""Examples of the profile "quick", see tests/conftest.py."""
_THOROUGH = frozenset(("ci", "night"))


def share(examples: int) -> int:
    """Return how many examples to try where the profile "quick" tries so many."""
    return max(1, settings().max_examples * examples // _QUICK)


def in_turn(stride: int) -> Iterator[int]:
    """Count 1, 2, 3 …, or leave out all but each ``stride``-th number: another one in each minor version of Python.

    For trials of which each takes a while, such as a kill at the n-th step: several Pythons together do them all, and
    so does each by itself in the profiles "ci" and "night".
    """
    if os.environ.get("HYPOTHESIS_PROFILE") in _THOROUGH:
        return itertools.count(1)
    return itertools.count(1 + sys.version_info.minor % stride, stride)

"""Which kind of registry the tests make where they do not say: usually one of one machine."""

from __future__ import annotations

import os
from typing import Final

import pytest

__all__ = ["SHARED", "one_machine"]

SHARED: Final = os.environ.get("MODELSTORE_TEST_KIND") == "shared"
"""Whether it is a shared one: `make test-shared`."""


def one_machine(why: str) -> pytest.MarkDecorator:
    """Mark a test, or a module, that is about a registry of one machine."""
    return pytest.mark.skipif(SHARED, reason=f"of registries of one machine: {why}")

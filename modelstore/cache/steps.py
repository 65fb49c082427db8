"""The numbered steps of the cache's sequences, announced as they are passed."""

from __future__ import annotations

import sys

__all__ = ["step"]


def step(name: str) -> None:
    """Announce that a step was reached, as the audit event ``modelstore.step``.

    Nothing listens in production, and then it costs some tens of nanoseconds; `modelstore.testing.faults` listens, to
    stop, fail or kill the process exactly there.
    """
    sys.audit("modelstore.step", name)

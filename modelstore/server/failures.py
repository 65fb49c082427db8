"""Requests with bad tokens: counted by where they come from, for all workers of a server together.

A token that is good is let in whatever others behind the same address do: behind a proxy all have one.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import time
from pathlib import Path
from typing import Final

__all__ = ["Failures"]

_SLOTS: Final = 4096
_BURST: Final = 10.0
_PER_S: Final = 0.2


class Failures:
    """A bucket of failures for each address: ten at once, then one each five seconds.

    Args:
        folder: The server's folder, which all workers have.
    """

    def __init__(self, folder: str) -> None:
        path = Path(folder, "failures")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, 16 * _SLOTS)
            self._map = mmap.mmap(descriptor, 16 * _SLOTS)
        finally:
            os.close(descriptor)
        self._numbers = memoryview(self._map).cast("d")
        self._salt = str(path).encode()

    def note(self, address: str) -> int | None:
        """Count a failure; returns after how many seconds the next is looked at, or None while there are few.

        Two workers that count at the same moment may lose one of the two, which is no matter.
        """
        digest = hashlib.blake2b(address.encode(), digest_size=8, key=self._salt[-64:]).digest()
        slot = 2 * (int.from_bytes(digest, "big") % _SLOTS)
        now = time.monotonic()
        level = max(0.0, self._numbers[slot] - (now - self._numbers[slot + 1]) * _PER_S) + 1.0
        if level > _BURST:
            return int((level - _BURST) / _PER_S) + 1
        self._numbers[slot], self._numbers[slot + 1] = level, now
        return None

    def close(self) -> None:
        """Let go of the file."""
        self._numbers.release()
        self._map.close()

"""The time of whoever keeps the files."""

from __future__ import annotations

import os
from pathlib import Path

from modelstore.storage.failures import translated

__all__ = ["clock_at"]


def clock_at(probe: Path) -> float:
    """Return the time by which the files in a folder are dated, seconds since 1970.

    Args:
        probe: A name for a file there, which is made and removed.

    Raises:
        StorageError: It cannot be made.
    """
    with translated(probe, writing=True), probe.open("xb") as file:
        try:
            file.write(b"?")
            file.flush()
            os.fsync(file.fileno())  # until then a client of a network filesystem tells its own time
            return os.fstat(file.fileno()).st_mtime
        finally:
            probe.unlink()

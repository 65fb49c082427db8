"""What becomes of SQLite's errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from modelstore.errors import (
    CorruptRegistryError,
    InvalidRequestError,
    ModelStoreError,
    PublishedModelError,
    ReadOnlyRegistryError,
    RegistryBusyError,
    RegistryError,
    StorageError,
    StorageFullError,
    StorageUnavailableError,
)
from modelstore.index.driver import sqlite3

__all__ = ["BUSY_TIMEOUT_S", "how_to_restore", "translated"]

BUSY_TIMEOUT_S: Final = 60.0
"""How long a writer waits for others before it gives up."""


_UNREADABLE: Final = (
    "SQLITE_IOERR", "SQLITE_IOERR_READ", "SQLITE_IOERR_SHORT_READ", "SQLITE_IOERR_CORRUPTFS", "SQLITE_IOERR_DATA",
)  # fmt: skip
"""Errors of input and output that say that what is there cannot be read."""

_LEAST_ROOM: Final = 64 * 1024
"""What SQLite needs beside a database to open it: 32 KiB of memory that processes share, and a page or two."""


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours, the original chained."""
    try:
        yield
    except sqlite3.Error as error:
        raise _storage_failed(error, path) or _translate(error, path) from error


def _translate(error: sqlite3.Error, path: Path) -> ModelStoreError:
    text = str(error)
    lowered = text.lower()
    if "is published" in lowered:
        return PublishedModelError(f"Refused by the registry: {text}", "Register a new model instead.")
    if "never changed" in lowered or "never deleted" in lowered:
        return RegistryError(f"Refused by the registry at {path}: {text}")
    if "locked" in lowered or "busy" in lowered:
        return RegistryBusyError(
            f"The registry at {path} stayed locked by other processes for {BUSY_TIMEOUT_S:.0f} s",
            "Find out which process holds it, or try again.",
        )
    if "readonly" in lowered or "read-only" in lowered or "unable to open" in lowered:
        return ReadOnlyRegistryError(
            f"The registry at {path} cannot be written or opened ({text})",
            "Check the permissions of its folder and files.",
        )
    if "full" in lowered:
        return StorageFullError(f"The disk that holds {path} is full", "Free some space; nothing was changed.")
    if "malformed" in lowered or "not a database" in lowered or "disk i/o" in lowered:
        return CorruptRegistryError(f"The registry database {path} is damaged ({text})", how_to_restore(path))
    if isinstance(error, (sqlite3.InterfaceError, sqlite3.DataError)) or "surrogates" in lowered:
        return InvalidRequestError(f"A value cannot be stored or looked for: {text}")
    return RegistryError(f"The registry database {path} refused: {text}")


def how_to_restore(path: Path) -> str:
    """Return what to do about a database that is damaged or lost."""
    if not (path.parent / "modelstore.json").exists():  # this host's own, of a registry that is elsewhere
        return f"Delete the folder {path.parent}: it is made anew from the registry's journal."
    return (
        "`modelstore recover` makes a registry of a backup; copies made before upgrades are in"
        f" {path.parent / 'backups'}. The stored files are as they were."
    )


def _storage_failed(error: sqlite3.Error, path: Path) -> StorageError | None:
    """Tell a full disk from one that fails, neither of which says anything about the database; None for neither."""
    name: str = getattr(error, "sqlite_errorname", "")
    if not name.startswith("SQLITE_IOERR") or name in _UNREADABLE:
        return None
    try:
        room = os.statvfs(path.parent)
        full = room.f_bavail * room.f_frsize < _LEAST_ROOM
    except OSError:
        full = False
    if full or name == "SQLITE_IOERR_SHMSIZE":  # the latter for want of room also where a quota or a limit is the bound
        return StorageFullError(
            f"The disk that holds {path} has no room left, not even to read it", "Free some space; nothing is lost."
        )
    return StorageUnavailableError(
        f"The disk that holds {path} failed ({name})", "Look at the disk, its mount and its quota, and try again."
    )

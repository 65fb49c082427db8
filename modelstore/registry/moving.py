"""Moving a registry to another folder: one rename, or, where that cannot be, a copy that replaces it."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Final

from modelstore.errors import (
    BlobNotFoundError,
    InvalidRequestError,
    NetworkFilesystemError,
    ReadOnlyRegistryError,
)
from modelstore.index.driver import connect
from modelstore.index.exclusive import exclusive
from modelstore.registry import mounts
from modelstore.registry.registry import Registry
from modelstore.storage.failures import translated
from modelstore.storage.fingerprints import copy_hashed
from modelstore.storage.objects import fsync_folder

__all__ = ["move"]

_DATABASE: Final = "registry.db"
_LEFT_OUT: Final = frozenset((_DATABASE, f"{_DATABASE}-wal", f"{_DATABASE}-shm", f"{_DATABASE}.lock"))


def move(source: str | os.PathLike[str] | None, target: str | os.PathLike[str]) -> Path:
    """Move a registry that nobody has open, also to another filesystem, and return where it is now.

    Nothing in it refers to its own place, so everything still resolves. A kill leaves it whole at one of the two
    places, or, between the last two steps of a move to another filesystem, at both.

    A shared one is renamed, and never copied: nobody can know whether another host writes meanwhile. Who has it open
    gets errors from then on, and what he was acknowledged is at the new place.

    Args:
        source: The registry; None for the default one.
        target: Where it is to be: a folder that is missing or empty.

    Raises:
        RegistryNotFoundError: There is no registry at the source.
        RegistryBusyError: Another process, or another `Registry` in this one, has it open.
        InvalidRequestError: The target is not empty, or one folder is in the other; or the registry is shared, and
            the target on another filesystem, or uploads are unfinished.
        NetworkFilesystemError: The target of a registry of one machine lies on a network filesystem.
        ReadOnlyRegistryError: It may not be taken away from its place.
        StorageError: The target cannot be written; nothing was moved.
    """
    with Registry(source, create=False) as registry:  # all that speaks against opening it speaks against moving it
        if not registry.in_folder:
            raise InvalidRequestError(
                f"The registry at {registry.place} is in no folder", "Make another, and sync: `modelstore sync`."
            )
        old, read_only = Path(os.path.realpath(registry.folder)), registry.database.read_only
        shared = registry.kind == "shared"
    new = Path(os.path.realpath(Path(target).expanduser()))
    if read_only or not os.access(old.parent, os.W_OK):
        raise ReadOnlyRegistryError(f"The registry at {old} cannot be taken away from there", "Check the permissions.")
    _check_target(old, new, shared=shared)
    if shared:
        return _move_shared(old, new)
    # 1. nobody else has it open    2. the whole folder is renamed;    where that cannot be:
    # 3. it is copied beside the target    4. the copy gets its name    5. the old folder goes
    # (tests/registry/test_moving.py kills at each)
    with exclusive(old / _DATABASE) as connection, translated(new, writing=True):
        if not _renamed(old, new):
            _copy(connection, old, new)
        fsync_folder(new.parent)
    return new


def _move_shared(old: Path, new: Path) -> Path:
    left = [path for path in (old / "uploads").rglob("*") if path.is_file()]
    if left:
        raise InvalidRequestError(
            f"{len(left)} uploads are not finished, the first in {left[0].parent}",
            "Send or give them up on the hosts that began them: `modelstore uploads --resume`.",
        )
    with translated(new, writing=True):
        if not _renamed(old, new):
            raise InvalidRequestError(
                f"{new} is on another filesystem; while a shared registry is copied, other hosts may write into it",
                "When nobody uses it: copy its folder with `cp -a`, check the copy with `modelstore fsck --deep`, and"
                " delete the old one.",
            )
        fsync_folder(new.parent)
    return new


def _renamed(old: Path, new: Path) -> bool:
    """Rename the folder; False where the target is on another filesystem."""
    new.parent.mkdir(parents=True, exist_ok=True)
    sys.audit("modelstore.step", "moving.move.1")
    try:
        _rename(old, new)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return False
    return True


def _check_target(old: Path, new: Path, *, shared: bool) -> None:
    if old == new or old in new.parents or new in old.parents:
        raise InvalidRequestError(f"{new} is, holds, or is in the folder of the registry", "Name another folder.")
    if os.path.lexists(new) and (not new.is_dir() or any(new.iterdir())):
        raise InvalidRequestError(f"{str(new)!r} exists and is not empty", "Name another folder.")
    kind = None if shared else mounts.network_filesystem(new)
    if kind is not None:
        raise NetworkFilesystemError(
            f"{new} lies on a network filesystem ({kind}), where SQLite loses writes of concurrent hosts",
            "Move it to a local disk.",
        )


def _rename(old: Path, new: Path) -> None:
    sys.audit("modelstore.step", "moving.move.2")
    old.rename(new)
    fsync_folder(old.parent)


def _copy(connection: Any, old: Path, new: Path) -> None:
    work = new.with_name(f".{new.name}.{os.urandom(6).hex()}.moving")
    try:
        _copy_files(old, work)
        copy = connect(work / _DATABASE)
        try:
            connection.backup(copy)
        finally:
            copy.close()
        for folder, _, _ in os.walk(work):
            fsync_folder(folder)
        sys.audit("modelstore.step", "moving.move.4")
        work.rename(new)
        fsync_folder(new.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    sys.audit("modelstore.step", "moving.move.5")
    spent = old.with_name(f".{old.name}.{os.urandom(6).hex()}.moved")
    old.rename(spent)  # at once: else what is left halfway would look like a registry
    shutil.rmtree(spent, ignore_errors=True)


def _copy_files(old: Path, work: Path) -> None:
    """Copy all but the database and what killed processes left half; several names of one file stay one file."""
    known: dict[tuple[int, int], Path] = {}
    for name, folders, files in os.walk(old):
        folder = Path(name)
        there = work / folder.relative_to(old)
        there.mkdir(mode=folder.stat().st_mode & 0o7777)
        if folder == old / "objects":
            folders[:] = [one for one in folders if one != "tmp"]
        for file in files:
            if folder == old and file in _LEFT_OUT:
                continue
            sys.audit("modelstore.step", "moving.move.3")
            path, copy = folder / file, there / file
            status = path.lstat()
            first = known.setdefault((status.st_dev, status.st_ino), copy)
            if first != copy:
                os.link(first, copy)
                continue
            try:
                copied = copy_hashed(path, copy)
            except BlobNotFoundError:
                continue  # it is on its way into the trash
            if copied.size != status.st_size:
                raise InvalidRequestError(f"{path} changed while it was copied", "Try again when nobody uses it.")
            copy.chmod(status.st_mode & 0o7777)
            os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))

"""A copy of a model's weights where the user wants it: writable, complete or absent."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from modelstore.errors import InvalidRequestError
from modelstore.storage.failures import translated
from modelstore.storage.fingerprints import copy_hashed
from modelstore.storage.objects import fsync_folder

__all__ = ["copy_to"]

_SPARE: Final = ".modelstore-"


def copy_to(source: Path, target: str | os.PathLike[str], *, name: str | None = None, overwrite: bool = False) -> Path:
    """Copy a file or folder, and return the path of the copy, which appears at once and whole.

    A process killed midway leaves what was there before, and next to it a temporary one whose name says so.

    Args:
        source: What `Weights.local_copy` returned.
        target: The copy's path; inside it, under its own name, when it is a folder that exists.
        name: The name that a folder gets inside ``target``; None keeps its own.
        overwrite: Replace a file or folder of that name.

    Raises:
        InvalidRequestError: Something is there, and ``overwrite`` was not given.
        StorageError: It could not be written.
    """
    wanted = Path(target).expanduser().absolute()
    if wanted.is_dir():
        wanted = wanted / (name if name is not None and source.is_dir() else source.name)
    if not overwrite and os.path.lexists(wanted):
        raise InvalidRequestError(f"{str(wanted)!r} exists already", "Choose another path, or overwrite it.")
    if os.path.lexists(wanted) and wanted.is_dir() != source.is_dir():
        there, ours = ("folder", "file") if wanted.is_dir() else ("file", "folder")
        raise InvalidRequestError(f"{str(wanted)!r} is a {there}, and the copy a {ours}", "Choose another path.")
    spare = wanted.with_name(f"{_SPARE}{os.urandom(6).hex()}")
    with translated(wanted, writing=True):
        wanted.parent.mkdir(parents=True, exist_ok=True)
        try:
            # 1. a complete copy under another name  2. its own name  3. the name reaches the disk
            # (tests/cli/test_get.py interrupts 1)
            _copy(source, spare)
            _settle(spare, wanted, overwrite=overwrite)
            fsync_folder(wanted.parent)
        finally:
            _discard(spare)
    return wanted


def _copy(source: Path, target: Path) -> None:
    if not source.is_dir():
        copy_hashed(source, target)
        return
    target.mkdir()
    for folder, folders, files in os.walk(source):
        here = target / Path(folder).relative_to(source)
        for one in folders:
            link = Path(folder) / one
            if link.is_symlink():
                (here / one).symlink_to(os.readlink(link))  # what is behind it need not belong to the weights
            else:
                (here / one).mkdir()
        for one in files:
            copy_hashed(Path(folder) / one, here / one)


def _settle(spare: Path, wanted: Path, *, overwrite: bool) -> None:
    if not spare.is_dir() and not overwrite:
        try:
            os.link(spare, wanted)  # a rename would replace what appeared there meanwhile
        except FileExistsError:
            raise InvalidRequestError(f"{str(wanted)!r} exists already", "Choose another path.") from None
        except OSError:
            os.rename(spare, wanted)  # no hard links here
        return
    former = spare.with_name(f"{spare.name}-former")
    if spare.is_dir() and wanted.is_dir():
        os.rename(wanted, former)
    os.replace(spare, wanted)
    _discard(former)


def _discard(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

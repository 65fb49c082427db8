"""What users want stored, and what they want deleted once it is."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from stat import S_ISREG
from typing import Self

from modelstore.errors import BlobNotFoundError, InvalidRequestError
from modelstore.storage.objects import sanitise_filename

__all__ = ["Leftover", "Source", "delete_leftovers", "user_path"]

logger = logging.getLogger("modelstore")


@dataclass(frozen=True, slots=True)
class Source:
    """What the user wants stored: one file, or several that become a package.

    Attributes:
        name: File name under which it is stored.
        path: The file; None for a package.
        members: Names and paths of a package's files; () for a single file.
        leftovers: What may be deleted once it is stored.
    """

    name: str
    path: Path | None
    members: tuple[tuple[str, Path], ...]
    leftovers: tuple[Leftover, ...]

    @classmethod
    def file(cls, path: Path, target_filename: str | None) -> Self:
        """Take one file.

        Raises:
            BlobNotFoundError: It does not exist.
            InvalidRequestError: It is no regular file, or ``target_filename`` is no file name.
        """
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            raise BlobNotFoundError(f"There is no file {str(path)!r:.200} to store", "Check the path.") from None
        except (OSError, ValueError) as error:  # no permission, a name that is too long or holds NUL
            raise InvalidRequestError(
                f"The file {str(path)!r:.200} cannot be read: {error}", "Check the path."
            ) from None
        if not S_ISREG(status.st_mode):
            raise InvalidRequestError(f"{str(path)!r} is no regular file", "Give a file or a folder.")
        name = path.name
        if target_filename is not None:
            name = _checked_name(target_filename)
            if "." not in name.strip("."):
                name += path.suffix
        return cls(sanitise_filename(name), path, (), (Leftover.of(path, status),))

    @classmethod
    def folder(cls, folder: Path, name: str) -> Self:
        """Take everything in a folder as a package.

        Raises:
            BlobNotFoundError: It does not exist.
            InvalidRequestError: It is no folder, holds no file, or holds what no package can.
        """
        from modelstore.storage.packages import collect

        name = _checked_name(name)
        members = collect(folder)
        files = [Leftover.of(path, os.stat(path)) for member, path in members if not member.endswith("/")]
        folders = {folder, *(Path(root, one) for root, folders, _ in os.walk(folder) for one in folders)}
        deepest_first = sorted(folders, key=lambda one: len(one.parts), reverse=True)
        return cls(name, None, tuple(members), (*files, *(Leftover(str(one.absolute())) for one in deepest_first)))

    @classmethod
    def files(cls, files: Sequence[Path], name: str) -> Self:
        """Take several files as a package.

        Raises:
            BlobNotFoundError: One does not exist.
            InvalidRequestError: There is none, or one is no regular file.
        """
        from modelstore.storage.packages import collect_files

        name = _checked_name(name)
        members = collect_files(files)
        return cls(name, None, tuple(members), tuple(Leftover.of(path, os.stat(path)) for _, path in members))


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file of the user's that may be deleted once it is stored, or a folder that then may be empty.

    Attributes:
        path: Absolute path.
        looks: Size, modification time and inode of the file when it was stored; None for a folder. A file that looks
            different since then holds something that was never stored, and stays.
    """

    path: str
    looks: tuple[int, int, int] | None = None

    @classmethod
    def of(cls, path: Path, status: os.stat_result) -> Self:
        """Describe a file as it is now."""
        return cls(str(path.absolute()), _looks(status))


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not name.strip(". "):
        raise InvalidRequestError(f"{name!r:.80} is no file name")
    if "/" in name or "\\" in name or "\0" in name:
        raise InvalidRequestError(f"The file name {name!r:.80} contains a path separator or NUL", "Give a name alone.")
    return sanitise_filename(name)


def user_path(value: object) -> Path:
    """Return what a user gave as a path; "~" is the home folder.

    Raises:
        InvalidRequestError: It is none.
    """
    text = value if isinstance(value, str) else os.fsdecode(value) if isinstance(value, (bytes, PathLike)) else None
    if text is None or "\0" in text:
        raise InvalidRequestError(f"{value!r:.80} is no path")
    return Path(os.path.expanduser(text))


def delete_leftovers(leftovers: Sequence[Leftover], spared: Iterable[Path]) -> None:
    """Delete files of the user's that are stored now, and folders that are empty then.

    What changed since it was stored, lies in a folder of our own, or cannot be deleted stays; a warning says so.

    Args:
        leftovers: Files before the folders that hold them.
        spared: Folders in which nothing is deleted.
    """
    own = [os.path.realpath(folder) for folder in spared] if leftovers else []
    for leftover in leftovers:
        real = os.path.join(os.path.realpath(os.path.dirname(leftover.path)), os.path.basename(leftover.path))
        if any(real == folder or real.startswith(f"{folder}/") for folder in own):
            logger.warning("%s belongs to the registry and was not deleted", leftover.path)
            continue
        try:
            _delete(leftover)
        except FileNotFoundError:
            continue
        except OSError as error:
            logger.warning("%s is stored, but could not be deleted: %s", leftover.path, error)


def _delete(leftover: Leftover) -> None:
    path = leftover.path
    if leftover.looks is None:
        if not os.path.islink(path) and not os.listdir(path):
            os.rmdir(path)
    elif leftover.looks == _looks(os.stat(path)):
        os.unlink(path)
    else:
        logger.warning("%s changed after it was stored, and was not deleted", path)


def _looks(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino

"""The cache's folder: where everything lies, and the few ways in which it is touched.

CACHEDIR.TAG   backup programs skip the folder
cache.db       the index; rebuilt from the folder when it is gone or damaged
objects/sha256/ab/<64 hex digits>/<file name>
trees/sha256/ab/<64 hex digits>/content/…  and  manifest.json
partial/       what is being written, under names that nobody else uses
leases/        one file per process: what it was handed
pins/          one empty file per pinned digest
locks/         one per URI being fetched
reserve        256 KiB to give back when the disk is full, so that the index can be written all the same
quarantine/    bytes that turned out to be wrong
trash/         what was taken out and is being deleted
"""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING, Final

from modelstore.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Layout", "check_digest", "file_name", "sync_folder"]

_TAG: Final = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This folder is a cache made by modelstore; see https://bford.info/cachedir/ for what this file is.\n"
)
_FOLDERS: Final = ("objects", "trees", "partial", "leases", "pins", "locks", "quarantine", "trash")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_UNFIT: Final = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')
_RESERVE: Final = 1 << 18
_LONGEST: Final = 200  # bytes; filesystems take 255, and a temporary's suffix must still fit


class Layout:
    """Paths inside one cache folder. Holds no state but the folder's name."""

    def __init__(self, root: str) -> None:
        self.root = root

    def make(self) -> None:
        """Create what is missing. Modes follow the umask, so a group that shares the folder sets 002."""
        os.makedirs(self.root, exist_ok=True)
        for name in _FOLDERS:
            os.makedirs(os.path.join(self.root, name), exist_ok=True)
        tag = os.path.join(self.root, "CACHEDIR.TAG")
        if not os.path.exists(tag):
            draft = self.unique("partial", "tag")
            with open(draft, "x", encoding="ascii") as file:
                file.write(_TAG)
            os.replace(draft, tag)

    def spend_reserve(self) -> bool:
        """Free a little space on a full disk; False if that was done already."""
        try:
            os.unlink(os.path.join(self.root, "reserve"))
        except FileNotFoundError:
            return False
        return True

    def keep_reserve(self) -> None:
        """Put a little space aside, if there is some."""
        reserve = os.path.join(self.root, "reserve")
        if not os.path.exists(reserve):
            draft = self.unique("partial", "reserve")
            try:
                with open(draft, "xb") as file:
                    file.write(bytes(_RESERVE))
                os.replace(draft, reserve)
            except OSError:
                self.discard(draft)  # full at this moment; after the next download there may be room

    def path(self, *parts: str) -> str:
        """Return the absolute path of something in the folder."""
        return os.path.join(self.root, *parts)

    def unique(self, folder: str, label: str) -> str:
        """Return a path in ``folder`` that nobody else uses."""
        return os.path.join(self.root, folder, f"{label}.{os.urandom(8).hex()}")

    def names(self, folder: str) -> list[str]:
        """Return what lies in one of the folders; nothing if it is not there."""
        try:
            return os.listdir(os.path.join(self.root, folder))
        except FileNotFoundError:
            return []

    def entries(self) -> Iterator[str]:
        """Yield every entry that lies on disk, indexed or not; the only walk over the whole cache."""
        for kind in ("objects", "trees"):
            for prefix in self.names(f"{kind}/sha256"):
                for name in self.names(f"{kind}/sha256/{prefix}"):
                    if _HEX.fullmatch(name) and name.startswith(prefix):
                        yield f"{kind}/sha256/{prefix}/{name}"

    def discard(self, path: str) -> None:
        """Delete a file or a folder with all in it; one that is gone already is fine."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except (IsADirectoryError, PermissionError):  # macOS says EPERM for a folder
            shutil.rmtree(path, ignore_errors=True)

    def trash(self, path: str) -> bool:
        """Move a file or folder out of sight, in one rename however large it is; False if it is gone already."""
        try:
            os.rename(path, self.unique("trash", os.path.basename(path)[:64]))
        except FileNotFoundError:
            return False
        return True

    def empty_trash(self) -> int:
        """Delete what `trash` moved, by whomever; return the bytes freed."""
        freed = 0
        for name in self.names("trash"):
            path = self.path("trash", name)
            freed += size_on_disk(path)
            self.discard(path)
        return freed


def entry_of(kind: str, digest: str) -> str:
    """Return the key of an entry, which is its folder relative to the cache: kind is ``objects`` or ``trees``."""
    text = digest.removeprefix("sha256:")
    return f"{kind}/sha256/{text[:2]}/{text}"


def digest_of(entry: str) -> str:
    """Return the digest of an entry: ``sha256:<64 hex digits>``."""
    return "sha256:" + entry[-64:]


def check_digest(digest: str) -> str:
    """Return the digest if it is well formed.

    Raises:
        InvalidRequestError: It is not ``sha256:`` and 64 lower-case hex digits.
    """
    if not _DIGEST.fullmatch(digest):
        raise InvalidRequestError(f"{digest!r} is not a digest.", "Give sha256: followed by 64 lower-case hex digits.")
    return digest


def file_name(uri: str, asked: str | None) -> str:
    """Return the name that the cached file gets: the one asked for, else the URI's last component made harmless.

    Raises:
        InvalidRequestError: The name asked for is empty, a path, or holds control characters.
    """
    if asked is None:
        last = re.split(r"[?#]", uri.partition("::")[0], maxsplit=1)[0].rstrip("/\\")
        name = _UNFIT.sub("_", re.split(r"[/\\]", last)[-1]).encode("utf-8", "replace").decode()
    elif _UNFIT.search(asked) or asked in {"", ".", ".."} or not _encodable(asked):
        raise InvalidRequestError(f"{asked[:80]!r} cannot be the name of a file.", "Give a name without a path.")
    else:
        name = asked
    return _shorten(name) if name.strip(". ") else "data"


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shorten(name: str) -> str:
    """Cut a name that is too long, keeping its extension: frameworks go by it."""
    if len(name.encode()) <= _LONGEST:
        return name
    stem, dot, extension = name.rpartition(".")
    if not dot or len(extension.encode()) > 20:
        stem, dot, extension = name, "", ""
    room = _LONGEST - len((dot + extension).encode())
    return stem.encode()[:room].decode("utf-8", "ignore") + dot + extension


def size_on_disk(path: str) -> int:
    """Return the bytes in a file, or in all files below a folder; 0 when it is gone."""
    try:
        if not os.path.isdir(path):
            return os.lstat(path).st_size
        return sum(size_on_disk(entry.path) for entry in os.scandir(path))
    except FileNotFoundError:
        return 0


def sync_file(path: str) -> None:
    """Return when the file's bytes would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: str) -> None:
    """Return when the names in the folder would survive a power cut."""
    if os.name == "posix":
        sync_file(path)

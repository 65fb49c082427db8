"""The registry's own objects: every content under its sha256, its file name last, written once and never changed.

    objects/sha256/ab/<64 hex>/<filename>     mode 0444 as far as the umask lets others read
    objects/tmp/<32 hex>                      snapshots being made; leftovers of killed processes

What the registry keeps about an object is a logical URI, ``modelstore://sha256/<hex>/<filename>``, so that a registry
folder can be moved or mounted elsewhere.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple
from urllib.parse import quote, unquote

from modelstore.errors import BlobNotFoundError, IntegrityError, InvalidRequestError, InvalidUriError, StorageError
from modelstore.storage.clocks import clock_at
from modelstore.storage.failures import translated
from modelstore.storage.fingerprints import Fingerprint, Progress, copy_hashed, hash_file
from modelstore.storage.uris import join, local_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

__all__ = [
    "ObjectStore",
    "StoredObject",
    "fsync_folder",
    "object_uri",
    "parse_object_uri",
    "remote_object_uri",
    "sanitise_filename",
]

_DIGEST: Final = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_OBJECT_URI: Final = re.compile(r"modelstore://sha256/([0-9a-f]{64})/([^/]+)")
_UNWANTED: Final = re.compile("[/\\\\\0-\x1f\x7f\ud800-\udfff]")
_MAX_NAME_BYTES: Final = 200
_MAX_SUFFIX_BYTES: Final = 40
# What link() says where a filesystem has no hard links, or no more of them for this file.
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EACCES})


class StoredObject(NamedTuple):
    """One content in an `ObjectStore`.

    Attributes:
        digest: ``sha256:<hex>``.
        names: Its file names, one or several; none at all is what a process killed at a bad moment leaves.
        size: Bytes kept, of all names together where they are no hard links of each other.
        changed_at: When it was last stored, seconds since 1970: storing what is there already counts.
    """

    digest: str
    names: tuple[str, ...]
    size: int
    changed_at: float


class ObjectStore:
    """The objects folder of one registry; any number of threads and processes may use it at the same time.

    Args:
        root: The ``objects`` folder; made when first written to.
        sync_names: Whether folders must be synced for their names to be durable; see `registry.mounts.keeps_names`.
    """

    remote: ClassVar[bool] = False
    """Whether the bytes lie where no program can open them as files."""

    def __init__(self, root: str | os.PathLike[str], *, sync_names: bool = True) -> None:
        self.root = Path(root)
        self._sync_names = sync_names
        self._has_tmp = False
        self._synced: set[str] = set()
        self._tmp = os.path.join(self.root, "tmp")

    def temporary(self) -> Path:
        """Return a new name for a snapshot, on the same filesystem as the objects; its folder exists."""
        if not self._has_tmp:
            with translated(self._tmp, writing=True):
                os.makedirs(self._tmp, exist_ok=True)
            self._has_tmp = True
        return Path(self._tmp, os.urandom(16).hex())

    def snapshot(
        self, source: str | os.PathLike[str], progress: Progress | None = None, *, durable: bool = True
    ) -> tuple[Path, Fingerprint]:
        """Return a private copy of the file as it is now, to be given to `put`, and its fingerprint.

        Raises:
            StorageError: As `copy_hashed` does; then nothing is left.
            InvalidRequestError: The source is a folder or a device.
        """
        target = self.temporary()
        try:
            return target, copy_hashed(source, target, progress, durable=durable, mode=0o444)
        except BlobNotFoundError:
            if os.path.isdir(self._tmp):
                raise
            self._has_tmp = False  # somebody has tidied up
        target = self.temporary()
        return target, copy_hashed(source, target, progress, durable=durable, mode=0o444)

    def put(self, snapshot: Path, fingerprint: Fingerprint, filename: str, *, durable: bool = True) -> str:
        """Publish a finished snapshot, which is gone afterwards, and return its logical URI.

        The same content is kept once: under a name it has already, the snapshot is dropped; under another name it
        becomes a hard link. A reader sees the whole file or none; a kill at any point leaves the object wholly
        there or not there, and at most a snapshot that `clean` removes.

        Args:
            snapshot: A complete file made at `temporary`, already on disk if ``durable`` is to mean anything.
            fingerprint: Of exactly these bytes.
            filename: The last component wanted; see `sanitise_filename`.
            durable: Return only when the object would survive a power cut.

        Raises:
            StorageFullError: The disk is full.
            ReadOnlyStorageError: The folder does not accept files.
        """
        name = sanitise_filename(filename)
        folder = self._folder(fingerprint.sha256)
        target = os.path.join(folder, name)
        # Killed at each of these by tests/storage/test_objects.py::test_a_killed_put_leaves_all_or_nothing:
        # 1. the snapshot loses its write bits    2. its folder is made
        # 3. it gets its final name (or an equal object takes its place, and then the snapshot goes)
        # 4. the folder and those above it reach the disk
        with translated(target, writing=True):
            sys.audit("modelstore.step", "objects.put.1")
            mode = os.stat(snapshot).st_mode
            if mode & 0o333:
                os.chmod(snapshot, mode & 0o444)
            sys.audit("modelstore.step", "objects.put.2")
            while True:
                made = _make_folder(folder)
                try:
                    sys.audit("modelstore.step", "objects.put.3")
                    if made or not self._reuse(folder, name, snapshot, fingerprint):
                        os.rename(snapshot, target)
                    break
                except FileNotFoundError:
                    # `remove` took the empty folder away between the two calls.
                    if not os.path.lexists(snapshot):
                        raise
            sys.audit("modelstore.step", "objects.put.4")
            if durable and self._sync_names:
                # Gone when it was garbage before and has just been collected: whoever is about to refer to an object
                # looks for it in his transaction.
                with suppress(FileNotFoundError):
                    self._sync(folder)
        return object_uri(fingerprint.digest, name)

    def path(self, digest: str, filename: str) -> Path:
        """Return where that object is, or would be, under that file name."""
        return Path(self._folder(_hex(digest)), sanitise_filename(filename))

    def find(self, digest: str) -> Path | None:
        """Return a file with that content, or None; of several names the first in order."""
        folder = self._folder(_hex(digest))
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            return None
        return Path(folder, min(names)) if names else None

    def uri(self, digest: str, filename: str) -> str:
        """Return where that object is, or would be, as other programs understand it."""
        return self.path(digest, filename).as_uri()

    def address(self, digest: str, filename: str) -> str | None:
        """Return where a content can be read, preferably under that file name; None when it is not here."""
        return None if (found := self.local(digest, filename)) is None else str(found)

    def local(self, digest: str, filename: str) -> Path | None:
        """Return a file of this machine with a content, preferably of that name; None when there is none."""
        path = self.path(digest, filename)
        return path if path.exists() else self.find(digest)

    def named(self, uri: str) -> tuple[str, str] | None:
        """Return digest and file name of what lies at a normalised URI in this store; None for any other URI."""
        path = local_path(uri) if uri.startswith("file://") else None
        if path is None or not str(path).startswith(f"{self.root}/sha256/"):
            return None
        parts = path.relative_to(self.root).parts
        return (f"sha256:{parts[2]}", parts[3]) if len(parts) == 4 and len(parts[2]) == 64 else None

    def size(self, digest: str, filename: str | None = None) -> int | None:
        """Return the bytes of an object under that name, or under any for None; None when it is not here."""
        try:
            path = self.find(digest) if filename is None else self.path(digest, filename)
            return None if path is None else path.stat().st_size
        except FileNotFoundError:
            return None

    def sizes(self) -> Callable[[str, str], int | None]:
        """Return a way to ask for the sizes of many: of a digest under a file name, or else under any."""

        def ask(digest: str, filename: str) -> int | None:
            named = self.size(digest, filename)
            return self.size(digest) if named is None else named

        return ask

    def options(self) -> Mapping[str, Any]:
        """Return what a driver needs to read from the URIs that are returned here."""
        return {}

    def lacking(self, wanted: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        """Return those digests and file names under which there is no object."""
        return {(digest, name) for digest, name in wanted if not self.path(digest, name).exists()}

    def damaged(self, digest: str) -> Iterator[tuple[str, str]]:
        """Read an object under all its names, and yield those whose bytes are others, with what is wrong."""
        read: dict[tuple[int, int], str] = {}
        for path in self._paths(_hex(digest)):
            try:
                status = path.stat()
                if (status.st_dev, status.st_ino) not in read:
                    read[status.st_dev, status.st_ino] = hash_file(path).digest
            except (FileNotFoundError, BlobNotFoundError):
                continue  # removed meanwhile
            except (StorageError, InvalidRequestError, OSError) as error:  # the second for what is no file
                yield path.name, f"{path} cannot be read ({error})"
                continue
            found = read[status.st_dev, status.st_ino]
            if found != digest:
                yield path.name, f"{path} has the digest {found}"

    def set_aside(self, digest: str, filename: str, folder: Path) -> Path:
        """Move what lies under a name into a folder of this machine, and return where.

        Raises:
            StorageError: It cannot be moved; it stays.
        """
        target = folder / f"{_hex(digest)}.{os.urandom(4).hex()}.{filename}"
        with translated(target, writing=True):
            folder.mkdir(exist_ok=True)
            self.path(digest, filename).rename(target)
        return target

    def verify(self, digest: str) -> Fingerprint:
        """Read the whole object and return its fingerprint.

        Raises:
            BlobNotFoundError: The object is not here.
            IntegrityError: A file's bytes are not those of ``digest``.
        """
        wanted = _hex(digest)
        found: Fingerprint | None = None
        seen: set[tuple[int, int]] = set()
        for path in self._paths(wanted):
            status = path.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            found = hash_file(path)
            if found.sha256 != wanted:
                raise IntegrityError(
                    f"The object at {str(path)!r} is damaged: its bytes have the digest {found.digest}.",
                    "Remove it and store or fetch the same file again.",
                )
        if found is None:
            raise BlobNotFoundError(f"There is no object sha256:{wanted} in {str(self.root)!r}.")
        return found

    def remove(self, digest: str) -> int:
        """Delete an object under all its names and return the bytes that were freed; 0 if it was not there.

        Against a concurrent `put` of the same content either may win; a caller that deletes what nothing refers
        to must leave alone what changed recently (`StoredObject.changed_at`).

        Raises:
            ReadOnlyStorageError: The folder does not accept changes.
        """
        wanted = _hex(digest)
        folder = self._folder(wanted)
        freed = _size(self._paths(wanted))
        with translated(folder, writing=True):
            for path in self._paths(wanted):
                path.unlink(missing_ok=True)
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                return freed
            except OSError as error:
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise
        return freed

    def discard(self, stored: Sequence[StoredObject]) -> None:
        """Delete objects; see `remove`."""
        for one in stored:
            self.remove(one.digest)

    def iterate(self) -> Iterator[StoredObject]:
        """Yield every object, in order of digest; those that come or go meanwhile may be missed."""
        with translated(self.root):
            for shard in _names(Path(self.root, "sha256")):
                yield from self.stored([n for n in _names(Path(self.root, "sha256", shard)) if _DIGEST.fullmatch(n)])

    def stored(self, digests: Sequence[str]) -> Iterable[StoredObject]:
        """Yield those of these objects that are there."""
        for digest in digests:
            name = _hex(digest)
            if (changed_at := self.changed_at(name)) is not None:
                paths = self._paths(name)
                yield StoredObject(f"sha256:{name}", tuple(path.name for path in paths), _size(paths), changed_at)

    def now(self) -> float:
        """Return the time by the clock that `StoredObject.changed_at` goes by, seconds since 1970."""
        return clock_at(self.temporary())

    def changed_at(self, digest: str) -> float | None:
        """Return when an object was last stored, seconds since 1970; None when there is none."""
        try:
            return os.stat(self._folder(_hex(digest))).st_mtime
        except FileNotFoundError:
            return None

    def clean(self, older_than_s: float = 86_400.0) -> int:
        """Delete snapshots that killed processes left, and return the bytes freed.

        Args:
            older_than_s: Spare what was written to within so many seconds: it may be somebody's work. 0 spares none.
        """
        freed = 0
        limit = time.time() - older_than_s
        with translated(self._tmp, writing=True):
            for name in _names(Path(self._tmp)):
                path = Path(self._tmp, name)
                try:
                    status = path.stat()
                    if status.st_mtime <= limit:
                        path.unlink()
                        freed += status.st_size
                except FileNotFoundError:
                    continue  # its owner published it
        return freed

    def _folder(self, hexdigest: str) -> str:
        return f"{self.root}/sha256/{hexdigest[:2]}/{hexdigest}"

    def _paths(self, hexdigest: str) -> list[Path]:
        folder = Path(self._folder(hexdigest))
        return [folder / name for name in _names(folder)]

    def _reuse(self, folder: str, name: str, snapshot: Path, fingerprint: Fingerprint) -> bool:
        """Let what is stored already serve for the snapshot, and drop that; False if it has to be renamed in."""
        target = os.path.join(folder, name)
        for other in sorted(os.listdir(folder), key=lambda one: one != name):
            present = os.path.join(folder, other)
            try:
                whole = os.stat(present).st_size == fingerprint.size
                if other == name:
                    if not whole:
                        return False  # damaged: the fresh bytes take its place
                    os.utime(folder)  # so that a collector that looks now spares it
                elif whole:
                    os.link(present, target)
                else:
                    continue
            except FileExistsError:
                pass  # another process has just linked it
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                return False
            os.unlink(snapshot)
            return True
        return False

    def _sync(self, folder: str) -> None:
        """Bring the names on the way to an object to disk; those above it once per process are enough.

        A folder that was there before may be another process's, which has not come to syncing it yet.
        """
        fsync_folder(folder)
        shard = os.path.dirname(folder)
        fsync_folder(shard)
        if shard not in self._synced:
            for above in (os.path.dirname(shard), self.root, self.root.parent):
                if str(above) not in self._synced:
                    fsync_folder(above)
            self._synced.update((shard, str(self.root), str(self.root.parent)))


def sanitise_filename(name: str) -> str:
    r"""Return ``name`` fit to be the last component of a path and of a URI anywhere; doing it twice changes nothing.

    Separators, control characters and what is no Unicode become ``_``; more than 200 bytes of UTF-8 are cut before
    the suffix. Everything else, emoji included, stays.

    Example:
        >>> sanitise_filename("a/b\\c.pt"), sanitise_filename(".."), len(sanitise_filename("x" * 999 + ".tar.gz"))
        ('a_b_c.pt', '__', 200)
    """
    clean = _UNWANTED.sub("_", name)
    if not clean.strip("."):
        clean = "_" * len(clean) or "file"
    if len(clean.encode()) <= _MAX_NAME_BYTES:
        return clean
    stem, dot, last = clean.rpartition(".")
    inner, inner_dot, middle = stem.rpartition(".")
    if inner_dot and inner and middle.lower() == "tar":
        stem, last = inner, f"{middle}.{last}"
    suffix = f".{last}" if dot and stem else ""
    if len(suffix.encode()) > _MAX_SUFFIX_BYTES:
        suffix, stem = "", clean
    room = _MAX_NAME_BYTES - len(suffix.encode())
    return (stem if suffix else clean).encode()[:room].decode(errors="ignore") + suffix


def object_uri(digest: str, filename: str) -> str:
    """Return the logical URI of an object of the registry's own store."""
    return f"modelstore://sha256/{_hex(digest)}/{quote(sanitise_filename(filename), safe='~')}"


def parse_object_uri(uri: str) -> tuple[str, str] | None:
    """Return the digest (``sha256:hex``) and file name of a logical URI; None if ``uri`` is of another scheme.

    Raises:
        InvalidUriError: It begins with ``modelstore://`` and is malformed.
    """
    if not uri.startswith("modelstore://"):
        return None
    match = _OBJECT_URI.fullmatch(uri)
    if not match:
        raise InvalidUriError(f"{uri!r} is no object of a registry: modelstore://sha256/<64 hex digits>/<file name>.")
    name = unquote(match[2])
    if sanitise_filename(name) != name:
        raise InvalidUriError(f"{uri!r} has a file name that no object can have.")
    return f"sha256:{match[1]}", name


def remote_object_uri(destination: str, digest: str, filename: str) -> str:
    """Return the address of a content below an upload destination; no two contents share one.

    Raises:
        InvalidUriError: As `normalise` does for the destination.
    """
    hexdigest = _hex(digest)
    return join(destination, "sha256", hexdigest[:2], hexdigest, sanitise_filename(filename))


def fsync_folder(folder: str | os.PathLike[str]) -> None:
    """Return when the names in ``folder`` are on disk; filesystems that cannot sync a folder are left at that."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP}:
            raise
    finally:
        os.close(descriptor)


def _hex(digest: str) -> str:
    match = _DIGEST.fullmatch(digest)
    if not match:
        raise InvalidRequestError(f"{digest!r} is no digest.", "Write sha256: and 64 lower-case hex digits.")
    return match[1]


def _make_folder(folder: str) -> bool:
    """Make ``folder`` and what is missing above it; False if it was there."""
    try:
        os.mkdir(folder)
    except FileExistsError:
        return False
    except FileNotFoundError:
        _make_folder(os.path.dirname(folder))
        return _make_folder(folder)
    return True


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def _size(paths: list[Path]) -> int:
    inodes = {}
    for path in paths:
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        inodes[status.st_dev, status.st_ino] = status.st_size
    return sum(inodes.values())

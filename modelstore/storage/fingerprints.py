"""Local bytes: what they are (`hash_file`) and a snapshot of them (`copy_hashed`)."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Protocol

from modelstore.errors import InvalidRequestError
from modelstore.storage.failures import translated

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["Fingerprint", "Hasher", "Progress", "copy_hashed", "hash_file"]

SMALL: Final = 1 << 20
"""Below this many bytes one read and one write beat any overlap."""
_BUFFER: Final = 1 << 18  # fits the L2 cache: the second hash of a block finds it there
_STEP: Final = 1 << 20  # one copy_file_range call; of 1, 8 and 64 MiB the one whose bytes are still cached when hashed
_FICLONE: Final = 0x40049409
_NO_COPY_FILE_RANGE: Final = frozenset(
    {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM, errno.EIO, errno.ETXTBSY}
)


class Progress(Protocol):
    """What is told about a transfer: called with the bytes done and the bytes in all, None while that is unknown."""

    def __call__(self, done_bytes: int, total_bytes: int | None, /) -> object:
        """Take note; what it raises ends the transfer."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What some bytes are.

    Attributes:
        size: Length in bytes.
        sha256: 64 lower-case hex digits; the identity.
        xxh3: 32 lower-case hex digits of xxh3_128; a fast check against accidents, not against malice.
    """

    size: int
    sha256: str
    xxh3: str

    @property
    def digest(self) -> str:
        """The identity with its algorithm: ``sha256:<64 hex digits>``."""
        return f"sha256:{self.sha256}"


_xxhash_module: ModuleType | None = None


def _xxhash() -> ModuleType:
    global _xxhash_module  # noqa: PLW0603 - an import statement per call costs more than hashing 1 KiB
    if _xxhash_module is None:
        import xxhash

        _xxhash_module = xxhash
    return _xxhash_module


class Hasher:
    """Both digests of a stream of blocks. Not safe for use by two threads at a time."""

    __slots__ = ("_sha256", "_xxh3", "size")

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._xxh3: Any = _xxhash().xxh3_128()
        self.size = 0

    def update(self, block: bytes | bytearray | memoryview) -> None:
        """Take in the next block."""
        self._sha256.update(block)
        self._xxh3.update(block)
        self.size += len(block)

    def fingerprint(self) -> Fingerprint:
        """Return the digests of everything so far."""
        return Fingerprint(self.size, self._sha256.hexdigest(), self._xxh3.hexdigest())


def hash_file(path: str | os.PathLike[str], progress: Progress | None = None) -> Fingerprint:
    """Return the fingerprint of the file's bytes, read once, in constant memory.

    A file that changes meanwhile gives the fingerprint of some mixture; use `copy_hashed` where that matters.

    Raises:
        BlobNotFoundError: There is no such file.
        InvalidRequestError: It is a folder or a device.
        StorageUnavailableError: It cannot be read.
    """
    with translated(path):
        source = _open_regular(path)
        try:
            return _hash_descriptor(source, os.fstat(source).st_size, progress)
        finally:
            os.close(source)


def copy_hashed(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    progress: Progress | None = None,
    *,
    durable: bool = True,
    mode: int = 0o666,
) -> Fingerprint:
    """Copy a file to ``target``, a name that nobody else uses, and return the fingerprint of the copy.

    The copy shares its blocks with the source where the filesystem can do that. Otherwise the bytes are copied by
    the kernel while another thread hashes what has arrived, in constant memory. A source that changes meanwhile may
    give a mixed copy, but always a fingerprint that matches it. After a failure there is no target.

    Args:
        source: A readable regular file, or a link to one.
        target: Must not exist yet; its folder must.
        progress: Called from this thread, for files of a mebibyte and more.
        durable: Return only when the copy would survive a power cut (its name in the folder is the caller's to
            sync, after giving it its final place).
        mode: Rights of the copy, of which the umask takes some away; without those to write, only this call writes it.

    Raises:
        BlobNotFoundError: There is no source.
        InvalidRequestError: The source is a folder or a device.
        StorageFullError: The target's filesystem is full.
        ReadOnlyStorageError: The target's folder does not accept files.
        StorageUnavailableError: Reading or writing failed otherwise.
    """
    with translated(source):
        reading = _open_regular(source)
    try:
        with translated(target, writing=True):
            writing = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            try:
                return _copy(reading, writing, progress, durable=durable)
            except BaseException:
                os.unlink(target)
                raise
            finally:
                os.close(writing)
    finally:
        os.close(reading)


def _open_regular(path: str | os.PathLike[str]) -> int:
    # Without O_NONBLOCK, opening a named pipe would wait for its writer before anything could be checked.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise InvalidRequestError(f"{os.fspath(path)!r} is a folder, and a file is wanted.", "Store it as a package.")
    raise InvalidRequestError(f"{os.fspath(path)!r} is no regular file.")


def _copy(reading: int, writing: int, progress: Progress | None, *, durable: bool) -> Fingerprint:
    size = os.fstat(reading).st_size
    if size < SMALL:
        block = os.read(reading, size + 1)
        if len(block) <= size:  # else it grows while we look, or is of the kind whose size is always 0
            hasher = Hasher()
            hasher.update(block)
            _write_all(writing, block)
            if durable:
                os.fsync(writing)
            return hasher.fingerprint()
        os.lseek(reading, 0, os.SEEK_SET)
    if _clone(reading, writing):
        if durable:
            os.fsync(writing)
        return _hash_descriptor(writing, os.fstat(writing).st_size, progress)
    return _Pipeline(reading, writing, size, progress, durable=durable).run()


def _write_all(descriptor: int, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[os.write(descriptor, view) :]


def _clone(reading: int, writing: int) -> bool:
    """Make the new file share the source's blocks; False where the filesystem has no such thing."""
    import fcntl

    try:
        fcntl.ioctl(writing, _FICLONE, reading)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise
        return False
    return True


def _hash_descriptor(descriptor: int, size: int, progress: Progress | None) -> Fingerprint:
    if size < SMALL:
        hasher = Hasher()
        while block := os.read(descriptor, SMALL):
            hasher.update(block)
        return hasher.fingerprint()
    return _Pipeline(descriptor, descriptor, size, progress, durable=False).run()


class _Pipeline:
    """A thread that brings bytes and computes xxh3, and the calling thread that computes sha256 behind it.

    sha256 costs about as much as copying and xxh3 together, so on two cores the whole costs what the slower half
    does. Both read back what lies in the target, out of the page cache: the digests are of the copy, whatever
    happens to the source.
    """

    def __init__(self, reading: int, writing: int, size: int, progress: Progress | None, *, durable: bool) -> None:
        self._reading, self._writing, self._size, self._progress = reading, writing, size, progress
        self._durable = durable
        self._sha256 = hashlib.sha256()
        self._xxh3: Any = _xxhash().xxh3_128()
        self._arrived: SimpleQueue[int | BaseException | None] = SimpleQueue()
        self._stop = False
        self._by_kernel = True

    def run(self) -> Fingerprint:
        worker = threading.Thread(target=self._bring, name="modelstore-copy", daemon=True)
        worker.start()
        try:
            done = self._follow()
        finally:
            self._stop = True
            worker.join()
        return Fingerprint(done, self._sha256.hexdigest(), self._xxh3.hexdigest())

    def _follow(self) -> int:
        buffer = memoryview(bytearray(_BUFFER))
        done = 0
        while (frontier := self._arrived.get()) is not None:
            if isinstance(frontier, BaseException):
                raise frontier
            done = _read_back(self._writing, buffer, done, frontier, self._sha256)
            if self._progress is not None:
                self._progress(done, max(self._size, done))
        return done

    def _bring(self) -> None:
        try:
            buffer = memoryview(bytearray(_BUFFER))
            done = 0
            while not self._stop and (count := self._bring_step(done, buffer)):
                if self._reading != self._writing:
                    _read_back(self._writing, buffer, done, done + count, self._xxh3)
                done += count
                self._arrived.put(done)
            if self._durable and not self._stop:
                os.fsync(self._writing)  # here, so that the disk works while the rest is hashed
            self._arrived.put(None)
        except BaseException as error:  # noqa: BLE001 - a thread's top: the calling thread raises it
            self._arrived.put(error)

    def _bring_step(self, done: int, buffer: memoryview) -> int:
        if self._reading == self._writing:
            return _read_back(self._reading, buffer, done, done + _STEP, self._xxh3) - done
        if self._by_kernel:
            try:
                count = os.copy_file_range(self._reading, self._writing, _STEP, done, done)
            except OSError as error:
                if error.errno not in _NO_COPY_FILE_RANGE:
                    raise
                count = 0
            if count:
                return count
            # Either the end, or a filesystem that cannot (some answer 0 instead of failing): reading tells.
            self._by_kernel = False
        count = os.preadv(self._reading, [buffer], done)
        written = 0
        while written < count:
            written += os.pwrite(self._writing, buffer[written:count], done + written)
        return count


def _read_back(descriptor: int, buffer: memoryview, start: int, end: int, digest: Any) -> int:
    """Feed bytes ``start`` to ``end`` to ``digest``, as far as there are any; return where it got to."""
    while start < end:
        count = os.preadv(descriptor, [buffer[: min(_BUFFER, end - start)]], start)
        if not count:
            break
        digest.update(buffer[:count])
        start += count
    return start

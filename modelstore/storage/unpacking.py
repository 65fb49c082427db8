"""Unpacking archives from anybody: into a folder of its own, whole or not at all, and nowhere else.

Members of our own packages begin where blocks do. Where the filesystem lets files share blocks (XFS, btrfs), an
unpacked package then takes no second place on the disk.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import struct
import unicodedata
import zipfile
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from modelstore.errors import IntegrityError, InvalidRequestError, StorageFullError, UnsafeArchiveError
from modelstore.storage.failures import translated

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ALIGNED_FROM", "ALIGNMENT", "EXTRACTING", "NameTree", "extract", "name_parts"]

EXTRACTING: Final = ".extracting"
"""What the name of an unfinished folder ends in; a process killed while extracting leaves one."""

ALIGNMENT: Final = 4096
"""What the larger members of a package begin on a multiple of."""

ALIGNED_FROM: Final = 1 << 16
"""From how many bytes on they do."""

_BLOCK: Final = 1 << 20
_MAX_MEMBERS: Final = 1_000_000
_MAX_RATIO: Final = 100
_ALWAYS_ALLOWED: Final = 1 << 30
_DRIVE: Final = re.compile(r"[A-Za-z]:[/\\]")
_FICLONERANGE: Final = 0x4020940D


def extract(archive: str | os.PathLike[str], folder: str | os.PathLike[str], max_bytes: int | None = None) -> Path:
    """Unpack a zip or tar archive, compressed or not, and return ``folder``.

    The folder appears with everything in it or not at all. When another process makes the same folder at the same
    time, the first one stays. A kill leaves a folder next to it whose name ends in `EXTRACTING`.

    Args:
        archive: What it is shows in its bytes, not in its name.
        folder: Must not exist, or be empty; the folder above it is made.
        max_bytes: Most that the members may come to; None allows 1 GiB or 100 times the archive, what is more.

    Raises:
        UnsafeArchiveError: A member is absolute, has ``..``, is a link or a device, would overwrite another, also
            where case does not count, or there is more than allowed.
        IntegrityError: It is no archive, or damaged.
        BlobNotFoundError: There is no archive.
        InvalidRequestError: There is something in ``folder`` already.
        StorageFullError: The disk is, or would be, full.
    """
    source, final = Path(archive), Path(folder)
    with translated(source):
        limit = max(_ALWAYS_ALLOWED, _MAX_RATIO * source.stat().st_size) if max_bytes is None else max_bytes
    with translated(final, writing=True):
        if final.exists() and (not final.is_dir() or any(final.iterdir())):
            raise InvalidRequestError(f"There is something at {str(final)!r} already.", "Choose another folder.")
        final.parent.mkdir(parents=True, exist_ok=True)
        work = final.parent / f".{os.urandom(8).hex()}{EXTRACTING}"
        work.mkdir()
        try:
            _Extraction(source, work, limit).run()
            try:
                work.rename(final)
            except OSError:
                if not final.is_dir():
                    raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return final


def name_parts(name: str) -> tuple[str, ...]:
    """Return the components of a member's name.

    Raises:
        UnsafeArchiveError: It is absolute or leads out of its folder.
    """
    if name.startswith(("/", "\\")) or _DRIVE.match(name):
        raise UnsafeArchiveError("it is absolute")
    if ".." in re.split(r"[/\\]", name):
        raise UnsafeArchiveError("it has .. in it")
    return tuple(part for part in name.split("/") if part not in {"", "."})


class NameTree:
    """The names of an archive so far, compared as a filesystem that ignores case and Unicode forms would."""

    def __init__(self) -> None:
        self._files: set[tuple[str, ...]] = set()
        self._folders: dict[tuple[str, ...], tuple[str, ...]] = {}

    def add(self, parts: tuple[str, ...], *, is_folder: bool) -> None:
        """Take a name in.

        Raises:
            UnsafeArchiveError: It cannot live beside those before it.
        """
        folded = tuple(unicodedata.normalize("NFC", unicodedata.normalize("NFC", part).casefold()) for part in parts)
        depths = range(1, len(parts) + 1 if is_folder else len(parts))
        for depth in depths:
            known = self._folders.setdefault(folded[:depth], parts[:depth])
            if folded[:depth] in self._files or known != parts[:depth]:
                raise UnsafeArchiveError("another member has the same name, or the same but for case")
        if not is_folder:
            if folded in self._files or folded in self._folders:
                raise UnsafeArchiveError("another member has the same name, or the same but for case")
            self._files.add(folded)


class _Extraction:
    """One archive on its way into an empty folder that is ours alone."""

    def __init__(self, archive: Path, folder: Path, max_bytes: int) -> None:
        self._archive, self._folder, self._left = archive, folder, max_bytes
        self._max_bytes = max_bytes
        self._tree = NameTree()
        self._members = 0
        self._written: list[Path] = []
        self._sharing = True  # until the filesystem has said that it cannot

    def run(self) -> None:
        import tarfile
        import zlib

        with translated(self._archive), self._archive.open("rb") as stream:
            head = stream.read(512)
            stream.seek(0)
            try:
                if head.startswith(b"PK"):
                    self._unzip(stream)
                elif head.startswith(b"\x1f\x8b") or head[257:262] == b"ustar":
                    self._untar(stream, compressed=head.startswith(b"\x1f\x8b"))
                else:
                    raise IntegrityError(f"{str(self._archive)!r} is neither a zip nor a tar archive.")
            except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, struct.error) as error:
                raise self._damaged(str(error)) from error
            except OSError as error:
                # gzip says "Not a gzipped file", "CRC check failed" with a bare OSError that has no number
                if type(error).__module__ == "modelstore.errors" or error.errno is not None:
                    raise
                raise self._damaged(str(error)) from error
            except (NotImplementedError, RuntimeError, UnicodeDecodeError) as error:
                raise self._damaged(str(error)) from error  # encrypted, or a method that zipfile does not know
        for path in self._written:
            _fsync_file(path)

    def _unzip(self, stream: IO[bytes]) -> None:
        with zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
            self._reserve(sum(member.file_size for member in members))
            for member in members:
                name, mode = member.orig_filename, member.external_attr >> 16
                if stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
                    raise self._unsafe(name, "it is a link or a device")
                opener = partial(archive.open, member)
                self._place(name, opener, is_folder=name.endswith("/"), share=partial(self._share, stream, member))

    def _untar(self, stream: IO[bytes], *, compressed: bool) -> None:
        import gzip
        import tarfile

        inner: Any = gzip.GzipFile(fileobj=stream) if compressed else stream
        sipping: Any = _Sipping(inner)  # a tar header may ask for gigabytes of text to be read at once
        with tarfile.open(fileobj=sipping, mode="r:") as archive:
            for member in archive:
                if not (member.isreg() or member.isdir()) or member.issparse():
                    raise self._unsafe(member.name, "it is a link or a device")
                self._reserve(member.size)
                self._place(member.name, partial(archive.extractfile, member), is_folder=member.isdir())
                archive.members = []  # type: ignore[attr-defined] # else a million of them stay in memory

    def _reserve(self, size: int) -> None:
        self._max_bytes -= size
        if self._max_bytes < 0:
            raise self._too_much()
        if size > shutil.disk_usage(self._folder).free:
            raise StorageFullError(f"{str(self._archive)!r} does not fit on the disk of {str(self._folder.parent)!r}.")

    def _place(
        self,
        name: str,
        opener: Callable[[], IO[bytes] | None],
        *,
        is_folder: bool,
        share: Callable[[int], bool] | None = None,
    ) -> None:
        self._members += 1
        if self._members > _MAX_MEMBERS:
            raise UnsafeArchiveError(f"{str(self._archive)!r} has more than {_MAX_MEMBERS} members.")
        try:
            if "\0" in name:
                raise UnsafeArchiveError("its name has a NUL")
            parts = name_parts(name)
            self._tree.add(parts, is_folder=is_folder)
        except UnsafeArchiveError as error:
            raise self._unsafe(name, error.message) from error
        path = self._folder.joinpath(*parts)
        if is_folder:
            path.mkdir(parents=True, exist_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        source = opener()
        if source is None or not parts:
            raise self._unsafe(name, "it is no file")
        with source, path.open("x+b", buffering=0) as sink:
            done = share is not None and share(sink.fileno())
            while not done and (block := source.read(_BLOCK)):
                self._left -= len(block)
                if self._left < 0:
                    raise self._too_much()
                sink.write(block)
        self._written.append(path)

    def _share(self, archive: IO[bytes], member: zipfile.ZipInfo, sink: int) -> bool:
        """Let the new file share the blocks of a plain, aligned member; False where it has to be copied."""
        size = member.file_size
        if not self._sharing or member.compress_type != zipfile.ZIP_STORED or size < ALIGNED_FROM:
            return False
        begin = _data_begin(archive.fileno(), member)
        if begin % ALIGNMENT or member.flag_bits & 1:
            return False
        whole = size - size % ALIGNMENT
        self._sharing = _clone_range(archive.fileno(), begin, whole, sink)
        if not self._sharing:
            return False
        self._left -= size
        if self._left < 0:
            raise self._too_much()
        os.pwrite(sink, os.pread(archive.fileno(), size - whole, begin + whole), whole)
        if _checksum(sink) != (size, member.CRC):
            raise zipfile.BadZipFile(f"Bad CRC-32 for file {member.filename!r}")
        return True

    def _unsafe(self, name: str, why: str) -> UnsafeArchiveError:
        return UnsafeArchiveError(f"{str(self._archive)!r} was not unpacked because of its member {name!r}: {why}.")

    def _too_much(self) -> UnsafeArchiveError:
        return UnsafeArchiveError(
            f"{str(self._archive)!r} unpacks to more than is allowed.", "If that is right, give a larger limit."
        )

    def _damaged(self, why: str) -> IntegrityError:
        return IntegrityError(f"{str(self._archive)!r} is no archive that can be read: {why.rstrip('.')}.")


class _Sipping:
    """A stream that refuses to be read in gulps."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.seek, self.tell, self.close = stream.seek, stream.tell, stream.close

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= 8 * _BLOCK:
            raise UnsafeArchiveError(f"A header in the archive claims to be {size} bytes long.")
        return bytes(self._stream.read(size))

    def seekable(self) -> bool:
        return True


def _data_begin(archive: int, member: zipfile.ZipInfo) -> int:
    header = os.pread(archive, 30, member.header_offset)
    name_bytes, extra_bytes = struct.unpack_from("<HH", header, 26)
    return int(member.header_offset + 30 + name_bytes + extra_bytes)


def _clone_range(source: int, begin: int, length: int, target: int) -> bool:
    import fcntl

    try:
        fcntl.ioctl(target, _FICLONERANGE, struct.pack("=qQQQ", source, begin, length, 0))
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise
        return False
    return True


def _checksum(descriptor: int) -> tuple[int, int]:
    import zlib

    buffer = memoryview(bytearray(_BLOCK))
    size = checksum = 0
    while count := os.preadv(descriptor, [buffer], size):
        checksum = zlib.crc32(buffer[:count], checksum)
        size += count
    return size, checksum


def _fsync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

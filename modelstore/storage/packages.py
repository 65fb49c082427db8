"""Packages: a folder or several files as one archive whose bytes depend on nothing but names and contents.

A package is a zip without compression: weights do not compress, any tool opens it, and a member can be read in place.
Names are sorted, times and modes fixed. Members of 64 KiB and more begin on a multiple of 4096 bytes, where
filesystems that share blocks between files can share them with an unpacked copy.
"""

from __future__ import annotations

import io
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

from modelstore.errors import (
    BlobNotFoundError,
    IntegrityError,
    InvalidRequestError,
    MissingWeightsError,
    StorageFullError,
    UnsafeArchiveError,
)
from modelstore.storage.failures import translated
from modelstore.storage.fingerprints import Fingerprint, hash_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["EXTRACTING", "collect", "collect_files", "extract", "open_member", "pack"]

EXTRACTING: Final = ".extracting"
"""What the name of an unfinished folder ends in; a process killed while extracting leaves one."""

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can hold
_ALIGNMENT: Final = 4096
_ALIGNED_FROM: Final = 1 << 16
_PADDING_ID: Final = 0xD935  # the extra field that Android's zipalign uses for this
_ZIP64_FROM: Final = 1 << 30  # decided by us, not by zipfile's estimate, which has changed between Pythons
_BLOCK: Final = 1 << 20
_MAX_MEMBERS: Final = 1_000_000
_MAX_RATIO: Final = 100
_ALWAYS_ALLOWED: Final = 1 << 30
_DRIVE: Final = re.compile(r"[A-Za-z]:[/\\]")


def collect(folder: str | os.PathLike[str]) -> list[tuple[str, Path]]:
    """Return every file below ``folder`` with its name in the package, in order; hidden files too.

    Empty folders are listed with a ``/`` at the end of their names. A link to a file counts as that file.

    Raises:
        BlobNotFoundError: There is no such folder.
        InvalidRequestError: It is a file, or something in it is a socket, a device, a link to a folder, or a link
            that leads out of the folder.
        MissingWeightsError: There is no file in it.
    """
    root = Path(folder)
    with translated(root):
        if not root.exists():
            raise BlobNotFoundError(f"There is no folder {str(root)!r}.")
        if not root.is_dir():
            raise InvalidRequestError(f"{str(root)!r} is a file, and a folder is wanted.")
        found = sorted(_walk(root, "", root.resolve()))
    if all(name.endswith("/") for name, _ in found):
        raise MissingWeightsError(f"There is no file in the folder {str(root)!r}.")
    _check_names(name for name, _ in found)
    return found


def collect_files(files: Sequence[str | os.PathLike[str]]) -> list[tuple[str, Path]]:
    """Return the files with their names in the package: relative to the deepest folder that holds them all.

    Raises:
        MissingWeightsError: The list is empty.
        BlobNotFoundError: One does not exist.
        InvalidRequestError: One is no regular file, or is listed twice.
    """
    if not files:
        raise MissingWeightsError("A package needs at least one file.")
    paths = [Path(os.path.abspath(os.path.expanduser(one))) for one in files]
    for path in paths:
        with translated(path):
            if not stat.S_ISREG(path.stat().st_mode):
                raise InvalidRequestError(f"{str(path)!r} is no regular file.", "Give a folder as such.")
    parent = os.path.commonpath([path.parent for path in paths])
    found = sorted((path.relative_to(parent).as_posix(), path) for path in paths)
    _check_names(name for name, _ in found)
    return found


def pack(files: Sequence[tuple[str, Path]], target: str | os.PathLike[str]) -> Fingerprint:
    """Write the files as one package and return its fingerprint; equal names and contents give equal bytes.

    The package is on disk when this returns; after a failure there is none.

    Args:
        files: Names in the package, relative and with ``/``, and where the bytes are; a name that ends in ``/`` is
            an empty folder.
        target: Must not exist yet.

    Raises:
        InvalidRequestError: A name is absolute, has ``..``, is no Unicode, or two are the same but for case.
        BlobNotFoundError: A file does not exist.
        StorageFullError: The disk is full.
    """
    ordered = sorted(files)
    _check_names(name for name, _ in ordered)
    with translated(target, writing=True):
        descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            with os.fdopen(descriptor, "w+b") as stream:
                with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
                    for name, path in ordered:
                        _pack_member(archive, stream, name, path)
                stream.flush()
                os.fsync(stream.fileno())
            return hash_file(target)
        except BaseException:
            os.unlink(target)
            raise


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


def open_member(archive: IO[bytes], name: str) -> IO[bytes]:
    """Return a seekable file over one member of an open zip archive, which is closed with it, or at a failure.

    What is read to its end is compared with the member's checksum; wrong bytes raise `IntegrityError`.

    Raises:
        BlobNotFoundError: It has no such member.
        IntegrityError: It is no zip archive.
    """
    try:
        return _Member(archive, name)
    except KeyError as error:
        raise BlobNotFoundError(f"The archive has no member {name!r}.", "Check the spelling.") from error
    except zipfile.BadZipFile as error:
        raise IntegrityError("It is no zip archive, and has no members.") from error


class _Member(io.BufferedReader):
    """A member of an archive, with everything that has to be closed behind it."""

    def __init__(self, archive: IO[bytes], name: str) -> None:
        self._whole = archive
        try:
            self._zip = zipfile.ZipFile(archive)
            super().__init__(_Checked(self._zip.open(name)))
        except BaseException:
            archive.close()
            raise

    def close(self) -> None:
        super().close()
        self._whole.close()


class _Checked(io.RawIOBase):
    """A member whose failing checksum is an error of ours."""

    def __init__(self, inner: IO[bytes]) -> None:
        self._inner = inner

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._inner.seek(offset, whence)

    def tell(self) -> int:
        return self._inner.tell()

    def readinto(self, buffer: Any) -> int:
        try:
            block = self._inner.read(len(buffer))
        except zipfile.BadZipFile as error:
            raise IntegrityError(f"A member of the archive is damaged: {error}.") from error
        buffer[: len(block)] = block
        return len(block)


def _walk(folder: Path, prefix: str, root: Path) -> Iterator[tuple[str, Path]]:
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    if not entries and prefix:
        yield prefix, folder
    for entry in entries:
        path, name = folder / entry.name, prefix + entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(path, f"{name}/", root)
        elif entry.is_symlink() and not path.resolve().is_relative_to(root):
            raise InvalidRequestError(f"{str(path)!r} is a link out of its folder.", "Replace it by what it points to.")
        elif entry.is_file():
            yield name, path
        elif entry.is_symlink():
            raise InvalidRequestError(f"{str(path)!r} is a link to a folder, or broken.", "Replace it or remove it.")
        else:
            raise InvalidRequestError(f"{str(path)!r} is neither a file nor a folder.", "Remove it from there.")


def _check_names(names: Iterable[str]) -> None:
    tree = _Tree()
    for name in names:
        try:
            name.encode()
            parts = _parts(name)
            if not parts or "\0" in name:
                raise UnsafeArchiveError("it is empty")
            tree.add(parts, is_folder=name.endswith("/"))
        except UnicodeEncodeError as error:
            raise InvalidRequestError(f"{name!r} cannot be stored in a package: it is no Unicode.") from error
        except UnsafeArchiveError as error:
            raise InvalidRequestError(f"{name!r} cannot be stored in a package: {error.message}.") from error


def _pack_member(archive: zipfile.ZipFile, stream: IO[bytes], name: str, path: Path) -> None:
    member = zipfile.ZipInfo(name, _EPOCH)
    member.create_system = 3
    if name.endswith("/"):
        member.external_attr = (stat.S_IFDIR | 0o755) << 16 | 0x10
        archive.writestr(member, b"")
        return
    member.external_attr = (stat.S_IFREG | 0o644) << 16
    with translated(path), path.open("rb", buffering=0) as source:
        left = member.file_size = os.fstat(source.fileno()).st_size
        zip64 = left >= _ZIP64_FROM
        if left >= _ALIGNED_FROM:
            member.extra = _padding(stream.tell() + 30 + len(name.encode()) + (20 if zip64 else 0))
        with archive.open(member, "w", force_zip64=zip64) as sink:
            # No further than the size at the start, which decided the form of the header.
            while left and (block := source.read(min(_BLOCK, left))):
                sink.write(block)
                left -= len(block)


def _padding(header_end: int) -> bytes:
    """Return the extra field after which the data of a member begins on a multiple of the alignment."""
    size = -(header_end + 6) % _ALIGNMENT
    return struct.pack("<HHH", _PADDING_ID, 2 + size, _ALIGNMENT) + bytes(size)


def _parts(name: str) -> tuple[str, ...]:
    if name.startswith(("/", "\\")) or _DRIVE.match(name):
        raise UnsafeArchiveError("it is absolute")
    if ".." in re.split(r"[/\\]", name):
        raise UnsafeArchiveError("it has .. in it")
    return tuple(part for part in name.split("/") if part not in {"", "."})


class _Tree:
    """The names of an archive so far, compared as a filesystem that ignores case and Unicode forms would."""

    def __init__(self) -> None:
        self._files: set[tuple[str, ...]] = set()
        self._folders: dict[tuple[str, ...], tuple[str, ...]] = {}

    def add(self, parts: tuple[str, ...], *, is_folder: bool) -> None:
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
        self._tree = _Tree()
        self._members = 0
        self._written: list[Path] = []

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
                self._place(name, partial(archive.open, member), is_folder=name.endswith("/"))

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

    def _place(self, name: str, opener: Callable[[], IO[bytes] | None], *, is_folder: bool) -> None:
        self._members += 1
        if self._members > _MAX_MEMBERS:
            raise UnsafeArchiveError(f"{str(self._archive)!r} has more than {_MAX_MEMBERS} members.")
        try:
            if "\0" in name:
                raise UnsafeArchiveError("its name has a NUL")
            parts = _parts(name)
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
        with source, path.open("xb", buffering=0) as sink:
            while block := source.read(_BLOCK):
                self._left -= len(block)
                if self._left < 0:
                    raise self._too_much()
                sink.write(block)
        self._written.append(path)

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


def _fsync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

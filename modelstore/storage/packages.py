"""Packages: a folder or several files as one archive whose bytes depend on nothing but names and contents.

A package is a zip without compression: weights do not compress, any tool opens it, and a member can be read in place.
Names are sorted, times and modes fixed. Members of 64 KiB and more begin on a multiple of 4096 bytes, where
filesystems that share blocks between files can share them with an unpacked copy.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from modelstore.errors import (
    BlobNotFoundError,
    IntegrityError,
    InvalidRequestError,
    MissingWeightsError,
    ModelStoreError,
    UnsafeArchiveError,
)
from modelstore.storage.failures import translated
from modelstore.storage.fingerprints import Fingerprint, hash_file
from modelstore.storage.unpacking import ALIGNED_FROM, ALIGNMENT, EXTRACTING, NameTree, extract, name_parts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["EXTRACTING", "collect", "collect_files", "extract", "open_member", "pack"]

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can hold
_PADDING_ID: Final = 0xD935  # the extra field that Android's zipalign uses for this
_ZIP64_FROM: Final = 1 << 30  # decided by us, not by zipfile's estimate, which has changed between Pythons
_BLOCK: Final = 1 << 20


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


def open_member(archive: IO[bytes], name: str) -> IO[bytes]:
    """Return a seekable file over one member of an open zip archive, which is closed with it, or at a failure.

    What is read to its end is compared with the member's checksum; wrong bytes raise `IntegrityError`.

    Raises:
        BlobNotFoundError: It has no such member.
        IntegrityError: It is no zip archive.
        StorageError: What holds the archive could not be read.
    """
    try:
        return _Member(archive, name)
    except KeyError as error:
        raise BlobNotFoundError(f"The archive has no member {name!r}.", "Check the spelling.") from error
    except zipfile.BadZipFile as error:
        if isinstance(error.__context__, ModelStoreError):
            raise error.__context__ from None  # the storage failed, which zipfile takes for the archive's fault
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
    tree = NameTree()
    for name in names:
        try:
            name.encode()
            parts = name_parts(name)
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
        if left >= ALIGNED_FROM:
            member.extra = _padding(stream.tell() + 30 + len(name.encode()) + (20 if zip64 else 0))
        with archive.open(member, "w", force_zip64=zip64) as sink:
            # No further than the size at the start, which decided the form of the header.
            while left and (block := source.read(min(_BLOCK, left))):
                sink.write(block)
                left -= len(block)


def _padding(header_end: int) -> bytes:
    """Return the extra field after which the data of a member begins on a multiple of the alignment."""
    size = -(header_end + 6) % ALIGNMENT
    return struct.pack("<HHH", _PADDING_ID, 2 + size, ALIGNMENT) + bytes(size)

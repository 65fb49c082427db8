"""What loading a file of weights would import: pickles found wherever loaders look for them, nothing executed.

Plain pickles (also several in a row, as PyTorch used to write), joblib files, compressed or not, PyTorch's zip
archives, NumPy's .npy and .npz with objects, and any of these inside zip or tar archives. One file may be read in
several ways, and its name says nothing, so each way is tried. What cannot be read to its end is a problem, never an
all-clear: loaders are more forgiving than the libraries used here.
"""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Literal

from modelstore.records.literals import literal
from modelstore.storage.failures import translated
from modelstore.storage.imports import Harm, harm_of
from modelstore.storage.pickles import walk

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FoundImport", "Problem", "ScanReport", "Verdict", "scan"]

Verdict = Literal["no pickle", "harmless", "unknown", "unreadable", "dangerous"]

_BLOCK: Final = 1 << 20
_DEEPEST: Final = 4
_ALWAYS_ALLOWED: Final = 1 << 30
_MAX_RATIO: Final = 100
_IN_MEMORY: Final = 1 << 24
_LONGEST_HEADER: Final = 1 << 20
_PICKLE_ENDINGS: Final = (".pkl", ".pickle", ".p", ".pk", ".joblib", ".dill", ".ckpt", ".pt", ".pth", ".bin")
_CERTAIN_ENDINGS: Final = (".pkl", ".pickle", ".joblib", ".dill")


@dataclass(frozen=True, slots=True)
class FoundImport:
    """Something that a pickle imports.

    Attributes:
        where: The member of the archive that the pickle is; empty for the file itself.
        module: What is imported from; ``?`` when the pickle works it out itself.
        name: What is imported.
        harm: ``harmless``, ``unknown`` or ``dangerous``.
    """

    where: str
    module: str
    name: str
    harm: Harm


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that could not be read to its end.

    Attributes:
        where: The member; empty for the file itself.
        reason: Why.
    """

    where: str
    reason: str


@dataclass(frozen=True, slots=True)
class ScanReport:
    """What loading a file would import.

    Attributes:
        path: The file or folder.
        pickles: How many pickles are in it.
        imports: What they import, the most dangerous first.
        problems: What could not be read.
    """

    path: Path
    pickles: int
    imports: tuple[FoundImport, ...]
    problems: tuple[Problem, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst that was found: ``dangerous``, ``unreadable``, ``unknown``, ``harmless``, or ``no pickle``."""
        harms = {found.harm for found in self.imports}
        if "dangerous" in harms:
            return "dangerous"
        if self.problems:
            return "unreadable"
        if "unknown" in harms:
            return "unknown"
        return "harmless" if self.pickles else "no pickle"


def scan(path: str | os.PathLike[str]) -> ScanReport:
    """Return what loading a file, or any file of a folder, would import; nothing is imported or executed.

    Args:
        path: A local file or folder.

    Raises:
        BlobNotFoundError: There is nothing.
        StorageUnavailableError: It cannot be read.
    """
    root = Path(path)
    scanning = _Scanning()
    with translated(root):
        for file in _files(root):
            where = "" if file == root else file.relative_to(root).as_posix()
            with file.open("rb") as stream:
                scanning.look(stream, os.fstat(stream.fileno()).st_size, file.name, where, 0)
    order = {"dangerous": 0, "unknown": 1, "harmless": 2}
    imports = sorted(scanning.imports, key=lambda one: (order[one.harm], one.module, one.name, one.where))
    return ScanReport(root, scanning.pickles, tuple(imports), tuple(scanning.problems))


def _files(root: Path) -> Iterator[Path]:
    if not root.is_dir():
        yield root
        return
    for folder, _, names in root.walk() if hasattr(root, "walk") else _walk(root):
        yield from (Path(folder, name) for name in sorted(names) if Path(folder, name).is_file())


def _walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    for folder, folders, names in os.walk(root):
        yield Path(folder), folders, names


class _Scanning:
    """One file and everything in it."""

    def __init__(self) -> None:
        self.imports: list[FoundImport] = []
        self.problems: list[Problem] = []
        self.pickles = 0
        self._left: int | None = None

    def look(self, stream: IO[bytes], size: int, name: str, where: str, depth: int) -> None:
        """Find out what a seekable stream is by its bytes, as loaders do, and look into it."""
        if self._left is None:
            self._left = max(_ALWAYS_ALLOWED, _MAX_RATIO * size)
        if depth > _DEEPEST:
            self._problem(where, "archives in archives, too deep to follow")
            return
        stream.seek(0)
        head = stream.read(512)
        compressed = _compression(head)
        # Text, names in a tar and other headers can be opcodes: whatever it looks like, it may be loaded as a pickle.
        self._pickle(stream, size, head, name, where, plain=compressed is None)
        stream.seek(0)
        if head.startswith(b"\x93NUMPY"):
            self._npy(stream, size, where)
        elif head[257:262] == b"ustar":
            self._tar(stream, where, depth)
        elif compressed is not None:
            self._compressed(stream, compressed, name, where, depth)
        if head.startswith(b"PK\x03\x04") or zipfile.is_zipfile(stream):  # an archive may have anything before it
            self._zip(stream, where, depth)

    def _problem(self, where: str, reason: str) -> None:
        self.problems.append(Problem(where, reason))

    def _pickle(self, stream: IO[bytes], size: int, head: bytes, name: str, where: str, *, plain: bool) -> None:
        stream.seek(0)
        # Where a pickle is meant, one that breaks off is a problem; elsewhere, most bytes are none.
        named = name.lower().endswith(_PICKLE_ENDINGS)
        begins = head[:1] == b"\x80" and head[1:2] <= b"\x05" and not _is_safetensors(head, size)
        archive = head.startswith((b"PK\x03\x04", b"\x93NUMPY")) or head[257:262] == b"ustar"
        certain = plain and not archive and ((named and begins) or name.lower().endswith(_CERTAIN_ENDINGS))
        if size:
            self._walk(stream, size, where, certain=certain)

    def _walk(self, stream: IO[bytes], size: int, where: str, *, certain: bool) -> None:
        """Walk what may be a pickle. Where it is not certain, bytes that happen to begin like one are none."""
        found = walk(stream, size)
        if not found.pickles and not found.imports and not certain:
            return
        self.pickles += max(found.pickles, 1)
        self.imports += [FoundImport(where, *one, harm_of(*one)) for one in found.imports]
        if found.problem:
            self._problem(where, found.problem)

    def _npy(self, stream: IO[bytes], size: int, where: str) -> None:
        try:
            objects = _has_objects(stream)
        except (ValueError, SyntaxError, LookupError, TypeError, RecursionError, MemoryError) as error:
            self._problem(where, f"an array whose header cannot be read: {str(error)[:100]}")
            return
        if objects:
            self._walk(stream, size, where, certain=True)

    def _zip(self, stream: IO[bytes], where: str, depth: int) -> None:
        stream.seek(0)
        try:
            with zipfile.ZipFile(stream) as archive:
                for member in archive.infolist():
                    if not member.is_dir():
                        self._member(archive, member, f"{where}/{member.filename}".lstrip("/"), depth)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, EOFError) as error:
            self._problem(where, f"an archive that cannot be read: {str(error)[:100]}")

    def _member(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str, depth: int) -> None:
        import zlib

        try:
            with archive.open(member) as inner:
                # Seeking in a compressed member begins anew each time.
                if member.compress_type == zipfile.ZIP_STORED:
                    self._spend(0)
                    self.look(inner, member.file_size, member.filename, where, depth + 1)
                    return
                self._unpacked(inner, member.filename, where, depth)
        except (
            zipfile.BadZipFile,
            NotImplementedError,
            RuntimeError,
            ValueError,
            OSError,
            EOFError,
            zlib.error,
        ) as error:
            # Loaders may not check what our library checks: checksums, flags, names.
            self._problem(where, f"a member that cannot be read: {str(error)[:100]}")

    def _tar(self, stream: IO[bytes], where: str, depth: int) -> None:
        import tarfile

        try:
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                for member in archive:
                    inner = archive.extractfile(member) if member.isreg() and not member.issparse() else None
                    if inner is not None:
                        with inner:
                            self.look(inner, member.size, member.name, f"{where}/{member.name}".lstrip("/"), depth + 1)
                    archive.members = []  # type: ignore[attr-defined] # else a million of them stay in memory
        except (tarfile.TarError, ValueError, OSError, EOFError) as error:
            self._problem(where, f"an archive that cannot be read: {str(error)[:100]}")

    def _compressed(self, stream: IO[bytes], opener: Any, name: str, where: str, depth: int) -> None:
        import lzma
        import zlib

        try:
            with opener(stream) as inner:
                self._unpacked(inner, name.rpartition(".")[0] or name, where, depth)
        except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
            self._problem(where, f"compressed, and cannot be read: {str(error)[:100]}")

    def _unpacked(self, inner: IO[bytes], name: str, where: str, depth: int) -> None:
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as unpacked:
            size = 0
            while block := inner.read(_BLOCK):
                self._spend(len(block))
                size += len(block)
                unpacked.write(block)
            self.look(unpacked, size, name, where, depth + 1)

    def _spend(self, count: int) -> None:
        assert self._left is not None  # noqa: S101 - set at the beginning
        self._left -= count
        if self._left < 0:
            raise ValueError("it unpacks to more than is reasonable")


class _Zlib(io.RawIOBase):
    """A bare zlib stream, which is what joblib writes unless told otherwise."""

    def __init__(self, stream: IO[bytes]) -> None:
        import zlib

        self._stream, self._inner = stream, zlib.decompressobj()

    def read(self, size: int = -1) -> bytes:
        while not self._inner.eof:
            block = self._inner.unconsumed_tail or self._stream.read(_BLOCK)
            if not block:
                raise EOFError("the compressed data ends too early")
            if out := self._inner.decompress(block, size):
                return out
        return b""


def _compression(head: bytes) -> Any:
    import bz2
    import gzip
    import lzma

    if head.startswith(b"\x1f\x8b"):
        return lambda stream: gzip.GzipFile(fileobj=stream)
    if head.startswith(b"BZh"):
        return bz2.BZ2File
    if head.startswith((b"\xfd7zXZ\x00", b"\x5d\x00\x00")):
        return lzma.LZMAFile
    if head[:1] == b"\x78" and len(head) > 1 and int.from_bytes(head[:2]) % 31 == 0:
        return _Zlib
    if head.startswith((b"\x04\x22\x4d\x18", b"\x28\xb5\x2f\xfd")):
        return _unknown_compression
    return None


def _unknown_compression(_: IO[bytes]) -> Any:
    raise ValueError("LZ4 and Zstandard are not understood")


def _is_safetensors(head: bytes, size: int) -> bool:
    return len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def _has_objects(stream: IO[bytes]) -> bool:
    """Read the header of a .npy, and leave the stream behind it."""
    major = stream.read(8)[6]
    length = int.from_bytes(stream.read(2 if major == 1 else 4), "little")
    if length > _LONGEST_HEADER:
        raise ValueError(f"it claims to be {length} bytes long")
    header = literal(stream.read(length).decode("utf-8" if major >= 3 else "latin-1"))
    return _mentions_objects(header["descr"])


def _mentions_objects(described: Any) -> bool:
    if isinstance(described, str):
        return "O" in described
    if isinstance(described, list):  # of fields: name, type, perhaps a shape
        return any(_mentions_objects(one[1]) for one in described)
    return _mentions_objects(described[0])  # a type with its shape

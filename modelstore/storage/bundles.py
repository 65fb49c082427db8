"""One file with many in it, for backups and bundles: a zip archive without compression, its list of contents last.

    objects/<64 hex digits>/<file name>     bytes, each content once
    …                                       what else there is, by its maker
    manifest.json                           {"format": 1, "kind": …, "members": [[name, size, sha256], …], …}

Written under another name, synced, and renamed: there is a whole file or none. What is read is believed in nothing:
names are matched against what a maker may have written, sizes cannot add up to more than the file has, every byte is
hashed.
"""

from __future__ import annotations

import json
import os
import re
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

from modelstore.errors import (
    BlobNotFoundError,
    IntegrityError,
    InvalidRequestError,
    NewerRegistryError,
    UnsafeArchiveError,
)
from modelstore.storage.failures import translated
from modelstore.storage.fingerprints import Fingerprint, Hasher
from modelstore.storage.objects import fsync_folder, sanitise_filename

__all__ = ["FORMAT", "BundleReader", "BundleWriter", "object_member", "object_of"]

FORMAT: Final = 1
_MANIFEST: Final = "manifest.json"
_BLOCK: Final = 1 << 20
_LONGEST_LINE: Final = 64 << 20
_LONGEST_MANIFEST: Final = 1 << 30
_NAMES: Final = re.compile(
    r"manifest\.json|registry\.db|redirects\.json|operations\.jsonl|uploads/[0-9a-f]{32}|objects/[0-9a-f]{64}/[^/]+"
)


def object_member(digest: str, name: str) -> str:
    """Return how an object is called in a bundle."""
    return f"objects/{digest.removeprefix('sha256:')}/{sanitise_filename(name)}"


def object_of(member: str) -> tuple[str, str] | None:
    """Return digest and file name of an object in a bundle; None if it is something else."""
    parts = member.split("/")
    return (f"sha256:{parts[1]}", parts[2]) if parts[0] == "objects" else None


class BundleWriter:
    """A bundle in the making; a context manager, after which there is a whole file or none.

    Args:
        target: The file.
        kind: What is in it: "backup" or "models".
        overwrite: Replace a file of that name.

    Raises:
        InvalidRequestError: It is there already, and ``overwrite`` was not given.
        StorageError: It cannot be written.
    """

    def __init__(self, target: str | os.PathLike[str], kind: str, *, overwrite: bool = False) -> None:
        self._target = Path(target).expanduser().absolute()
        if self._target.is_dir() or (not overwrite and os.path.lexists(self._target)):
            raise InvalidRequestError(f"{str(self._target)!r} exists already", "Choose another path, or overwrite it.")
        self._overwrite = overwrite
        self._manifest: dict[str, Any] = {"format": FORMAT, "kind": kind}
        self._members: list[tuple[str, int, str]] = []
        self._part = self._target.with_name(f".{os.urandom(8).hex()}.part")
        with translated(self._target, writing=True):
            self._file = open(self._part, "xb")  # noqa: SIM115 - closed at the end
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED, allowZip64=True)

    def __enter__(self) -> Self:
        return self

    def add(self, member: str, path: str | os.PathLike[str]) -> str:
        """Add a file as it is, and return its digest.

        Raises:
            BlobNotFoundError: It is not there; the bundle is as it was.
            StorageError: It cannot be read, or the bundle not be written.
        """
        with translated(path):
            source = open(path, "rb")  # noqa: SIM115 - closed below
        with source, self._writing(member) as (out, hasher):
            while True:
                with translated(path):
                    block = source.read(_BLOCK)
                if not block:
                    break
                hasher.update(block)
                out.write(block)
        return f"sha256:{self._members[-1][2]}"

    def add_lines(self, member: str, lines: Iterator[str]) -> None:
        """Add lines of text."""
        with self._writing(member) as (out, hasher):
            for line in lines:
                encoded = line.encode() + b"\n"
                hasher.update(encoded)
                out.write(encoded)

    @contextmanager
    def _writing(self, member: str) -> Iterator[tuple[IO[bytes], Hasher]]:
        hasher = Hasher()
        sys.audit("modelstore.step", "bundles.write.1")
        with translated(self._target, writing=True), self._zip.open(_info(member), "w", force_zip64=True) as out:
            yield out, hasher
        fingerprint = hasher.fingerprint()
        self._members.append((member, fingerprint.size, fingerprint.sha256))

    def finish(self, **about: Any) -> int:
        """Write the list of contents, give the file its name, and return its size.

        Args:
            **about: What else the list is to say; plain values.
        """
        manifest = json.dumps(self._manifest | about | {"members": self._members}, ensure_ascii=False)
        # 1. each member    2. all of it reaches the disk    3. it gets its name    4. so does that
        # (tests/registry/test_backup.py kills at each)
        with translated(self._target, writing=True):
            self._zip.writestr(_info(_MANIFEST), manifest)
            self._zip.close()
            self._file.flush()
            sys.audit("modelstore.step", "bundles.write.2")
            os.fsync(self._file.fileno())
            size = self._file.tell()
            self._file.close()
            sys.audit("modelstore.step", "bundles.write.3")
            self._name()
            sys.audit("modelstore.step", "bundles.write.4")
            fsync_folder(self._target.parent)
        return size

    def _name(self) -> None:
        if self._overwrite:
            self._part.replace(self._target)
            return
        try:
            os.link(self._part, self._target)  # fails when somebody was faster, unlike a rename
        except FileExistsError:
            raise InvalidRequestError(
                f"{str(self._target)!r} exists already", "Choose another path, or overwrite it."
            ) from None
        except OSError:
            self._part.rename(self._target)  # no hard links here

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.fp = None  # else its end would write to a file that is closed
        try:
            with suppress(OSError):  # a full disk, told of already
                self._file.close()
        finally:
            self._part.unlink(missing_ok=True)


def _info(member: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(member)
    info.external_attr = 0o644 << 16
    return info


class BundleReader:
    """A bundle from anywhere; a context manager.

    Args:
        path: The file.
        kind: What must be in it.

    Attributes:
        manifest: What its list of contents says.
        members: Size and sha256 of each member, by name.

    Raises:
        BlobNotFoundError: There is no such file.
        IntegrityError: It is no bundle, cut off or damaged.
        UnsafeArchiveError: It holds what no maker of bundles would write.
        NewerRegistryError: A newer modelstore wrote it.
        InvalidRequestError: It is a bundle of another kind.
    """

    def __init__(self, path: str | os.PathLike[str], kind: str) -> None:
        self.path = Path(path).expanduser().absolute()
        with translated(self.path):
            self._file = open(self.path, "rb")  # noqa: SIM115 - closed at the end
        try:
            with translated(self.path), self._judged():
                self._zip = zipfile.ZipFile(self._file)
                self._check_entries()
                self.manifest: dict[str, Any] = json.loads(self._zip.read(_MANIFEST))
                self._check_manifest(kind)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    @contextmanager
    def _judged(self) -> Iterator[None]:
        try:
            yield
        except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, (InvalidRequestError, IntegrityError)):
                raise
            raise IntegrityError(
                f"{str(self.path)!r} is no whole bundle ({error})", "It was cut off or damaged; take another copy."
            ) from error

    def _check_entries(self) -> None:
        seen: set[str] = set()
        total = 0
        for info in self._zip.infolist():
            name = info.filename
            last = name.rsplit("/", 1)[-1]
            if not _NAMES.fullmatch(name) or name in seen or sanitise_filename(last) != last:
                raise UnsafeArchiveError(f"{str(self.path)!r} has a member {name!r:.100} that no bundle has")
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size != info.compress_size:
                raise UnsafeArchiveError(f"The member {name!r:.100} of {str(self.path)!r} is compressed or encrypted")
            seen.add(name)
            total += info.file_size
        if total > os.fstat(self._file.fileno()).st_size:
            raise UnsafeArchiveError(f"The members of {str(self.path)!r} are larger than the file; they overlap")
        if _MANIFEST not in seen:
            raise IntegrityError(f"{str(self.path)!r} is no bundle: it has no {_MANIFEST}")
        if self._zip.getinfo(_MANIFEST).file_size > _LONGEST_MANIFEST:
            raise UnsafeArchiveError(f"The {_MANIFEST} of {str(self.path)!r} is too large")

    def _check_manifest(self, kind: str) -> None:
        if not isinstance(self.manifest, dict):
            raise IntegrityError(f"The {_MANIFEST} of {str(self.path)!r} is no object")
        if int(self.manifest["format"]) > FORMAT:
            raise NewerRegistryError(
                f"{str(self.path)!r} has format {self.manifest['format']}; this modelstore reads up to {FORMAT}",
                'Upgrade with: pip install -U "modelstore-local"',
            )
        if self.manifest["kind"] != kind:
            raise InvalidRequestError(
                f"{str(self.path)!r} is a bundle of kind {self.manifest['kind']!r:.40}, not {kind!r}",
                "`modelstore recover` takes backups, `modelstore import` bundles of models.",
            )
        self.members = {str(name): (int(size), str(sha256)) for name, size, sha256 in self.manifest["members"]}
        present = {i.filename: i.file_size for i in self._zip.infolist() if i.filename != _MANIFEST}
        if present != {name: size for name, (size, _) in self.members.items()}:
            raise IntegrityError(f"{str(self.path)!r} does not hold what its list of contents says")

    def objects(self) -> Iterator[tuple[str, str, str]]:
        """Yield member name, digest and file name of each object."""
        for member in self.members:
            found = object_of(member)
            if found is not None:
                yield member, *found

    def extract(self, member: str, target: Path) -> Fingerprint:
        """Write a member into a new file, to the disk, and return its fingerprint.

        Raises:
            IntegrityError: Its bytes are not those that the list of contents promises; no file is left.
            StorageError: It cannot be read or written; no file is left.
        """
        if member not in self.members:
            raise BlobNotFoundError(f"{str(self.path)!r} has no member {member!r}")
        hasher = Hasher()
        try:
            with translated(target, writing=True), open(target, "xb") as out:
                for block in self._blocks(member):
                    hasher.update(block)
                    out.write(block)
                out.flush()
                os.fsync(out.fileno())
            fingerprint = hasher.fingerprint()
            if fingerprint.sha256 != self.members[member][1]:
                raise IntegrityError(f"The member {member!r} of {str(self.path)!r} is damaged", "Take another copy.")
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        return fingerprint

    def lines(self, member: str) -> Iterator[str]:
        """Yield the lines of a member; that they are what the list of contents promises is known at the last one.

        Raises:
            IntegrityError: They are not.
        """
        hasher = Hasher()
        rest = b""
        for block in self._blocks(member):
            hasher.update(block)
            *whole, rest = (rest + block).split(b"\n")
            with self._judged():
                yield from (line.decode() for line in whole)
            if len(rest) > _LONGEST_LINE:
                raise UnsafeArchiveError(f"The member {member!r} of {str(self.path)!r} has a line that is too long")
        if rest or hasher.fingerprint().sha256 != self.members[member][1]:
            raise IntegrityError(f"The member {member!r} of {str(self.path)!r} is damaged", "Take another copy.")

    def _blocks(self, member: str) -> Iterator[bytes]:
        with translated(self.path), self._judged(), self._zip.open(member) as stream:
            while block := stream.read(_BLOCK):
                yield block

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()
        self._file.close()

"""An origin that counts what is fetched from it, and the checks that every test of the cache makes.

The invariant behind all of it: a path that the cache returned is complete, holds the bytes that its digest names, and
stays until the process that was handed it ends or lets go.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modelstore.cache import CachedFile, Partial
from modelstore.storage.fingerprints import Fingerprint, Hasher
from modelstore.testing import faults

if TYPE_CHECKING:
    from collections.abc import Iterable

    from modelstore.storage.fingerprints import Progress

__all__ = ["FolderDownload", "FolderOrigin", "check_bytes", "check_folder", "damage", "extract_copy"]


@dataclass(frozen=True, slots=True)
class FolderDownload:
    """What `FolderOrigin` returns."""

    fingerprint: Fingerprint
    etag: str | None


class FolderOrigin:
    """A place to fetch from: a folder with one file per URI, that counts reads across processes.

    It can continue interrupted downloads, and announces each block as a step (``origin.block``), so that a plan can
    kill a process in the middle of one.

    Args:
        folder: Where the objects lie; shared by all processes that are to see the same origin.
        block_bytes: Size of one read and write.
        pause_s: How long each block takes.
        resumes: Whether it continues what is there.
    """

    def __init__(self, folder: Path, *, block_bytes: int = 1 << 16, pause_s: float = 0.0, resumes: bool = True) -> None:
        self.folder = folder
        self.block_bytes, self.pause_s, self.resumes = block_bytes, pause_s, resumes
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, uri: str, content: bytes) -> str:
        """Let ``content`` lie behind ``uri``, atomically; return its digest."""
        draft = self.folder / f"draft.{os.urandom(8).hex()}"
        draft.write_bytes(content)
        draft.replace(self._file(uri))
        return "sha256:" + hashlib.sha256(content).hexdigest()

    def reads(self) -> int:
        """Return how many downloads were begun so far, by whichever process."""
        return self._logged().count(b"begin\n")

    def bytes_read(self) -> int:
        """Return how many bytes were read so far, by whichever process."""
        return sum(int(line) for line in self._logged().splitlines() if line.isdigit())

    def bytes_resumed(self) -> int:
        """Return how many bytes were not read again because an earlier attempt had left them."""
        return sum(int(line[7:]) for line in self._logged().splitlines() if line.startswith(b"resume "))

    def __call__(self, uri: str, target: Path, /, *, partial: Partial, progress: Progress | None) -> FolderDownload:
        """Fetch; see `modelstore.cache.Fetcher`."""
        with self._file(uri).open("rb") as source, target.open("r+b") as file:
            info = os.fstat(source.fileno())
            etag = f"{info.st_ino}-{info.st_mtime_ns}"
            hasher = Hasher()
            if self.resumes and partial.etag == etag:
                while block := file.read(self.block_bytes):
                    hasher.update(block)
                source.seek(hasher.size)
                self._log(f"resume {hasher.size}\n")
            else:
                file.truncate()
                if self.resumes:
                    partial.begin(etag, info.st_size)
            self._log("begin\n")
            while block := source.read(self.block_bytes):
                file.write(block)
                file.flush()
                hasher.update(block)
                self._log(f"{len(block)}\n")
                sys.audit(faults.EVENT, "origin.block")
                if self.pause_s:
                    time.sleep(self.pause_s)
                if progress is not None:
                    progress(hasher.size, info.st_size)
        return FolderDownload(hasher.fingerprint(), etag)

    def _file(self, uri: str) -> Path:
        return self.folder / hashlib.sha256(uri.encode()).hexdigest()

    def _logged(self) -> bytes:
        log = self.folder / "log"
        return log.read_bytes() if log.exists() else b""

    def _log(self, line: str) -> None:
        descriptor = os.open(self.folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


def check_bytes(file: CachedFile, content: bytes | None = None) -> None:
    """Assert the invariant for one file: present, read-only, its size and digest as told.

    Args:
        file: As returned by `Cache.fetch`.
        content: What it must hold; None for whatever its digest names.
    """
    got = file.path.read_bytes()
    assert len(got) == file.size, f"{file.path}: {len(got)} bytes, {file.size} told"
    assert "sha256:" + hashlib.sha256(got).hexdigest() == file.digest, f"{file.path} does not match its digest"
    assert file.path.stat().st_mode & 0o222 == 0, f"{file.path} is writable"
    assert content is None or got == content, f"{file.path} holds something else than its origin"


def check_folder(folder: Path, *, corrupted: Iterable[str] = (), index_lost: bool = False) -> None:
    """Assert, by looking around the cache, that every file in its place is whole, and that the index adds up.

    Args:
        folder: The cache's; no process may be writing to it.
        corrupted: Digests whose files the test itself damaged.
        index_lost: Whether somebody deleted the index while processes worked; then the index may lack entries.
    """
    damaged = {digest.removeprefix("sha256:") for digest in corrupted}
    for path in folder.glob("objects/sha256/*/*/*"):
        if path.parent.name not in damaged:
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.parent.name, f"{path} is torn"
    if not (folder / "cache.db").exists():
        return
    db = sqlite3.connect(folder / "cache.db", isolation_level=None)
    try:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if not db.execute("PRAGMA user_version").fetchone()[0]:
            return  # killed while it was made; the next process makes it
        told = dict(db.execute("SELECT kind, bytes FROM totals"))
        summed: Counter[str] = Counter()
        for kind, stored in db.execute("SELECT kind, stored FROM entries"):
            summed[kind] += stored
        assert all(told[kind] == summed[kind] for kind in told), f"totals {told}, sums {summed}"
        indexed = {row[0] for row in db.execute("SELECT entry FROM entries")}
    finally:
        db.close()
    for path in folder.glob("objects/sha256/*/*/*"):
        entry = str(path.parent.relative_to(folder))
        assert index_lost or entry in indexed, f"{entry} lies there, and nothing would ever evict it"


def extract_copy(archive: Path, into: Path) -> None:
    """Stand for an extractor: the "archive" holds one file, ``a/copy``, which is a copy of itself."""
    (into / "a").mkdir()
    shutil.copyfile(archive, into / "a" / "copy")


def damage(path: Path) -> None:
    """Flip a bit of a cached file in place; one that is gone or empty is left alone."""
    with suppress(FileNotFoundError, IndexError):
        path.chmod(0o644)
        with path.open("r+b") as file:
            first = file.read(1)[0]
            file.seek(0)
            file.write(bytes([first ^ 1]))

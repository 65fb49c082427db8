"""Bringing an object to this machine: in parallel ranges where it pays, hashed as it arrives, continued after failures.

Parts are received into memory by several threads and appended to the file in order by one, so that the file is at
every moment the beginning of the object and nothing else: that is what makes it resumable without any bookkeeping.
"""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Protocol

from modelstore.errors import IntegrityError, ModelStoreError
from modelstore.storage.failures import translated
from modelstore.storage.fingerprints import Fingerprint, Hasher, Progress, copy_hashed, hash_file
from modelstore.storage.objects import fsync_folder
from modelstore.storage.origins import ChangedError, Origin, open_origin
from modelstore.storage.parts import Parts, Single, Stream
from modelstore.storage.retries import Patience
from modelstore.storage.uris import local_path, normalise, redact
from modelstore.storage.webclient import TruncatedError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Download", "Fingerprint", "Progress", "Resumable", "copy_hashed", "download", "fetch", "hash_file"]

_MEBIBYTE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Download:
    """What came.

    Attributes:
        fingerprint: Of the bytes in the file.
        etag: What identified the content at its origin; None if nothing did.
        received_bytes: How many of them came over the network this time.
    """

    fingerprint: Fingerprint
    etag: str | None
    received_bytes: int


class Resumable(Protocol):
    """What is known about an unfinished file, and where it is noted.

    Attributes:
        etag: Of the object whose beginning the file holds; None when it holds nothing.
        total_bytes: That object's length, if known.
    """

    @property
    def etag(self) -> str | None:
        """See above."""

    @property
    def total_bytes(self) -> int | None:
        """See above."""

    def begin(self, etag: str | None, total_bytes: int | None) -> None:
        """Note what the file will be the beginning of; called before its first byte."""


def download(
    uri: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    storage_options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    expected_size: int | None = None,
    expected_digest: str | None = None,
    patience: Patience | None = None,
) -> Download:
    """Bring the bytes behind ``uri`` to the file ``target``, which appears complete and on disk, or not at all.

    Any number of processes may download to one target: each works on a file of its own, the last rename wins. A kill
    leaves a file whose name ends in ``.part``.

    Args:
        uri: Anything fsspec opens, or a path.
        target: Replaced if it exists; the folder above it is made.
        storage_options: The driver's own parameters.
        progress: Told now and then, from this thread.
        expected_size: In bytes; None accepts any.
        expected_digest: ``sha256:hex``; None accepts any.
        patience: How long to go on through failures; None for the default of `Patience`.

    Raises:
        BlobNotFoundError: There is nothing at ``uri``.
        IntegrityError: The bytes are not those expected.
        StorageUnavailableError: The origin failed for longer than we are patient.
        StorageFullError: The disk is full; nothing is left there.
        InvalidUriError, MissingDriverError: As `open_filesystem`.
    """
    final = Path(target)
    with translated(final, writing=True):
        final.parent.mkdir(parents=True, exist_ok=True)
    work = final.parent / f".{os.urandom(8).hex()}.part"
    # Killed at each of these by tests/storage/test_transfer.py::test_a_killed_download_leaves_no_target:
    # 1. the bytes arrive in a file of our own    2. it reaches the disk    3. it gets its name    4. so does that
    try:
        sys.audit("modelstore.step", "transfer.download.1")
        done = fetch(
            uri, work, storage_options=storage_options, progress=progress, expected_size=expected_size,
            patience=patience,
        )  # fmt: skip
        if expected_digest is not None and done.fingerprint.digest != expected_digest:
            raise IntegrityError(f"{redact(uri)!r} has the digest {done.fingerprint.digest}, not {expected_digest}.")
        with translated(final, writing=True):
            sys.audit("modelstore.step", "transfer.download.2")
            fsync_file(work)
            sys.audit("modelstore.step", "transfer.download.3")
            work.replace(final)
            sys.audit("modelstore.step", "transfer.download.4")
            fsync_folder(final.parent)
    finally:
        work.unlink(missing_ok=True)
    return done


def fetch(
    uri: str | os.PathLike[str],
    target: Path,
    *,
    partial: Resumable | None = None,
    progress: Progress | None = None,
    storage_options: Mapping[str, Any] | None = None,
    expected_size: int | None = None,
    patience: Patience | None = None,
) -> Download:
    """Fill ``target``, a file that nobody else touches, with the bytes behind ``uri``; continue it if possible.

    While this runs, and after a kill, the file is the beginning of the object. It is not synced to disk.

    Args:
        uri: Anything fsspec opens, or a path.
        target: May exist. With ``partial`` its bytes are kept if the origin still has that ETag.
        partial: See `Resumable`; None begins anew.
        progress: Told now and then, from this thread.
        storage_options: The driver's own parameters.
        expected_size: In bytes; None accepts any.
        patience: How long to go on through failures; None for the default of `Patience`.

    Raises:
        StorageError: As `download`; what has arrived stays in the file.
    """
    source = local_path(uri)
    if source is not None:
        target.unlink(missing_ok=True)
        copied = copy_hashed(source, target, progress, durable=False)
        _check_size(uri, expected_size, copied.size)
        return Download(copied, None, 0)
    whole = normalise(uri)
    with translated(whole):
        origin = open_origin(whole, storage_options)
        try:
            with translated(target, writing=True):
                descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                return _Filling(origin, whole, target, descriptor, partial, progress, patience or Patience()).run(
                    expected_size
                )
            finally:
                os.close(descriptor)
        finally:
            origin.close()


def fsync_file(path: Path) -> None:
    """Return when the bytes of the file are on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_size(uri: object, expected: int | None, found: int | None) -> None:
    if expected is not None and found is not None and expected != found:
        raise IntegrityError(
            f"{redact(uri)!r} has {found} bytes, not the {expected} recorded for it.",
            "It was changed or damaged where it is kept.",
        )


class _Filling:
    """One file being filled from one origin."""

    def __init__(
        self,
        origin: Origin,
        uri: str,
        target: Path,
        descriptor: int,
        partial: Resumable | None,
        progress: Progress | None,
        patience: Patience,
    ) -> None:
        self._origin, self._uri, self._target, self._descriptor = origin, uri, target, descriptor
        self._partial, self._progress, self._patience = partial, progress, patience
        self._received = 0

    def run(self, expected_size: int | None) -> Download:
        start = self._kept()
        patience = self._patience.fresh()
        in_one = looked = False
        while True:
            try:
                looked = False
                self._origin.look(start, in_one=in_one)
                looked = True
                _check_size(self._uri, expected_size, self._origin.size)
                return self._attempt(start, expected_size, in_one=in_one)
            except ModelStoreError:
                raise
            except Exception as error:
                # Where reading can begin anywhere, each part has been patient for itself already.
                final = looked and self._origin.ranged and not isinstance(error, ChangedError)
                if final or not patience.after(error):
                    raise
                # Servers whose ETag differs from answer to answer still serve one whole stream.
                in_one = in_one or isinstance(error, ChangedError)
                start = 0 if looked else start

    def _kept(self) -> int:
        return os.fstat(self._descriptor).st_size if self._partial is not None and self._partial.etag else 0

    def _attempt(self, start: int, expected_size: int | None, *, in_one: bool) -> Download:
        origin = self._origin
        if start and not self._continues(start):
            start = 0
            origin.look(0, in_one=in_one)
        if not start:
            with translated(self._target, writing=True):
                os.ftruncate(self._descriptor, 0)
            if self._partial is not None:
                self._partial.begin(origin.etag, origin.size)
        sink = _Sink(self._descriptor, self._target, start)
        try:
            self._bring(sink, start, in_one=in_one)
        finally:
            fingerprint = sink.finish()
        if origin.size is not None and fingerprint.size != origin.size:
            raise TruncatedError(f"{fingerprint.size} bytes came of {origin.size}")
        _check_size(self._uri, expected_size, fingerprint.size)
        return Download(fingerprint, origin.etag, self._received)

    def _continues(self, start: int) -> bool:
        origin = self._origin
        same = self._partial is not None and origin.etag is not None and origin.etag == self._partial.etag
        return same and origin.ranged and origin.size is not None and origin.size >= start

    def _bring(self, sink: _Sink, start: int, *, in_one: bool) -> None:
        origin, size = self._origin, self._origin.size
        before = self._received
        if size is not None and size == start and origin.ranged:
            return
        if in_one or size is None or not origin.ranged or origin.connections == 1:
            parts: Parts = Stream(origin, start, None if in_one or not origin.ranged else size, self._patience)
        elif size - start <= origin.part_bytes:
            parts = Single(origin, start, size, self._patience, lambda received: self._report(start + received))
        else:
            parts = Parts(origin, start, size, self._patience)
        try:
            for part in parts:
                if part is not None:
                    sink.take(part, parts.release)
                self._received = before + parts.received
                self._report(start + parts.received)
        finally:
            self._received = before + parts.received
            parts.close()
        origin.recheck()

    def _report(self, done: int) -> None:
        if self._progress is not None:
            self._progress(done, self._origin.size)


class _Sink:
    """Appends to the file, and hashes in another thread what has been appended."""

    def __init__(self, descriptor: int, target: Path, start: int) -> None:
        self._descriptor, self._target, self._position = descriptor, target, start
        self._hasher = Hasher()
        self._queue: SimpleQueue[tuple[memoryview, Any] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        if start:
            self._take_in(start)

    def take(self, part: memoryview, release: Any) -> None:
        """Append ``part``; ``release`` is called with it when it is no longer needed."""
        with translated(self._target, writing=True):
            done = 0
            while done < len(part):
                done += os.pwrite(self._descriptor, part[done:], self._position + done)
        self._position += len(part)
        if self._thread is None and len(part) < _MEBIBYTE:
            self._hasher.update(part)  # cheaper than waking anybody
            release(part)
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._hash, name="modelstore-hash", daemon=True)
            self._thread.start()
        self._queue.put((part, release))

    def finish(self) -> Fingerprint:
        """Return the fingerprint of the whole file."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
        return self._hasher.fingerprint()

    def _hash(self) -> None:
        while (item := self._queue.get()) is not None:
            part, release = item
            self._hasher.update(part)
            release(part)

    def _take_in(self, end: int) -> None:
        buffer = memoryview(bytearray(_MEBIBYTE))
        done = 0
        with translated(self._target):
            while done < end and (count := os.preadv(self._descriptor, [buffer[: end - done]], done)):
                self._hasher.update(buffer[:count])
                done += count

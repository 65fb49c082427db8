"""Filling one file from one origin: hashed as it arrives, continued after failures.

Whatever the order in which parts of the object come, they are appended to the file in theirs, so that the file is at
every moment the beginning of the object and nothing else: that is what makes it resumable without any bookkeeping.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

from modelstore.errors import ModelStoreError
from modelstore.storage.downloads import Download, Resumable, check_size
from modelstore.storage.failures import translated
from modelstore.storage.fingerprints import Fingerprint, Hasher, Progress
from modelstore.storage.origins import ChangedError, Origin
from modelstore.storage.parts import Parts
from modelstore.storage.retries import Patience
from modelstore.storage.syncing import EarlySync
from modelstore.storage.webclient import TruncatedError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Filling"]

_MEBIBYTE: Final = 1 << 20
_BEHIND: Final = 8  # blocks that hashing may be behind: enough to even out, few enough to be in a cache still


class Filling:
    """One file being filled from one origin; `run` once."""

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
        self._early_sync = False
        self._received = 0

    def run(self, expected_size: int | None, *, early_sync: bool) -> Download:
        """Fill it; see `modelstore.storage.transfer.fetch`."""
        self._early_sync = early_sync
        start = self._kept()
        patience = self._patience.fresh()
        in_one = looked = False
        while True:
            try:
                looked = False
                self._origin.look(start, in_one=in_one)
                looked = True
                check_size(self._uri, expected_size, self._origin.size)
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
                # Truncating, even of nothing to nothing, makes ext4 write out all bytes when the file is closed.
                if os.fstat(self._descriptor).st_size:
                    os.ftruncate(self._descriptor, 0)
            if self._partial is not None:
                self._partial.begin(origin.etag, origin.size)
        small = origin.size is not None and origin.size - start < _MEBIBYTE
        sink = _Sink(
            self._descriptor, self._target, start, overlapped=not small, early_sync=self._early_sync and not small
        )
        try:
            self._bring(sink, start, in_one=in_one)
        finally:
            fingerprint = sink.finish()
        if origin.size is not None and fingerprint.size != origin.size:
            raise TruncatedError(f"{fingerprint.size} bytes came of {origin.size}")
        check_size(self._uri, expected_size, fingerprint.size)
        return Download(fingerprint, origin.etag, self._received)

    def _continues(self, start: int) -> bool:
        origin = self._origin
        same = self._partial is not None and origin.etag is not None and origin.etag == self._partial.etag
        return same and origin.ranged and origin.size is not None and origin.size >= start

    def _bring(self, sink: _Sink, start: int, *, in_one: bool) -> None:
        origin, size = self._origin, self._origin.size
        if size is not None and size == start and origin.ranged:
            return
        before = self._received
        end = None if in_one or not origin.ranged else size
        parts = Parts(origin, start, end, self._patience, sink.take)
        try:
            parts.run(lambda received: self._report(start + received))
        finally:
            self._received = before + parts.received
        origin.recheck()

    def _report(self, done: int) -> None:
        if self._progress is not None:
            self._progress(done, self._origin.size)


class _Sink:
    """Appends to the file, and hashes what was appended, in a thread of its own if that is worth it.

    With ``early_sync`` the disk writes meanwhile what is there already, and an error of it ends the transfer.
    """

    def __init__(self, descriptor: int, target: Path, start: int, *, overlapped: bool, early_sync: bool) -> None:
        self._descriptor, self._target, self._position = descriptor, target, start
        self._hasher = Hasher()
        self._queue: SimpleQueue[tuple[memoryview, Callable[[memoryview], object]] | None] = SimpleQueue()
        self._places: SimpleQueue[None] = SimpleQueue()  # a semaphore, many times faster than Python's
        self._thread: threading.Thread | None = None
        if start:
            self._take_in(start)
        if overlapped:
            for _ in range(_BEHIND):
                self._places.put(None)
            self._thread = threading.Thread(target=self._hash, name="modelstore-hash", daemon=True)
            self._thread.start()
        self._early = EarlySync(descriptor) if early_sync else None

    def take(self, block: memoryview, release: Callable[[memoryview], object]) -> None:
        """Append ``block``; ``release`` is called with it when it is no longer needed."""
        with translated(self._target, writing=True):
            if self._early is not None:
                self._early.check()
            done = 0
            while done < len(block):
                done += os.pwrite(self._descriptor, block[done:], self._position + done)
        self._position += len(block)
        if self._thread is None:
            self._hasher.update(block)
            release(block)
            return
        self._places.get()
        self._queue.put((block, release))

    def finish(self) -> Fingerprint:
        """Return the fingerprint of the whole file."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
        if self._early is not None:
            with translated(self._target, writing=True):
                self._early.finish()
        return self._hasher.fingerprint()

    def _hash(self) -> None:
        while (item := self._queue.get()) is not None:
            block, release = item
            self._hasher.update(block)
            release(block)
            self._places.put(None)

    def _take_in(self, end: int) -> None:
        buffer = memoryview(bytearray(_MEBIBYTE))
        done = 0
        with translated(self._target):
            while done < end and (count := os.preadv(self._descriptor, [buffer[: end - done]], done)):
                self._hasher.update(buffer[:count])
                done += count

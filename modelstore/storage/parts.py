"""The bytes of an origin in order, received by as many threads as its connections allow, in bounded memory."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from modelstore.storage.origins import ChangedError, Origin, Reader
from modelstore.storage.retries import Patience
from modelstore.storage.webclient import TruncatedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Parts", "Single", "Stream"]

_MEBIBYTE: Final = 1 << 20
_STEP: Final = 1 << 18  # how finely progress is told, and how soon a thread sees that it is to stop
_SPARE: Final = 2  # parts that may wait to be written and hashed while all connections receive
_REPORT_S: Final = 0.1
_FIRST_THREADS: Final = 4
_MORE_THREADS: Final = 12
_BUSY_CORES: Final = 0.8  # above this much work for processors, more connections would only get in each other's way


class Parts:
    """The parts of an object, received by several threads, iterated in order by one.

    At most as many parts are in memory as there are connections and a few more; each buffer is used again once
    `release` was called with it.

    Args:
        origin: Looked at.
        start: Where to begin.
        size: Where to end; None only for a `Stream`, which goes on to the end.
        patience: How long a part may go on failing; it is continued in its middle.
        report: Told the bytes received so far, by a `Single` only: the others are iterated meanwhile.
    """

    def __init__(
        self,
        origin: Origin,
        start: int,
        size: int | None,
        patience: Patience,
        report: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._report, self._finished = report, False
        self._origin, self._start, self._size, self._patience = origin, start, size, patience
        self.received = 0
        self._state = threading.Condition()
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._ready: dict[int, memoryview] = {}
        self._next = self._released = self._window = 0
        self._free: list[memoryview] = []
        self._threads: list[threading.Thread] = []
        self._count = self._count_parts()

    def _count_parts(self) -> int | None:
        return -(-((self._size or 0) - self._start) // self._origin.part_bytes)

    def _most_workers(self) -> int:
        return min(self._origin.connections, self._count or 1)

    def __iter__(self) -> Iterator[memoryview | None]:
        """Yield the parts in order, and None now and then while the next one is on its way."""
        self._start_threads(_FIRST_THREADS)
        wall, cpu = time.monotonic(), time.process_time()
        index = 0
        while True:
            if time.monotonic() - wall >= _REPORT_S:
                if time.process_time() - cpu < _BUSY_CORES * (time.monotonic() - wall):
                    self._start_threads(_MORE_THREADS)  # each connection is slow: object stores, long distances
                wall, cpu = time.monotonic(), time.process_time()
            with self._state:
                while index not in self._ready:
                    if self._error is not None:
                        raise self._error
                    if self._count is not None and index >= self._count:
                        self._finished = True
                        return
                    if not self._state.wait(_REPORT_S):
                        break
                part = self._ready.pop(index, None)
            index += part is not None
            yield part

    def _start_threads(self, count: int) -> None:
        for _ in range(min(count, self._most_workers() - len(self._threads))):
            name = f"modelstore-download-{len(self._threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            self._window = len(self._threads) + _SPARE
            thread.start()

    def release(self, part: memoryview) -> None:
        """Take back a part that was iterated."""
        with self._state:
            self._free.append(part)
            self._released += 1
            self._state.notify_all()

    def close(self) -> None:
        """Stop the threads; those that wait for a server are woken by dropping its connection."""
        self._stop.set()
        with self._state:
            self._state.notify_all()
        if not self._finished:
            self._origin.close()
        for thread in self._threads:
            thread.join(1.0)

    def _work(self) -> None:
        try:
            while (taken := self._take_index()) is not None:
                index, buffer = taken
                begin = self._start + index * self._origin.part_bytes
                end = min(begin + self._origin.part_bytes, self._size or 0)
                part = buffer[: end - begin]
                self._receive(begin, end, part)
                self._deliver(index, part)
        except BaseException as error:  # noqa: BLE001 - a thread's top: whoever iterates raises it
            self._fail(error)

    def _take_index(self) -> tuple[int, memoryview] | None:
        with self._state:
            while not self._stop.is_set() and self._error is None:
                if self._count is not None and self._next >= self._count:
                    return None
                if self._next < self._released + self._window:
                    self._next += 1
                    return self._next - 1, self._buffer()
                self._state.wait()
        return None

    def _buffer(self) -> memoryview:
        whole = self._free.pop().obj if self._free else bytearray(self._buffer_bytes())
        return memoryview(whole)

    def _buffer_bytes(self) -> int:
        return self._origin.part_bytes

    def _deliver(self, index: int, part: memoryview) -> None:
        with self._state:
            self._ready[index] = part
            self._state.notify_all()

    def _fail(self, error: BaseException) -> None:
        with self._state:
            if self._error is None:
                self._error = error
            self._state.notify_all()

    def _receive(self, begin: int, end: int, part: memoryview) -> None:
        """Fill ``part``, continuing in its middle after failures."""
        patience, done = self._patience.fresh(), 0
        while done < len(part):
            try:
                reader = self._origin.read(begin + done, end)
                try:
                    while done < len(part) and (count := self._read_some(reader, part[done:])):
                        done += count
                        patience.progressed()
                finally:
                    reader.close()
                if done < len(part):
                    raise TruncatedError(f"a part ended {len(part) - done} bytes early")
            except ChangedError:
                raise
            except Exception as error:
                if self._stop.is_set() or not patience.after(error, self._stop.wait):
                    raise

    def _read_some(self, reader: Reader, room: memoryview) -> int:
        count = reader.readinto(room[:_STEP])
        with self._state:
            self.received += count
        return count


class Single(Parts):
    """One part, received by the calling thread: most objects are small, and threads would cost more than they."""

    def __iter__(self) -> Iterator[memoryview | None]:
        end = self._size or 0
        part = memoryview(bytearray(end - self._start))
        self._receive(self._start, end, part)
        self._finished = True
        yield part

    def _read_some(self, reader: Reader, room: memoryview) -> int:
        count = super()._read_some(reader, room)
        self._report(self.received)
        return count


class Stream(Parts):
    """One stream in order, received by one thread; continued after failures where the origin can begin anywhere."""

    def _count_parts(self) -> int | None:
        return None

    def _buffer_bytes(self) -> int:
        return _MEBIBYTE

    def _work(self) -> None:
        patience, position = self._patience.fresh(), self._start
        while True:
            try:
                position = self._follow(position, patience)
            except Exception as error:  # noqa: BLE001 - a thread's top: whoever iterates raises it
                position = self._start + self.received
                again = self._origin.ranged and not isinstance(error, ChangedError)
                if self._stop.is_set() or not again or not patience.after(error, self._stop.wait):
                    self._fail(error)
                    return
            else:
                return

    def _follow(self, position: int, patience: Patience) -> int:
        reader = self._origin.read(position, self._size)
        try:
            while (taken := self._take_index()) is not None:
                index, buffer = taken
                done = 0
                try:
                    while done < len(buffer) and (count := self._read_some(reader, buffer[done:])):
                        done += count
                        patience.progressed()
                finally:
                    # What came before a failure counts: the stream is continued after it.
                    self._deliver(index, buffer[:done])
                if done < len(buffer):
                    with self._state:
                        self._count = self._next
                        self._state.notify_all()
                    return position
        finally:
            reader.close()
        return position

"""The bytes of an origin, received over as many connections as help, and passed on in order, in bounded memory.

Every connection receives a part of its own, block by block. Blocks of the part whose turn it is are passed on the
moment they are there, by the thread that received them and while they are in its cache; those of later parts wait
in memory. So receiving, writing and hashing overlap however many connections there are, and none of them is needed
where one is enough.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from modelstore.storage.origins import ChangedError, Origin
from modelstore.storage.retries import Patience
from modelstore.storage.webclient import TruncatedError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Parts"]

_BLOCK_BYTES: Final = 1 << 18  # fits the L2 cache; also how finely progress is told and a stop is seen
_MOST_BLOCKS: Final = 512  # 128 MiB: what sixteen slow connections have received before the first part is complete
_KEPT_BACK: Final = 16  # blocks that only the part whose turn it is may take, so that it can always go on
_PARTS_AT_ONCE: Final = 8
_REPORT_S: Final = 0.1
_GROW_S: Final = 0.02
_FAR_S: Final = 0.01  # after so long a wait for the first answer, several connections are sure to help
_GROWTH: Final = 4  # one connection, then four, then sixteen
# Above any of these, more connections would only get in each other's way: this share of their threads' time spent on
# a processor, so many bytes a second over each connection, so many over all of them.
_BUSY: Final = 0.5
_FAST_BYTES_S: Final = 400e6
_FASTEST_BYTES_S: Final = 800e6


class Taker(Protocol):
    """Where the bytes go."""

    def __call__(self, block: memoryview, release: Callable[[memoryview], object], /) -> object:
        """Take the next block; call ``release`` with it, from any thread, when it is no longer needed."""


@dataclass(slots=True)
class _Part:
    """Bytes ``begin`` to ``end``, None for all the rest, of which ``done`` have come.

    ``blocks`` wait for their turn. Once ``has_turn`` is set, whoever receives the part passes its blocks on at once.
    """

    begin: int
    end: int | None
    has_turn: bool
    done: int = 0
    complete: bool = False
    blocks: list[memoryview] = field(default_factory=list)

    def left(self) -> int | None:
        return None if self.end is None else self.end - self.begin - self.done


class Parts:
    """An object on its way; `run` once.

    Args:
        origin: Looked at.
        start: Where to begin.
        size: Where to end; None to go on to the end of what one connection brings.
        patience: How long a part may go on failing; it is continued in its middle where the origin can do that.
        take: Given every block, in order, from one thread at a time.

    Attributes:
        received: Bytes that have come so far.
    """

    def __init__(self, origin: Origin, start: int, size: int | None, patience: Patience, take: Taker) -> None:
        self._origin, self._start, self._size = origin, start, size
        self._patience, self._take = patience, take
        self.received = 0
        self._state = threading.Lock()
        self._passing = threading.Lock()
        self._stop = threading.Event()
        self._over = threading.Event()
        self._error: BaseException | None = None
        self._parts: dict[int, _Part] = {}
        self._begun = self._turn = 0
        self._position: int | None = start  # where the next part begins; None when there is none
        self._blocks = _Blocks(self._stop)
        self._threads: list[threading.Thread] = []
        self._worked: dict[int, float] = {}  # seconds that each thread has spent on a processor
        self._most_threads = 1
        if size is not None:
            self._most_threads = min(origin.connections, -(-(size - start) // origin.part_bytes))

    def run(self, report: Callable[[int], object]) -> None:
        """Bring everything; small objects in this thread, since threads would cost more than they.

        Args:
            report: Told from this thread, now and then, how many bytes have come.
        """
        if self._size is not None and self._size - self._start <= self._origin.part_bytes:
            self._work_off(report)
            return
        try:
            self._start_threads(self._origin.connections if self._origin.waited_s > _FAR_S else 1)
            self._watch(report)
        finally:
            self._close()

    def _watch(self, report: Callable[[int], object]) -> None:
        wall, worked, received = time.monotonic(), 0.0, 0
        while not self._over.wait(_GROW_S if len(self._threads) < self._most_threads else _REPORT_S):
            report(self.received)
            passed = time.monotonic() - wall
            slow = self.received - received < min(_FAST_BYTES_S * len(self._threads), _FASTEST_BYTES_S) * passed
            work = sum(self._worked.copy().values())
            if slow and passed >= _GROW_S and work - worked < _BUSY * passed * len(self._threads):
                self._start_threads((_GROWTH - 1) * len(self._threads))  # object stores, long distances
            wall, worked, received = time.monotonic(), work, self.received
        if self._error is not None:
            raise self._error
        report(self.received)

    def _start_threads(self, count: int) -> None:
        for _ in range(min(count, self._most_threads - len(self._threads))):
            name = f"modelstore-download-{len(self._threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _close(self) -> None:
        """Stop the threads; those that wait for a server are woken by dropping its connection.

        Nothing is passed on any more once this returns, whatever a thread that could not be woken may still receive.
        """
        finished = self._over.is_set() and self._error is None
        self._stop.set()
        self._blocks.wake()
        with self._passing:
            pass
        if not finished:
            self._origin.close()
        for thread in self._threads:
            thread.join(1.0)

    def _work(self) -> None:
        try:
            self._work_off()
        except BaseException as error:  # noqa: BLE001 - a thread's top: whoever called `run` raises it
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._error = self._error or error
        self._stop.set()
        self._blocks.wake()
        self._over.set()

    def _work_off(self, report: Callable[[int], object] = lambda _: None) -> None:
        while (part := self._take_part()) is not None:
            self._receive(part, report)
            with self._state:
                part.complete = True
                if not part.has_turn:
                    continue
            while following := self._following():
                for block in following:
                    self._pass_on(block)

    def _take_part(self) -> _Part | None:
        with self._state:
            begin = self._position
            if begin is None or self._stop.is_set():
                return None
            end = self._size
            if end is not None and self._origin.connections > 1:
                # Where one connection is enough, requests are all that is left to save.
                enough = self._begun and len(self._threads) == 1
                end = min(begin + self._origin.part_bytes * (_PARTS_AT_ONCE if enough else 1), end)
            self._position = end if end != self._size else None
            part = self._parts[self._begun] = _Part(begin, end, self._begun == self._turn)
            self._begun += 1
            return part

    def _following(self) -> list[memoryview]:
        """Return what has its turn now that a part is complete; if it is still to come, it is passed on as it comes."""
        with self._state:
            while (part := self._parts.get(self._turn)) is not None:
                if part.blocks:
                    blocks, part.blocks = part.blocks, []
                    return blocks
                if not part.complete:
                    part.has_turn = True
                    self._blocks.wake()
                    return []
                del self._parts[self._turn]
                self._turn += 1
            if self._position is None and self._turn == self._begun:
                self._over.set()
            return []

    def _receive(self, part: _Part, report: Callable[[int], object]) -> None:
        """Receive a part, continuing in its middle after failures."""
        patience = self._patience.fresh()
        while part.left() != 0:
            try:
                self._follow(part, patience, report)
            except ChangedError:
                raise
            except Exception as error:
                if self._stop.is_set() or not self._origin.ranged or not patience.after(error, self._stop.wait):
                    raise
            else:
                return

    def _follow(self, part: _Part, patience: Patience, report: Callable[[int], object]) -> None:
        first = self._blocks.get(part)  # before a server is asked, which would not wait for it
        try:
            reader = self._origin.read(part.begin + part.done, part.end)
        except BaseException:
            self._blocks.put(first)
            raise
        block: memoryview | None = first
        try:
            while part.left() != 0:
                room = (block or self._blocks.get(part))[: part.left()]
                block = None
                filled = 0
                try:
                    while filled < len(room) and (count := reader.readinto(room[filled:])):
                        filled += count
                finally:
                    # What came before a failure counts: the part is continued after it.
                    if filled:
                        patience.progressed()
                    part.done += filled
                    self._deliver(part, room[:filled])
                self._worked[threading.get_ident()] = time.thread_time()
                report(self.received)
                if filled < len(room):
                    if part.end is None:
                        return
                    raise TruncatedError(f"a part ended {part.left()} bytes early")
        finally:
            reader.close()

    def _deliver(self, part: _Part, block: memoryview) -> None:
        """Pass a block on if it is its turn, else keep it."""
        with self._state:
            self.received += len(block)
            if not part.has_turn:
                part.blocks.append(block)
                return
        self._pass_on(block)

    def _pass_on(self, block: memoryview) -> None:
        with self._passing:  # `_close` waits for this, and stops what would come later
            if self._stop.is_set():
                raise ConnectionAbortedError("stopped")
            try:
                self._take(block, self._blocks.put)
            except BaseException as error:
                self._fail(error)  # nothing may follow what is missing
                raise


class _Blocks:
    """Memory in blocks, bounded, used again. Taking and giving back need no lock while there is enough."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._free: list[memoryview] = []
        self._made = self._waiting = 0
        lock = threading.Lock()
        self._lock = lock
        self._first, self._others = threading.Condition(lock), threading.Condition(lock)

    def get(self, part: _Part) -> memoryview:
        """Return an empty block for a part; waits while only the one whose turn it is may have more."""
        if part.has_turn or len(self._free) > _KEPT_BACK:
            try:
                return self._free.pop()  # the one used last: most likely still in a cache
            except IndexError:
                pass
        with self._lock:
            self._waiting += 1  # before looking once more: who gives one back now will see it
            try:
                while not self._stop.is_set():
                    if (block := self._take(part)) is not None:
                        return block
                    (self._first if part.has_turn else self._others).wait()
            finally:
                self._waiting -= 1
        raise ConnectionAbortedError("stopped")

    def _take(self, part: _Part) -> memoryview | None:
        if len(self._free) + _MOST_BLOCKS - self._made <= (0 if part.has_turn else _KEPT_BACK):
            return None
        if self._made < _MOST_BLOCKS:
            self._made += 1
            return memoryview(bytearray(_BLOCK_BYTES))
        try:
            return self._free.pop()
        except IndexError:
            return None

    def put(self, block: memoryview) -> None:
        """Take back a block, or a beginning of one."""
        self._free.append(memoryview(block.obj))
        if self._waiting:
            with self._lock:
                self._first.notify()
                if len(self._free) > _KEPT_BACK:
                    self._others.notify()

    def wake(self) -> None:
        """Have everybody who waits look again: all is to stop, or somebody's turn has come."""
        with self._lock:
            self._first.notify_all()
            self._others.notify_all()

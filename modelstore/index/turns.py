"""Turns: a lock that threads get in the order in which they asked for it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["Turns"]

_BURST_S: Final = 0.05
_PAUSE_S: Final = 0.01


class Turns:
    """Lets the threads of one process write one after the other, each in its turn.

    SQLite's own waiting polls, with growing pauses: a thread that writes in a tight loop is then always first, and
    another one may wait for a minute and give up. `threading.Lock` is no fairer.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._taken = False
        self._since = 0.0  # when the present run of turns began, each following the last at once

    @property
    def taken(self) -> bool:
        """Whether it is some thread's turn."""
        return self._taken

    @contextmanager
    def mine(self) -> Iterator[None]:
        """Wait for this thread's turn, which lasts for the block. Not to be nested."""
        self._take()
        try:
            yield
        finally:
            self._pass_on()

    def _take(self) -> None:
        with self._lock:
            if not self._taken:
                self._taken = True
                self._since = time.monotonic()
                return
            call = threading.Lock()
            call.acquire()
            self._waiting.append(call)
        try:
            call.acquire()
        except BaseException:  # interrupted while it waited: whoever comes next must not wait for this thread
            with self._lock:
                called = call not in self._waiting
                if not called:
                    self._waiting.remove(call)
            if called:
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        if self._waiting and time.monotonic() - self._since > _BURST_S:
            # Threads that hand on at once leave no moment for other processes, which only look now and then.
            time.sleep(_PAUSE_S)
            self._since = time.monotonic()
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False

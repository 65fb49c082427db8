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


class _Turn:
    """One thread's wish to write.

    Attributes:
        call: Locked until its turn has come, where it has to wait.
    """

    def __init__(self) -> None:
        self.call = threading.Lock()
        self.call.acquire()


class Turns:
    """Lets the threads of one process write one after the other, each in its turn.

    SQLite's own waiting polls, with growing pauses: a thread that writes in a tight loop is then always first, and
    another one may wait for a minute and give up. `threading.Lock` is no fairer.

    Ctrl-C may come anywhere in here. A turn that nobody has and nobody passes on would stop the process for good, so
    whose it is says one attribute, and passing it on is tried until it is done.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[_Turn] = deque()  # the one whose turn it is stays first until it has passed it on
        self._holder: _Turn | None = None
        self._since = 0.0  # when the present run of turns began, each following the last at once

    @property
    def taken(self) -> bool:
        """Whether it is some thread's turn."""
        return self._holder is not None

    @contextmanager
    def mine(self) -> Iterator[None]:
        """Wait for this thread's turn, which lasts for the block. Not to be nested."""
        turn = _Turn()
        try:
            self._take(turn)
            yield
        finally:
            self._pass_on(turn)

    def _take(self, turn: _Turn) -> None:
        with self._lock:
            if self._holder is None:
                self._since = time.monotonic()
                self._holder = turn
                return
            self._waiting.append(turn)
        turn.call.acquire()

    def _pass_on(self, turn: _Turn) -> None:
        interruption: BaseException | None = None
        try:
            if len(self._waiting) > 1 and time.monotonic() - self._since > _BURST_S:
                # Threads that hand on at once leave no moment for other processes, which only look now and then.
                time.sleep(_PAUSE_S)
                self._since = time.monotonic()
        except BaseException as error:  # noqa: BLE001 - raised below, when the turn is passed on
            interruption = error
        while True:
            try:
                with self._lock:
                    self._hand_over(turn)
                break
            except BaseException as error:  # noqa: BLE001 - as above
                interruption = error
        if interruption is not None:
            raise interruption

    def _hand_over(self, turn: _Turn) -> None:
        """Give the turn to the next one; or, when it never came to that, wait no longer. Doing it again is harmless."""
        waiting = self._waiting
        if self._holder is not turn:
            if turn in waiting:
                waiting.remove(turn)
            return
        while waiting and waiting[0] is turn:
            waiting.popleft()
        following = waiting[0] if waiting else None
        self._holder = following
        if following is not None:
            following.call.release()

"""Looking at a journal once for all threads that ask at the same time."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from itertools import count
from types import TracebackType
from typing import Generic, TypeVar

__all__ = ["Looks", "ProcessLock"]

T = TypeVar("T")

_locks: weakref.WeakSet[ProcessLock] = weakref.WeakSet()


class ProcessLock:
    """A reentrant lock that is free in a forked child, whichever of its parent's threads held it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def renew(self) -> None:
        """Be free, whoever held it."""
        self._lock = threading.RLock()


def _renew_all() -> None:
    for lock in list(_locks):
        lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)


class Looks(Generic[T]):
    """Shares what one look finds with everybody who asked before it began; who asks later waits for the next.

    So each gets what was there when he asked, and any number of threads cause two looks at the most at a time.

    Args:
        lock: Held while somebody looks.
    """

    def __init__(self, lock: ProcessLock) -> None:
        self._lock = lock
        self._numbers = count(1)
        self._latest: tuple[int, T] | None = None

    def share(self, look: Callable[[], T]) -> T:
        """Return what ``look`` returns, called here or by another thread since this call began.

        What it raises is raised to whoever called it; the others look for themselves.
        """
        asked = next(self._numbers)
        with self._lock:
            if self._latest is not None and self._latest[0] > asked:
                return self._latest[1]
            begun = next(self._numbers)
            found = look()
            self._latest = begun, found
            return found

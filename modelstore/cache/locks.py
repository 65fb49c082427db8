"""The lock that lets one process fetch a URI while the others wait.

It saves work and nothing else: with locks that exclude nobody, several processes fetch, and the outcome is the same.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Final

from modelstore.errors import CacheBusyError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["KeyLock"]

_FIRST_PAUSE_S: Final = 0.002
_LONGEST_PAUSE_S: Final = 0.02
# Of attempts that fail, which cost far more than asking whether the work is done. Only who waits for work that failed
# is kept waiting by this.
_ATTEMPT_S: Final = 0.1


class KeyLock:
    """A context manager that holds one lock file; the lock goes with the process, however that ends.

    Args:
        path: The lock file; stays afterwards.
        timeout_s: Longest wait, seconds; 0 tries once, None waits for ever.
        done: Called while waiting; True ends the wait without the lock: somebody else has done the work.
        enabled: False takes no lock at all.
    """

    def __init__(
        self, path: str, timeout_s: float | None, *, done: Callable[[], bool] = lambda: False, enabled: bool = True
    ) -> None:
        self._path, self._timeout_s, self._done, self._enabled = path, timeout_s, done, enabled
        self._lock: Any = None

    def __enter__(self) -> bool:
        """Wait for the lock; return whether the work is still to be done."""
        if not self._enabled:
            return True
        from filelock import FileLock, Timeout

        lock = FileLock(self._path, fallback_to_soft=False)
        now = time.monotonic()
        deadline = math.inf if self._timeout_s is None else now + self._timeout_s
        next_attempt = now
        pause = _FIRST_PAUSE_S
        while True:
            if now >= min(next_attempt, deadline):
                try:
                    lock.acquire(blocking=False)
                    self._lock = lock
                    return True
                except Timeout:
                    next_attempt = now + _ATTEMPT_S
                except (OSError, NotImplementedError):
                    return True  # no locks here (an NFS without lockd, another user's lock file): go on without
            if self._done():
                return False
            if now >= deadline:
                raise CacheBusyError(
                    f"Another process was still fetching the same URI after {self._timeout_s:g} s.",
                    "Wait for it, or allow a longer lock_timeout_s.",
                )
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)
            now = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            self._lock.release()

"""When to try again, and when to stop."""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from modelstore.storage.failures import is_transient

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Patience", "retrying"]

T = TypeVar("T")

_MAX_RETRY_AFTER_S: Final = 60.0
_SILENCE_S: Final = 3.0

logger = logging.getLogger("modelstore")


@dataclass(slots=True)
class Patience:
    """How long one piece of work may go on failing.

    Attempts and time count from the last progress: a connection that drops every megabyte still gets there, one that
    brings nothing is given up.

    Attributes:
        attempts: Most failures in a row without any progress between them.
        deadline_s: Longest time without progress, seconds, pauses included.
        first_pause_s: The pause before the second attempt is random, up to this; it doubles each time.
        longest_pause_s: And never exceeds this.
    """

    attempts: int = 6
    deadline_s: float = 120.0
    first_pause_s: float = 0.2
    longest_pause_s: float = 10.0
    _failures: int = field(default=0, init=False)
    _since: float = field(default_factory=time.monotonic, init=False)
    _told: bool = field(default=False, init=False)

    def fresh(self) -> Patience:
        """Return the same patience, not yet tried."""
        return Patience(self.attempts, self.deadline_s, self.first_pause_s, self.longest_pause_s)

    def progressed(self) -> None:
        """Note that something was achieved."""
        self._failures, self._since = 0, time.monotonic()

    def after(self, error: BaseException, sleep: Callable[[float], object] = time.sleep) -> bool:
        """Pause and return True if trying again may help and is still allowed; else return False at once."""
        self._failures += 1
        if not is_transient(error) or self._failures >= self.attempts:
            return False
        # Full jitter: many workers that failed together must not come back together.
        pause = random.uniform(0, min(self.longest_pause_s, self.first_pause_s * 2 ** (self._failures - 1)))  # noqa: S311
        pause = max(pause, _asked_for(error))
        if time.monotonic() + pause - self._since > self.deadline_s:
            return False
        self._tell(error)
        sleep(pause)
        return True

    def _tell(self, error: BaseException) -> None:
        """Say once what takes so long: silence for a minute looks like a program that hangs."""
        if not self._told and time.monotonic() - self._since > _SILENCE_S:
            self._told = True
            logger.warning("storage does not answer (%s); trying again", type(error).__name__)


def retrying(action: Callable[[], T], patience: Patience | None = None) -> T:
    """Return what ``action`` returns, called again after failures that may pass.

    Raises:
        Exception: What the last attempt raised.
    """
    left = (patience or Patience()).fresh()
    while True:
        try:
            return action()
        except Exception as error:
            if not left.after(error):
                raise


def _asked_for(error: BaseException) -> float:
    headers: Mapping[str, str] = getattr(error, "headers", None) or {}
    for name, value in headers.items() if hasattr(headers, "items") else ():
        if str(name).lower() == "retry-after" and str(value).isdigit():
            return min(float(value), _MAX_RETRY_AFTER_S)
    return 0.0

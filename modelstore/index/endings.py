"""What a transaction leaves to be done when it has ended, well or not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

__all__ = ["Action", "Endings"]

Action = Callable[[], object]


class Endings:
    """What one transaction leaves to be done with files, threads and objects, which cannot be rolled back.

    Attributes:
        committed: Whether an interruption came too late, when all was written.
    """

    def __init__(self) -> None:
        self.committed = False
        self._left: list[tuple[Action | None, Action | None]] = []

    def add(self, well: Action | None, undone: Action | None) -> None:
        """Leave something to be done: one thing after a good end, another when what was written is undone."""
        self._left.append((well, undone))

    @property
    def count(self) -> int:
        """How many things were left so far."""
        return len(self._left)

    def undo(self, since: int = 0) -> None:
        """Do what is to be done when all is undone that was written since so many things were left, latest first."""
        with ExitStack() as stack:
            for _, undone in self._left[since:]:
                if undone is not None:
                    stack.callback(undone)
        del self._left[since:]

    def done(self) -> None:
        """Do what is to be done after a good end, all of it, in order, whatever fails; raises what failed."""
        with ExitStack() as stack:
            for well, _ in reversed(self._left):
                if well is not None:
                    stack.callback(well)

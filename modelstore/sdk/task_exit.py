"""What the end of the process means for the tasks that it began."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn

from modelstore.errors import ModelStoreError, TaskNotFoundError
from modelstore.registry.ending import at_the_end
from modelstore.sdk._context import state

__all__ = ["watch_exit"]

logger = logging.getLogger("modelstore")


class _Exit:
    """How this process ends, as far as it is known.

    Attributes:
        watched: Whether somebody looks.
        error: What ended it: an uncaught exception, or an exit code other than 0.
        stopped: Whether the user interrupted it.
    """

    def __init__(self) -> None:
        self.watched = False
        self.error: str | None = None
        self.stopped = False


_exit = _Exit()


def watch_exit() -> None:
    """Have the end of the process close the tasks that it began, and note what ended it.

    Tasks end as failed after an uncaught exception or `sys.exit` with another code than 0, as stopped after an
    interruption, else as completed. A process that is killed leaves them in progress.
    """
    if _exit.watched:
        return
    _exit.watched = True
    hook, leave = sys.excepthook, sys.exit

    def note(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> Any:
        if issubclass(kind, KeyboardInterrupt):
            _exit.stopped = True
        else:
            _exit.error = f"{kind.__name__}: {error}"
        return hook(kind, error, trace)

    sys.excepthook = note
    sys.exit = _noting(leave)
    at_the_end(_at_exit)


def _noting(leave: Callable[..., NoReturn]) -> Callable[..., NoReturn]:
    def exit(code: Any = None, /) -> NoReturn:  # noqa: A001 - the name that tracebacks show
        _exit.error = None if code is None or code == 0 else f"SystemExit: {code}"
        leave(code)

    return exit


def _at_exit() -> None:
    """Close the tasks that this process began; a forked child leaves its parent's to the parent."""
    for task in [one for one in state.owned if one._owner_pid == os.getpid()]:
        try:
            if _exit.error is not None:
                task.mark_failed(status_reason="exception", status_message=_exit.error[:10_000])
            elif _exit.stopped:
                task.mark_stopped(status_message="interrupted")
            task.close()
        except TaskNotFoundError:
            continue
        except ModelStoreError as failure:
            logger.error("Task %s at exit: %s", task.id, failure)

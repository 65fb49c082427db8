"""The end of a process that still has uploads to do: it waits for them, says so, and can be told not to.

From the moment at which it begins to end, Python (since 3.12) begins no threads any more, and most drivers need some.
Uploads that fail for that reason are sent by a child process, which this one waits for.
"""

from __future__ import annotations

import atexit
import importlib
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from modelstore.errors import UploadError

if TYPE_CHECKING:
    from modelstore.registry.uploads import Uploads

__all__ = ["at_the_end", "is_too_late", "send_in_a_child", "watch"]

logger = logging.getLogger("modelstore")

_INTERRUPTED: Final = 130
_SOON_S: Final = 1.0

_watched: weakref.WeakSet[Uploads] = weakref.WeakSet()
_lock = threading.Lock()
_registered = False
_calls: list[Callable[[], object]] = []


def at_the_end(call: Callable[[], object]) -> None:
    """Have something called when the process ends, also when an interruption cuts its waiting short."""
    _calls.append(call)
    atexit.register(call)


def watch(uploads: Uploads) -> None:
    """Have the end of the process wait for these uploads, in a way that ctrl-C can cut short without losing any."""
    global _registered  # noqa: PLW0603 - a process ends once
    with _lock:
        _watched.add(uploads)
        if _registered:
            return
        _registered = True
    # The interpreter joins its threads before it runs exit handlers, and there an interruption is a traceback that
    # stops nothing. What is registered here comes before that, the last one first: so after this import, whose own
    # would close the pools that uploads work with.
    with suppress(RuntimeError):  # the process is ending already
        importlib.import_module("concurrent.futures.thread")
        # Both are private. Where the first is missing, Python's own waiting for threads has to do.
        getattr(threading, "_register_atexit", atexit.register)(_wait)


def is_too_late(error: BaseException) -> bool:
    """Tell whether something failed because the process is ending."""
    seen: BaseException | None = error
    while seen is not None:
        if "interpreter shutdown" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def send_in_a_child(uri: str, actor: str, uploads: Sequence[int]) -> None:
    """Send uploads from a process of their own, and return when it has ended, well or not."""
    import subprocess

    if not sys.executable:
        return  # embedded: nothing to run
    command = [sys.executable, "-m", "modelstore.registry.ending", uri, actor, *map(str, uploads)]
    subprocess.run(command, stdin=subprocess.DEVNULL, check=False)  # noqa: S603 - our own module


def main(words: Sequence[str]) -> None:
    """Send the uploads of these numbers; what fails stays written down for the parent to tell."""
    from modelstore.registry import open_registry

    uri, actor, *numbers = words
    with suppress(UploadError, KeyboardInterrupt), open_registry(uri, create=False, actor=actor) as registry:
        registry.weights.uploads.resume([int(number) for number in numbers])


def _wait() -> None:
    try:
        for uploads in list(_watched):
            uploads.wait(timeout=_SOON_S, quiet=True)
        left = _left()
        if left:
            logger.warning(
                "Waiting for %d %s; ctrl-C leaves %s for `modelstore uploads --resume`",
                left, "upload" if left == 1 else "uploads", "it" if left == 1 else "them",
            )  # fmt: skip
        for uploads in list(_watched):
            uploads.wait(quiet=True)
    except KeyboardInterrupt:
        _leave()


def _leave() -> None:
    """End now: exit handlers run, threads are not waited for."""
    left = _left()
    for uploads in list(_watched):
        uploads.leave()
    logger.warning("Interrupted; %d unfinished: send them with `modelstore uploads --resume`", left)
    with suppress(KeyboardInterrupt):
        getattr(atexit, "_run_exitfuncs", _call_ours)()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(_INTERRUPTED)


def _call_ours() -> None:
    """Close tasks and write reports, where Python does not let us call everybody's exit handlers."""
    for call in reversed(_calls):
        call()


def _left() -> int:
    return sum(uploads.unfinished() for uploads in list(_watched))


if __name__ == "__main__":
    main(sys.argv[1:])

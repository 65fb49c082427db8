"""Faults at numbered steps: kill, fail or pause the process exactly where a sequence is at its most delicate.

modelstore announces the steps of its sequences on disk as audit events:
``sys.audit("modelstore.step", "cache.publish.4")``.
Nothing listens until one of the functions here is called, so production pays some tens of nanoseconds per step.

    with faults.inject("cache.publish.4", OSError(errno.ENOSPC, "full")):   # in this process
        …
    MODELSTORE_FAULTS="cache.publish.4=kill" python child.py                # in a child that calls faults.install()

A plan is a list of ``step[#occurrence]=action`` separated by ``;``. The step may be a pattern (``cache.*``). Actions:
``kill`` (SIGKILL to itself), ``enospc``, ``eio`` (an `OSError` with that errno), ``sleep:SECONDS``.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["EVENT", "VARIABLE", "Fault", "inject", "install", "kill", "parse", "trace"]

EVENT: Final = "modelstore.step"
VARIABLE: Final = "MODELSTORE_FAULTS"


@dataclass(slots=True)
class Fault:
    """What happens at a step.

    Attributes:
        pattern: The step's name, or a pattern in the manner of a shell.
        action: Called when the step is reached; may raise, or never return.
        occurrence: Which passage it is for, from 1; 0 for every one.
        seen: How often the step was passed so far.
    """

    pattern: str
    action: Callable[[], object]
    occurrence: int = 1
    seen: int = 0


_lock = threading.RLock()
_faults: list[Fault] = []
_traces: list[Counter[str]] = []
_listening = False


def kill() -> None:
    """End this process as `kill -9` does: no handler, no clean-up, no flush."""
    os.kill(os.getpid(), signal.SIGKILL)


def parse(plan: str) -> list[Fault]:
    """Read a plan as written in the environment.

    Raises:
        ValueError: It is malformed.
    """
    faults = []
    for part in filter(None, (piece.strip() for piece in plan.split(";"))):
        where, separator, what = part.partition("=")
        pattern, _, occurrence = where.partition("#")
        if not separator:
            raise ValueError(f"{part!r} is no step=action")
        faults.append(Fault(pattern, _action(what), int(occurrence or 1)))
    return faults


def install(plan: str | None = None) -> None:
    """Follow a plan from here to the end of the process; None takes it from the environment."""
    with _lock:
        _faults.extend(parse(os.environ.get(VARIABLE, "") if plan is None else plan))
    _listen()


@contextmanager
def inject(pattern: str, action: BaseException | Callable[[], object], occurrence: int = 1) -> Iterator[Fault]:
    """Do something at a step while the block runs, in all threads of this process.

    Args:
        pattern: The step, or a pattern.
        action: An exception to raise, or a function to call.
        occurrence: Which passage, from 1; 0 for every one.
    """
    fault = Fault(pattern, _raiser(action) if isinstance(action, BaseException) else action, occurrence)
    with _lock:
        _faults.append(fault)
    _listen()
    try:
        yield fault
    finally:
        with _lock:
            _faults.remove(fault)


@contextmanager
def trace() -> Iterator[Counter[str]]:
    """Count the steps passed while the block runs."""
    counts: Counter[str] = Counter()
    with _lock:
        _traces.append(counts)
    _listen()
    try:
        yield counts
    finally:
        with _lock:
            _traces[:] = [other for other in _traces if other is not counts]


def _listen() -> None:
    # An audit hook cannot be removed again, so one is added, at the first use.
    global _listening  # noqa: PLW0603
    with _lock:
        if not _listening:
            sys.addaudithook(_hook)
            _listening = True


def _hook(event: str, args: tuple[object, ...]) -> None:
    if event != EVENT or not (_faults or _traces):
        return
    name = str(args[0])
    due = []
    with _lock:
        for counts in _traces:
            counts[name] += 1
        for fault in _faults:
            if fnmatch.fnmatchcase(name, fault.pattern):
                fault.seen += 1
                if fault.occurrence in {0, fault.seen}:
                    due.append(fault.action)
    for action in due:
        action()


def _raiser(error: BaseException) -> Callable[[], object]:
    def action() -> None:
        raise error

    return action


def _fail(number: int) -> Callable[[], object]:
    def action() -> None:
        raise OSError(number, os.strerror(number))

    return action


def _action(text: str) -> Callable[[], object]:
    name, _, argument = text.partition(":")
    if name == "kill":
        return kill
    if name == "sleep":
        seconds = float(argument)
        return lambda: time.sleep(seconds)
    number = getattr(errno, name.upper(), None)
    if number is None:
        raise ValueError(f"no such action: {text!r}")
    return _fail(number)

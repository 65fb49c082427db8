"""A line on the terminal about a transfer that takes a while: bytes, rate, time left."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator

    from modelstore.storage.fingerprints import Progress

__all__ = [
    "TerminalProgress",
    "Transfer",
    "counting",
    "format_bytes",
    "progress_wanted",
    "reporting",
    "watch_transfers",
]

_PATIENCE_S: Final = 1.0  # what is over sooner needs no telling
_INTERVAL_S: Final = 0.1
_WIDTH: Final = 24
_OFF: Final = frozenset({"0", "false", "no", "off"})
_ON: Final = frozenset({"1", "true", "yes", "on"})


@dataclass(frozen=True, slots=True)
class Transfer:
    """How far one transfer has got.

    Attributes:
        action: ``storing``, ``uploading`` or ``fetching``.
        name: The file's name.
        done_bytes: How many bytes it has done.
        total_bytes: How many there are in all; None while that is unknown.
        ended: True the last time, whether it ended well or not.
    """

    action: str
    name: str
    done_bytes: int
    total_bytes: int | None
    ended: bool


_watchers: list[Callable[[Transfer], object]] = []


@contextmanager
def watch_transfers(tell: Callable[[Transfer], object]) -> Iterator[None]:
    """Have a program told how far the transfers get that begin in the block, in place of drawing on the terminal.

    For the whole process; transfers that began in the block are told of until they end, also after it.

    Args:
        tell: Called now and then, from any thread, several at a time. What it raises ends that transfer.

    Example:
        >>> with watch_transfers(lambda one: print(one.action, one.name, one.done_bytes)):
        ...     with reporting("fetching net.pt") as progress:
        ...         _ = progress(5, 10)
        fetching net.pt 5
        fetching net.pt 5
    """
    _watchers.append(tell)
    try:
        yield
    finally:
        _watchers.remove(tell)


def progress_wanted(stream: TextIO | None = None) -> bool:
    """Tell whether to draw: the stream (stderr) is a terminal, and no environment variable forbids it.

    ``MODELSTORE_PROGRESS=0`` and ``MODELSTORE_DISABLE_PROGRESS_BARS=1`` do.
    """
    if os.environ.get("MODELSTORE_PROGRESS", "").lower() in _OFF:
        return False
    if os.environ.get("MODELSTORE_DISABLE_PROGRESS_BARS", "").lower() in _ON:
        return False
    where = stream or sys.stderr
    return where is not None and where.isatty()


@contextmanager
def reporting(label: str, stream: TextIO | None = None) -> Iterator[Progress | None]:
    """Give a `Progress` that draws a line about ``label`` once a second has passed, or None where none is wanted.

    Example:
        >>> with reporting("storing model.pt") as progress:
        ...     copied = 0 if progress is None else progress(1, 2)
    """
    if _watchers:
        with _telling(label, tuple(_watchers)) as progress:
            yield progress
        return
    if not progress_wanted(stream):
        yield None
        return
    bar = TerminalProgress(label, stream or sys.stderr)
    try:
        yield bar
    finally:
        bar.close()


@contextmanager
def counting(label: str, stream: TextIO | None = None) -> Iterator[Progress | None]:
    """Give a `Progress` of things that are no bytes, drawn as `reporting` does; None where none is wanted.

    Example:
        >>> with counting("sending changes") as progress:
        ...     sent = 0 if progress is None else progress(2_000, None)
    """
    if not progress_wanted(stream):
        yield None
        return
    bar = TerminalProgress(label, stream or sys.stderr, form=lambda count: f"{count:,.0f}")
    try:
        yield bar
    finally:
        bar.close()


@contextmanager
def _telling(label: str, watchers: tuple[Callable[[Transfer], object], ...]) -> Iterator[Progress]:
    action, _, name = label.partition(" ")
    reached: tuple[int, int | None] = (0, None)

    def tell(done_bytes: int, total_bytes: int | None, /) -> None:
        nonlocal reached
        reached = (done_bytes, total_bytes)
        for watcher in watchers:
            watcher(Transfer(action, name, *reached, ended=False))

    try:
        yield tell
    finally:
        for watcher in watchers:
            watcher(Transfer(action, name, *reached, ended=True))


class TerminalProgress:
    """Draws over one line of a terminal. Not safe for use by two threads at a time.

    Args:
        label: What is being moved; shortened to fit.
        stream: A terminal.
        delay_s: Nothing is drawn before so many seconds.
        form: Writes an amount; as bytes unless told otherwise.
    """

    def __init__(
        self, label: str, stream: TextIO, delay_s: float = _PATIENCE_S, form: Callable[[float], str] | None = None
    ) -> None:
        self._label, self._stream, self._delay_s, self._form = label, stream, delay_s, form or format_bytes
        self._begun = self._last = time.monotonic()
        self._first: int | None = None
        self._drawn = False

    def __call__(self, done_bytes: int, total_bytes: int | None, /) -> None:
        """Draw, if there is reason to."""
        now = time.monotonic()
        if self._first is None:
            self._first = done_bytes  # what a continued download had already says nothing about its rate
        if now - self._begun < self._delay_s or (self._drawn and now - self._last < _INTERVAL_S):
            return
        self._last, self._drawn = now, True
        rate = (done_bytes - self._first) / max(now - self._begun, 1e-9)
        self._write(_line(self._label, done_bytes, total_bytes, rate, self._form))

    def close(self) -> None:
        """Remove the line."""
        if self._drawn:
            self._write("")

    def _write(self, text: str) -> None:
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns or 80  # some do not know their own width
        except OSError:
            columns = 80
        self._stream.write("\r\x1b[K" + text[: max(columns - 1, 1)])
        self._stream.flush()


def format_bytes(count: float) -> str:
    """Return a size for people.

    Example:
        >>> format_bytes(512), format_bytes(1536), format_bytes(3 * 2**30)
        ('512 B', '1.5 KiB', '3.0 GiB')
    """
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"


def _line(label: str, done: int, total: int | None, rate: float, form: Callable[[float], str]) -> str:
    shown = label if len(label) <= 32 else f"{label[:15]}…{label[-16:]}"
    speed = f"{form(rate)}/s"
    if not total:
        return f"{shown}  {form(done)}  {speed}"
    full = min(_WIDTH, _WIDTH * done // total)
    left = f"{(total - done) / rate:.0f} s left" if rate > 0 else ""
    bar = "█" * full + "░" * (_WIDTH - full)
    return f"{shown}  {bar} {100 * done // total:3d}%  {form(done)} of {form(total)}  {speed}  {left}"

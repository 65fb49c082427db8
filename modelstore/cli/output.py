"""How answers look: JSON for programs; sizes, times and safe text for people."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

__all__ = [
    "ago",
    "coloured",
    "note",
    "plain",
    "print_json",
    "print_json_list",
    "print_lines",
    "print_path",
    "size",
    "styled",
    "utf8_or_escaped",
    "value_text",
    "when",
]

_STYLES: Final = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
_ZERO_WIDTH_JOINER: Final = "\u200d"  # harmless, and half of the emoji need it


def coloured(stream: TextIO) -> bool:
    """Tell whether a stream is a terminal that may show colours: NO_COLOR and TERM=dumb forbid it."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def styled(text: str, style: str, stream: TextIO | None = None) -> str:
    """Return text in a style where the stream (stdout) shows such things, else as it is."""
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if coloured(stream or sys.stdout) else text


def plain(text: str) -> str:
    """Return text on one line and without anything that a terminal would obey, escaped instead."""
    if text.isprintable():
        return text
    return "".join(c if _harmless(c) else c.encode("unicode_escape").decode() for c in text)


def _harmless(character: str) -> bool:
    return character.isprintable() or character == _ZERO_WIDTH_JOINER or unicodedata.category(character) == "Zs"


def size(count: int | None) -> str:
    """Return a number of bytes for people: "1.5 MiB"; "" for None."""
    if count is None:
        return ""
    if count < 1024:
        return f"{count} B"
    amount = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        amount /= 1024
        if amount < 1023.95:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1024:.1f} PiB"


def when(moment: datetime) -> str:
    """Return a moment in local time, to the second."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def ago(moment: datetime, now: datetime | None = None) -> str:
    """Return how long ago a moment is: "3 min ago", "yesterday"; a date after a month, and for the future."""
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    if -60 < seconds < 60:
        return "just now"
    if 0 < seconds < 3600:
        return f"{int(seconds // 60)} min ago"
    if 0 < seconds < 86_400:
        return f"{int(seconds // 3600)} h ago"
    if 0 < seconds < 2 * 86_400:
        return "yesterday"
    if 0 < seconds < 31 * 86_400:
        return f"{int(seconds // 86_400)} days ago"
    return moment.astimezone().strftime("%Y-%m-%d")


def utf8_or_escaped() -> None:
    """Make sure that no character of a name can end the program: what a stream cannot encode is escaped."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _dumps(value: Any, indent: int | None = 2) -> str:
    import json

    unicode = (sys.stdout.encoding or "ascii").lower().replace("-", "") == "utf8"
    text = json.dumps(value, ensure_ascii=not unicode, allow_nan=False, indent=indent)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def print_json(value: Any) -> None:
    """Write a value as JSON, which is then all that standard output gets."""
    sys.stdout.write(f"{_dumps(value)}\n")


def print_json_list(values: Iterable[Any]) -> None:
    """Write a JSON list, element by element as they come, so that a million take no memory."""
    stream = iter(values)
    first = next(stream, _END)  # whatever fails before the first element leaves standard output empty
    if first is _END:
        sys.stdout.write("[]\n")
        return
    sys.stdout.write(f"[\n{_dumps(first, None)}")
    for value in stream:
        sys.stdout.write(f",\n{_dumps(value, None)}")
    sys.stdout.write("\n]\n")


_END: Final = object()


def print_lines(lines: Iterable[str] | Iterator[str]) -> None:
    """Write lines to standard output."""
    for line in lines:
        sys.stdout.write(f"{line}\n")


def print_path(path: Path) -> None:
    """Write a path to standard output as it is: `$(modelstore get …)` gives one where names are no UTF-8 too."""
    raw = getattr(sys.stdout, "buffer", None)
    text = f"{path}\n"
    if raw is None or not any("\udc80" <= c <= "\udcff" for c in text):
        sys.stdout.write(text)
        return
    sys.stdout.flush()
    raw.write(os.fsencode(text))


def note(text: str) -> None:
    """Write a remark to standard error, where it is in no program's way."""
    sys.stderr.write(f"modelstore: {styled('note:', 'yellow', sys.stderr)} {plain(text)}\n")


def value_text(value: Any) -> str:
    """Return a stored value on one line for people, cut where it is long; "nothing" for None."""
    text = "nothing" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)
    return plain(text if len(text) <= 200 else f"{text[:200]}…")

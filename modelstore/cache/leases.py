"""What live processes were handed, so that it is never taken from under them.

One append-only file per process, `leases/<owner>`, with a line `+entry` for each entry handed out and `-entry` for each
let go. Files and not rows: they outlive a lost or damaged index, need no cleaning when a process dies (its file is
simply of no account), and a process adds a line in one small write.

Leases are taken inside a write transaction of the index, and so are evictions: the two never overlap.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

from modelstore.cache.owners import is_alive, parse_owner, this_process

if TYPE_CHECKING:
    from modelstore.cache.layout import Layout

__all__ = ["InUse", "Leases"]

_FOREIGN_S: Final = 7 * 24 * 3600.0
"""How long a lease holds whose process cannot be checked from here, counted from its latest line."""


class InUse:
    """The entries that live processes hold; ask with ``in``."""

    def __init__(self, entries: set[str], *, everything: bool = False) -> None:
        self._entries, self._everything = entries, everything

    def __contains__(self, entry: object) -> bool:
        return self._everything or entry in self._entries

    def __len__(self) -> int:
        return len(self._entries)


class Leases:
    """The leases of this process, and the view of everybody's. The caller serialises the calls."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.held: set[str] = set()
        self._inherited: set[str] = set()

    def take(self, entry: str) -> None:
        """Write down that this process was handed ``entry``; to be called inside a write transaction of the index."""
        if entry in self.held and os.path.exists(self._own()):
            return
        self.held.add(entry)
        self._append([f"+{entry}\n"])

    def restore(self) -> None:
        """Write down again all that this process holds, if its file is gone (someone deleted the cache)."""
        if self.held and not os.path.exists(self._own()):
            self._append([])

    def drop(self, entry: str) -> None:
        """Let go of ``entry``; one that is not held is fine."""
        if entry in self.held:
            self.held.discard(entry)
            self._append([f"-{entry}\n"])

    def after_fork(self) -> None:
        """In a child: what the parent holds is held by the child as well, from its first call on."""
        self._inherited, self.held = self.held | self._inherited, set()

    def forget(self) -> None:
        """At the end of the process: remove its file."""
        self._layout.discard(self._own())

    def in_use(self) -> InUse:
        """Return what live processes hold; files of dead ones are removed on the way."""
        entries = self.held | self._inherited
        for name in self._layout.names("leases"):
            path = self._layout.path("leases", name)
            owner = parse_owner(name)
            try:
                alive = owner is not None and is_alive(owner)
                if alive is None:
                    alive = time.time() - os.stat(path).st_mtime < _FOREIGN_S
                if not alive:
                    self._layout.discard(path)
                    continue
                with open(path, encoding="ascii", errors="replace") as file:
                    entries |= _fold(file.read())
            except FileNotFoundError:
                continue  # its process ended meanwhile
            except PermissionError:
                return InUse(entries, everything=True)  # somebody else's private list: better full than wrong
        return InUse(entries)

    def _own(self) -> str:
        return self._layout.path("leases", this_process().token)

    def _append(self, lines: list[str]) -> None:
        if self._inherited:
            self.held |= self._inherited
            lines = [*(f"+{entry}\n" for entry in self._inherited), *lines]
            self._inherited = set()
        descriptor = os.open(self._own(), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            if os.fstat(descriptor).st_size == 0:
                lines = [f"+{entry}\n" for entry in self.held]
            os.write(descriptor, "".join(lines).encode("ascii"))
        finally:
            os.close(descriptor)


def _fold(text: str) -> set[str]:
    held: set[str] = set()
    for line in text.splitlines():
        (held.add if line.startswith("+") else held.discard)(line[1:])
    return held

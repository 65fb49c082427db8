"""Files that are being written: unique while they are, and continued by the next process when their writer died.

    partial/<key>.<owner or free>.<random>         the bytes
    partial/<key>.<owner or free>.<random>.json    what they are the beginning of: URI, ETag, length

A name holds its owner. Only what a dead process left, or a live one gave back (`free`), is taken over, by a rename that
one process wins. Two processes never write to one file, with or without locks.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Final

from modelstore.cache.layout import size_on_disk
from modelstore.cache.owners import is_alive, parse_owner, this_process

if TYPE_CHECKING:
    from collections.abc import Callable

    from modelstore.cache.layout import Layout

__all__ = ["Partial"]

_FOREIGN_S: Final = 24 * 3600.0
"""Left-overs whose writer cannot be checked from here count as abandoned when nothing was written for so long."""


class Partial:
    """What a fetcher knows of the file it is to fill, and what it says about it.

    A fetcher that can resume reads `etag`: None means that the file is empty. If the origin still has that ETag, it
    continues at the file's size, hashing what is there already. Otherwise it truncates and, before its first byte,
    calls `begin`. One that cannot resume writes the file anew and ignores all this.

    Attributes:
        resumed: Whether the file holds what an earlier attempt left.
        total_bytes: The length of the object whose beginning the file holds; None when it is empty or that is unknown.
    """

    def __init__(self, layout: Layout, key: str, uri_key: bytes, on_begin: Callable[[int], None] | None = None) -> None:
        self._layout, self._key, self._uri = layout, key, uri_key.hex()
        self._on_begin = on_begin
        self._etag: str | None = None
        self.total_bytes: int | None = None
        self._described = ""  # the description that the file came with, until the fetcher shows that it knows of it
        self._resumable = False
        self.file = layout.path("partial", f"{key}.{this_process().token}.{os.urandom(8).hex()}")
        self.resumed = self._claim()
        if not self.resumed:
            os.close(os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666))
        # Remembered now: a fetcher that replaces the file by a private temporary must not change who can read it.
        self.mode = os.stat(self.file).st_mode & 0o666

    @property
    def etag(self) -> str | None:
        """The ETag of the object whose beginning the file holds; None when it is empty.

        Reading it is a promise to respect it. Only then may the file be continued once more: a fetcher that does not
        know of resuming may have put other bytes into it.
        """
        if self._described:
            try:
                os.replace(self._described, self.file + ".json")
            except FileNotFoundError:  # somebody found it without its file, which is ours, and tidied up
                self._describe()
            self._described, self._resumable = "", True
        return self._etag

    def begin(self, etag: str | None, total_bytes: int | None) -> None:
        """Record what the file is the beginning of; to be called while it is empty.

        Args:
            etag: What identifies the object's present content at its origin; None when the origin does not tell, and
                then the file is not continued later.
            total_bytes: The object's length; None when unknown. The cache makes room for it as far as it can.

        Raises:
            StorageFullError: There is no room even to write that down.
        """
        self._etag, self.total_bytes, self._resumable = etag, total_bytes, etag is not None
        self._describe()
        if self._on_begin is not None and total_bytes:
            self._on_begin(total_bytes)

    def _describe(self) -> None:
        known = {"uri": self._uri, "etag": self._etag, "total_bytes": self.total_bytes, "boot": this_process().boot}
        draft = self.file + ".json~"
        with open(draft, "w", encoding="utf-8") as file:
            json.dump(known, file)
        os.replace(draft, self.file + ".json")

    def written(self) -> int:
        """Return the bytes in the file; 0 if it is gone."""
        try:
            return os.stat(self.file).st_size
        except FileNotFoundError:
            return 0

    def give_back(self) -> None:
        """Leave the bytes for the next attempt, or delete them when nothing could be made of them."""
        if not self._resumable or not self.written():
            self.discard()
            return
        free = self._layout.path("partial", f"{self._key}.free.{os.urandom(8).hex()}")
        os.replace(self.file, free)
        os.replace(self.file + ".json", free + ".json")

    def discard(self) -> None:
        """Delete the bytes, and what is known of them."""
        for suffix in ("", ".json", ".json~"):
            self._layout.discard(self.file + suffix)
        if self._described:
            self._layout.discard(self._described)

    def _claim(self) -> bool:
        for name in left_over(self._layout, self._key):
            path = self._layout.path("partial", name)
            known = _read(path + ".json")
            # Not after a reboot: unsynced bytes may have become zeros, and then the digest would be that of the zeros.
            fits = known.get("uri") == self._uri and known.get("boot") == this_process().boot
            if not fits or not isinstance(known.get("etag"), str) or not _writable(path):
                continue
            try:
                os.rename(path, self.file)  # of several that try, one succeeds
            except OSError:
                continue
            self._described = path + ".json"
            total = known.get("total_bytes")
            self._etag, self.total_bytes = str(known["etag"]), total if isinstance(total, int) else None
            return True
        return False


def left_over(layout: Layout, key: str = "") -> list[str]:
    """Return the names in ``partial/`` that nobody is writing to any more, without their descriptions."""
    found = []
    for name in layout.names("partial"):
        owner = name.split(".")[1] if name.count(".") >= 2 else ""
        fits = not key or name.startswith(key + ".")
        if fits and not name.endswith((".json", ".json~")) and _abandoned(layout, name, owner):
            found.append(name)
    return found


def in_progress(layout: Layout, key: str) -> int:
    """Return the bytes that others have so far of what they are fetching under ``key``."""
    sizes = [0]
    for name in layout.names("partial"):
        if name.startswith(key + ".") and not name.endswith((".json", ".json~")):
            try:
                sizes.append(os.stat(layout.path("partial", name)).st_size)
            except FileNotFoundError:
                continue
    return max(sizes)


def sweep(layout: Layout, older_than_s: float = 0.0) -> int:
    """Delete what was left in ``partial/`` and is older; return the bytes freed."""
    freed = 0
    names = set(left_over(layout))
    alone = {n for n in layout.names("partial") if n.endswith((".json", ".json~"))}
    for name in names | {n for n in alone if _without_file(layout, n)}:
        path = layout.path("partial", name)
        try:
            if time.time() - os.stat(path).st_mtime < older_than_s:
                continue
        except FileNotFoundError:
            continue
        freed += size_on_disk(path)
        for suffix in ("", ".json", ".json~"):
            layout.discard(path + suffix)
    return freed


def _without_file(layout: Layout, name: str) -> bool:
    stem = name.removesuffix("~").removesuffix(".json")
    owner = [*name.split("."), ""][1]
    return not os.path.exists(layout.path("partial", stem)) and _abandoned(layout, name, owner)


def _abandoned(layout: Layout, name: str, token: str) -> bool:
    if token == "free":  # noqa: S105 - no password
        return True
    owner = parse_owner(token)
    alive = None if owner is None else is_alive(owner)
    if alive is not None:
        return not alive
    try:
        return time.time() - os.stat(layout.path("partial", name)).st_mtime > _FOREIGN_S
    except FileNotFoundError:
        return False


def _read(path: str) -> dict[str, object]:
    try:
        with open(path, encoding="utf-8") as file:
            known = json.load(file)
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _writable(path: str) -> bool:
    """Tell whether a left-over is ours to continue: only its owner can make the finished file read-only."""
    try:
        stat = os.stat(path)
    except FileNotFoundError:
        return False
    return stat.st_uid == os.geteuid() and stat.st_size > 0

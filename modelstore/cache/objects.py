"""Finding, checking, publishing and withdrawing cached files."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from modelstore.cache.index import add_entry, put_file, put_uri, rows
from modelstore.cache.layout import digest_of, entry_of, file_name, sync_file, sync_folder
from modelstore.cache.steps import step
from modelstore.errors import BlobNotFoundError, StorageUnavailableError
from modelstore.storage.fingerprints import copy_hashed, hash_file
from modelstore.storage.uris import redact

if TYPE_CHECKING:
    import sqlite3

    from modelstore.cache.index import Index
    from modelstore.cache.layout import Layout
    from modelstore.cache.leases import Leases
    from modelstore.cache.partials import Partial
    from modelstore.storage.fingerprints import Fingerprint

__all__ = ["Ask", "Found", "Objects"]


_TRIES: Final = 16
"""How many wrong or vanished copies are dealt with before the bytes are fetched whatever else lies there."""


class Ask:
    """What one call of `fetch` asks for, worked out once.

    Attributes:
        uri: As given.
        key: sha256 of the URI; what the index knows it by.
        expected: The digest that the bytes must have, or None.
        filename: The name asked for, or None.
        name: The name that the file handed out has.
        force: Whether what is cached does not count.
    """

    __slots__ = ("expected", "filename", "force", "key", "name", "uri")

    def __init__(self, uri: str, expected: str | None, filename: str | None, *, force: bool = False) -> None:
        self.uri, self.expected, self.filename, self.force = uri, expected, filename, force
        self.key = hashlib.sha256(uri.encode("utf-8", "surrogatepass")).digest()
        self.name = file_name(uri, filename)

    def lock_name(self) -> str:
        """Return the name under which this URI is locked and its unfinished downloads are kept."""
        import xxhash

        return str(xxhash.xxh3_128_hexdigest(self.uri.encode("utf-8", "surrogatepass")))

    def shown(self) -> str:
        """Return the URI without its secrets, fit for the index."""
        return redact(self.uri.encode("utf-8", "backslashreplace").decode())


@dataclass(slots=True)
class Found:
    """A file of the cache, as the index knows it; ``inode`` 0 says that its bytes are not known to be right."""

    entry: str
    name: str
    size: int
    etag: str | None
    inode: int
    mtime_ns: int

    @property
    def digest(self) -> str:
        """The digest of the bytes."""
        return digest_of(self.entry)


class Objects:
    """The files of one cache. Safe for threads and processes: what matters happens in transactions of the index."""

    def __init__(self, layout: Layout, index: Index, leases: Leases) -> None:
        self._layout, self._index, self._leases = layout, index, leases

    def path(self, found: Found) -> str:
        """Return the absolute path of a file."""
        return self._layout.path(found.entry, found.name)

    def look_up(self, ask: Ask, *, verify: bool = False) -> Found | None:
        """Return the file asked for, leased and known to be right; None when it has to be fetched.

        Args:
            ask: What is wanted.
            verify: Hash the bytes even where size, inode and modification time speak for them.
        """
        for _ in range(_TRIES):
            found = self._index.read(lambda db: self._find(db, ask))
            if found is None:
                return None
            current = found
            if not self._index.write(lambda db: self._hand_out(db, current)):  # noqa: B023 - runs at once
                return None
            if (self._matches(found) and not verify) or self._is_right(found):
                return found if found.name == ask.name else self._also_named(found, ask.name)
        return None

    def _find(self, db: sqlite3.Connection, ask: Ask) -> Found | None:
        """Find by URI; failing that, by the digest expected: another URI may have brought the same bytes."""
        known = rows(db, "SELECT entry, size, name, etag FROM uris JOIN entries USING(entry) WHERE key = ?", ask.key)
        if ask.expected is not None and (not known or digest_of(known[0][0]) != ask.expected):
            entry = entry_of("objects", ask.expected)
            found = rows(db, "SELECT entry, size FROM entries WHERE entry = ?", entry)
            known = [(*row, ask.name, None) for row in found]
        if not known:
            return None
        entry, size, name, etag = known[0]
        files = {row[0]: row for row in self._files(db, entry)}
        for candidate in (ask.name, name, *files):
            if candidate in files:
                return Found(entry, candidate, size, etag, *files[candidate][1:])
        return None

    def _files(self, db: sqlite3.Connection, entry: str) -> list[tuple[str, int, int]]:
        """Return names, inodes and times; from the disk when a crash came between rename and commit."""
        known = rows(db, "SELECT name, inode, mtime_ns FROM files WHERE entry = ? ORDER BY name", entry)
        return known or [(name, 0, 0) for name in sorted(self._layout.names(entry))]

    def _hand_out(self, db: sqlite3.Connection, found: Found) -> bool:
        # Evictions run in transactions as well: either the row is gone by now, or they will see the lease.
        if not rows(db, "SELECT 1 FROM entries WHERE entry = ?", found.entry):
            return False
        # Nothing is written to the index: hits go on working on a full disk. Its time of use is noted by the caller.
        self._leases.take(found.entry)
        return True

    def _matches(self, found: Found) -> bool:
        try:
            info = os.stat(self.path(found))
        except OSError:
            return False
        return (info.st_size, info.st_ino, info.st_mtime_ns) == (found.size, found.inode, found.mtime_ns)

    def _is_right(self, found: Found) -> bool:
        """Hash the file: if it is right, say so in the index; if not, quarantine it; if it is gone, forget it."""
        path = self.path(found)
        try:
            before = os.stat(path)
            fingerprint = hash_file(path)
            after = os.stat(path)
        except (FileNotFoundError, BlobNotFoundError):
            self._index.write(lambda db: self._forget(db, found, lost=True))
            return False
        same = (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
        if same and fingerprint.digest == found.digest:
            found.inode, found.mtime_ns, found.size = after.st_ino, after.st_mtime_ns, after.st_size
            self._index.write(lambda db: self._believe(db, found, after))
            return True
        if same:
            self._index.write(lambda db: self._quarantine(db, found, after))
        return False

    @staticmethod
    def _believe(db: sqlite3.Connection, found: Found, info: os.stat_result) -> None:
        if rows(db, "SELECT 1 FROM entries WHERE entry = ?", found.entry):
            put_file(db, found.entry, found.name, info)
            db.execute("UPDATE entries SET size = ? WHERE entry = ?", (info.st_size, found.entry))

    def _quarantine(self, db: sqlite3.Connection, found: Found, wrong: os.stat_result) -> None:
        path = self.path(found)
        # Another process may have put the right bytes there meanwhile: only what was hashed is moved.
        try:
            now = os.stat(path)
        except FileNotFoundError:
            return
        if (now.st_ino, now.st_mtime_ns) != (wrong.st_ino, wrong.st_mtime_ns):
            return
        step("cache.quarantine.1")
        os.rename(path, self._layout.unique("quarantine", found.entry[-64:]))
        for name in self._layout.names(found.entry):
            other = self._layout.path(found.entry, name)
            if os.stat(other).st_ino == wrong.st_ino:  # another name for the same wrong bytes
                os.unlink(other)
                db.execute("DELETE FROM files WHERE entry = ? AND name = ?", (found.entry, name))
        step("cache.quarantine.2")
        self._forget(db, found, lost=False)

    def _forget(self, db: sqlite3.Connection, found: Found, *, lost: bool) -> None:
        if lost and os.path.exists(self.path(found)):
            return  # published again meanwhile
        db.execute("DELETE FROM files WHERE entry = ? AND name = ?", (found.entry, found.name))
        if not self._layout.names(found.entry):
            db.execute("DELETE FROM entries WHERE entry = ?", (found.entry,))

    def _also_named(self, found: Found, name: str) -> Found:
        """Give the file a second name in its folder: a hard link, so the bytes are stored once."""

        def job(db: sqlite3.Connection) -> None:
            copied = self._link(self.path(found), self._layout.path(found.entry, name))
            add_entry(db, found.entry, found.size)
            if copied:
                db.execute("UPDATE entries SET stored = stored + size WHERE entry = ?", (found.entry,))
            put_file(db, found.entry, name, os.stat(self._layout.path(found.entry, name)))

        self._index.write(job)
        info = os.stat(self._layout.path(found.entry, name))
        return Found(found.entry, name, found.size, found.etag, info.st_ino, info.st_mtime_ns)

    def _link(self, source: str, target: str) -> bool:
        """Make ``target`` hold the bytes of ``source``; return whether that took a copy."""
        draft = self._layout.unique("partial", "link")
        copied = False
        try:
            os.link(source, draft)
        except OSError:
            # No hard links here, or the kernel forbids them to files of other users.
            copy_hashed(source, draft)
            os.chmod(draft, os.stat(source).st_mode & 0o444)
            copied = True
        os.replace(draft, target)
        self._layout.discard(draft)  # a rename between two names of one file does nothing, and leaves both
        return copied

    def publish(self, ask: Ask, partial: Partial, fingerprint: Fingerprint, etag: str | None) -> Found:
        """Put a complete file in its place and hand it out; afterwards ``partial`` is gone.

        Killed anywhere, the file is either wholly there or not at all; at worst it is fetched or hashed once more.

        Raises:
            StorageFullError: The disk is full; nothing half is left.
            StorageUnavailableError: The cache was deleted meanwhile.
        """
        entry = entry_of("objects", fingerprint.digest)
        folder = self._layout.path(entry)
        try:
            # tests/cache/test_kills.py kills at each of these numbers.
            # 1. The bytes are durable before anything refers to them.
            step("cache.publish.1")
            past = time.time_ns() - 2_000_000_000
            os.chmod(partial.file, partial.mode & 0o444)
            # In the past: a later write in place then always changes it, however coarse the filesystem's clock.
            os.utime(partial.file, ns=(past, past))
            sync_file(partial.file)
            info = os.stat(partial.file)
            # 2. A row first: killed between rename and row, the bytes would be there with nothing to evict them.
            #    And the lease, so that nobody evicts the row again.
            step("cache.publish.2")
            self._index.write(lambda db: self.announce(db, entry, info.st_size))
            # 3. The folder, for which there is a lease.
            step("cache.publish.3")
            os.makedirs(folder, exist_ok=True)
            # 4. to 6. in one transaction, see _place.
            self._index.write(lambda db: self._place(db, ask, partial.file, (entry, info, etag)))
            # 7. The names are durable.
            step("cache.publish.7")
            sync_folder(folder)
            sync_folder(os.path.dirname(folder))
            step("cache.publish.8")
        except FileNotFoundError as error:
            raise StorageUnavailableError(
                f"The cache {self._layout.root!r} was deleted while {redact(ask.uri)!r} was being fetched.",
                "Try again.",
            ) from error
        except Exception:
            # Perhaps it has its place already: with its first name back, all this can be done once more.
            with suppress(OSError):
                os.link(self._layout.path(entry, ask.name), partial.file)
            raise
        partial.discard()
        placed = os.stat(self._layout.path(entry, ask.name))
        return Found(entry, ask.name, placed.st_size, etag, placed.st_ino, placed.st_mtime_ns)

    def announce(self, db: sqlite3.Connection, entry: str, size: int) -> None:
        """Index an entry whose bytes are about to come, and lease it."""
        add_entry(db, entry, size)
        self._leases.take(entry)

    def _place(
        self, db: sqlite3.Connection, ask: Ask, draft: str, what: tuple[str, os.stat_result, str | None]
    ) -> None:
        entry, info, etag = what
        final = self._layout.path(entry, ask.name)
        add_entry(db, entry, info.st_size)
        kept = None if ask.force else self._good_copy(db, entry, info.st_size, ask.name)
        # 4. Into place; or what lies there already stays, for others may be reading it.
        step("cache.publish.4")
        copied = False
        if kept is None:
            if os.path.exists(draft) or not _is_file(final, info.st_ino):  # else: an earlier attempt got as far as that
                os.replace(draft, final)
            for name in self._layout.names(entry):
                if name != ask.name:
                    copied |= self._link(final, self._layout.path(entry, name))
                    put_file(db, entry, name, os.stat(self._layout.path(entry, name)))
        elif kept != ask.name:
            copied = self._link(self._layout.path(entry, kept), final)
        # 5. The rows that make it a hit.
        step("cache.publish.5")
        if copied:
            db.execute("UPDATE entries SET stored = stored + size WHERE entry = ?", (entry,))
        put_file(db, entry, ask.name, os.stat(final))
        put_uri(db, ask.key, ask.shown(), (entry, ask.name, etag))
        step("cache.publish.6")  # 6. Commit.

    def _good_copy(self, db: sqlite3.Connection, entry: str, size: int, preferred: str) -> str | None:
        """Return the name of a file of the entry that is known to be right, if there is one."""
        good = [
            name
            for name, inode, mtime_ns in rows(db, "SELECT name, inode, mtime_ns FROM files WHERE entry = ?", entry)
            if self._matches(Found(entry, name, size, None, inode, mtime_ns))
        ]
        return preferred if preferred in good else next(iter(sorted(good)), None)

    def check(self, entry: str) -> str:
        """Read all files of an entry in full; return ``ok``, ``corrupt`` or ``missing``, after dealing with it."""
        files: list[Any] = self._index.read(lambda db: self._files(db, entry))
        verdicts = []
        for name, inode, mtime_ns in files:
            there = os.path.exists(self._layout.path(entry, name))
            right = self._is_right(Found(entry, name, 0, None, inode, mtime_ns))
            verdicts.append("ok" if right else "corrupt" if there else "missing")
        if "corrupt" in verdicts:
            return "corrupt"
        if "ok" in verdicts:
            return "ok"
        if not files:
            self._index.write(lambda db: self._forget_empty(db, entry))
        return "missing"

    def _forget_empty(self, db: sqlite3.Connection, entry: str) -> None:
        if not self._layout.names(entry):
            db.execute("DELETE FROM entries WHERE entry = ?", (entry,))


def _is_file(path: str, inode: int) -> bool:
    try:
        return os.stat(path).st_ino == inode
    except FileNotFoundError:
        return False

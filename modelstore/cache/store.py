"""The cache itself: `Cache`."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from modelstore.cache.contents import check_all, describe, listing
from modelstore.cache.eviction import Evictor, Removal
from modelstore.cache.files import CachedFile
from modelstore.cache.layout import check_digest, entry_of, size_on_disk
from modelstore.cache.locks import KeyLock
from modelstore.cache.objects import Ask, Found
from modelstore.cache.partials import Partial, in_progress
from modelstore.cache.process import Memo, process_for
from modelstore.cache.steps import step
from modelstore.errors import (
    IntegrityError,
    InvalidRequestError,
    ModelStoreError,
    StorageFullError,
    StorageUnavailableError,
)
from modelstore.storage.failures import translated
from modelstore.storage.fingerprints import copy_hashed, hash_file
from modelstore.storage.uris import redact

if TYPE_CHECKING:
    from collections.abc import Callable

    from modelstore.cache.files import CacheEntry, CacheInfo, CheckReport, Download, Fetcher
    from modelstore.storage.fingerprints import Fingerprint, Progress

__all__ = ["Cache"]

T = TypeVar("T")

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_MOST_REMEMBERED: Final = 1 << 17
_EVERYTHING: Final = 1 << 62


class Cache:
    """A folder of verified local copies, shared by any number of threads, processes and users of this machine.

    Nothing is touched before the first call that needs the folder. Files are kept by what they hold: the same bytes
    behind ten URIs lie there once. Correctness does not depend on file locks; they only save double work.

    Args:
        folder: Where the cache lies; created when needed. Modes follow the umask: a group shares a cache by using
            umask 002 and a set-group-id folder.
        max_bytes: Bound on its content; None: half of what would be free on the disk without it; 0: nothing but what
            is in use. What live processes hold and what is pinned stays, even if that is more.
        min_free_bytes: What is to stay free on the disk; None: a fiftieth of it, at most 2 GiB; 0: nothing.
        index: The index database; None puts it into the folder. Where the folder is on a network filesystem, give each
            host its own on a local disk.
        locking: False takes no file locks, for filesystems where locking hangs or fails.

    Example:
        >>> cache = Cache(Path("/var/cache/models"))  # doctest: +SKIP
        >>> cache.fetch("s3://bucket/net.pt", fetcher).path  # doctest: +SKIP
        PosixPath('/var/cache/models/objects/sha256/3a/3a…/net.pt')
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        max_bytes: int | None = None,
        min_free_bytes: int | None = None,
        index: str | os.PathLike[str] | None = None,
        locking: bool = True,
    ) -> None:
        root = os.path.realpath(folder)
        self.folder = Path(root)
        self._locking = locking
        self._process = process_for(root, os.path.realpath(os.path.join(root, "cache.db") if index is None else index))
        self._layout, self._index = self._process.layout, self._process.index
        self._objects = self._process.objects
        self._memo = self._process.memo
        self._evictor = Evictor(self._layout, self._index, self._process.leases, max_bytes, min_free_bytes)

    def fetch(  # noqa: PLR0913 - one call, and everything after the fetcher is optional and by name
        self,
        uri: str,
        fetcher: Fetcher,
        *,
        expected: str | None = None,
        filename: str | None = None,
        force_download: bool = False,
        offline: bool = False,
        verify: bool = False,
        lock_timeout_s: float | None = 600.0,
        progress: Progress | None = None,
    ) -> CachedFile:
        """Return a complete, verified, read-only local file holding the bytes behind ``uri``.

        A hit touches no network and takes microseconds. Of any number of threads and processes that ask for one URI,
        one downloads and the others wait. A process killed at any point leaves nothing but an unfinished download,
        which the next one continues where the fetcher can. What this process was handed is not evicted before it ends
        or lets go.

        Within one process a URI keeps leading to what it first led to, until asked with ``force_download``, ``verify``
        or another ``expected``; that another process has since fetched something newer goes unnoticed.

        Args:
            uri: The cache's key, and what the fetcher is given; only shown without its secrets.
            fetcher: Brings the bytes when they are not there; not called otherwise.
            expected: Digest the bytes must have, ``sha256:<64 hex digits>``; None accepts what arrives and records it.
                With it, the same bytes fetched through another URI are a hit as well.
            filename: Name of the file, without folders; None takes the URI's last component.
            force_download: Fetch even if the bytes are there. Equal bytes keep their path; different ones get a new
                file, and the old one stays until it is evicted.
            offline: Do not call the fetcher.
            verify: Read the cached file in full and compare its digest; wrong bytes are quarantined and fetched again.
            lock_timeout_s: Longest wait for another downloader, seconds; 0 tries once, None waits for ever.
            progress: Called with the bytes done and the bytes in all (None while unknown); while another process
                downloads, with its progress.

        Raises:
            InvalidRequestError: ``expected`` or ``filename`` is malformed, or the options exclude each other.
            IntegrityError: The bytes differ from ``expected`` or the fetcher's count; the cache is left as it was.
            CacheBusyError: Another process was still downloading after ``lock_timeout_s``.
            StorageUnavailableError: Not in the cache, and ``offline`` was asked.
            StorageFullError: The disk is full, and eviction did not help; nothing half is left.
            ReadOnlyStorageError: The cache folder does not accept writes.
            Exception: What the fetcher raised.
        """
        memo = self._memo.get(uri)
        if memo is not None and not force_download and not verify and memo[0] == filename:
            try:
                info = os.stat(memo[1])
            except OSError:
                info = None
            if (
                info is not None
                and info.st_mtime_ns == memo[4]
                and info.st_ino == memo[3]
                and info.st_size == memo[2]
                and (expected is None or expected == memo[6].digest)
            ):
                process = self._process
                process.touched[memo[5]] = now = time.monotonic()
                if now > process.next_flush:
                    process.flush()
                return memo[6]
        if force_download and offline:
            raise InvalidRequestError("force_download needs the network, and offline forbids it.", "Drop one of them.")
        if expected is not None:
            check_digest(expected)
        ask = Ask(uri, expected, filename, force=force_download)
        return self._fetch(ask, fetcher, offline=offline, verify=verify, wait_s=lock_timeout_s, progress=progress)

    def _fetch(
        self,
        ask: Ask,
        fetcher: Fetcher,
        *,
        offline: bool,
        verify: bool,
        wait_s: float | None,
        progress: Progress | None,
    ) -> CachedFile:
        found = self._look_up(ask, verify=verify)
        if found is not None:
            return self._remember(ask, found, fetched=False)
        if offline:
            raise StorageUnavailableError(
                f"{redact(ask.uri)!r} is not in the cache, and the call was to stay offline.", "Fetch it while online."
            )
        name = ask.lock_name()
        ready: list[Found] = []
        seen: tuple[int, ...] | None = None

        def done() -> bool:
            nonlocal seen
            if progress is not None:
                progress(in_progress(self._layout, name), None)
            # Many wait beside one that works; a stat leaves it the processors and their caches, a query does not.
            stamp = self._index.stamp()
            if stamp == seen:
                return False
            seen = stamp
            hit = self._look_up(ask)
            ready.extend([hit] if hit is not None else [])
            return hit is not None

        with translated(self._layout.root, writing=True):
            self._layout.make()
            lock = KeyLock(self._layout.path("locks", name), wait_s, done=done, enabled=self._locking)
        with lock as to_do:
            # 1. The lock is held. Whoever held it before may have done the work.
            step("cache.fetch.1")
            hit = self._look_up(ask) if to_do else ready[0]
            if hit is not None:
                return self._remember(ask, hit, fetched=False)
            found = self._download(ask, name, fetcher, progress)
        self._evictor.make_room()
        return self._remember(ask, found, fetched=True)

    def _look_up(self, ask: Ask, *, verify: bool = False) -> Found | None:
        if ask.force:
            return None
        with translated(self._layout.root, writing=True):
            return self._objects.look_up(ask, verify=verify)

    def _download(self, ask: Ask, name: str, fetcher: Fetcher, progress: Progress | None) -> Found:
        need_bytes = 0

        def bring() -> tuple[Partial, Download]:
            nonlocal need_bytes
            # 2. A file of our own, perhaps with the beginning that a dead process left.
            step("cache.fetch.2")
            partial = Partial(self._layout, name, ask.key, self._evictor.make_room)
            try:
                return partial, fetcher(ask.uri, Path(partial.file), partial=partial, progress=progress)
            except BaseException as error:
                if _is_full(error):
                    need_bytes = partial.total_bytes or 0
                    partial.discard()
                else:
                    partial.give_back()
                raise

        self._evictor.make_room()
        while True:
            partial, download = self._with_room(ask.uri, bring, lambda: need_bytes)
            # 3. The bytes are there: are they the right ones?
            step("cache.fetch.3")
            wrong = _mismatch(partial, download.fingerprint, ask.expected)
            if wrong is None:
                break
            partial.discard()
            if not partial.resumed:
                raise IntegrityError(
                    f"{redact(ask.uri)!r} {wrong}.", "The cache was left as it was; the origin has changed."
                )
            # A beginning left by a dead process was wrong; from nothing it may come out right.
        return self._publish(ask, partial, download.fingerprint, download.etag)

    def _publish(self, ask: Ask, partial: Partial, fingerprint: Fingerprint, etag: str | None) -> Found:
        try:
            with translated(self._layout.root, writing=True):
                return self._with_room(
                    ask.uri,
                    lambda: self._objects.publish(ask, partial, fingerprint, etag),
                    lambda: fingerprint.size,
                )
        finally:
            partial.discard()

    def _with_room(self, uri: str, action: Callable[[], T], need_bytes: Callable[[], int] = lambda: 0) -> T:
        """Run ``action``; when the disk is full, evict and run it once more."""
        try:
            return action()
        except (OSError, StorageFullError) as error:
            if not _is_full(error):
                raise
        # How much it takes is not known when the fetcher did not say: then all that nobody holds goes.
        self._evictor.reclaim(need_bytes() or _EVERYTHING)
        try:
            return action()
        except (OSError, StorageFullError) as error:
            if not _is_full(error):
                raise
            raise StorageFullError(
                f"No space is left in the cache {self._layout.root!r} for {redact(uri)!r}, and nothing more to evict.",
                "Free some space, or choose another cache folder.",
            ) from error

    def _remember(self, ask: Ask, found: Found, *, fetched: bool) -> CachedFile:
        path = self._objects.path(found)
        self._process.touched[found.entry] = time.monotonic()
        file = CachedFile(Path(path), found.digest, found.size, found.etag)
        if len(self._memo) >= _MOST_REMEMBERED:
            self._memo.clear()
        self._memo[ask.uri] = Memo(ask.filename, path, found.size, found.inode, found.mtime_ns, found.entry, file)
        return CachedFile(file.path, file.digest, file.size, file.etag, fetched=True) if fetched else file

    def extracted(
        self,
        digest: str,
        archive: str | os.PathLike[str],
        extract: Callable[[Path, Path], object],
        *,
        verify: bool = False,
        lock_timeout_s: float | None = 600.0,
    ) -> Path:
        """Return a folder with the content of an archive, extracted once per digest; complete or absent, never half.

        Its files are read-only. One that was changed or removed since is noticed at a process's first use, and the
        archive is extracted again. What this process was handed is not evicted before it ends or lets go.

        Args:
            digest: Of the archive: ``sha256:<64 hex digits>``.
            archive: A local file with these bytes, from `fetch` or elsewhere.
            extract: Called with the archive and an empty folder to fill; must refuse unsafe members.
            verify: Compare all files by their bytes.
            lock_timeout_s: Longest wait for another process that extracts it, seconds; 0 tries once, None is for ever.

        Raises:
            InvalidRequestError: ``digest`` is malformed.
            UnsafeArchiveError: The archive holds something that is neither a file nor a folder.
            CacheBusyError: Another process was still extracting after ``lock_timeout_s``.
            StorageFullError: The disk is full, and eviction did not help; nothing half is left.
            Exception: What ``extract`` raised.
        """
        entry = entry_of("trees", check_digest(digest))
        folders = self._process.folders
        hit = None if verify else folders.remembered(entry)
        if hit is not None:
            self._process.touched[entry] = time.monotonic()
            return hit
        with translated(self._layout.root, writing=True):
            hit = folders.look_up(entry, verify=verify)
            if hit is not None:
                self._process.touched[entry] = time.monotonic()
                return hit
            self._layout.make()
        lock = KeyLock(
            self._layout.path("locks", entry[-64:]), lock_timeout_s, enabled=self._locking,
            done=lambda: folders.look_up(entry) is not None,
        )  # fmt: skip
        with lock as to_do:
            hit = folders.look_up(entry, verify=verify and to_do)
            if hit is None:
                self._evictor.make_room()
                hit = self._with_room(
                    os.fspath(archive), lambda: folders.make(entry, Path(archive), extract, replace=verify)
                )
        self._evictor.make_room()
        return hit

    def adopt(
        self,
        path: str | os.PathLike[str],
        uri: str,
        *,
        expected: str | None = None,
        filename: str | None = None,
        move: bool = False,
    ) -> CachedFile:
        """Take a local file into the cache as what lies behind ``uri``, for instance what was just uploaded there.

        Args:
            path: The file.
            uri: What later calls of `fetch` will ask for.
            expected: As for `fetch`.
            filename: As for `fetch`.
            move: Move the file instead of copying it; it must not be open for writing anywhere.

        Raises:
            BlobNotFoundError: There is no such file.
            IntegrityError: Its bytes differ from ``expected``.
            StorageFullError: The disk is full, and eviction did not help; nothing half is left.
        """
        ask = Ask(uri, None if expected is None else check_digest(expected), filename)
        with translated(self._layout.root, writing=True):
            self._index.read(lambda db: db.total_changes)  # makes the folder
            self._evictor.make_room(size_on_disk(os.fspath(path)))
            partial = Partial(self._layout, "adopted", ask.key)
            try:
                fingerprint = self._with_room(uri, lambda: _take_in(path, partial.file, move=move))
                wrong = _mismatch(partial, fingerprint, ask.expected)
                if wrong is not None:
                    raise IntegrityError(f"{os.fspath(path)!r} {wrong}.", "The cache was left as it was.")
                found = self._publish(ask, partial, fingerprint, None)
            finally:
                partial.discard()
        if move:
            self._layout.discard(os.fspath(path))
        return self._remember(ask, found, fetched=True)

    def release(self, digest: str) -> None:
        """Let go of a file or folder: this process no longer uses what it was handed under that digest.

        It may then be evicted. Applies to the whole process: other threads' paths are let go as well.

        Raises:
            InvalidRequestError: ``digest`` is malformed.
        """
        text = check_digest(digest)
        for kind in ("objects", "trees"):
            entry = entry_of(kind, text)
            for uri in [uri for uri, memo in list(self._memo.items()) if memo.entry == entry]:
                self._memo.pop(uri, None)
            self._process.folders.memo.pop(entry, None)
            self._index.write(lambda _, entry=entry: self._process.leases.drop(entry))  # type: ignore[misc]

    def pin(self, digest: str) -> None:
        """Keep an object and its extracted folder whatever the bounds; also before it is there.

        Raises:
            InvalidRequestError: ``digest`` is malformed.
            ReadOnlyStorageError: The cache folder does not accept writes.
        """
        path = self._layout.path("pins", check_digest(digest)[-64:])
        with translated(self._layout.root, writing=True):
            self._layout.make()
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666))

    def unpin(self, digest: str) -> None:
        """Undo `pin`; something that is not pinned is fine.

        Raises:
            InvalidRequestError: ``digest`` is malformed.
        """
        self._layout.discard(self._layout.path("pins", check_digest(digest)[-64:]))

    def info(self) -> CacheInfo:
        """Return sizes and counts; reads the index and lists unfinished downloads, not the cache.

        Raises:
            StorageError: The index cannot be read.
        """
        return describe(self._process, self._evictor.limit_bytes)

    def ls(self) -> list[CacheEntry]:
        """Return the entries, the one used last first.

        Raises:
            StorageError: The index cannot be read.
        """
        return listing(self._process)

    def verify(self) -> CheckReport:
        """Read the whole cache, quarantine what is wrong, forget what is gone, take in what was unknown.

        The one operation that walks over the folder; takes as long as hashing it.

        Raises:
            StorageError: The index or the folder cannot be read.
        """
        with translated(self._layout.root, writing=True):
            return check_all(self._process)

    def prune(self, max_bytes: int | None = None, *, dry_run: bool = False) -> Removal:
        """Remove what was used longest ago until the cache is within its bounds; and left-overs of killed processes.

        What live processes hold and what is pinned stays. Plans from the index, without looking at the folder.

        Args:
            max_bytes: What may stay; None for the cache's own bounds.
            dry_run: Only tell.

        Raises:
            StorageError: The index cannot be read or written.
        """
        self._process.flush()
        with translated(self._layout.root, writing=True):
            return self._evictor.prune(max_bytes, dry_run=dry_run)

    def clear(self, *, dry_run: bool = False) -> Removal:
        """Remove everything that no live process holds and that is not pinned.

        Args:
            dry_run: Only tell.

        Raises:
            StorageError: The index cannot be read or written.
        """
        return self.prune(0, dry_run=dry_run)

    def close(self) -> None:
        """Write down the times of last use and close the index; what was handed out stays in use."""
        self._process.flush()
        self._index.close()


def _take_in(path: str | os.PathLike[str], target: str, *, move: bool) -> Fingerprint:
    os.unlink(target)
    if move:
        try:
            os.link(path, target)
        except OSError:
            return copy_hashed(path, target)
        return hash_file(target)
    return copy_hashed(path, target)


def _mismatch(partial: Partial, fingerprint: Fingerprint, expected: str | None) -> str | None:
    if partial.written() != fingerprint.size:
        return f"arrived with {partial.written()} bytes where {fingerprint.size} were received"
    if expected is not None and fingerprint.digest != expected:
        return f"holds {fingerprint.digest}, and {expected} was expected"
    return None


def _is_full(error: BaseException) -> bool:
    return isinstance(error, StorageFullError) or (
        isinstance(error, OSError) and not isinstance(error, ModelStoreError) and error.errno in _FULL
    )

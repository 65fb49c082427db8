"""What the cache hands out and is handed: plain records, and the shape of a fetcher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from modelstore.cache.partials import Partial
    from modelstore.storage.fingerprints import Fingerprint, Progress

__all__ = ["CacheEntry", "CacheInfo", "CachedFile", "CheckReport", "Download", "Fetcher"]


class Download(Protocol):
    """What a fetcher returns: the fingerprint of the bytes that it wrote, and the origin's ETag if it has one."""

    @property
    def fingerprint(self) -> Fingerprint:
        """Size and digests, computed from the bytes as they went into the file."""

    @property
    def etag(self) -> str | None:
        """What identifies the object's present content at its origin."""


class Fetcher(Protocol):
    """Brings the bytes behind a URI into a file."""

    def __call__(self, uri: str, target: Path, /, *, partial: Partial, progress: Progress | None) -> Download:
        """Fill ``target``, a file that nobody else touches, with the bytes behind ``uri``.

        Args:
            uri: As given to `Cache.fetch`.
            target: Exists. Empty, or the beginning of the object whose ETag is ``partial.etag``.
            partial: See `Partial`; a fetcher that cannot resume truncates and ignores it.
            progress: To be called with bytes done and bytes in all; may be None.

        Raises:
            Exception: Reaches the caller of `Cache.fetch` as it is; after "no space left" it is called again.
        """


@dataclass(frozen=True, slots=True)
class CachedFile:
    """A complete, verified, read-only local file.

    Attributes:
        path: Absolute; stays at least until this process ends, or lets go of it with `Cache.release`.
        digest: ``sha256:`` and 64 hex digits.
        size: In bytes.
        etag: The origin's ETag when the bytes were fetched; None if it had none.
        fetched: Whether this call brought the bytes (True) or they were there (False).
    """

    path: Path
    digest: str
    size: int
    etag: str | None = None
    fetched: bool = False

    def __fspath__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One row of `Cache.ls`.

    Attributes:
        digest: Of the object, or of the archive that was extracted.
        kind: ``object`` or ``tree``.
        size: Bytes on disk.
        names: File names under which the object lies there; empty for a tree.
        uris: URIs that lead to it, without their secrets.
        created_at: When it came into the cache, UTC.
        last_used_at: When it was last used, UTC, to the minute.
        in_use: Whether a live process holds it.
        pinned: Whether it is pinned.
    """

    digest: str
    kind: str
    size: int
    names: tuple[str, ...]
    uris: tuple[str, ...]
    created_at: datetime
    last_used_at: datetime
    in_use: bool
    pinned: bool


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """What `Cache.info` tells. All sizes in bytes.

    Attributes:
        folder: Where the cache lies.
        objects: How many files.
        trees: How many extracted archives.
        bytes: Of both.
        limit_bytes: What the cache may hold at this moment.
        free_bytes: Free on the disk.
        partial_bytes: Downloads in progress, or interrupted and waiting to be continued.
        quarantine_bytes: Files that turned out to be wrong.
        in_use: Entries that live processes hold.
        pinned: Pinned digests.
    """

    folder: Path
    objects: int
    trees: int
    bytes: int
    limit_bytes: int
    free_bytes: int
    partial_bytes: int
    quarantine_bytes: int
    in_use: int
    pinned: int


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `Cache.verify` found, by digest; everything in it has been dealt with.

    Attributes:
        checked: How many entries were read in full.
        corrupt: Entries with wrong bytes: quarantined (objects) or removed (trees).
        missing: Entries whose bytes were gone: forgotten.
        found: Entries on disk that the index did not know: taken in after verification.
    """

    checked: int
    corrupt: tuple[str, ...]
    missing: tuple[str, ...]
    found: tuple[str, ...]

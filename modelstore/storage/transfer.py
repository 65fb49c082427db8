"""Bringing an object to this machine: whole, verified, and never half visible under its name."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelstore.errors import IntegrityError
from modelstore.storage.claims import claim
from modelstore.storage.downloads import Download, Resumable, check_size
from modelstore.storage.failures import translated
from modelstore.storage.fingerprints import Fingerprint, Progress, copy_hashed, hash_file
from modelstore.storage.objects import ObjectStore, fsync_folder
from modelstore.storage.retries import Patience
from modelstore.storage.uris import local_path, normalise, redact

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Address",
    "Download",
    "Fingerprint",
    "Progress",
    "Resumable",
    "copy_hashed",
    "download",
    "fetch",
    "fetch_object",
    "hash_file",
]


@dataclass(frozen=True, slots=True)
class Address:
    """Where the bytes of an object can be read.

    Attributes:
        uri: A path, or anything fsspec opens.
        options: The driver's own parameters, such as headers with credentials; never shown, never kept.
    """

    uri: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def fetch(self, store: ObjectStore, digest: str, filename: str, progress: Progress | None = None) -> Fingerprint:
        """Bring the bytes into a store; see `fetch_object`."""
        return fetch_object(store, self.uri, digest, filename, progress, storage_options=self.options)


def download(
    uri: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    storage_options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    expected_size: int | None = None,
    expected_digest: str | None = None,
    patience: Patience | None = None,
) -> Download:
    """Bring the bytes behind ``uri`` to the file ``target``, which appears complete and on disk, or not at all.

    Any number of processes may download to one target: each works on a file of its own, the last rename wins. A kill
    leaves a file whose name ends in ``.part``.

    Args:
        uri: Anything fsspec opens, or a path.
        target: Replaced if it exists; the folder above it is made.
        storage_options: The driver's own parameters.
        progress: Told now and then, from this thread.
        expected_size: In bytes; None accepts any.
        expected_digest: ``sha256:hex``; None accepts any.
        patience: How long to go on through failures; None for the default of `Patience`.

    Raises:
        BlobNotFoundError: There is nothing at ``uri``.
        IntegrityError: The bytes are not those expected.
        StorageUnavailableError: The origin failed for longer than we are patient.
        StorageFullError: The disk is full; nothing is left there.
        InvalidUriError, MissingDriverError: As `open_filesystem`.
    """
    final = Path(target)
    with translated(final, writing=True):
        final.parent.mkdir(parents=True, exist_ok=True)
    work = final.parent / f".{os.urandom(8).hex()}.part"
    # Killed at each of these by tests/storage/test_transfer.py::test_a_killed_download_leaves_no_target:
    # 1. the bytes arrive in a file of our own    2. it reaches the disk    3. it gets its name    4. so does that
    try:
        sys.audit("modelstore.step", "transfer.download.1")
        done = fetch(
            uri, work, storage_options=storage_options, progress=progress, expected_size=expected_size,
            patience=patience, to_be_synced=True,
        )  # fmt: skip
        if expected_digest is not None and done.fingerprint.digest != expected_digest:
            raise IntegrityError(f"{redact(uri)!r} has the digest {done.fingerprint.digest}, not {expected_digest}.")
        with translated(final, writing=True):
            sys.audit("modelstore.step", "transfer.download.2")
            fsync_file(work)
            sys.audit("modelstore.step", "transfer.download.3")
            work.replace(final)
            sys.audit("modelstore.step", "transfer.download.4")
            fsync_folder(final.parent)
    finally:
        work.unlink(missing_ok=True)
    return done


def fetch(  # noqa: PLR0913 - one call, and everything after the target is optional and by name
    uri: str | os.PathLike[str],
    target: Path,
    *,
    partial: Resumable | None = None,
    progress: Progress | None = None,
    storage_options: Mapping[str, Any] | None = None,
    expected_size: int | None = None,
    patience: Patience | None = None,
    to_be_synced: bool = False,
) -> Download:
    """Fill ``target``, a file that nobody else touches, with the bytes behind ``uri``; continue it if possible.

    While this runs, and after a kill, the file is the beginning of the object. It is not synced to disk.

    Args:
        uri: Anything fsspec opens, or a path.
        target: May exist. With ``partial`` its bytes are kept if the origin still has that ETag.
        partial: See `Resumable`; None begins anew.
        progress: Told now and then, from this thread.
        storage_options: The driver's own parameters.
        expected_size: In bytes; None accepts any.
        patience: How long to go on through failures; None for the default of `Patience`.
        to_be_synced: The caller will sync it: what comes from afar is written to the disk while more is on its way, so
            that this takes little then.

    Raises:
        StorageError: As `download`; what has arrived stays in the file.
    """
    source = local_path(uri)
    if source is not None:
        target.unlink(missing_ok=True)
        copied = copy_hashed(source, target, progress, durable=False)
        check_size(uri, expected_size, copied.size)
        return Download(copied, None, 0)
    whole = normalise(uri)
    from modelstore.storage.filling import Filling  # loads the network's half: 40 ms that local paths never pay
    from modelstore.storage.origins import open_origin

    with translated(whole):
        origin = open_origin(whole, storage_options)
        try:
            with translated(target, writing=True):
                descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                filling = Filling(origin, whole, target, descriptor, partial, progress, patience or Patience())
                return filling.run(expected_size, early_sync=to_be_synced)
            finally:
                os.close(descriptor)
        finally:
            origin.close()


def fetch_object(
    store: ObjectStore,
    uri: str | os.PathLike[str],
    digest: str,
    filename: str,
    progress: Progress | None = None,
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> Fingerprint:
    """Bring an object into a store: it appears there complete and verified, or not at all.

    What comes from a server that calls the content by its digest is continued after a kill, by whichever process asks
    for it next.

    Args:
        store: Where to.
        uri: Where from; anything fsspec opens, or a path.
        digest: ``sha256:hex`` that the bytes must have.
        filename: Its file name in the store.
        progress: Told now and then, from this thread.
        storage_options: The driver's own parameters.

    Raises:
        IntegrityError: The bytes are others.
        StorageError: As `download`, or as `ObjectStore.put`.
    """
    snapshot = store.temporary()
    claimed = None
    if local_path(uri) is None:
        kept = snapshot.with_name(f"fetch-{digest.removeprefix('sha256:')}")
        with suppress(OSError):  # where a filesystem has no locks, it is begun anew each time
            claimed = claim(kept, create=True)
        if claimed is not None:
            snapshot = kept
    partial = _Continued(digest)
    try:
        done = fetch(
            uri, snapshot, partial=partial, progress=progress, storage_options=storage_options, to_be_synced=True
        )
        if done.fingerprint.digest != digest:
            partial.resumable = False
            raise IntegrityError(f"{redact(uri)!r} has the digest {done.fingerprint.digest}, not {digest}.")
        with translated(snapshot, writing=True):
            sys.audit("modelstore.step", "transfer.object.1")
            fsync_file(snapshot)
        sys.audit("modelstore.step", "transfer.object.2")
        store.put(snapshot, done.fingerprint, filename)
    except BaseException:
        if claimed is None or not partial.resumable:
            snapshot.unlink(missing_ok=True)
        raise
    finally:
        if claimed is not None:
            os.close(claimed)
    return done.fingerprint


class _Continued:
    """What is known of the beginning of an object: its ETag, where that is its digest, and nothing otherwise."""

    def __init__(self, digest: str) -> None:
        self.etag: str | None = f'"{digest}"'
        self.total_bytes: int | None = None
        self.resumable = True

    def begin(self, etag: str | None, total_bytes: int | None) -> None:
        """See `Resumable`."""
        self.total_bytes = total_bytes
        self.resumable = etag == self.etag


def fsync_file(path: Path) -> None:
    """Return when the bytes of the file are on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

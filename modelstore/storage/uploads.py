"""Sending a file away: whole or not at all at its destination, checked there, never sent where it is already."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelstore.errors import BlobNotFoundError, IntegrityError, ReadOnlyStorageError, UploadError
from modelstore.storage.buckets import ATOMIC
from modelstore.storage.etags import etag_of
from modelstore.storage.failures import translated
from modelstore.storage.filesystems import open_filesystem
from modelstore.storage.fingerprints import copy_hashed, hash_file
from modelstore.storage.objects import fsync_folder, remote_object_uri
from modelstore.storage.retries import Patience
from modelstore.storage.uris import local_path, normalise, redact, scheme

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fsspec import AbstractFileSystem

    from modelstore.storage.fingerprints import Fingerprint, Progress
    from modelstore.storage.s3 import Checkpoint

__all__ = ["Upload", "abandon", "send_object", "upload", "upload_object"]


@dataclass(frozen=True, slots=True)
class Upload:
    """What is at the destination now.

    Attributes:
        uri: Its address.
        size: In bytes.
        etag: What identifies its content there; None if nothing does.
        sent_bytes: How many were sent; 0 when it was there already.
    """

    uri: str
    size: int
    etag: str | None
    sent_bytes: int


def upload(
    path: str | os.PathLike[str],
    uri: str | os.PathLike[str],
    *,
    fingerprint: Fingerprint | None = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    patience: Patience | None = None,
) -> Upload:
    """Send a file to ``uri``, replacing what is there, and return what the destination says it has.

    Readers of ``uri`` see the old object or the whole new one. Until this returns nothing is certain; when it has,
    the size was checked at the destination, and the content by what the destination computes itself (its ETag on
    S3, its checksum on Google's), or by reading back on a local disk.

    Args:
        path: Must not change meanwhile; a snapshot.
        uri: Anything that can be written to; folders on the way are made.
        fingerprint: Of the file, if known; a local copy is compared with it.
        storage_options: The driver's own parameters.
        progress: Told now and then, from any thread.
        checkpoint: Lets another process continue after a crash, where the storage can do that; None does not.
        patience: How long to go on through failures.

    Raises:
        BlobNotFoundError: There is no such file.
        ReadOnlyStorageError: The destination does not accept writes.
        StorageFullError: It is full.
        UploadError: What arrived is not what was sent.
        StorageUnavailableError: The destination failed for longer than we are patient.
    """
    with translated(path):
        size = os.stat(path).st_size
    target = local_path(uri)
    if target is not None:
        return _place_locally(Path(path), target, fingerprint, progress)
    whole = normalise(uri)
    if scheme(whole) in {"http", "https"}:
        raise ReadOnlyStorageError(f"{redact(whole)!r} can be read but not written to.", "Choose another destination.")
    with translated(whole, writing=True):
        fs, key = open_filesystem(whole, storage_options)
        left = (patience or Patience()).fresh()
        while True:
            try:
                etag = _send(os.fspath(path), fs, key, whole, size, progress, checkpoint, left)
                return _check(fs, key, whole, size, etag)
            except Exception as error:
                if not left.after(error):
                    raise


def upload_object(
    snapshot: str | os.PathLike[str],
    fingerprint: Fingerprint,
    destination: str,
    filename: str,
    *,
    storage_options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> str:
    """Send a content to its own address below ``destination``, unless it is there already, and return that address.

    As `send_object`, which tells more.

    Raises:
        StorageError: As `upload`.
    """
    return send_object(
        snapshot, fingerprint, destination, filename, storage_options=storage_options, progress=progress,
        checkpoint=checkpoint,
    ).uri  # fmt: skip


def send_object(  # noqa: PLR0913 - four things to say, the rest by name
    snapshot: str | os.PathLike[str],
    fingerprint: Fingerprint,
    destination: str,
    filename: str,
    *,
    etag: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    patience: Patience | None = None,
) -> Upload:
    """Send a content to its own address below ``destination``, unless it is there already.

    The address holds the digest and objects appear there whole, so an object of the right size is the object. On a
    local disk its bytes are compared as well.

    Args:
        snapshot: A file with exactly these bytes.
        fingerprint: Of these bytes.
        destination: A folder, path or URI.
        filename: The last component wanted; see `sanitise_filename`.
        etag: What the destination is known to have called this content; another one there means that it was
            replaced by something else, and it is sent again.
        storage_options: The driver's own parameters.
        progress: Told now and then, from any thread.
        checkpoint: See `upload`.
        patience: See `upload`.

    Raises:
        StorageError: As `upload`.
    """
    uri = remote_object_uri(destination, fingerprint.digest, filename)
    there = _present(uri, fingerprint, etag, storage_options)
    if there is not None:
        return there
    return upload(
        snapshot, uri, fingerprint=fingerprint, storage_options=storage_options, progress=progress,
        checkpoint=checkpoint, patience=patience,
    )  # fmt: skip


def abandon(uri: str, state: str) -> None:
    """Delete what an unfinished upload to ``uri`` has left there, by what its checkpoint was given; gone is fine.

    Raises:
        StorageUnavailableError: The destination does not answer.
    """
    if scheme(uri) not in {"s3", "s3a"}:
        return
    from modelstore.storage.s3 import abort

    with translated(uri, writing=True):
        abort(*open_filesystem(uri), state)


def _present(
    uri: str, fingerprint: Fingerprint, etag: str | None, storage_options: Mapping[str, Any] | None
) -> Upload | None:
    path = local_path(uri)
    try:
        if path is not None:
            with translated(uri):
                same = path.stat().st_size == fingerprint.size and hash_file(path).sha256 == fingerprint.sha256
            return Upload(uri, fingerprint.size, None, 0) if same else None
        with translated(uri):
            fs, key = open_filesystem(uri, storage_options)
            fs.invalidate_cache()
            info = fs.info(key)
    except BlobNotFoundError:
        return None
    found = etag_of(info)
    if info.get("size") != fingerprint.size or info.get("type") == "directory":
        return None
    return Upload(uri, fingerprint.size, found, 0) if etag is None or etag == found else None


def _place_locally(source: Path, target: Path, fingerprint: Fingerprint | None, progress: Progress | None) -> Upload:
    work = target.parent / f".{os.urandom(8).hex()}.part"
    # Killed at each of these by tests/storage/test_uploads.py::test_a_killed_local_upload_leaves_the_old_or_the_new:
    # 1. a copy under a name of our own, on disk    2. it gets its name    3. that reaches the disk
    with translated(target, writing=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        sys.audit("modelstore.step", "uploads.place.1")
        copied = copy_hashed(source, work, progress)
        try:
            if fingerprint is not None and copied.sha256 != fingerprint.sha256:
                raise IntegrityError(f"{str(source)!r} changed before it was stored.", "Store it again.")
            sys.audit("modelstore.step", "uploads.place.2")
            work.replace(target)
        except BaseException:
            work.unlink(missing_ok=True)
            raise
        sys.audit("modelstore.step", "uploads.place.3")
        fsync_folder(target.parent)
    return Upload(normalise(target), copied.size, None, copied.size)


def _send(  # noqa: PLR0913, PLR0917 - called in one place
    path: str,
    fs: AbstractFileSystem,
    key: str,
    uri: str,
    size: int,
    progress: Progress | None,
    checkpoint: Checkpoint | None,
    patience: Patience,
) -> str | None:
    if scheme(uri) in {"s3", "s3a"}:
        from modelstore.storage.s3 import send_to_s3

        try:
            return send_to_s3(path, fs, key, size=size, progress=progress, checkpoint=checkpoint, patience=patience)
        except NotImplementedError:
            pass  # through the driver, as any other
    callback = _callback(progress, size)
    if scheme(uri) in ATOMIC:
        fs.put_file(path, key, callback=callback)
        return None
    parent, _, _ = key.rpartition("/")
    if parent:
        fs.makedirs(parent, exist_ok=True)
    work = f"{parent}/.{os.urandom(8).hex()}.part" if parent else f".{os.urandom(8).hex()}.part"
    try:
        fs.put_file(path, work, callback=callback)
        fs.invalidate_cache()
        if (arrived := fs.info(work).get("size")) not in {size, None}:
            raise UploadError(f"{arrived} bytes of {size} arrived at {redact(uri)!r}.")
        _rename(fs, work, key)
    except BaseException:
        _try_to_remove(fs, work)
        raise
    return None


def _rename(fs: AbstractFileSystem, work: str, key: str) -> None:
    move = getattr(getattr(fs, "client", None), "move", None)
    if move is not None:
        # WebDAV: the driver's own mv copies, then deletes, and never replaces.
        move(work, key, overwrite=True)
        return
    try:
        fs.mv(work, key)
    except (OSError, ValueError):
        # Servers whose rename does not replace (SFTP before version 5, some FTP): only then is there a gap.
        if not fs.exists(key):
            raise
        fs.rm_file(key)
        fs.mv(work, key)


def _try_to_remove(fs: AbstractFileSystem, work: str) -> None:
    try:
        fs.rm_file(work)
    except Exception as error:  # noqa: BLE001 - the failure that led here is the one to be told
        import logging

        logging.getLogger("modelstore.storage").debug("left behind: %s (%s)", redact(work), type(error).__name__)


def _callback(progress: Progress | None, size: int) -> Any:
    from fsspec.callbacks import Callback

    class Told(Callback):  # type: ignore[misc] # fsspec has no types
        def call(self, hook_name: str | None = None, **kwargs: Any) -> None:  # noqa: ARG002
            if progress is not None:
                progress(min(self.value, size), size)

    return Told(size=size)


def _check(fs: AbstractFileSystem, key: str, uri: str, size: int, etag: str | None) -> Upload:
    fs.invalidate_cache()
    info = fs.info(key)
    if info.get("size") != size:
        raise UploadError(f"{redact(uri)!r} has {info.get('size')} bytes after {size} were sent.", "Send it again.")
    return Upload(uri, size, etag_of(info) or etag, size)

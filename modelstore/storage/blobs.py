"""Single objects anywhere: is it there, how long, delete it, open it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from modelstore.errors import BlobNotFoundError, ReadOnlyStorageError
from modelstore.storage.etags import etag_of
from modelstore.storage.failures import translated
from modelstore.storage.filesystems import open_filesystem
from modelstore.storage.retries import retrying
from modelstore.storage.uris import local_path, normalise, redact, scheme

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Stat", "delete", "exists", "open_file", "stat"]


@dataclass(frozen=True, slots=True)
class Stat:
    """What a storage tells about an object.

    Attributes:
        size: In bytes; None if it does not say.
        etag: What identifies the content there; None if nothing does.
    """

    size: int | None
    etag: str | None


def stat(uri: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> Stat:
    """Return the size and ETag of one object, asked of its storage now.

    Raises:
        BlobNotFoundError: There is nothing, or a folder.
        StorageUnavailableError: The storage does not answer.
        InvalidUriError, MissingDriverError: As `open_filesystem`.
    """
    path = local_path(uri)
    if path is not None:
        with translated(uri):
            if path.is_dir():
                raise BlobNotFoundError(f"{str(path)!r} is a folder, not a file.")
            return Stat(path.stat().st_size, None)
    whole = normalise(uri)
    with translated(whole):
        if scheme(whole) in {"http", "https"}:
            from modelstore.storage.origins import open_origin

            origin = open_origin(whole, storage_options)
            try:
                retrying(origin.look)
                return Stat(origin.size, origin.etag)
            finally:
                origin.close()
        fs, key = open_filesystem(whole, storage_options)
        fs.invalidate_cache()
        info = retrying(lambda: fs.info(key))
        if info.get("type") == "directory":
            raise BlobNotFoundError(f"{redact(whole)!r} is a folder, not a file.")
        return Stat(info.get("size"), etag_of(info))


def exists(uri: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> bool:
    """Tell whether there is an object at ``uri``.

    Raises:
        StorageUnavailableError: The storage does not answer, or refuses to: that is no "no".
    """
    try:
        stat(uri, storage_options)
    except BlobNotFoundError:
        return False
    return True


def delete(uri: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> bool:
    """Delete one object; False if it was not there.

    Raises:
        ReadOnlyStorageError: The storage does not let us.
        StorageUnavailableError: The storage does not answer.
    """
    path = local_path(uri)
    whole = normalise(uri)
    if scheme(whole) in {"http", "https"}:
        raise ReadOnlyStorageError(f"{redact(whole)!r} can be read but not deleted.")
    try:
        with translated(whole, writing=True):
            if path is not None:
                path.unlink()
                return True
            stat(whole, storage_options)  # object stores delete what is not there without a word
            fs, key = open_filesystem(whole, storage_options)
            retrying(lambda: fs.rm_file(key))
            fs.invalidate_cache()
    except BlobNotFoundError:
        return False
    return True


def open_file(uri: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> IO[bytes]:
    """Return a seekable binary file over the object, read as it is used and not downloaded as a whole.

    Nothing is verified: what is read is what the storage sends. It is all of one version, where the storage tells
    versions apart.

    Raises:
        BlobNotFoundError: There is nothing at ``uri``.
        IntegrityError: While reading: the object was replaced since this was opened.
        StorageUnavailableError: The storage does not answer.
    """
    path = local_path(uri)
    if path is not None:
        with translated(uri):
            return path.open("rb")
    whole = normalise(uri)
    from modelstore.storage.reading import open_remote  # with the network's half, which local paths never pay for

    return open_remote(*open_filesystem(whole, storage_options), whole)

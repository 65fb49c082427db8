"""Objects read where they are, as files: failures in our own terms, and never bytes of two versions."""

from __future__ import annotations

import errno
import io
import os
from typing import IO, TYPE_CHECKING, Any, Final

from modelstore.errors import IntegrityError
from modelstore.storage.etags import etag_of
from modelstore.storage.failures import translated
from modelstore.storage.origins import ChangedError
from modelstore.storage.uris import redact

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = ["open_remote"]

_BUFFER: Final = 1 << 16
_MOST_AHEAD: Final = 1 << 22


def open_remote(fs: AbstractFileSystem, path: str, uri: str) -> IO[bytes]:
    """Return a seekable binary file over an object; once that is replaced, reading from the storage is an error.

    Args:
        fs: Any driver.
        path: In it.
        uri: What errors name.
    """
    with translated(uri):
        version = None if _compares_itself(fs) else _current_version(fs, path)
        return io.BufferedReader(_RemoteFile(fs, path, uri, version, fs.open(path, "rb")), _BUFFER)


class _RemoteFile(io.RawIOBase):
    """A driver's file. Where the driver itself does not compare versions, that is done after every block it brings.

    Blocks grow while they are read one after another: there are not many comparisons then, and no more than was asked
    for is read where a header is all that is wanted.
    """

    def __init__(
        self, fs: AbstractFileSystem, path: str, uri: str, version: tuple[str, int | None] | None, inner: IO[bytes]
    ) -> None:
        super().__init__()
        self._fs = fs  # kept: an archive's filesystem closes what it reads from when nobody needs it
        self._path, self._uri = path, uri
        self._version, self._inner = version, inner
        self._ahead = memoryview(b"")
        self._step = _BUFFER

    @property
    def name(self) -> str:
        """The path: how an archive is compressed is guessed from its end."""
        return self._path

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = self.tell()
        if whence == io.SEEK_CUR:
            offset, whence = position + offset, io.SEEK_SET
        if whence == io.SEEK_SET and 0 <= offset - position <= len(self._ahead):
            # Readers of archives say before each read where they are already.
            self._ahead = self._ahead[offset - position :]
            return offset
        self._ahead, self._step = memoryview(b""), _BUFFER
        with translated(self._uri):
            try:
                return self._inner.seek(offset, whence)
            except ValueError as error:  # before the beginning: drivers say it like this, files like that
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL)) from error

    def tell(self) -> int:
        return self._inner.tell() - len(self._ahead)

    def readinto(self, buffer: Any) -> int:
        with translated(self._uri):
            try:
                block = self._read(len(buffer))
            except OSError as error:
                if not isinstance(error, ChangedError) and type(error).__name__ != "FileExpired":  # the latter: s3fs
                    raise
                raise IntegrityError(
                    f"{redact(self._uri)!r} changed while it was being read.", "Open it again, or fetch all of it."
                ) from error
        buffer[: len(block)] = block
        return len(block)

    def _read(self, count: int) -> bytes | memoryview:
        if self._version is None:
            return self._inner.read(count)
        if not self._ahead:
            block = self._inner.read(max(count, self._step))
            self._step = min(2 * self._step, _MOST_AHEAD)
            if _current_version(self._fs, self._path) != self._version:
                raise ChangedError
            self._ahead = memoryview(block)
        ready, self._ahead = self._ahead[:count], self._ahead[count:]
        return ready

    def close(self) -> None:
        if not self.closed:
            self._inner.close()
        super().close()


def _compares_itself(fs: AbstractFileSystem) -> bool:
    """Tell whether the driver compares the ETag of every answer: ours for the web, and s3fs where it was told to."""
    return bool(getattr(fs, "compares_versions", False) or getattr(fs, "local_expiry_check", False))


def _current_version(fs: AbstractFileSystem, path: str) -> tuple[str, int | None] | None:
    fs.invalidate_cache()
    info = fs.info(path)
    etag = etag_of(info)
    return None if etag is None else (etag, info.get("size"))

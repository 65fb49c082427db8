"""Where bytes come from: one shape for web servers and for everything that fsspec reads."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from modelstore.storage.etags import etag_of
from modelstore.storage.filesystems import open_filesystem
from modelstore.storage.uris import scheme, split_chain
from modelstore.storage.webclient import HttpStatusError, Response, TruncatedError, WebClient

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from http.client import HTTPMessage

    from fsspec import AbstractFileSystem

__all__ = ["ChangedError", "FsspecOrigin", "Origin", "Reader", "WebOrigin", "content_range", "open_origin"]

_MEBIBYTE: Final = 1 << 20
_SHORT: Final = 1 << 10  # bytes that are sooner read than a new connection is made
_CONTENT_RANGE: Final = re.compile(r"bytes\s+(?:(\d+)-(\d+)|\*)/(\d+|\*)", re.IGNORECASE)
# Drivers with one connection, or none that several threads may share.
_ONE_AT_A_TIME: Final = frozenset({"ftp", "sftp", "ssh", "zip", "tar", "memory", "file", "webdav"})


class ChangedError(ConnectionError):
    """The object is no longer the one whose transfer was begun; beginning again may help."""


class Reader(Protocol):
    """Bytes of an origin from some position on, for one thread."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill some of ``buffer`` and return how much; 0 at the end."""

    def close(self) -> None:
        """Let go of the connection."""


class Origin(Protocol):
    """An object somewhere, as it was when first looked at.

    Attributes:
        size: In bytes; None if unknown.
        etag: What identifies this content there; None if nothing does.
        ranged: Whether `read` can begin anywhere, from several threads at once if ``connections`` is above 1.
        connections: How many threads may read at the same time.
        part_bytes: A good size for one of several parts.
        waited_s: How long the last `look` took: far origins need several connections.
    """

    size: int | None
    etag: str | None
    ranged: bool
    connections: int
    part_bytes: int
    waited_s: float

    def look(self, start: int = 0, *, in_one: bool = False) -> None:
        """Set the attributes.

        Args:
            start: Where reading will most likely begin.
            in_one: All will be read in one stream, and ``ranged`` is to be False where that makes a difference.
        """

    def read(self, start: int, end: int | None) -> Reader:
        """Return the bytes from ``start`` to ``end``, None for all the rest.

        Raises:
            ChangedError: The object has changed since `look`.
        """

    def recheck(self) -> None:
        """Look again whether the object is still the same, where `read` cannot tell.

        Raises:
            ChangedError: It is not.
        """

    def close(self) -> None:
        """Drop everything; readers in other threads fail."""


def open_origin(uri: str, storage_options: Mapping[str, Any] | None = None) -> Origin:
    """Return the origin of a normalised URI that is not local, not yet looked at."""
    options = dict(storage_options or {})
    name = scheme(uri)
    if len(split_chain(uri)) == 1:
        if name in {"http", "https"}:
            headers = {**options.get("client_kwargs", {}).get("headers", {}), **options.get("headers", {})}
            return WebOrigin(lambda: uri, WebClient(headers))
        if name in {"s3", "s3a"}:
            from modelstore.storage.s3 import open_s3_origin

            return open_s3_origin(uri, options)
    return FsspecOrigin(*open_filesystem(uri, options))


class WebOrigin:
    """An object on a web server.

    The first request asks for the first part already, so that a small object costs one round trip and nothing needs
    to understand HEAD.

    Args:
        url: Called for each request, so that a signed address can be renewed.
    """

    connections = 16
    part_bytes = 8 * _MEBIBYTE

    def __init__(self, url: Callable[[], str], client: WebClient) -> None:
        self._url, self._client = url, client
        self.size: int | None = None
        self.etag: str | None = None
        self.ranged = False
        self.waited_s = 0.0
        self.modified: str | None = None
        self._first: tuple[int, int | None, Response] | None = None

    def look(self, start: int = 0, *, in_one: bool = False) -> None:
        """See `Origin.look`."""
        self._url()  # signing an address takes time too, and says nothing about how far the server is
        begun = time.monotonic()
        self._look(start, in_one=in_one)
        self.waited_s = time.monotonic() - begun

    def _look(self, start: int, *, in_one: bool) -> None:
        self._drop_first()
        if in_one:
            self._take_whole(self._client.request("GET", self._url()))
            return
        try:
            response = self._get(start, start + self.part_bytes)
        except HttpStatusError as error:
            if error.status != 416:
                raise
            # Nothing from there on: an empty object, or one that has become shorter.
            total = content_range(error.headers)[2]
            if start and total == start:
                self.size, self.ranged = total, True
                self.etag = error.headers.get("ETag", self.etag)
                return
            response = self._client.request("GET", self._url())
        if response.status == 206:
            self._note(response)
            begin, end, self.size = content_range(response.headers)
            self.ranged = begin == start
            if not self.ranged:
                response.close()
                return
            self._first = (start, end, response)
        else:
            self._take_whole(response)

    def _take_whole(self, response: Response) -> None:
        self._note(response)
        self.size, self.ranged = response.length, False
        self._first = (0, None, response)

    def read(self, start: int, end: int | None) -> Reader:
        """See `Origin.read`."""
        first, self._first = self._first, None
        if first is not None:
            if first[0] == start and (first[1] is None or first[1] == end):
                return first[2]
            first[2].close()
        if self.ranged:
            response = self._get(start, end)
        elif start == 0:
            response = self._client.request("GET", self._url())
        else:
            raise ChangedError("the server cannot continue in the middle")
        self._check_same(response, start)
        return response

    def recheck(self) -> None:
        """Nothing to do: each answer said what it is a part of."""

    def close(self) -> None:
        """See `Origin.close`."""
        self._drop_first()
        self._client.close()

    def _note(self, response: Response) -> None:
        self.etag, self.modified = response.headers.get("ETag"), response.headers.get("Last-Modified")

    def _get(self, start: int, end: int | None) -> Response:
        return self._client.request("GET", self._url(), {"Range": f"bytes={start}-{'' if end is None else end - 1}"})

    def _check_same(self, response: Response, start: int) -> None:
        total = content_range(response.headers)[2] if response.status == 206 else response.length
        begin = content_range(response.headers)[0] if response.status == 206 else 0
        same = response.headers.get("ETag") == self.etag and response.headers.get("Last-Modified") == self.modified
        if begin != start or not same or (total is not None and self.size is not None and total != self.size):
            response.close()
            raise ChangedError("the object changed while it was being read")

    def settle(self) -> None:
        """Let go of the answer that `look` brought, where nothing but its headers was wanted.

        A short body is read to its end, which keeps the connection.
        """
        if self._first is not None:
            response = self._first[2]
            if response.length is not None and response.length <= _SHORT:
                response.read(_SHORT)
            self._drop_first()

    def _drop_first(self) -> None:
        if self._first is not None:
            self._first[2].close()
            self._first = None


class FsspecOrigin:
    """An object behind any fsspec driver."""

    part_bytes = 4 * _MEBIBYTE

    def __init__(self, fs: AbstractFileSystem, path: str) -> None:
        self._fs, self._path = fs, path
        self.size: int | None = None
        self.etag: str | None = None
        self.ranged = True
        self.waited_s = 0.0
        protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
        shareable = bool(getattr(fs, "async_impl", False)) and not protocols & _ONE_AT_A_TIME
        self.connections = 6 if shareable else 1
        self._in_parts = False

    def look(self, start: int = 0, *, in_one: bool = False) -> None:  # noqa: ARG002 - nothing to win from it here
        """See `Origin.look`."""
        begun = time.monotonic()
        self._fs.invalidate_cache()
        info = self._fs.info(self._path)
        self.waited_s = time.monotonic() - begun
        if info.get("type") == "directory":
            raise IsADirectoryError(self._path)
        size = info.get("size")
        self.size = int(size) if size is not None else None
        self.etag = etag_of(info)

    def read(self, start: int, end: int | None) -> Reader:
        """See `Origin.read`."""
        if self.connections > 1 and end is not None:
            self._in_parts = True
            return _Block(self._fs.cat_file(self._path, start=start, end=end), end - start)
        stream = self._fs.open(self._path, "rb", block_size=self.part_bytes)
        try:
            if start:
                stream.seek(start)
        except BaseException:
            stream.close()
            raise
        return _Stream(stream, None if self.size is None else self.size - start)

    def recheck(self) -> None:
        """See `Origin.recheck`."""
        if not self._in_parts:
            return
        before = self.size, self.etag
        self.look()
        if (self.size, self.etag) != before:
            raise ChangedError("the object changed while it was being read")

    def close(self) -> None:
        """Nothing to drop: fsspec keeps one filesystem per set of options for the whole process."""


class _Block:
    def __init__(self, data: bytes, wanted: int) -> None:
        if len(data) != wanted:
            raise TruncatedError(f"{len(data)} bytes came where {wanted} were asked for")
        self._view = memoryview(data)

    def readinto(self, buffer: memoryview) -> int:
        count = min(len(buffer), len(self._view))
        buffer[:count] = self._view[:count]
        self._view = self._view[count:]
        return count

    def close(self) -> None:
        self._view.release()


class _Stream:
    def __init__(self, stream: Any, expected: int | None) -> None:
        self._stream, self._left = stream, expected

    def readinto(self, buffer: memoryview) -> int:
        data = self._stream.read(min(len(buffer), _MEBIBYTE))
        buffer[: len(data)] = data
        if self._left is not None:
            if not data and self._left > 0:
                raise TruncatedError(f"the stream ended {self._left} bytes early")
            self._left -= len(data)
        return len(data)

    def close(self) -> None:
        self._stream.close()


def content_range(headers: Mapping[str, str] | HTTPMessage) -> tuple[int, int | None, int | None]:
    """Return start, end (exclusive) and total of a ``Content-Range`` header, as far as it says."""
    match = _CONTENT_RANGE.match(next((v for k, v in headers.items() if k.lower() == "content-range"), ""))
    if match is None:
        return 0, None, None
    total = None if match[3] == "*" else int(match[3])
    return int(match[1] or 0), None if match[2] is None else int(match[2]) + 1, total

"""``http://`` and ``https://`` as a read-only fsspec filesystem on `WebClient`."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, ClassVar, Final

from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from modelstore.storage.origins import ChangedError, WebOrigin, content_range
from modelstore.storage.retries import Patience
from modelstore.storage.webclient import TruncatedError, WebClient

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["WebFileSystem"]

_BLOCK: Final = 1 << 20


class WebFileSystem(AbstractFileSystem):  # type: ignore[misc] # fsspec has no types
    """Reads; all writing raises `NotImplementedError`, as fsspec's own HTTP filesystem does.

    Args:
        headers: Sent with every request.
    """

    protocol: ClassVar[tuple[str, ...]] = ("http", "https")
    cachable = False
    compares_versions: ClassVar = True
    """An open file's reads fail once there is another version of it."""

    def __init__(self, headers: dict[str, str] | None = None, client_kwargs: dict[str, Any] | None = None) -> None:
        super().__init__()
        self._client = WebClient({**(client_kwargs or {}).get("headers", {}), **(headers or {})})
        weakref.finalize(self, self._client.close)  # nobody closes a filesystem

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return name, size (None if the server does not say), type, and what tells versions apart."""
        origin = self._origin(path)
        origin.part_bytes = 1  # nothing but the headers is wanted
        origin.look()
        origin.settle()
        return {
            "name": path, "size": origin.size, "type": "file", "ETag": origin.etag, "modified": origin.modified,
            "ranged": origin.ranged,
        }  # fmt: skip

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Return the bytes from ``start`` to ``end``, both optional and not negative."""
        return b"".join(self.blocks(path, start or 0, end))

    def blocks(
        self, path: str, start: int, end: int | None, version: Mapping[str, Any] | None = None
    ) -> Iterator[bytes]:
        """Yield the bytes from ``start`` to ``end`` as they come.

        Args:
            path: A URL.
            start: Not negative.
            end: None for all the rest.
            version: What `info` told; None takes any.

        Raises:
            TruncatedError: There were fewer than the server announced, or others than it was asked for.
            ChangedError: They are not of that version.
        """
        span = {"Range": f"bytes={start}-{'' if end is None else end - 1}"} if start or end is not None else {}
        with self._client.request("GET", path, span) as response:
            partial = response.status == 206
            at, _, size = content_range(response.headers) if partial else (0, None, response.length)
            if partial and at != start:
                raise TruncatedError(f"bytes from {at} on came where those from {start} on were asked for")
            if version is not None:
                found = {"ETag": response.headers.get("ETag"), "modified": response.headers.get("Last-Modified")}
                other_size = size is not None and size != version["size"]
                if other_size or any(version[key] != value for key, value in found.items()):
                    raise ChangedError("the object changed while it was being read")
            left = response.length
            while (end is None or at < end) and (block := response.read(_BLOCK)):
                yield block[max(start - at, 0) : None if end is None else max(end - at, 0)]
                at += len(block)
                left = None if left is None else left - len(block)
            if left and (end is None or at < end):
                raise TruncatedError(f"the connection ended {left} bytes early")

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **kwargs: Any) -> _WebFile:
        if mode != "rb":
            raise NotImplementedError
        return _WebFile(self, path, mode, block_size or 5 * 2**20, **kwargs)

    def _origin(self, url: str) -> WebOrigin:
        return WebOrigin(lambda: url, self._client)


class _WebFile(AbstractBufferedFile):  # type: ignore[misc] # fsspec has no types
    def _fetch_range(self, start: int, end: int) -> bytes:
        """Return the bytes, continuing in their middle after failures."""
        data, patience = bytearray(), Patience()
        while len(data) < end - start:
            try:
                for block in self.fs.blocks(self.path, start + len(data), end, self.details):
                    data += block
                    patience.progressed()
            except ChangedError:
                raise
            except Exception as error:
                if not patience.after(error):
                    raise
            else:
                break
        return bytes(data)

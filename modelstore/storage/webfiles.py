"""``http://`` and ``https://`` as a read-only fsspec filesystem on `WebClient`."""

from __future__ import annotations

import weakref
from typing import Any, ClassVar

from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from modelstore.storage.origins import WebOrigin
from modelstore.storage.webclient import WebClient

__all__ = ["WebFileSystem"]


class WebFileSystem(AbstractFileSystem):  # type: ignore[misc] # fsspec has no types
    """Reads; all writing raises `NotImplementedError`, as fsspec's own HTTP filesystem does.

    Args:
        headers: Sent with every request.
    """

    protocol: ClassVar[tuple[str, ...]] = ("http", "https")
    cachable = False

    def __init__(self, headers: dict[str, str] | None = None, client_kwargs: dict[str, Any] | None = None) -> None:
        super().__init__()
        self._client = WebClient({**(client_kwargs or {}).get("headers", {}), **(headers or {})})
        weakref.finalize(self, self._client.close)  # nobody closes a filesystem

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return name, size (None if the server does not say), type and ETag."""
        origin = self._origin(path)
        origin.part_bytes = 1  # nothing but the headers is wanted
        origin.look()
        origin.read(0, None).close()
        return {"name": path, "size": origin.size, "type": "file", "ETag": origin.etag, "ranged": origin.ranged}

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Return the bytes from ``start`` to ``end``, both optional and not negative."""
        if start is None and end is None:
            with self._client.request("GET", path) as response:
                return b"".join(iter(lambda: response.read(1 << 20), b""))
        begin = start or 0
        span = f"bytes={begin}-{'' if end is None else end - 1}"
        with self._client.request("GET", path, {"Range": span}) as response:
            body = b"".join(iter(lambda: response.read(1 << 20), b""))
        return body if response.status == 206 else body[begin:end]

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **kwargs: Any) -> _WebFile:
        if mode != "rb":
            raise NotImplementedError
        return _WebFile(self, path, mode, block_size or 5 * 2**20, **kwargs)

    def _origin(self, url: str) -> WebOrigin:
        return WebOrigin(lambda: url, self._client)


class _WebFile(AbstractBufferedFile):  # type: ignore[misc] # fsspec has no types
    def _fetch_range(self, start: int, end: int) -> bytes:
        data: bytes = self.fs.cat_file(self.path, start=start, end=end)
        return data

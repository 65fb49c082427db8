"""Bytes that are read in pieces: of a local file, of a remote one, or of a part of either."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from modelstore.errors import UnreadableWeightsError
from modelstore.storage.failures import translated

__all__ = ["ByteSource", "Cursor", "malformed", "open_local", "open_remote"]

_FIRST: Final = 1 << 16
_JUMP: Final = 1 << 14
_MOST: Final = 1 << 20
_KEPT: Final = 8
Fetch = Callable[[int, int], bytes]


def malformed(name: str, what: str) -> UnreadableWeightsError:
    """Return the error for a file that does not keep to its own format."""
    return UnreadableWeightsError(
        f"{name!r:.200} cannot be looked into: {what}", "It is damaged, incomplete, or not what its name says."
    )


class ByteSource:
    """Read-only bytes with a known size; every read is checked against it.

    What is read is read ahead a little, more where reading goes on in order, so that a header of a remote file costs
    a few requests and a few kilobytes.

    Args:
        name: For messages.
        size: In bytes.
        fetch: Return exactly the bytes from a position, as many as asked for.

    Attributes:
        fetched_bytes: How much was asked of ``fetch`` so far.
    """

    def __init__(self, name: str, size: int, fetch: Fetch) -> None:
        self.name, self.size = name, size
        self.fetched_bytes = 0
        self._fetch = fetch
        self._windows: list[tuple[int, bytes]] = []
        self._ahead = _FIRST

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes from ``offset``, exactly ``length`` of them.

        Raises:
            UnreadableWeightsError: They are not all there.
            StorageError: They cannot be read.
        """
        if length < 0 or offset < 0 or offset + length > self.size:
            raise malformed(self.name, f"it has {self.size} bytes, and says that there are more")
        for start, window in reversed(self._windows):
            if start <= offset and offset + length <= start + len(window):
                return window[offset - start : offset - start + length]
        follows = bool(self._windows) and self._windows[-1][0] <= offset <= self._end()
        self._ahead = min(self._ahead * 2, _MOST) if follows else _JUMP if self._windows else _FIRST
        window = self._fetch(offset, min(max(length, self._ahead), self.size - offset))
        self.fetched_bytes += len(window)
        self._windows = [*self._windows[1 - _KEPT :], (offset, window)]
        return window[:length]

    def _end(self) -> int:
        start, window = self._windows[-1]
        return start + len(window)

    def blocks(self, offset: int, length: int, block: int = _MOST) -> Iterator[bytes]:
        """Yield a span in blocks, without keeping any."""
        for start in range(offset, offset + length, block):
            data = self._fetch(start, min(block, offset + length - start))
            self.fetched_bytes += len(data)
            yield data

    def part(self, offset: int, length: int, name: str) -> ByteSource:
        """Return a part as a source of its own.

        Raises:
            UnreadableWeightsError: It is not all there.
        """
        if length < 0 or offset < 0 or offset + length > self.size:
            raise malformed(self.name, f"its member {name!r:.100} is not all there")
        return _Part(self, offset, length, name)


class _Part(ByteSource):
    def __init__(self, whole: ByteSource, offset: int, length: int, name: str) -> None:
        super().__init__(name, length, lambda at, count: whole.read(offset + at, count))
        self._whole, self._offset = whole, offset

    def blocks(self, offset: int, length: int, block: int = _MOST) -> Iterator[bytes]:
        return self._whole.blocks(self._offset + offset, length, block)


class Cursor:
    """A position in a source, which moves as it is read.

    Args:
        source: The bytes.
        position: Where to begin.
        end: Where everything has to end; None for the end of the source.
    """

    __slots__ = ("_at", "_buffer", "_start", "end", "source")

    def __init__(self, source: ByteSource, position: int = 0, end: int | None = None) -> None:
        self.source = source
        self.end = source.size if end is None else end
        self._start, self._at, self._buffer = position, 0, b""

    @property
    def position(self) -> int:
        """Where it is."""
        return self._start + self._at

    @property
    def left(self) -> int:
        """Bytes up to the end."""
        return self.end - self._start - self._at

    def take(self, length: int) -> bytes:
        """Return the next bytes and move behind them.

        Raises:
            UnreadableWeightsError: There are not so many.
        """
        at = self._at
        if at + length > len(self._buffer):
            if length < 0 or length > self.left:
                raise malformed(
                    self.source.name, "it ends in the middle of its header, or names a length that is wrong"
                )
            self._start, at = self._start + at, 0
            self._buffer = self.source.read(self._start, max(length, min(4096, self.left)))
        self._at = at + length
        return self._buffer[at : at + length]

    def skip(self, length: int) -> None:
        """Move on without reading.

        Raises:
            UnreadableWeightsError: There are not so many bytes.
        """
        if length < 0 or length > self.left:
            raise malformed(self.source.name, "a length in it is larger than what is left of the file")
        if self._at + length <= len(self._buffer):
            self._at += length
        else:
            self._start, self._at, self._buffer = self.position + length, 0, b""

    def unpack(self, form: str) -> Any:
        """Return one number in a form of `struct`."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]


@contextmanager
def open_local(path: str | os.PathLike[str], name: str | None = None) -> Iterator[ByteSource]:
    """Give a local file.

    Raises:
        StorageError: It cannot be read.
    """
    with translated(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not make us wait
    try:
        size = os.fstat(descriptor).st_size
        shown = name or os.path.basename(os.fspath(path))

        def fetch(offset: int, length: int) -> bytes:
            with translated(path):
                pieces, missing = [], length
                while missing:
                    piece = os.pread(descriptor, missing, offset + length - missing)
                    if not piece:
                        raise malformed(shown, "it became shorter while it was being read")
                    pieces.append(piece)
                    missing -= len(piece)
                return b"".join(pieces)

        yield ByteSource(shown, size, fetch)
    finally:
        os.close(descriptor)


@contextmanager
def open_remote(uri: str, name: str) -> Iterator[ByteSource]:
    """Give a remote file, of which only the parts that are read are transferred.

    Raises:
        UnreadableWeightsError: Its server cannot send parts, or does not tell the size.
        StorageError: It cannot be read.
    """
    from modelstore.storage.origins import open_origin

    with translated(uri):
        origin = open_origin(uri)
        try:
            origin.part_bytes = _FIRST  # the first look brings as much
            origin.look()
            if origin.size is None or not origin.ranged:
                raise UnreadableWeightsError(
                    f"{name!r:.200} cannot be looked into from afar: its server sends all or nothing",
                    "Fetch it first: get_local_copy(), or `modelstore get`.",
                )

            def fetch(offset: int, length: int) -> bytes:
                buffer = memoryview(bytearray(length))
                with translated(uri):
                    reader = origin.read(offset, offset + length)
                    try:
                        done = 0
                        while done < length and (count := reader.readinto(buffer[done:])):
                            done += count
                    finally:
                        reader.close()
                if done < length:
                    raise malformed(name, "its server sent less than it announced")
                return bytes(buffer)

            yield ByteSource(name, origin.size, fetch)
        finally:
            origin.close()

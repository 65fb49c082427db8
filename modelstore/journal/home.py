"""What a home of a journal can do, wherever it is: a folder that hosts share, a bucket.

A home holds *streams*. A stream is bytes that only grow, whole lines, and has one writer, ever. Its *tip* is how many
of its bytes count. A position is a number of bytes from the stream's beginning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

__all__ = ["Home", "StreamClosedError"]


class StreamClosedError(Exception):
    """The stream is not the caller's to continue: packed, or continued by somebody who believes to be the same writer.

    Nothing was written that counts. The writer goes on in a new stream.
    """


class Home(Protocol):
    """Streams, checkpoints and small named files of one shared registry.

    Safe for any number of processes on any number of hosts at once. No method relies on a lock.
    """

    def tips(self) -> Mapping[str, int]:
        """Return the tip of every stream; whatever was acknowledged before the call is below them.

        Raises:
            StorageError: The home cannot be listed.
        """
        ...

    def loose(self) -> int:
        """Return how many streams are in no pack, as of the last `tips`."""
        ...

    def read(self, stream: str, start: int, end: int) -> Iterator[bytes]:
        """Yield the lines (without checksum and newline) of a stream between two positions, torn ones left out.

        Args:
            stream: A name that `tips` returned.
            start: 0, or an end of an earlier reading.
            end: At most the stream's tip.

        Raises:
            StorageError: The bytes cannot be read.
        """
        ...

    def append(self, stream: str, tip: int, lines: list[bytes]) -> int:
        """Append lines to the caller's own stream, all of them or none, and return the new tip.

        They are durable, and visible to whoever calls `tips` afterwards, when this returns.

        Args:
            stream: The caller's stream; one that does not exist begins with ``tip`` 0.
            tip: Where the caller believes the stream ends.
            lines: Without newlines.

        Raises:
            StreamClosedError: The stream is closed or does not end there.
            StorageFullError: No space; nothing counts.
            StorageError: It failed; nothing counts, or, when the hint says so, it may.
        """
        ...

    def pack(self, streams: Mapping[str, int]) -> int:
        """Close streams that end at the given tips and gather them into one file; returns how many were.

        Those that moved meanwhile are left as they are. Whoever reads at the same time loses nothing.
        """
        ...

    def checkpoints(self) -> list[str]:
        """Return the names of the finished indexes, oldest first."""
        ...

    def put_checkpoint(self, name: str, file: Path) -> None:
        """Store a finished index, whole or not at all.

        Args:
            name: 32 hex digits by which they are ordered, "-", the blake2b digest of 8 bytes in hex, ".index".
            file: What to store.
        """
        ...

    def get_checkpoint(self, name: str, target: Path) -> None:
        """Copy a finished index to a local file.

        Raises:
            StorageError: It is gone or damaged (another took its place): take the newest that there is.
        """
        ...

    def remove_checkpoint(self, name: str) -> None:
        """Remove a finished index; one that is gone already is no error."""
        ...

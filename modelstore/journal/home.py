"""What a home of a journal can do, wherever it is: a folder that hosts share, a bucket.

A home holds *streams*. A stream is bytes that only grow, whole lines, and has one writer, ever. Its *tip* is how many
of its bytes count. A position is a number of bytes from the stream's beginning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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

    Attributes:
        single_process: Whether a stream is continued only by the process that began it, through the object with
            which it did. Packing takes no stream away from its writer then.
    """

    single_process: bool

    def tips(self) -> Mapping[str, int]:
        """Return the tip of every stream; whatever was acknowledged before the call is below them.

        Raises:
            StorageError: The home cannot be listed.
        """
        ...

    def loose(self) -> int:
        """Return how many files hold what is in no pack, as of the last `tips`."""
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

    def read_many(self, spans: Sequence[tuple[str, int, int]]) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Yield streams, and what `read` yields for each, which is to be used up before the next.

        Args:
            spans: Streams, with two positions each.

        Raises:
            StorageError: The bytes cannot be read.
        """
        ...

    def next_stream(self, writer: str, last: str | None) -> str:
        """Return the name of a stream in which a writer goes on who leaves, or has not, another.

        Args:
            writer: Id of the writer.
            last: His last stream; None when he has none.
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
            StorageError: It failed; nothing counts, or, when the message says so, it may.
        """
        ...

    def pack(self, streams: Mapping[str, int]) -> int:
        """Gather streams up to the given tips into one file; returns how many were.

        Where streams outlive processes, they are closed first, and those that moved meanwhile are left as they are.
        Whoever reads at the same time loses nothing.
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

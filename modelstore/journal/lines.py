"""How operations lie in a stream: a line each, with a checksum that tells a torn one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator

__all__ = ["decode_line", "encode_lines", "following", "follows", "sound_lines", "split_lines"]

_FIRST = "0" * 32
_AFTER = b',"after":"'
_DIGITS = 16  # of blake2b: in the standard library, and as fast here as what is faster on large blocks


def encode_lines(lines: Iterable[bytes]) -> bytes:
    """Return what is appended: each line, a tab, its checksum, a newline."""
    parts = []
    for line in lines:
        if b"\n" in line:
            raise ValueError("a line cannot contain a newline")
        parts.append(b"%b\t%b\n" % (line, _checksum(line)))
    return b"".join(parts)


def decode_line(line: bytes) -> bytes | None:
    """Return what was given to `encode_lines`; None when it is not what was written. Without the newline."""
    text, separator, checksum = line.rpartition(b"\t")
    return text if separator and checksum == _checksum(text) else None


def split_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines that consecutive pieces of a stream make up; a last one without newline is torn and left out."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole


def sound_lines(chunks: Iterable[bytes], start: int, damaged: Callable[[int], object]) -> Iterator[bytes]:
    """Yield the lines of a part of a stream as they were given to `encode_lines`.

    Args:
        chunks: Consecutive pieces of the stream.
        start: Where in the stream they begin.
        damaged: Told the position of each line that is not what was written; it is left out.
    """
    position = start
    for line in split_lines(chunks):
        text = decode_line(line)
        if text is not None:
            yield text
        else:
            damaged(position)
        position += len(line) + 1


def following(line: bytes, stamp: str) -> bytes:
    """Return an operation's line that also says which is the one before it of the same writer.

    Args:
        line: A JSON object.
        stamp: Of the operation before; "" for none.
    """
    return b'%b%b%b"}' % (line[:-1], _AFTER, (stamp or _FIRST).encode())


def follows(line: bytes) -> str | None:
    """Return what was given to `following`; None for a line that says nothing of the kind."""
    # Nothing else can end like this: within a text, JSON has a backslash before each quotation mark.
    if line[-44:-34] != _AFTER:
        return None
    stamp = line[-34:-2].decode()
    return "" if stamp == _FIRST else stamp


def _checksum(line: bytes) -> bytes:
    return hashlib.blake2b(line, digest_size=_DIGITS // 2).hexdigest().encode()

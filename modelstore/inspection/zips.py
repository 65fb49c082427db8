"""The directory of a zip archive, read without unpacking anything, and members read up to a bound."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from modelstore.inspection.bytesource import ByteSource, malformed

__all__ = ["Member", "data_at", "looks_like", "members", "prefix_of", "stream"]

_END: Final = struct.Struct("<4s4H2LH")
_END64: Final = struct.Struct("<4sQ2H2L4Q")
_LOCATOR: Final = struct.Struct("<4sLQL")
_ENTRY: Final = struct.Struct("<4s6H3L5H2L")
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_MOST_DIRECTORY: Final = 1 << 26
_MOST_MEMBERS: Final = 300_000
_SMALL: Final = 1 << 17
_STORED: Final = 0
_DEFLATED: Final = 8


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive.

    Attributes:
        name: With its folders.
        method: 0 stored, 8 deflated, others.
        packed: Bytes in the archive.
        size: Bytes unpacked, as the archive says.
        header: Where its own header begins.
        encrypted: Whether it is.
    """

    name: str
    method: int
    packed: int
    size: int
    header: int
    encrypted: bool

    @property
    def stored(self) -> bool:
        """Whether its bytes are in the archive as they are."""
        return self.method == _STORED and self.packed == self.size and not self.encrypted

    @property
    def inflated_from(self) -> int | None:
        """How many deflated bytes it has; None where it is stored."""
        return None if self.stored else self.packed

    def span(self, source: ByteSource) -> tuple[int, int]:
        """Return where its packed bytes are: offset and length.

        Raises:
            UnreadableWeightsError: They are not all there.
        """
        offset = data_at(source, self.header)
        if offset + self.packed > source.size:
            raise malformed(source.name, f"its member {self.name!r:.100} is not all there")
        return offset, self.packed


def data_at(source: ByteSource, header: int) -> int:
    """Return where the bytes of the member begin whose own header is at ``header``.

    Raises:
        UnreadableWeightsError: There is no member.
    """
    signature, *_, name, extra = _LOCAL.unpack(source.read(header, _LOCAL.size))
    if signature != b"PK\x03\x04":
        raise malformed(source.name, "a member of it is not where its directory says")
    return header + _LOCAL.size + int(name) + int(extra)


def looks_like(source: ByteSource) -> bool:
    """Tell whether a file may be a zip archive."""
    return source.size >= _END.size and source.read(0, 4) in (b"PK\x03\x04", b"PK\x05\x06")


def members(source: ByteSource) -> dict[str, Member]:
    """Return the files of an archive by name.

    Raises:
        UnreadableWeightsError: It is no archive, or one of its numbers is impossible.
    """
    count, size, offset = _directory(source)
    if count > _MOST_MEMBERS or size > _MOST_DIRECTORY:
        raise malformed(source.name, f"its directory would have {count} members in {size} bytes")
    directory = source.read(offset, size)
    found: dict[str, Member] = {}
    position = 0
    for _ in range(count):
        member, position = _entry(source, directory, position)
        if member.name in found:
            raise malformed(source.name, f"it has two members {member.name!r:.100}")
        found[member.name] = member
    _check_apart(source, found)
    return {name: member for name, member in found.items() if not name.endswith("/")}


def _directory(source: ByteSource) -> tuple[int, int, int]:
    """Return members, bytes and place of the directory."""
    tail_at = max(0, source.size - (1 << 16) - _END.size)
    tail = source.read(tail_at, source.size - tail_at)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _END.size > len(tail):
        raise malformed(source.name, "it has no end of a zip archive")
    _, _, _, _, count, size, offset, _ = _END.unpack_from(tail, at)
    locator_at = tail_at + at - _LOCATOR.size
    if count == 0xFFFF or 0xFFFFFFFF in (size, offset):
        signature, _, end64_at, _ = _LOCATOR.unpack(source.read(locator_at, _LOCATOR.size))
        if signature != b"PK\x06\x07":
            return count, size, offset
        fields = _END64.unpack(source.read(end64_at, _END64.size))
        if fields[0] != b"PK\x06\x06":
            raise malformed(source.name, "its 64-bit directory is not where it says")
        return fields[7], fields[8], fields[9]
    return count, size, offset


def _entry(source: ByteSource, directory: bytes, position: int) -> tuple[Member, int]:
    try:
        fields = _ENTRY.unpack_from(directory, position)
    except struct.error:
        raise malformed(source.name, "its directory is cut off") from None
    signature, flags, method = fields[0], fields[3], fields[4]
    packed, size, name_length, extra_length, comment_length = fields[8:13]
    header = fields[16]
    begin = position + _ENTRY.size
    name = directory[begin : begin + name_length]
    extra = directory[begin + name_length : begin + name_length + extra_length]
    if signature != b"PK\x01\x02" or len(extra) != extra_length:
        raise malformed(source.name, "its directory is damaged")
    size, packed, header = _wide(extra, size, packed, header)
    text = name.decode("utf-8" if flags & 0x800 else "cp437", "replace")
    end = begin + name_length + extra_length + comment_length
    return Member(text, method, packed, size, header, bool(flags & 1)), end


def _wide(extra: bytes, *numbers: int) -> tuple[int, int, int]:
    """Return size, packed size and place, taken from the 64-bit field where they are too large for 32."""
    values = list(numbers)
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        field = extra[position + 4 : position + 4 + length]
        if kind == 1:
            for i, value in enumerate(values):
                if value == 0xFFFFFFFF and len(field) >= 8:
                    values[i], field = int.from_bytes(field[:8], "little"), field[8:]
            break
        position += 4 + length
    return values[0], values[1], values[2]


def _check_apart(source: ByteSource, found: dict[str, Member]) -> None:
    """Refuse archives whose members overlap, as those that unpack to a thousand times their size do."""
    before = 0
    for member in sorted(found.values(), key=lambda one: one.header):
        if member.header < before or member.header + _LOCAL.size + member.packed > source.size:
            raise malformed(source.name, f"its member {member.name!r:.100} overlaps others, or is not all there")
        before = member.header + _LOCAL.size + member.packed


def stream(source: ByteSource, member: Member, most: int) -> Iterator[bytes]:
    """Yield a member's bytes, unpacked, up to a bound.

    Args:
        source: The archive.
        member: One of its members, stored or deflated.
        most: Bytes after which to stop.

    Raises:
        UnreadableWeightsError: It is packed in another way, or damaged.
    """
    if member.encrypted or member.method not in (_STORED, _DEFLATED):
        raise malformed(source.name, f"its member {member.name!r:.100} is encrypted or packed in an unknown way")
    offset, length = member.span(source)
    if member.method == _STORED:
        if most <= _SMALL:
            yield source.read(offset, min(length, most))
        else:
            yield from source.blocks(offset, min(length, most))
        return
    unpacker = zlib.decompressobj(-15)
    done = 0
    for block in source.blocks(offset, length, min(1 << 20, max(most, 1 << 12))):
        waiting = block
        while waiting and done < most and not unpacker.eof:
            try:
                data = unpacker.decompress(waiting, min(1 << 20, most - done))
            except zlib.error:
                raise malformed(source.name, f"its member {member.name!r:.100} is damaged") from None
            waiting = unpacker.unconsumed_tail
            done += len(data)
            yield data
        if done >= most or unpacker.eof:
            return


def prefix_of(source: ByteSource, member: Member, length: int) -> bytes:
    """Return the first bytes of a member, unpacked; fewer where it is shorter.

    Raises:
        UnreadableWeightsError: It is packed in an unknown way, or damaged.
    """
    return b"".join(stream(source, member, length))[:length]

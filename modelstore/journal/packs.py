"""Packs: the bytes of many streams, one behind the other, behind a line of JSON that says which and how long."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Final

__all__ = ["MANY_PACKS", "PACK", "SMALL_PACK", "covered_elsewhere", "pack_header", "parse_header"]

PACK: Final = re.compile(r"[0-9a-f]{32}\.pack")
MANY_PACKS: Final = 8
"""So many small packs are merged into one."""
SMALL_PACK: Final = 64 << 20
"""Bytes from which on a pack is not small."""

Contents = Mapping[str, tuple[int, int]]
"""Where in a pack its streams are: offset and length."""


def pack_header(order: Iterable[tuple[str, int]]) -> tuple[bytes, str]:
    """Return the first line of a pack of streams with these lengths, and the pack's name.

    A stream's bytes up to a position are always the same, so two that pack the same make the same file.
    """
    header = json.dumps({"streams": list(order)}, separators=(",", ":")).encode() + b"\n"
    return header, blake2b(header, digest_size=16).hexdigest() + ".pack"


def parse_header(line: bytes) -> dict[str, tuple[int, int]]:
    """Return where in a pack its streams are.

    Args:
        line: The first line, without its newline.

    Raises:
        ValueError, KeyError, TypeError: It is damaged.
    """
    offset = len(line) + 1
    found = {}
    for stream, length in json.loads(line)["streams"]:
        found[str(stream)] = offset, int(length)
        offset += length
    return found


def covered_elsewhere(name: str, packs: Mapping[str, Contents], others: Iterable[str]) -> bool:
    """Tell whether another of the packs has everything that one has, and more."""
    own = packs[name]
    more = (packs[other] for other in others if other != name and _weight(packs[other]) > _weight(own))
    return any(all(one.get(stream, (0, -1))[1] >= length for stream, (_, length) in own.items()) for one in more)


def _weight(contents: Contents) -> tuple[int, int]:
    return len(contents), sum(length for _, length in contents.values())

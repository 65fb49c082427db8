"""NumPy's npy and npz: a header in Python's notation, read as data, and the array."""

from __future__ import annotations

import re
from typing import Any, Final

from modelstore.inspection.bytesource import ByteSource, malformed
from modelstore.inspection.contents import Inspection, Span, TensorInfo
from modelstore.inspection.limits import MOST_TENSORS, check_shape
from modelstore.inspection.zips import Member, prefix_of
from modelstore.records.literals import literal

__all__ = ["MAGIC", "read", "read_archive"]

MAGIC: Final = b"\x93NUMPY"
_MOST_HEADER: Final = 1 << 16
_CODE: Final = re.compile(r"[<>|=]?([a-zA-Z?])(\d*)")
_WORDS: Final = {"f": "float", "i": "int", "u": "uint", "c": "complex"}


def read(source: ByteSource) -> Inspection:
    """Return what an npy file holds.

    Raises:
        UnreadableWeightsError: It does not keep to the format.
    """
    head = source.read(0, min(source.size, 12 + _MOST_HEADER))
    name = source.name.removesuffix(".npy")
    tensor, note = _array(source.name, name, head, source.size)
    return Inspection(source.name, "NumPy", source.size, (tensor,), note)


def read_archive(source: ByteSource, found: dict[str, Member]) -> Inspection:
    """Return what an npz file holds.

    Raises:
        UnreadableWeightsError: It does not keep to the format.
    """
    if len(found) > MOST_TENSORS:
        raise malformed(source.name, "it has more arrays than any model")
    tensors, notes = [], {}
    for member in found.values():
        head = prefix_of(source, member, 4096)
        if len(head) >= 12 and _header_end(head) > len(head):
            head = prefix_of(source, member, 12 + _MOST_HEADER)
        tensor, note = _array(source.name, member.name.removesuffix(".npy"), head, member.size, member)
        tensors.append(tensor)
        notes.update(note)
    return Inspection(source.name, "NumPy", source.size, tuple(tensors), notes)


def _header_end(head: bytes) -> int:
    width = 2 if head[6] == 1 else 4
    return 8 + width + int.from_bytes(head[8 : 8 + width], "little")


def _array(
    file: str, name: str, head: bytes, size: int, member: Member | None = None
) -> tuple[TensorInfo, dict[str, Any]]:
    if len(head) < 12 or head[:6] != MAGIC or head[6] not in (1, 2, 3):
        raise malformed(file, f"{name!r:.100} is no array of NumPy")
    end = _header_end(head)
    if end > len(head) or end > size:
        raise malformed(file, f"the header of {name!r:.100} is cut off, or far too long")
    begin = 10 if head[6] == 1 else 12
    fields = _fields(file, name, head[begin:end].decode("utf-8" if head[6] == 3 else "latin-1", "replace"))
    shape = check_shape(file, fields["shape"])
    dtype, width = _type(fields["descr"])
    note: dict[str, Any] = {f"{name} order": "Fortran"} if fields["fortran_order"] is True and len(shape) > 1 else {}
    place = (None, None) if member is None else (member.header, member.inflated_from)
    info = TensorInfo(name, dtype, shape, size - end, span=Span(end, size - end, *place))
    if width is not None and info.parameters * width != info.size:
        raise malformed(file, f"the array {name!r:.100} has another size than its shape")
    return info, note


def _fields(file: str, name: str, text: str) -> dict[str, Any]:
    try:
        fields = literal(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        fields = None
    if (
        not isinstance(fields, dict)
        or not {"descr", "fortran_order", "shape"} <= set(fields)
        or not isinstance(fields["shape"], tuple)
    ):
        raise malformed(file, f"the header of {name!r:.100} is not one of NumPy's")
    return fields


def _type(descr: Any) -> tuple[str, int | None]:
    """Return a type's name and bytes; None for those where that takes more than a word."""
    match = _CODE.fullmatch(descr) if isinstance(descr, str) else None
    if match is None:
        return "record" if isinstance(descr, list) else descr[:40] if isinstance(descr, str) else "?", None
    code, digits = match[1], int(match[2][:9] or 0)
    if code in _WORDS and digits in (1, 2, 4, 8, 16, 32):
        return f"{_WORDS[code]}{digits * 8}", digits
    if code in "b?":
        return "bool" if descr.lstrip("<>|=") in ("b1", "?") else descr[:40], 1
    if code == "O":
        return "object", None
    if code in "USVa":
        return f"{ {'U': 'str', 'S': 'bytes', 'a': 'bytes', 'V': 'void'}[code] }{digits}", digits * (
            4 if code == "U" else 1
        )
    return descr[:40], None

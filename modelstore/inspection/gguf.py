"""GGUF: key-value pairs, descriptions of tensors, the tensors."""

from __future__ import annotations

from typing import Any, Final

from modelstore.inspection.bytesource import ByteSource, Cursor, malformed
from modelstore.inspection.contents import Inspection, Span, TensorInfo
from modelstore.inspection.limits import MOST_TENSORS, Budget, check_layout, check_shape, shortened, text_steps

__all__ = ["MAGIC", "TYPES", "read"]

MAGIC: Final = b"GGUF"
_MOST_STEPS: Final = 4_000_000
_MOST_STRING: Final = 1 << 24
_MOST_KEYS: Final = 65_536
_LISTED: Final = 16
_SCALARS: Final = {
    0: ("uint8", "B", 1), 1: ("int8", "b", 1), 2: ("uint16", "H", 2), 3: ("int16", "h", 2), 4: ("uint32", "I", 4),
    5: ("int32", "i", 4), 6: ("float32", "f", 4), 7: ("bool", "?", 1), 10: ("uint64", "Q", 8), 11: ("int64", "q", 8),
    12: ("float64", "d", 8),
}  # fmt: skip
_STRING: Final = 8
_ARRAY: Final = 9
_KINDS: Final = {**{kind: name for kind, (name, _, _) in _SCALARS.items()}, _STRING: "string", _ARRAY: "array"}

TYPES: Final[dict[int, tuple[str, int, int]]] = {
    0: ("float32", 1, 4), 1: ("float16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("int8", 1, 1), 25: ("int16", 1, 2), 26: ("int32", 1, 4), 27: ("int64", 1, 8), 28: ("float64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("bfloat16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
}  # fmt: skip
"""Number of a type to its name, the elements of a block, and the bytes of a block."""


def read(source: ByteSource) -> Inspection:
    """Return what the file holds.

    Raises:
        UnreadableWeightsError: It does not keep to the format.
    """
    return _Reader(source).read()


class _Reader:
    def __init__(self, source: ByteSource) -> None:
        self._source, self._cursor = source, Cursor(source)
        self._budget = Budget(source.name, _MOST_STEPS)
        self._order = "<"

    def read(self) -> Inspection:
        source, cursor = self._source, self._cursor
        if cursor.take(4) != MAGIC:
            raise malformed(source.name, "it does not begin as a GGUF file does")
        version = cursor.unpack("<I")
        if version & 0xFFFF == 0:
            self._order, version = ">", int.from_bytes(version.to_bytes(4, "little"), "big")
        if version not in (2, 3):
            raise malformed(source.name, f"it is a GGUF file of version {version}; 2 and 3 are known")
        tensors, keys = self._number("Q"), self._number("Q")
        if tensors > MOST_TENSORS or keys > _MOST_KEYS:
            raise malformed(source.name, f"it says that it has {tensors} tensors and {keys} keys")
        metadata: dict[str, Any] = {"GGUF version": version}
        for _ in range(keys):
            key = self._string()
            metadata[key] = self._value(self._number("I"), depth=0)
        described = [self._described() for _ in range(tensors)]
        return self._finished(described, metadata)

    def _finished(self, described: list[tuple[str, tuple[int, ...], int, int]], metadata: dict[str, Any]) -> Inspection:
        source = self._source
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 0 < alignment <= 1 << 20:
            raise malformed(source.name, "its alignment is impossible")
        start = -(-self._cursor.position // alignment) * alignment
        found: dict[str, TensorInfo] = {}
        for name, shape, kind, offset in described:
            if name in found:
                raise malformed(source.name, f"it has two tensors {name!r:.100}")
            found[name] = self._tensor(name, shape, kind, start + offset)
        if found:
            check_layout(source.name, found.values(), start, source.size)
        return Inspection(source.name, "GGUF", source.size, tuple(found.values()), metadata)

    def _tensor(self, name: str, shape: tuple[int, ...], kind: int, offset: int) -> TensorInfo:
        if kind not in TYPES:
            return TensorInfo(name, f"type {kind}", shape, 0)
        dtype, block, width = TYPES[kind]
        count = 1
        for length in shape:
            count *= length
        if count % block:
            raise malformed(self._source.name, f"the tensor {name!r:.100} has a shape that its type cannot have")
        size = count // block * width
        return TensorInfo(name, dtype, shape, size, span=Span(offset, size))

    def _described(self) -> tuple[str, tuple[int, ...], int, int]:
        name, dimensions = self._string(), self._number("I")
        if dimensions > 8:
            raise malformed(self._source.name, f"the tensor {name!r:.100} has {dimensions} dimensions")
        lengths = [self._number("Q") for _ in range(dimensions)]
        kind, offset = self._number("I"), self._number("Q")
        return name, check_shape(self._source.name, lengths[::-1]), kind, offset

    def _number(self, form: str) -> Any:
        return self._cursor.unpack(self._order + form)

    def _string(self) -> str:
        length = self._number("Q")
        if length > _MOST_STRING:
            raise malformed(self._source.name, f"a text in it would have {length} bytes")
        self._budget.spend(text_steps(length))
        return self._cursor.take(length).decode("utf-8", "replace")

    def _value(self, kind: int, depth: int) -> Any:
        self._budget.spend()
        if kind in _SCALARS:
            return self._number(_SCALARS[kind][1])
        if kind == _STRING:
            return shortened(self._string())
        if kind == _ARRAY and depth < 4:
            return self._array(depth)
        raise malformed(self._source.name, f"a value in it has the unknown type {kind}")

    def _array(self, depth: int) -> Any:
        kind, count = self._number("I"), self._number("Q")
        if kind not in _KINDS:
            raise malformed(self._source.name, f"a list in it has the unknown type {kind}")
        if count <= _LISTED:
            return [self._value(kind, depth + 1) for _ in range(count)]
        if kind in _SCALARS:
            self._cursor.skip(count * _SCALARS[kind][2])
        else:
            self._budget.spend(min(count, _MOST_STEPS))
            for _ in range(count):
                if kind == _STRING:
                    self._cursor.skip(self._number("Q"))
                else:
                    self._value(kind, depth + 1)
        return f"{count} × {_KINDS[kind]}"

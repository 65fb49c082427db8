"""ONNX: the protocol buffer gone through field by field, stepping over what is large."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from modelstore.inspection.bytesource import ByteSource, Cursor, malformed
from modelstore.inspection.contents import Inspection, Span, TensorInfo
from modelstore.inspection.limits import (
    MOST_IN_NAMES,
    MOST_TENSORS,
    Budget,
    bits_of,
    check_shape,
    shortened,
    text_steps,
)

__all__ = ["looks_like", "read"]

_MOST_STEPS: Final = 3_000_000
_MOST_TEXT: Final = 1 << 20
_MOST_DEPTH: Final = 16
_TYPES: Final = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16",
    17: "float8_e4m3fn", 18: "float8_e4m3fnuz", 19: "float8_e5m2", 20: "float8_e5m2fnuz", 21: "uint4", 22: "int4",
    23: "float4_e2m1", 24: "float8_e8m0", 25: "uint2", 26: "int2",
}  # fmt: skip
_DATA: Final = frozenset({4, 5, 6, 7, 9, 10, 11})  # where a tensor keeps its elements
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIDTHS: Final = {_FIXED64: 8, _FIXED32: 4}
_ABOUT: Final = {
    1: "ir_version",
    2: "producer",
    3: "producer_version",
    4: "domain",
    5: "model_version",
    6: "description",
}


def looks_like(source: ByteSource) -> bool:
    """Tell whether a file may be one of these: they have no mark of their own, but begin with their version."""
    return source.size > 8 and source.read(0, 1) == b"\x08" and 0 < source.read(1, 1)[0] < 64


def read(source: ByteSource) -> Inspection:
    """Return what the file holds.

    Raises:
        UnreadableWeightsError: It does not keep to the format.
    """
    return _Reader(source).read()


class _Reader:
    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._budget = Budget(source.name, _MOST_STEPS)
        self._names = Budget(source.name, MOST_IN_NAMES)
        self._tensors: list[TensorInfo] = []
        self._nodes: Counter[str] = Counter()
        self._about: dict[str, Any] = {}
        self._graphs = 0

    def read(self) -> Inspection:
        source = self._source
        for field, kind, value in self._fields(Cursor(source)):
            if field in _ABOUT:
                shown = self._text(value) if kind == _BYTES else value
                if shown not in ("", None):
                    self._about[_ABOUT[field]] = shown
            elif kind != _BYTES:
                continue
            elif field == 7:
                self._graph(value, "", 0)
            elif field == 8:
                self._opset(value)
            elif field == 14:
                key, text = self._pair(value)
                self._about[f"metadata.{key}"] = text
        if not self._graphs:
            raise malformed(source.name, "there is no graph of ONNX in it")
        if self._nodes:
            self._about["nodes"] = dict(self._nodes.most_common(200))
        return Inspection(source.name, "ONNX", source.size, tuple(self._tensors), self._about)

    def _fields(self, cursor: Cursor) -> Iterator[tuple[int, int, Any]]:
        """Yield number, kind and value of each field; for one with a length, a cursor at its beginning."""
        while cursor.left:
            self._budget.spend()
            tag = self._varint(cursor)
            field, kind = tag >> 3, tag & 7
            if field == 0:
                raise malformed(self._source.name, "it is no protocol buffer")
            if kind == _VARINT:
                yield field, kind, self._varint(cursor)
            elif kind == _BYTES:
                length = self._varint(cursor)
                begin = cursor.position
                cursor.skip(length)
                yield field, kind, Cursor(self._source, begin, begin + length)
            elif kind in _WIDTHS:
                cursor.skip(_WIDTHS[kind])
            else:
                raise malformed(self._source.name, "it is no protocol buffer")

    def _parts(self, cursor: Cursor) -> Iterator[tuple[int, Cursor]]:
        """Yield the fields that have a length."""
        for field, kind, value in self._fields(cursor):
            if kind == _BYTES:
                yield field, value

    def _varint(self, cursor: Cursor) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = cursor.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF
        raise malformed(self._source.name, "it is no protocol buffer")

    def _text(self, cursor: Any) -> str:
        if not isinstance(cursor, Cursor) or cursor.left > _MOST_TEXT:
            raise malformed(self._source.name, "a text in it is far too long")
        self._budget.spend(text_steps(cursor.left))
        return shortened(cursor.take(cursor.left).decode("utf-8", "replace"))

    def _pair(self, cursor: Cursor) -> tuple[str, str]:
        found = {1: "", 2: ""}
        for field, value in self._parts(cursor):
            if field in found:
                found[field] = self._text(value)
        return found[1], found[2]

    def _opset(self, cursor: Cursor) -> None:
        domain, version = "", 0
        for field, kind, value in self._fields(cursor):
            if field == 1 and kind == _BYTES:
                domain = self._text(value)
            elif field == 2 and kind == _VARINT:
                version = value
        self._about[f"opset.{domain or 'ai.onnx'}"] = version

    def _graph(self, cursor: Cursor, above: str, depth: int) -> None:
        self._graphs += 1
        if depth > _MOST_DEPTH:
            raise malformed(self._source.name, "its graphs are nested deeper than those of any model")
        for field, value in self._parts(cursor):
            if field == 1:
                self._node(value, above, depth)
            elif field == 5:
                self._tensor(value, above)
            elif field == 15:
                for inner, part in self._parts(value):  # values and indices of a sparse tensor
                    if inner in (1, 2):
                        self._tensor(part, above, ("", ".values", ".indices")[inner])
            elif field in (11, 12) and not above:
                self._edge("inputs" if field == 11 else "outputs", value)

    def _node(self, cursor: Cursor, above: str, depth: int) -> None:
        kind_of_node, name = "", ""
        attributes: list[Cursor] = []
        for field, value in self._parts(cursor):
            if field == 2 and not name:
                name = self._text(value)
            elif field == 4:
                kind_of_node = self._text(value)
            elif field == 5:
                attributes.append(value)
        self._nodes[kind_of_node[:100]] += 1
        for attribute in attributes:
            for field, value in self._parts(attribute):
                if field in (5, 10):
                    self._tensor(value, above, name=name)
                elif field in (6, 11):
                    self._graph(value, f"{above}{name}.", depth + 1)

    def _tensor(self, cursor: Cursor, above: str, suffix: str = "", name: str = "") -> None:
        if len(self._tensors) >= MOST_TENSORS:
            raise malformed(self._source.name, "it has more tensors than any model")
        dims: list[int] = []
        number, own, size, external = 0, "", 0, False
        spans: list[Span] = []
        for field, kind, value in self._fields(cursor):
            if field == 1:
                dims += [value] if kind == _VARINT else self._packed(value)
            elif field == 2 and kind == _VARINT:
                number = value
            elif field == 8 and kind == _BYTES:
                own = self._text(value)
            elif field == 13 and kind == _BYTES:
                external = True
            elif field in _DATA and kind == _BYTES:
                size += value.left
                spans.append(Span(value.position, value.left))
        dtype = _TYPES.get(number, f"type {number}")
        info = TensorInfo(f"{above}{own or name}{suffix}", dtype, check_shape(self._source.name, dims), 0)
        self._names.spend(len(info.name))
        bits = bits_of(dtype)
        nbytes = -(-info.parameters * bits // 8) if bits else size
        file = "external data" if external else None
        span = spans[0] if len(spans) == 1 else None
        self._tensors.append(TensorInfo(info.name, dtype, info.shape, nbytes, file, span))

    def _packed(self, cursor: Any) -> list[int]:
        numbers = []
        while isinstance(cursor, Cursor) and cursor.left:
            self._budget.spend()
            numbers.append(self._varint(cursor))
            if len(numbers) > 100:
                raise malformed(self._source.name, "a tensor has an impossible shape")
        return numbers

    def _edge(self, where: str, cursor: Cursor) -> None:
        name, number = "", 0
        shape: list[int | str] = []
        for field, value in self._parts(cursor):
            if field == 1:
                name = self._text(value)
            elif field == 2:
                number, shape = self._edge_type(value)
        edges = self._about.setdefault(where, [])
        if len(edges) < 1000:
            edges.append({"name": name, "dtype": _TYPES.get(number, f"type {number}"), "shape": shape})

    def _edge_type(self, cursor: Cursor) -> tuple[int, list[int | str]]:
        number = 0
        shape: list[int | str] = []
        for field, value in self._parts(cursor):
            if field != 1:
                continue  # sequences, maps: no tensor
            for inner, inner_kind, part in self._fields(value):
                if inner == 1 and inner_kind == _VARINT:
                    number = part
                elif inner == 2 and inner_kind == _BYTES:
                    shape = [self._dimension(one) for field, one in self._parts(part) if field == 1]
        return number, shape

    def _dimension(self, cursor: Cursor) -> int | str:
        found: int | str = "?"
        for field, kind, value in self._fields(cursor):
            if field == 1 and kind == _VARINT:
                found = value
            elif field == 2 and kind == _BYTES:
                found = self._text(value)
        return found

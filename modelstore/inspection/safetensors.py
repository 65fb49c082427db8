"""safetensors: eight bytes of length, a JSON object, the tensors."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from modelstore.inspection.bytesource import ByteSource, malformed
from modelstore.inspection.contents import Inspection, Span, TensorInfo
from modelstore.inspection.limits import MOST_TENSORS, bits_of, check_layout, check_shape, shortened

__all__ = ["looks_like", "read"]

_MOST_HEADER: Final = 100_000_000  # what the format itself allows
_TYPES: Final = {
    "BOOL": "bool",
    "F4": "float4_e2m1",
    "F6_E2M3": "float6_e2m3",
    "F6_E3M2": "float6_e3m2",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "BF16": "bfloat16",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
    **{f"{sign}{bits}": f"{'u' * (sign == 'U')}int{bits}" for sign in "IU" for bits in (8, 16, 32, 64)},
}
# The header is taken apart by expressions that cannot go back: a JSON parser would build whatever nesting it is
# given, gigabytes from a header of a hundred megabytes. What is parsed as JSON is one entry at a time.
_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_SPACE: Final = rb"[ \t\r\n]*+"
_ENTRY: Final = re.compile(
    rb"%(s)b(?P<name>%(q)b)%(s)b:%(s)b(?P<value>\{(?:%(s)b%(q)b%(s)b:%(s)b%(q)b%(s)b,?)*+%(s)b\}|\{[^{}]{0,4096}+\})%(s)b(?P<more>[,}])"
    % {b"s": _SPACE, b"q": _STRING},
    re.DOTALL,
)


def looks_like(source: ByteSource) -> bool:
    """Tell whether a file may be one of these."""
    if source.size < 10:
        return False
    length = int.from_bytes(source.read(0, 8), "little")
    return 2 <= length <= _MOST_HEADER and source.read(8, 1) == b"{"


def read(source: ByteSource) -> Inspection:
    """Return what the file holds.

    Raises:
        UnreadableWeightsError: It does not keep to the format.
    """
    if source.size < 8:
        raise malformed(source.name, "it is too short for a safetensors file")
    length = int.from_bytes(source.read(0, 8), "little")
    if length > _MOST_HEADER:
        raise malformed(source.name, f"its header would take {length} bytes")
    header = source.read(8, length)
    start = 8 + length
    tensors: dict[str, TensorInfo] = {}
    metadata: dict[str, Any] = {}
    for name, value in _entries(source.name, header):
        if name == "__metadata__":
            metadata = {str(k): shortened(v) if isinstance(v, str) else str(v)[:100] for k, v in value.items()}
        elif name in tensors:
            raise malformed(source.name, f"it has two tensors {name!r:.100}")
        else:
            tensors[name] = _tensor(source, name, value, start)
            if len(tensors) > MOST_TENSORS:
                raise malformed(source.name, "its header has more tensors than any model")
    check_layout(source.name, tensors.values(), start, source.size, whole=True)
    return Inspection(source.name, "safetensors", source.size, tuple(tensors.values()), metadata)


def _entries(name: str, header: bytes) -> Any:
    text = header.rstrip(b" \t\r\n\0")
    if re.fullmatch(rb"\{[ \t\r\n]*\}", text):
        return
    position, more = 1, b","
    if not text.startswith(b"{"):
        raise malformed(name, "its header is no JSON object")
    while more == b",":
        match = _ENTRY.match(text, position)
        if match is None:
            raise malformed(name, f"its header is no list of tensors (at byte {position + 8})")
        try:
            yield json.loads(match["name"]), json.loads(match["value"])
        except (ValueError, RecursionError):
            raise malformed(name, f"an entry of its header is no JSON (at byte {position + 8})") from None
        position, more = match.end(), match["more"]
    if position != len(text):
        raise malformed(name, "something follows its header's end")


def _tensor(source: ByteSource, name: str, value: Any, start: int) -> TensorInfo:
    kind, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets")
    if not isinstance(kind, str) or not isinstance(shape, list) or not isinstance(offsets, list):
        raise malformed(source.name, f"the tensor {name!r:.100} lacks its type, shape or place")
    if len(offsets) != 2 or any(type(n) is not int for n in offsets) or not 0 <= offsets[0] <= offsets[1]:
        raise malformed(source.name, f"the place of tensor {name!r:.100} is impossible")
    dtype = _TYPES.get(kind, kind[:40])
    size = offsets[1] - offsets[0]
    info = TensorInfo(name, dtype, check_shape(source.name, shape), size, span=Span(start + offsets[0], size))
    bits = bits_of(dtype)
    if bits is not None and info.parameters * bits != size * 8:
        raise malformed(source.name, f"the tensor {name!r:.100} has another size than its shape")
    return info

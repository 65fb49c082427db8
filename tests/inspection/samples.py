"""Small valid files of every format, written by hand, so that they can be broken in every way."""

from __future__ import annotations

import io
import json
import pickle
import struct
import sys
import types
import zipfile
from typing import Any

import numpy as np

__all__ = ["SAMPLES", "gguf", "onnx", "safetensors", "torch_zip"]


def safetensors(header: Any = None, data: bytes = bytes(24), length: int | None = None) -> bytes:
    """Return a safetensors file."""
    if header is None:
        header = {
            "__metadata__": {"format": "pt"},
            "a.w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
            "a.b": {"dtype": "F16", "shape": [4], "data_offsets": [16, 24]},
        }
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _gguf_text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def gguf(
    tensors: int = 1,
    keys: int = 2,
    shape: tuple[int, ...] = (4, 2),
    kind: int = 0,
    extra: bytes = b"",
    order: str = "<",
) -> bytes:
    """Return a GGUF file with two keys and one tensor, which may count more than it has."""
    head = b"GGUF" + struct.pack("<IQQ", 3, tensors, keys)
    head += _gguf_text("general.name") + struct.pack("<I", 8) + _gguf_text("net")
    head += _gguf_text("list") + struct.pack("<IIQ", 9, 4, 2) + struct.pack("<2I", 1, 2) + extra
    head += _gguf_text("blk.w") + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, 0)
    return head + bytes(-len(head) % 32) + bytes(32)


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def field(number: int, value: int | bytes) -> bytes:
    """Return a field of a protocol buffer."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def onnx(graph: bytes | None = None) -> bytes:
    """Return an ONNX file with one initializer and one node."""
    if graph is None:
        tensor = field(1, 2) + field(1, 3) + field(2, 1) + field(8, b"W") + field(9, bytes(24))
        node = field(1, b"x") + field(2, b"y") + field(4, b"Relu")
        shape = field(1, field(2, b"batch")) + field(1, field(1, 3))
        edge = field(1, b"x") + field(2, field(1, field(1, 1) + field(2, shape)))
        graph = field(1, node) + field(2, b"g") + field(5, tensor) + field(11, edge)
    return field(1, 8) + field(2, b"tests") + field(7, graph) + field(8, field(2, 17))


class _Stub:
    """Stands for a function or class of PyTorch while a pickle is written."""


def _stand_in(module: str, name: str) -> Any:
    made = type(name, (_Stub,), {"__module__": module, "__qualname__": name})
    for part in (module, module.partition(".")[0]):
        sys.modules.setdefault(part, types.ModuleType(part))
    setattr(sys.modules[module], name, made)
    return made


class _Tensor:
    def __init__(self, key: str, shape: tuple[int, ...], offset: int = 0) -> None:
        self.key, self.shape, self.offset = key, shape, offset


def torch_zip(state: Any = None, storages: dict[str, bytes] | None = None, data: bytes | None = None) -> bytes:
    """Return a file as `torch.save` makes it, without PyTorch."""
    if state is None:
        state = {"fc.weight": _Tensor("0", (2, 3)), "fc.bias": _Tensor("1", (2,)), "epoch": 3}
        storages = {"0": bytes(24), "1": bytes(8)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", _pickled(state) if data is None else data)
        for key, content in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", content)
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def _pickled(state: Any) -> bytes:
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "torch"}
    for name in before:
        del sys.modules[name]
    try:
        rebuild, kind = _stand_in("torch._utils", "_rebuild_tensor_v2"), _stand_in("torch", "FloatStorage")
        buffer = io.BytesIO()

        class Pickler(pickle.Pickler):
            def persistent_id(self, value: Any) -> Any:
                return value.identity if isinstance(value, _Storage) else None

            def reducer_override(self, value: Any) -> Any:
                if not isinstance(value, _Tensor):
                    return NotImplemented
                strides, step = [], 1
                for length in reversed(value.shape):
                    strides.append(step)
                    step *= length
                storage = _Storage(("storage", kind, value.key, "cpu", 6))
                return rebuild, (storage, value.offset, value.shape, tuple(reversed(strides)), False, {})

        Pickler(buffer, 2).dump(state)
        return buffer.getvalue()
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torch"]:
            del sys.modules[name]
        sys.modules.update(before)


class _Storage:
    def __init__(self, identity: tuple[Any, ...]) -> None:
        self.identity = identity


def _npz(*, packed: bool = False) -> bytes:
    buffer = io.BytesIO()
    arrays = {"w": np.ones((3, 4), np.float32), "b": np.zeros(3)}
    (np.savez_compressed if packed else np.savez)(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ones((3, 4)))
    return buffer.getvalue()


SAMPLES = {
    "a.safetensors": safetensors(),
    "a.gguf": gguf(),
    "a.onnx": onnx(),
    "a.npy": _npy(),
    "a.npz": _npz(),
    "packed.npz": _npz(packed=True),
    "a.pt": torch_zip(),
}

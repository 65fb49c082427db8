"""PyTorch's zip containers, with the pickle of the tensors' descriptions read as data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from modelstore.inspection.bytesource import ByteSource, malformed
from modelstore.inspection.contents import Inspection, Span, TensorInfo
from modelstore.inspection.limits import MOST_IN_NAMES, MOST_TENSORS, Budget, bits_of, check_shape, shortened
from modelstore.inspection.pickles import Call, Global, Pairs, Persistent, read_pickle
from modelstore.inspection.zips import Member, prefix_of

__all__ = ["pickle_of", "read"]

_MOST_PICKLE: Final = 1 << 26
_MOST_DEPTH: Final = 64
_MOST_FACTS: Final = 100
_TYPES: Final = {
    "Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16", "Byte": "uint8",
    "Char": "int8", "Short": "int16", "Int": "int32", "Long": "int64", "Bool": "bool", "ComplexFloat": "complex64",
    "ComplexDouble": "complex128", "ComplexHalf": "complex32", "QInt8": "qint8", "QUInt8": "quint8", "QInt32": "qint32",
    "QUInt4x2": "quint4x2", "QUInt2x4": "quint2x4", "Untyped": "uint8",
}  # fmt: skip
_CONTAINERS: Final = ("_parameters", "_buffers", "_modules")
_VIEWS: Final = frozenset({"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_qtensor"})
_PARTS_COO: Final = ("indices", "values")
_PARTS_OTHER: Final = ("compressed_indices", "plain_indices", "values")
_WRAPPED: Final = frozenset({"_rebuild_parameter", "_rebuild_parameter_with_state"})


def pickle_of(found: dict[str, Member]) -> Member | None:
    """Return the member that describes the tensors, None if the archive is not one of PyTorch's."""
    for member in found.values():
        folder, _, name = member.name.rpartition("/")
        if name == "data.pkl" and folder.count("/") == 0:
            return member
    return None


def read(source: ByteSource, found: dict[str, Member], pickle: Member) -> Inspection:
    """Return what the container holds.

    Raises:
        UnreadableWeightsError: It does not keep to the format.
    """
    return _Reader(source, found, pickle).read()


class _Reader:
    def __init__(self, source: ByteSource, found: dict[str, Member], pickle: Member) -> None:
        self._source, self._found, self._pickle = source, found, pickle
        self._folder = pickle.name.removesuffix("data.pkl")
        self._tensors: dict[str, TensorInfo] = {}
        self._names = Budget(source.name, MOST_IN_NAMES)
        self._facts: dict[str, Any] = {}
        self._memory: dict[tuple[Any, ...], str] = {}

    def read(self) -> Inspection:
        source = self._source
        if self._pickle.size > _MOST_PICKLE:
            raise malformed(source.name, f"the pickle in it would take {self._pickle.size} bytes")
        data = prefix_of(source, self._pickle, _MOST_PICKLE)
        self._walk(read_pickle(source.name, data))
        for fact in ("version", "byteorder", ".format_version"):
            member = self._found.get(f"{self._folder}{fact}")
            if member is not None and member.size < 100:
                self._facts[f"archive {fact.lstrip('.')}"] = (
                    prefix_of(source, member, 100).decode("utf-8", "replace").strip()
                )
        scripted = any(name.startswith(f"{self._folder}code/") for name in self._found)
        kind = "TorchScript" if scripted else "PyTorch"
        return Inspection(source.name, kind, source.size, tuple(self._tensors.values()), self._facts)

    def _walk(self, root: Any) -> None:
        """Go through what was described, depth first and in order; whatever is reached twice is gone through once."""
        waiting: list[tuple[tuple[str, ...], Any]] = [((), root)]
        seen: set[int] = set()
        while waiting:
            path, value = waiting.pop()
            tensor = self._tensor(path, value)
            if tensor is not None:
                self._add(tensor)
                continue
            inner = list(_inside(value))
            if inner and id(value) not in seen and len(path) < _MOST_DEPTH:
                seen.add(id(value))
                waiting += [((*path, key) if key else path, one) for key, one in reversed(inner)]
            elif not inner and len(path) <= 4:
                self._note(path, value)

    def _note(self, path: tuple[str, ...], value: Any) -> None:
        plain = isinstance(value, bool | float | str) or (isinstance(value, int) and abs(value) < 1 << 63)
        if plain and path and len(self._facts) < _MOST_FACTS:
            self._facts[_joined(path)] = shortened(value) if isinstance(value, str) else value

    def _add(self, tensor: TensorInfo) -> None:
        if len(self._tensors) >= MOST_TENSORS:
            raise malformed(self._source.name, "it has more tensors than any model")
        self._names.spend(len(tensor.name))
        self._tensors.setdefault(tensor.name, tensor)

    def _tensor(self, path: tuple[str, ...], value: Any) -> TensorInfo | None:
        """Return the tensor that a call would have made; None if it makes none."""
        function, arguments = _called(value)
        for _ in range(4):
            if function in _WRAPPED and arguments:
                function, arguments = _called(arguments[0])
            elif function == "_rebuild_from_type_v2" and len(arguments) >= 3:
                function, arguments = _called(Call(arguments[0], arguments[2]))
        name = _joined(path)
        if function in _VIEWS and len(arguments) >= 4:
            kind = arguments[6] if function == "_rebuild_tensor_v3" and len(arguments) > 6 else None
            return self._view(name, arguments, kind)
        if function == "_rebuild_meta_tensor_no_storage" and len(arguments) >= 2:
            return TensorInfo(name, _named(arguments[0]) or "?", self._shape(arguments[1]), 0)
        return None

    def _shape(self, value: Any) -> tuple[int, ...]:
        if isinstance(value, Call) and isinstance(value.arguments, tuple) and len(value.arguments) == 1:
            value = value.arguments[0]  # torch.Size
        if not isinstance(value, tuple):
            raise malformed(self._source.name, "a tensor in it has no shape")
        return check_shape(self._source.name, value)

    def _view(self, name: str, arguments: tuple[Any, ...], kind: Any) -> TensorInfo:
        storage, offset, size, stride = arguments[:4]
        shape, strides = self._shape(size), self._shape(stride)
        dtype, key, member = self._storage(storage)
        dtype = _named(kind) or dtype
        info = TensorInfo(name, dtype, shape, 0)
        width = (bits_of(dtype) or 0) // 8
        nbytes = info.parameters * width
        if type(offset) is not int or not 0 <= offset < 1 << 62 or len(shape) != len(strides):
            raise malformed(self._source.name, f"the tensor {name!r:.100} has an impossible place")
        if member is None or not width:
            return TensorInfo(name, dtype, shape, nbytes)
        extent = (1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))) if info.parameters else 0
        if (offset + extent) * width > member.size:
            raise malformed(self._source.name, f"the tensor {name!r:.100} reaches beyond its storage")
        usual = strides if not _row_major(shape, strides) else None
        span = Span(offset * width, extent * width, member.header, member.inflated_from)
        first = self._memory.setdefault((key, offset, shape, strides), name)
        return TensorInfo(
            name, dtype, shape, nbytes, span=span, strides=usual, shared_with=None if first == name else first
        )

    def _storage(self, storage: Any) -> tuple[str, str, Member | None]:
        identity = storage.identity if isinstance(storage, Persistent) else None
        if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
            raise malformed(self._source.name, "a tensor in it has no storage")
        kind, key = identity[1], identity[2]
        name = kind.name if isinstance(kind, Global) else ""
        dtype = _TYPES.get(name.removesuffix("Storage"), name[:40] or "?")
        if not isinstance(key, str) or len(key) > 200:
            raise malformed(self._source.name, "a tensor in it has no storage")
        member = self._found.get(f"{self._folder}data/{key}")
        if member is None and identity[3] != "meta":
            raise malformed(self._source.name, f"the storage {key!r:.100} of a tensor is missing in it")
        return dtype, key, member


def _called(value: Any) -> tuple[str, tuple[Any, ...]]:
    """Return the name of a called function and its arguments; no name for what is no call."""
    if not isinstance(value, Call) or not isinstance(value.function, Global):
        return "", ()
    return value.function.name, value.arguments if isinstance(value.arguments, tuple) else ()


def _inside(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what is in a container, each with its part of a name; "" for parts that have none."""
    if isinstance(value, Pairs):
        for key, one in value.items:
            label = key if isinstance(key, str) else str(key) if type(key) is int and abs(key) < 1 << 63 else ""
            if label:
                yield "" if label in _CONTAINERS else label[:1000], one
    elif isinstance(value, list | tuple):
        for index, one in enumerate(value):
            yield str(index), one
    elif isinstance(value, Call):
        yield from _sparse(value) or _made(value)


def _made(call: Call) -> list[tuple[str, Any]]:
    """Return what a call put into the object that it made."""
    for inner in (call.items, call.state if isinstance(call.state, Pairs) else None, call.elements or None):
        if inner is not None:
            return [("", inner)]
    return []


def _sparse(call: Call) -> list[tuple[str, Any]]:
    """Return the tensors that a sparse one is made of, each with its part of a name."""
    function, arguments = _called(call)
    if function != "_rebuild_sparse_tensor" or len(arguments) < 2 or not isinstance(arguments[1], tuple):
        return []
    _, layout = _called(arguments[0])
    names = _PARTS_COO if layout == ("torch.sparse_coo",) else _PARTS_OTHER
    return list(zip(names, arguments[1], strict=False))


def _joined(path: tuple[str, ...]) -> str:
    return ".".join(path)


def _named(value: Any) -> str | None:
    """Return the name of a type such as `torch.uint16`."""
    return value.name[:40] if isinstance(value, Global) and value.module == "torch" else None


def _row_major(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    expected = 1
    for length, step in zip(reversed(shape), reversed(strides), strict=True):
        if length != 1 and step != expected:
            return False
        expected *= length
    return True

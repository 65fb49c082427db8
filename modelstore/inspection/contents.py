"""What a file of weights holds: its tensors, and what can be said of them together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from modelstore.records.values import encode

__all__ = ["Inspection", "Layer", "Span", "TensorInfo"]

_GROUPED: Final = 1000


@dataclass(frozen=True, slots=True)
class Span:
    """Where the bytes of a tensor are in their file.

    Attributes:
        offset: Of the first one.
        length: How many.
        member: Where the member of a zip archive begins whose bytes ``offset`` counts from, its own header included;
            None where there is none. Where those bytes begin takes one more read, which only a comparison needs.
        packed: The member's bytes in the archive, where they are deflated; None where they are not.
    """

    offset: int
    length: int
    member: int | None = None
    packed: int | None = None


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor.

    Attributes:
        name: As the file has it; parts are separated by dots.
        dtype: As NumPy and PyTorch name it ("float32", "bfloat16"), or the name of a quantised type ("Q4_K").
        shape: Its dimensions, the slowest first.
        size: Bytes that its elements take in the file.
        file: In which of several files; None where there is one.
        span: Where its bytes are; None where that is not known.
        strides: Elements from one to the next, by dimension; None for the usual order.
        shared_with: Name of an earlier tensor that is the same memory (tied weights); None for none.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    file: str | None = None
    span: Span | None = field(default=None, repr=False)
    strides: tuple[int, ...] | None = field(default=None, repr=False)
    shared_with: str | None = None

    @property
    def parameters(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "parameters": self.parameters,
            "size": self.size,
            "file": self.file,
            "shared_with": self.shared_with,
        }


@dataclass(slots=True)
class Layer:
    """All tensors below a common beginning of their names.

    Attributes:
        name: The whole beginning; "" for everything.
        tensors: How many there are.
        parameters: Elements of all of them, shared ones counted once.
        size: Bytes of all of them, shared ones counted once.
        children: The layers inside it, in the order of the file.
    """

    name: str
    tensors: int = 0
    parameters: int = 0
    size: int = 0
    children: list[Layer] = field(default_factory=list)

    def walk(self, depth: int | None = None) -> Iterator[tuple[int, Layer]]:
        """Yield the layers inside with their level from 0 on, parents first.

        Args:
            depth: How many levels; None for all.
        """
        waiting = [(0, child) for child in reversed(self.children)]
        while waiting:
            level, layer = waiting.pop()
            if depth is None or level < depth:
                yield level, layer
                waiting += [(level + 1, child) for child in reversed(layer.children)]


@dataclass(frozen=True)
class Inspection:
    """What a file, or a package of files, of weights holds.

    Attributes:
        name: Of the file.
        format: "safetensors", "GGUF", "ONNX", "NumPy", "PyTorch", "TorchScript"; several joined by a comma.
        size: Bytes of the file.
        tensors: In the order of the file.
        metadata: What the file says beside its tensors, as plain values.
        others: Files of a package that are no weights, or cannot be looked into: name to why.
        fetched_bytes: How many bytes were read for this.
    """

    name: str
    format: str
    size: int
    tensors: tuple[TensorInfo, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    others: Mapping[str, str] = field(default_factory=dict)
    fetched_bytes: int = 0

    @property
    def parameters(self) -> int:
        """The number of elements of all tensors; those that share memory count once."""
        return sum(tensor.parameters for tensor in self.tensors if tensor.shared_with is None)

    @property
    def dtypes(self) -> dict[str, int]:
        """Parameters by type, the most frequent first."""
        counts: Counter[str] = Counter()
        for tensor in self.tensors:
            if tensor.shared_with is None:
                counts[tensor.dtype] += tensor.parameters
        return dict(counts.most_common())

    def __getitem__(self, name: str) -> TensorInfo:
        """Return the tensor of that name.

        Raises:
            KeyError: There is none.
        """
        for tensor in self.tensors:
            if tensor.name == name:
                return tensor
        raise KeyError(name)

    def layers(self) -> Layer:
        """Return the tree of layers, by the parts of the tensors' names."""
        return _tree(self.tensors)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values; the stable form of the command line's `--json`."""
        return {
            "name": self.name,
            "format": self.format,
            "size": self.size,
            "parameters": self.parameters,
            "dtypes": self.dtypes,
            "tensors": [tensor.to_dict() for tensor in self.tensors],
            "metadata": {key: encode(value) for key, value in self.metadata.items()},
            "others": dict(self.others),
            "fetched_bytes": self.fetched_bytes,
        }

    def __repr__(self) -> str:
        return (
            f"<Inspection of {self.name!r}: {self.format}, {len(self.tensors)} tensors, {self.parameters:,} parameters>"
        )

    def _repr_html_(self) -> str:
        from html import escape

        rows = "".join(
            f"<tr><td style='text-align:left'>{escape(t.name)}</td><td>{escape(t.dtype)}</td>"
            f"<td>{' × '.join(map(str, t.shape))}</td><td>{t.size:,}</td></tr>"
            for t in self.tensors[:_GROUPED]
        )
        more = len(self.tensors) - _GROUPED
        rest = f"<tr><td>… and {more} more</td></tr>" if more > 0 else ""
        head = "<tr><th style='text-align:left'>tensor</th><th>type</th><th>shape</th><th>bytes</th></tr>"
        return f"<div><b>{escape(repr(self)[1:-1])}</b><table>{head}{rows}{rest}</table></div>"


def _tree(tensors: Iterable[TensorInfo]) -> Layer:
    root = Layer("")
    nodes: dict[tuple[str, ...], Layer] = {(): root}
    for tensor in tensors:
        parts = tuple(tensor.name.split(".", _MOST_PARTS))
        for end in range(len(parts) + 1):
            key = parts[:end]
            if key not in nodes:
                nodes[key] = Layer(".".join(key))
                nodes[key[:-1]].children.append(nodes[key])
            node = nodes[key]
            node.tensors += 1
            if tensor.shared_with is None:
                node.parameters += tensor.parameters
                node.size += tensor.size
    for node in nodes.values():
        while len(node.children) == 1 and node is not root:
            node.name, node.children = node.children[0].name, node.children[0].children
    return root


_MOST_PARTS: Final = 32

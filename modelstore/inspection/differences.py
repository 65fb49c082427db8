"""Which tensors of two files differ: by their bytes where those are here, by type and shape otherwise."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from modelstore.inspection.bytesource import ByteSource, malformed, open_local
from modelstore.inspection.contents import Inspection, Span, TensorInfo
from modelstore.inspection.zips import data_at

__all__ = ["TensorChange", "TensorDifferences", "compare_tensors"]

_BLOCK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class TensorChange:
    """A tensor that two files both have, and not as the same.

    Attributes:
        name: Its name.
        before: In the first file.
        after: In the second.
        what: What differs, of "dtype", "shape" and "values".
    """

    name: str
    before: TensorInfo
    after: TensorInfo
    what: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TensorDifferences:
    """How the tensors of two files differ.

    Attributes:
        added: Only in the second.
        removed: Only in the first.
        changed: In both, and different.
        same: How many are the same in both, as far as is known.
        by_values: Whether values were compared; otherwise only types and shapes were.
    """

    added: tuple[TensorInfo, ...]
    removed: tuple[TensorInfo, ...]
    changed: tuple[TensorChange, ...]
    same: int
    by_values: bool

    def __bool__(self) -> bool:
        """Whether there is a difference."""
        return bool(self.added or self.removed or self.changed)

    def to_dict(self) -> dict[str, Any]:
        """Return them as plain values."""
        return {
            "added": [one.to_dict() for one in self.added],
            "removed": [one.to_dict() for one in self.removed],
            "changed": [
                {
                    "name": one.name,
                    "what": list(one.what),
                    "before": {"dtype": one.before.dtype, "shape": list(one.before.shape)},
                    "after": {"dtype": one.after.dtype, "shape": list(one.after.shape)},
                }
                for one in self.changed
            ],
            "same": self.same,
            "by_values": self.by_values,
        }


def compare_tensors(
    before: Inspection, after: Inspection, before_path: Path | None = None, after_path: Path | None = None
) -> TensorDifferences:
    """Compare two files of weights, tensor by tensor.

    Args:
        before: What the first holds.
        after: What the second holds.
        before_path: Where the first is on this machine; None compares types and shapes only.
        after_path: Where the second is.

    Raises:
        UnreadableWeightsError: A file is damaged.
        StorageError: A file cannot be read.
    """
    old, new = _named(before), _named(after)
    by_values = before_path is not None and after_path is not None
    changed, same = [], 0
    with ExitStack() as stack:
        files = _Files(stack, before_path), _Files(stack, after_path)
        for name in old.keys() & new.keys():
            one, other = old[name], new[name]
            what = [part for part in ("dtype", "shape") if getattr(one, part) != getattr(other, part)]
            if not what and by_values and files[0].digest(one) != files[1].digest(other):
                what = ["values"]
            if what:
                changed.append(TensorChange(name, one, other, tuple(what)))
            else:
                same += 1
    order = {name: place for place, name in enumerate(old)}
    return TensorDifferences(
        added=tuple(one for name, one in new.items() if name not in old),
        removed=tuple(one for name, one in old.items() if name not in new),
        changed=tuple(sorted(changed, key=lambda change: order[change.name])),
        same=same,
        by_values=by_values,
    )


def _named(inspection: Inspection) -> dict[str, TensorInfo]:
    """Return tensors by name; those of several files that share one are told apart by the file."""
    named: dict[str, TensorInfo] = {}
    for tensor in inspection.tensors:
        named[tensor.name if tensor.name not in named else f"{tensor.file or ''}: {tensor.name}"] = tensor
    return named


class _Files:
    """The file, or the files of a folder, that tensors are in."""

    def __init__(self, stack: ExitStack, path: Path | None) -> None:
        self._stack, self._path = stack, path
        self._open: dict[str | None, ByteSource] = {}

    def digest(self, tensor: TensorInfo) -> tuple[Any, ...]:
        """Return what tells a tensor's values apart; the tensor's memory order belongs to it."""
        if tensor.span is None or self._path is None:
            return ()
        key = tensor.file if self._path.is_dir() else None
        if key not in self._open:
            path = self._path if key is None else self._path / key
            self._open[key] = self._stack.enter_context(open_local(path))
        hashed = hashlib.sha256()
        for block in _bytes_of(self._open[key], tensor.span):
            hashed.update(block)
        return (hashed.digest(), tensor.strides)


def _bytes_of(source: ByteSource, span: Span) -> Iterator[bytes]:
    if span.member is None:
        yield from source.blocks(span.offset, span.length, _BLOCK)
    elif span.packed is None:
        yield from source.blocks(data_at(source, span.member) + span.offset, span.length, _BLOCK)
    else:
        yield from _inflated(source, data_at(source, span.member), span)


def _inflated(source: ByteSource, start: int, span: Span) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(-15)
    skip, wanted = span.offset, span.length
    for block in source.blocks(start, span.packed or 0, _BLOCK):
        waiting = block
        while waiting and wanted:
            try:
                data = unpacker.decompress(waiting, _BLOCK)
            except zlib.error:
                raise malformed(source.name, "a member of it is damaged") from None
            waiting = unpacker.unconsumed_tail
            part = data[skip : skip + wanted]
            skip = max(0, skip - len(data))
            wanted -= len(part)
            yield part

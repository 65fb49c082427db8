"""From a path or URI to what is in the file, whatever its format."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from modelstore.errors import UnreadableWeightsError
from modelstore.inspection import gguf, numpy_files, onnx_files, safetensors, torch_files, zips
from modelstore.inspection.bytesource import ByteSource, malformed, open_local, open_remote
from modelstore.inspection.contents import Inspection, TensorInfo
from modelstore.storage import uris

__all__ = ["inspect_bytes", "inspect_path", "inspect_uri"]

_KNOWN: Final = "Known are safetensors, GGUF, ONNX, NumPy (npy, npz) and PyTorch's zip files."
_MOST_FILES: Final = 10_000
_OLD_TORCH: Final = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"


def inspect_path(path: str | os.PathLike[str], name: str | None = None) -> Inspection:
    """Look into a file on this machine, or into all files of a folder.

    Args:
        path: The file or folder.
        name: What to call it; None for its own name.

    Raises:
        UnreadableWeightsError: It is of no known format, or damaged.
        StorageError: It cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        return _folder(path, name or path.name)
    with open_local(path, name) as source:
        return inspect_bytes(source)


def inspect_uri(uri: str) -> Inspection:
    """Look into a file anywhere; of a remote one, only its headers are transferred.

    Raises:
        UnreadableWeightsError: It is of no known format, or damaged, or its server cannot send parts.
        InvalidUriError: The URI cannot be understood.
        StorageError: It cannot be read.
    """
    normalised = uris.normalise(uri)
    path = uris.local_path(normalised)
    if path is not None:
        return inspect_path(path)
    with open_remote(normalised, uris.basename(normalised) or "weights") as source:
        return inspect_bytes(source)


def inspect_bytes(source: ByteSource) -> Inspection:
    """Look into the bytes of a file.

    Raises:
        UnreadableWeightsError: They are of no known format, or damaged.
        StorageError: They cannot be read.
    """
    found = _single(source)
    if found is None:
        members = zips.members(source)
        found = _package(source, members)
    return replace(found, fetched_bytes=source.fetched_bytes)


def _single(source: ByteSource) -> Inspection | None:
    """Look into a file of weights; None for an archive of other files."""
    if source.size == 0:
        raise malformed(source.name, "it is empty")
    head = source.read(0, min(16, source.size))
    lower = source.name.lower()
    if head.startswith(gguf.MAGIC):
        return gguf.read(source)
    if head.startswith(numpy_files.MAGIC):
        return numpy_files.read(source)
    if zips.looks_like(source):
        return _archive(source)
    if lower.endswith(".safetensors") or safetensors.looks_like(source):
        return safetensors.read(source)
    if lower.endswith(".onnx") or onnx_files.looks_like(source):
        return onnx_files.read(source)
    if head[2:].startswith(_OLD_TORCH):
        raise UnreadableWeightsError(
            f"{source.name!r:.200} was written by an old PyTorch, as a pickle that only running it would tell apart",
            "Load and save it once more with PyTorch 1.6 or newer.",
        )
    raise UnreadableWeightsError(f"{source.name!r:.200} is of no format that can be looked into", _KNOWN)


def _archive(source: ByteSource) -> Inspection | None:
    members = zips.members(source)
    pickle = torch_files.pickle_of(members)
    if pickle is not None:
        return torch_files.read(source, members, pickle)
    if members and all(name.endswith(".npy") for name in members):
        return numpy_files.read_archive(source, members)
    if any(name.rpartition("/")[2] == "archive_format" for name in members):
        raise UnreadableWeightsError(
            f"{source.name!r:.200} is a program that torch.export wrote, whose weights lie in it without their shapes",
            "Save its state_dict() to look into it.",
        )
    return None


def _package(source: ByteSource, members: dict[str, zips.Member]) -> Inspection:
    """Look into the files of a package that are weights, without unpacking it."""
    found: list[tuple[str, Inspection]] = []
    others: dict[str, str] = {}
    if len(members) > _MOST_FILES:
        raise malformed(source.name, f"it has {len(members)} files")
    for name, member in members.items():
        if not member.stored:
            others[name] = "compressed"
            continue
        try:
            offset, length = member.span(source)
            inner = _single(source.part(offset, length, name))
        except UnreadableWeightsError as error:
            others[name] = error.message
        else:
            if inner is None:
                others[name] = "an archive"
            else:
                found.append((name, _moved(inner, offset)))
    return _merged(source.name, source.size, found, others)


def _moved(inner: Inspection, offset: int) -> Inspection:
    """Let the places of tensors count from the beginning of the archive, and not of the member."""
    tensors = []
    for tensor in inner.tensors:
        span = tensor.span
        if span is not None and span.member is not None:
            span = replace(span, member=span.member + offset)
        elif span is not None:
            span = replace(span, offset=span.offset + offset)
        tensors.append(replace(tensor, span=span))
    return replace(inner, tensors=tuple(tensors))


def _folder(folder: Path, name: str) -> Inspection:
    found: list[tuple[str, Inspection]] = []
    others: dict[str, str] = {}
    for file in sorted(one for one in folder.rglob("*") if one.is_file())[:_MOST_FILES]:
        shown = file.relative_to(folder).as_posix()
        try:
            found.append((shown, inspect_path(file, shown)))
        except UnreadableWeightsError as error:
            others[shown] = error.message
    size = sum(one.size for _, one in found)
    return _merged(name, size, found, others)


def _merged(name: str, size: int, found: list[tuple[str, Inspection]], others: dict[str, str]) -> Inspection:
    if not found:
        reasons = "; ".join(list(others.values())[:3])
        raise UnreadableWeightsError(
            f"{name!r:.200} has no file that can be looked into{f' ({reasons})' if reasons else ''}", _KNOWN
        )
    tensors: list[TensorInfo] = []
    metadata: dict[str, Any] = {}
    for file, one in found:
        tensors += [replace(tensor, file=file) for tensor in one.tensors]
        metadata |= {f"{file}: {key}": value for key, value in one.metadata.items()}
    formats = ", ".join(dict.fromkeys(one.format for _, one in found))
    return Inspection(name, formats, size, tuple(tensors), metadata, others)

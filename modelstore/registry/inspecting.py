"""Looking into the weights of registered models, wherever they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from modelstore.errors import BlobNotFoundError, MissingWeightsError, StorageError, StorageUnavailableError
from modelstore.storage import uris
from modelstore.storage.objects import parse_object_uri, sanitise_filename

if TYPE_CHECKING:
    from modelstore.cache import Download
    from modelstore.inspection import Inspection, TensorDifferences
    from modelstore.records.entities import ModelRecord
    from modelstore.registry.registry import Registry

__all__ = ["compare_weights", "inspect_model", "nearby"]


def inspect_model(registry: Registry, record: ModelRecord) -> Inspection:
    """Look into a model's weights; of remote ones that are not in the cache, only headers are transferred.

    Raises:
        MissingWeightsError: The model has none.
        UnreadableWeightsError: They are of no known format, or damaged.
        StorageError: They cannot be read.
    """
    from modelstore.inspection import inspect_path, inspect_uri

    if record.uri is None:
        raise MissingWeightsError(f"The model {record.name!r} ({record.id}) has no weights to look into")

    def look(uri: str) -> Inspection:
        path, address = _nearby(registry, record, uri), registry.weights.physical(uri)
        return inspect_uri(address) if path is None else inspect_path(path, uris.basename(address) or None)

    return registry.weights.read_at_place(record, look)


def nearby(registry: Registry, record: ModelRecord) -> Path | None:
    """Return the path of a model's weights where that takes no network; None elsewhere.

    What it holds is not verified: looking into it reads a few kilobytes, and hashing all of it may take minutes.

    Raises:
        BlobNotFoundError: They should be on this machine, and are not.
    """
    if record.uri is None:
        return None
    return registry.weights.read_at_place(record, lambda uri: _nearby(registry, record, uri))


def _nearby(registry: Registry, record: ModelRecord, uri: str) -> Path | None:
    address = registry.weights.physical(uri)
    parsed = parse_object_uri(uri)
    local: Path | None
    if parsed is not None and not registry.weights.objects.remote:
        local = registry.weights.objects.local(*parsed) or registry.weights.objects.path(*parsed)
    else:
        local = uris.local_path(address)
    if local is not None:
        if not local.exists():
            raise BlobNotFoundError(f"Nothing exists at {local}", "Was it moved or deleted?")
        return local
    try:
        found = registry.weights.cache.fetch(
            address,
            _never,
            expected=record.digest,
            filename=sanitise_filename(uris.basename(address) or "weights"),
            offline=True,
            lock_timeout_s=0,
        )
    except StorageError:
        return None
    return found.path


def _never(*_: object, **__: object) -> Download:
    raise StorageUnavailableError("This look-up is to stay on this machine")


def compare_weights(registry: Registry, before: ModelRecord, after: ModelRecord) -> TensorDifferences:
    """Compare the tensors of two models: by their values where both files are here, by types and shapes otherwise.

    Raises:
        MissingWeightsError: One of them has no weights.
        UnreadableWeightsError: They are of no known format, or damaged.
        StorageError: They cannot be read.
    """
    from modelstore.inspection import TensorDifferences, compare_tensors

    first = inspect_model(registry, before)
    if before.digest is not None and before.digest == after.digest:
        return TensorDifferences((), (), (), len(first.tensors), by_values=True)
    return compare_tensors(first, inspect_model(registry, after), nearby(registry, before), nearby(registry, after))

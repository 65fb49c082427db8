"""Registering weights that no task made: a file or folder to be stored, or a URI that is only written down."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelstore import config
from modelstore.records.entities import ModelRecord
from modelstore.registry import rules
from modelstore.registry.sources import Source

if TYPE_CHECKING:
    from modelstore.registry.registry import Registry

__all__ = ["register_files", "register_uri"]


def register_files(
    registry: Registry,
    path: str | os.PathLike[str],
    *,
    name: str,
    tags: Iterable[str] = (),
    metadata: Mapping[str, Any] | None = None,
    destination: str | os.PathLike[str] | None = None,
    publish: bool = False,
    **fields: Any,
) -> ModelRecord:
    """Store a file, or a folder as a package, and register a model with these bytes.

    Arguments are checked before a byte is read. Bytes first, row second: a process killed in between leaves no model.

    Args:
        registry: The registry.
        path: File or folder; copied as it is at the moment of the call.
        name: The model's name.
        tags: Its tags.
        metadata: Key to value.
        destination: URI that the bytes go to; None takes `MODELSTORE_DEFAULT_OUTPUT_URI`, else the registry.
        publish: Publish it in the same transaction.
        **fields: project, comment, framework, labels, iteration; None means none.

    Raises:
        BlobNotFoundError: There is no such file.
        InvalidRequestError: An argument is not acceptable; nothing was stored.
        StorageError: The bytes could not be stored; nothing was registered.
    """
    weights = registry.weights
    tags, metadata = _checked(registry, name, tags, metadata, fields)
    local = Path(path).expanduser()
    package = local.is_dir()
    source = Source.folder(local, f"{local.resolve().name or 'package'}.zip") if package else Source.file(local, None)
    target = destination or config.default_output_uri()
    checked = weights.check_destination(target) if target else None
    while True:
        with weights.snapshot(source) as snapshot:
            stored = weights.store(snapshot, checked)
        with registry.transaction():
            # False when the last other use of these bytes was removed, and they with it, since they were stored.
            if weights.confirm(stored.uri):
                content = {**fields, **stored.fields(), "package": package}
                return _create(registry, name, tags, metadata, content, publish=publish)


def register_uri(
    registry: Registry,
    uri: str | os.PathLike[str],
    *,
    name: str,
    tags: Iterable[str] = (),
    metadata: Mapping[str, Any] | None = None,
    publish: bool = False,
    **fields: Any,
) -> tuple[ModelRecord, bool]:
    """Register a model whose weights lie somewhere else already; they are neither read nor copied.

    Look-up and registration are one transaction: any number of processes that register one URI at once get one model.

    Args:
        registry: The registry.
        uri: Where the weights are.
        name: The model's name.
        tags: Its tags.
        metadata: Key to value.
        publish: Publish it in the same transaction; also when the URI was registered before.
        **fields: project, comment, framework, labels, iteration, package; None means none.

    Returns:
        The model, and whether it is new. When the URI was registered before, it is that model as it was.

    Raises:
        InvalidRequestError: An argument is not acceptable; nothing was changed.
    """
    logical = registry.weights.logical(uri)
    tags, metadata = _checked(registry, name, tags, metadata, fields)
    with registry.transaction():
        found = registry.models.by_uri(logical)
        if found is None:
            return _create(registry, name, tags, metadata, {**fields, "uri": logical}, publish=publish), True
        if publish and not found.published:
            found = registry.models.publish(found.id)
        return found, False


def _checked(
    registry: Registry,
    name: str,
    tags: Iterable[str],
    metadata: Mapping[str, Any] | None,
    fields: Mapping[str, Any],
) -> tuple[list[str], dict[str, Any]]:
    """Refuse what `Models.create` would refuse, before a byte is stored for it."""
    rules.check_name("model name", name)
    registry.models.checked(fields)
    for key, value in (metadata or {}).items():
        rules.metadata_pair(rules.check_metadata_key(key), value, None)
    return rules.check_tags(tags), dict(metadata or {})


def _create(
    registry: Registry, name: str, tags: list[str], metadata: dict[str, Any], fields: dict[str, Any], *, publish: bool
) -> ModelRecord:
    record = registry.models.create(name=name, tags=tags, metadata=metadata, **fields)
    return registry.models.publish(record.id) if publish else record

"""Models in one file: their operations, those of their tasks and projects, and their bytes.

A bundle is taken in like operations from any other registry (note 002): in any order, any number of times. Nothing in
it is believed: all of it is checked before anything here changes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from modelstore.errors import BlobNotFoundError, IntegrityError, InvalidOperationError, InvalidUriError
from modelstore.ids import now_ms
from modelstore.index import ops
from modelstore.records.operations import Operation
from modelstore.registry.references import around, references
from modelstore.storage.bundles import BundleReader, BundleWriter, object_member
from modelstore.storage.fingerprints import Fingerprint
from modelstore.storage.objects import parse_object_uri

if TYPE_CHECKING:
    from modelstore.index.ingest import Ingested
    from modelstore.registry.registry import Registry

__all__ = ["KIND", "Exported", "Imported", "add_object", "export_models", "import_models"]

KIND: Final = "models"
_AHEAD_MS: Final = 7 * 86_400_000
"""Stamps further in the future than clocks are wrong would let this registry's own clock run away."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What is in a bundle.

    Attributes:
        path: The file.
        models: How many models.
        operations: How many operations.
        objects: How many objects.
        size: Bytes of the file.
        elsewhere: Ids of models whose weights are no objects of the registry, and stay where they are.
        missing: Digests of objects that are missing in the registry.
    """

    path: Path
    models: int
    operations: int
    objects: int
    size: int
    elsewhere: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import brought.

    Attributes:
        models: Ids of the models in the bundle.
        operations: Operations that were new here.
        known: Operations that were here already.
        objects: Objects that were new here.
        missing: Digests of objects that the maker of the bundle did not have either.
    """

    models: tuple[str, ...]
    operations: int
    known: int
    objects: int
    missing: tuple[str, ...]


def export_models(
    registry: Registry, ids: Sequence[str], target: str | os.PathLike[str], *, overwrite: bool = False
) -> Exported:
    """Write models with their bytes and history into one file; see `Registry.export_models`."""
    registry.flush_reports()
    registry.refresh()  # inside of one state of the index nothing more comes in
    with BundleWriter(target, KIND, overwrite=overwrite) as bundle:
        with registry.database.snapshot():
            models = [registry.models.get(model_id) for model_id in dict.fromkeys(ids)]
            entities = around(registry, [model.id for model in models])
            needed = [one for one in references(registry.database) if one.entity in entities]
            count = _write_operations(registry, bundle, entities)
        done, missing = _write_objects(registry, bundle, {(one.digest, one.name) for one in needed})
        elsewhere = tuple(m.id for m in models if m.uri is not None and parse_object_uri(m.uri) is None)
        size = bundle.finish(
            registry=registry.id, created=now_ms(), models=[model.id for model in models], operations=count,
            elsewhere=elsewhere, missing=sorted(missing),
        )  # fmt: skip
    path = Path(target).expanduser().absolute()
    return Exported(path, len(models), count, len(done), size, elsewhere, tuple(sorted(missing)))


def _write_operations(registry: Registry, bundle: BundleWriter, entities: set[str]) -> int:
    count = 0

    def lines() -> Iterator[str]:
        nonlocal count
        for operation in ops.of_entities(registry.database.connection, sorted(entities)):
            count += 1
            yield operation.to_json()

    bundle.add_lines("operations.jsonl", lines())
    return count


def _write_objects(registry: Registry, bundle: BundleWriter, needed: set[tuple[str, str]]) -> tuple[set[str], set[str]]:
    done: set[str] = set()
    missing: set[str] = set()
    for digest, name in sorted(needed):
        if digest in done or digest in missing:
            continue
        found = add_object(registry, bundle, digest, name)
        if found is None:
            missing.add(digest)
            continue
        if found != digest:
            raise IntegrityError(f"The object {digest} is damaged", "Run `modelstore fsck --deep --repair` first.")
        done.add(digest)
    return done, missing


def add_object(registry: Registry, bundle: BundleWriter, digest: str, name: str) -> str | None:
    """Write an object into a bundle, and return the digest of what was written; None when it is gone."""
    try:
        path = registry.weights.object_file(digest, name)
        return None if path is None else bundle.add(object_member(digest, name), path)
    except BlobNotFoundError:
        return None


def import_models(registry: Registry, source: str | os.PathLike[str]) -> Imported:
    """Take in a bundle; see `Registry.import_models`.

    Where models are here already, both histories become one, as in a sync.
    """
    registry.flush_reports()
    with registry.database.write():
        pass  # refuses where nothing can be written, before gigabytes are read
    with BundleReader(source, KIND) as bundle:
        needed = _check_operations(bundle)
        missing = tuple(str(one) for one in bundle.manifest.get("missing", ()))
        stray = [digest for _, digest, _ in bundle.objects() if digest not in needed]
        if stray:
            raise IntegrityError(f"{str(bundle.path)!r} holds bytes that nothing in it refers to: {stray[0]}")
        # 1. bytes that are not here are unpacked beside the objects, and checked    2. they are published
        # 3. the operations, in one transaction that sees the bytes    (tests/registry/test_bundling.py kills at each)
        brought = 0
        taken: Ingested | None = None
        while taken is None:
            brought += _take_objects(registry, bundle)
            with registry.database.write():
                if not _absent(registry, bundle):  # else somebody collected old garbage of the same bytes
                    sys.audit("modelstore.step", "bundling.import.3")
                    taken = registry.ingest(_operations(bundle), checked=True)
        models = tuple(str(one) for one in bundle.manifest.get("models", ()))
    return Imported(models, taken.new, taken.known, brought, missing)


def _operations(bundle: BundleReader) -> Iterator[Operation]:
    for line in bundle.lines("operations.jsonl"):
        yield Operation.from_json(line)


def _check_operations(bundle: BundleReader) -> set[str]:
    """Read every operation once, and return the digests that they refer to."""
    if "operations.jsonl" not in bundle.members:
        raise IntegrityError(f"{str(bundle.path)!r} has no operations")
    latest = now_ms() + _AHEAD_MS
    found: set[str] = set()
    for operation in _operations(bundle):
        if operation.ms > latest:
            raise InvalidOperationError(f"Operation {operation.stamp} is of a time that has not come yet")
        if operation.kind == "model" and isinstance(operation.changes.get("uri"), str):
            with suppress(InvalidUriError):
                parsed = parse_object_uri(operation.changes["uri"])
                if parsed is not None:
                    found.add(parsed[0])
        plot = operation.changes.get("plot") if operation.action == "report" else None
        if plot is not None and "digest" in plot:
            found.add(plot["digest"])
    return found


def _absent(registry: Registry, bundle: BundleReader) -> list[tuple[str, str, str]]:
    lacking = registry.weights.objects.lacking(one[1:] for one in bundle.objects())
    return [one for one in bundle.objects() if one[1:] in lacking]


def _take_objects(registry: Registry, bundle: BundleReader) -> int:
    store = registry.weights.objects
    snapshots: list[tuple[Path, Fingerprint, str]] = []
    try:
        for member, digest, name in _absent(registry, bundle):
            sys.audit("modelstore.step", "bundling.import.1")
            target = store.temporary()
            fingerprint = bundle.extract(member, target)
            snapshots.append((target, fingerprint, name))
            if fingerprint.digest != digest:
                raise IntegrityError(f"The bytes of {digest} in {str(bundle.path)!r} are others")
        for target, fingerprint, name in snapshots:
            sys.audit("modelstore.step", "bundling.import.2")
            store.put(target, fingerprint, name)
    finally:
        for target, _, _ in snapshots:
            target.unlink(missing_ok=True)
    return len(snapshots)

"""Removing models and freeing what only they used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelstore.records.entities import Link, ModelRecord
from modelstore.storage.objects import parse_object_uri

if TYPE_CHECKING:
    from modelstore.registry.registry import Registry

__all__ = ["Removal", "remove_chosen", "remove_models"]


@dataclass(frozen=True, slots=True)
class Removal:
    """What was removed, or would be.

    Attributes:
        models: The models as they were.
        links: Links of tasks to them that went as well.
        uploads: Numbers of their unfinished uploads, given up with the bytes.
        freed_bytes: Bytes of weights that the registry held for them and for no other model.
        dry_run: True when nothing was touched.
    """

    models: tuple[ModelRecord, ...]
    links: tuple[Link, ...]
    uploads: tuple[int, ...]
    freed_bytes: int
    dry_run: bool


def remove_models(
    registry: Registry, ids: Sequence[str], *, keep_weights: bool = False, force: bool = False, dry_run: bool = False
) -> Removal:
    """Remove models, all of them or none, and then the bytes that the registry held for them alone.

    A process killed between the two leaves bytes that belong to no model, which `Registry.check` reports. Files and
    objects outside the registry folder are never deleted.

    Args:
        registry: The registry.
        ids: Ids of the models.
        keep_weights: Leave the bytes, so that `Models.restore` brings the models back whole.
        force: Also models that a task uses as input, or whose task is published.
        dry_run: Only tell; what would be refused is refused.

    Raises:
        ModelNotFoundError: There is no such model; none was removed.
        ModelInUseError: Something refers to one, and ``force`` was not given; none was removed.
    """
    return remove_chosen(registry, lambda: ids, keep_weights=keep_weights, force=force, dry_run=dry_run)


def remove_chosen(
    registry: Registry,
    choose: Callable[[], Sequence[str]],
    *,
    keep_weights: bool = False,
    force: bool = False,
    dry_run: bool = False,
) -> Removal:
    """Remove the models that ``choose`` names inside the transaction, so that nothing it asked for changes meanwhile.

    See `remove_models` for the rest.
    """
    if dry_run:
        registry.refresh()
        with registry.database.snapshot():
            return _told(registry, list(dict.fromkeys(choose())), keep_weights=keep_weights, force=force)
    with registry.transaction():
        wanted = list(dict.fromkeys(choose()))
        links = [link for model_id in wanted for link in registry.models.links(model_id)]
        pending = [] if keep_weights else _uploads(registry, wanted)
        removed = [registry.models.delete(model_id, force=force) for model_id in wanted]
    freed = 0 if keep_weights else sum(registry.weights.release(record) for record in removed)
    if registry.database.in_transaction and not keep_weights and registry.kind == "local":
        freed = _exclusive_bytes(registry, removed)  # they go when the transaction has ended
    return Removal(tuple(removed), tuple(links), tuple(pending), freed, dry_run=False)


def _told(registry: Registry, wanted: list[str], *, keep_weights: bool, force: bool) -> Removal:
    links = [link for model_id in wanted for link in registry.models.links(model_id)]
    records = [registry.models.get(model_id) for model_id in wanted]
    for record in () if force else records:
        registry.models.check_unused(record)
    pending = [] if keep_weights else _uploads(registry, wanted)
    freed = 0 if keep_weights or registry.kind == "shared" else _exclusive_bytes(registry, records)
    return Removal(tuple(records), tuple(links), tuple(pending), freed, dry_run=True)


def _uploads(registry: Registry, ids: Sequence[str]) -> list[int]:
    wanted = set(ids)
    return [upload.id for upload in registry.weights.uploads.pending() if upload.model in wanted]


def _exclusive_bytes(registry: Registry, records: Sequence[ModelRecord]) -> int:
    """Return the size of the stored objects that no model but these refers to."""
    parsed = [parse_object_uri(record.uri) for record in records if record.uri is not None]
    ours = {record.id for record in records}
    total = 0
    for digest in {one[0] for one in parsed if one is not None}:
        address = f"modelstore://{digest.replace(':', '/')}/"  # all names of this content: "0" follows "/"
        users = registry.database.all(
            "SELECT id FROM models WHERE uri >= ? AND uri < ? AND state <> 2 UNION ALL SELECT p.entity FROM plots AS p"
            " LEFT JOIN models AS m ON m.id = p.entity WHERE p.digest = ? AND m.state IS NOT 2",
            (address, address[:-1] + "0", digest),
        )
        if all(row[0] in ours for row in users):
            total += registry.weights.objects.size(digest) or 0
    return total

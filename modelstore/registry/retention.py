"""Keeping the best, the last, the tagged, the young; and removing the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal

from modelstore.errors import InvalidRequestError, ModelInUseError
from modelstore.ids import ms_to_clock, now_ms
from modelstore.index import ops, reader
from modelstore.registry.removal import Removal, remove_chosen
from modelstore.registry.rules import check_tags
from modelstore.registry.search import ModelSearch

if TYPE_CHECKING:
    from modelstore.records.entities import ModelRecord
    from modelstore.registry.registry import Registry

__all__ = ["Kept", "Retention", "Rules", "retain"]

Kept = Literal["published", "best", "last", "tagged", "young", "used", "uploading", "changed"]
"""Why a model stays: the first of these that holds. "changed": while the others were being removed."""

_AT_ONCE: Final = 200
"""Models to a transaction: others who write wait for it."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Which models are meant, and which of them stay; see `modelstore.registry.registry.Registry.retain`."""

    project: str | None = None
    where: Any = None
    keep_best: int | None = None
    by: Any = None
    keep_last: int | None = None
    keep_tagged: Sequence[str] = ()
    older_than_s: float | None = None

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            InvalidRequestError: There is no rule, or one is not acceptable.
        """
        check_tags(self.keep_tagged)
        if self.keep_best is None and self.keep_last is None and not self.keep_tagged and self.older_than_s is None:
            raise InvalidRequestError(
                "Without a rule every model would be removed",
                "Say what to keep: the best, the last, the tagged, the young.",
            )
        for number in (self.keep_best, self.keep_last):
            if number is not None and (type(number) is not int or number < 0):
                raise InvalidRequestError(f"{number!r} is no number of models to keep")
        if (self.keep_best is None) != (self.by is None):
            raise InvalidRequestError("The best are chosen by an order", "Give keep_best and by together.")
        seconds = self.older_than_s
        if seconds is not None and (type(seconds) not in (int, float) or not seconds >= 0):
            raise InvalidRequestError(f"{seconds!r} is no time in seconds")


@dataclass(frozen=True, slots=True)
class Retention:
    """What `retain` did, or would do.

    Attributes:
        removal: What was removed, and how many bytes that freed.
        kept: How many models stayed, by the first reason that holds.
    """

    removal: Removal
    kept: dict[Kept, int] = field(default_factory=dict)


def retain(registry: Registry, rules: Rules, *, keep_weights: bool = False, dry_run: bool = False) -> Retention:
    """Remove the models that no rule keeps; see `modelstore.registry.registry.Registry.retain`."""
    rules.check()
    if registry.database.in_transaction and not keep_weights:
        raise InvalidRequestError("Bytes cannot be deleted as part of a transaction", "Let retain() be one by itself.")
    registry.flush_reports()
    registry.refresh()
    since = ops.last_number(registry.database.connection)
    kept: Counter[Kept] = Counter()
    doomed = list(_doomed(registry, rules, kept))
    if dry_run:
        choose = partial(_unchanged, registry, doomed, since)
        return Retention(remove_chosen(registry, choose, keep_weights=keep_weights, dry_run=True), dict(kept))
    parts: list[Removal] = []
    for start in range(0, len(doomed), _AT_ONCE):
        batch = doomed[start : start + _AT_ONCE]
        part = remove_chosen(registry, partial(_unchanged, registry, batch, since), keep_weights=keep_weights)
        if len(part.models) < len(batch):
            kept["changed"] += len(batch) - len(part.models)
        parts.append(part)
    return Retention(_joined(parts), dict(kept))


def _unchanged(registry: Registry, batch: list[ModelRecord], since: int) -> list[str]:
    """Return, inside the transaction that removes them, the models that are as they were before any was chosen.

    One that was registered while the best were being found is in no list of these, however good it is.
    """
    current = {record.id: record for record in reader.models(registry.database, [record.key for record in batch])}
    uploading = {upload.model for upload in registry.weights.uploads.pending()}
    return [
        one.id
        for one in batch
        if (now := current.get(one.id)) is not None
        and not now.deleted
        and not ops.touched(registry.database.connection, one.id, since)
        and one.id not in uploading
        and not _is_used(registry, now)
    ]


def _joined(parts: list[Removal]) -> Removal:
    return Removal(
        tuple(model for part in parts for model in part.models),
        tuple(link for part in parts for link in part.links),
        tuple(upload for part in parts for upload in part.uploads),
        sum(part.freed_bytes for part in parts),
        dry_run=False,
    )


def _doomed(registry: Registry, rules: Rules, kept: Counter[Kept]) -> Iterator[ModelRecord]:
    best = _first(registry, rules, rules.keep_best, rules.by)
    last = _first(registry, rules, rules.keep_last, "-created")
    uploading = {upload.model for upload in registry.weights.uploads.pending()}
    young = None if rules.older_than_s is None else ms_to_clock(now_ms() - int(rules.older_than_s * 1000))
    tags = set(rules.keep_tagged)
    inputs = {row[0] for row in registry.database.all("SELECT model FROM links WHERE direction = 'input'")}
    settled = {row[0] for row in registry.database.all("SELECT id FROM tasks WHERE published_op IS NOT NULL")}
    for record in _all(registry, rules, None):
        reason: Kept | None = None
        if record.published:
            reason = "published"
        elif record.id in best:
            reason = "best"
        elif record.id in last:
            reason = "last"
        elif tags.intersection(record.tags):
            reason = "tagged"
        elif young is not None and record.updated > young:
            reason = "young"
        elif record.id in uploading:
            reason = "uploading"
        elif record.id in inputs or record.task in settled:
            reason = "used"
        if reason is None:
            yield record
        else:
            kept[reason] += 1


def _first(registry: Registry, rules: Rules, number: int | None, order: Any) -> set[str]:
    return {record.id for record in islice(_all(registry, rules, order), number)} if number else set()


def _all(registry: Registry, rules: Rules, order: Any) -> Iterator[ModelRecord]:
    search = ModelSearch(project=rules.project, where=rules.where, order_by=order, include_archived=True)
    for page in search.pages(registry):
        yield from page


def _is_used(registry: Registry, record: ModelRecord) -> bool:
    try:
        registry.models.check_unused(record)
    except ModelInUseError:
        return True
    return False

"""What keeps a registry in order; the half of `Registry` that people call now and then."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from modelstore.registry.backup import Backup
    from modelstore.registry.bundling import Exported, Imported
    from modelstore.registry.checks import Finding
    from modelstore.registry.compacting import Compacted
    from modelstore.registry.fsck import Checkup
    from modelstore.registry.gc import Collection
    from modelstore.registry.registry import Registry
    from modelstore.registry.retention import Retention

__all__ = ["Upkeep"]


class Upkeep:
    """Checking, repairing and freeing; see `modelstore.registry.registry.Registry`."""

    __slots__ = ()

    @property
    def _registry(self) -> Registry:
        return cast("Registry", self)

    def check(self, *, deep: bool = False) -> list[Finding]:
        """Look for what is wrong with this registry; an empty list means nothing is.

        Args:
            deep: Read every stored byte and fold the whole journal for comparison.
        """
        from modelstore.registry.doctor import examine

        return examine(self._registry, deep=deep)

    def fsck(self, *, deep: bool = False, repair: bool = False) -> Checkup:
        """Check the journal, operation by operation, the index against it, and the objects; and repair them.

        Args:
            deep: Read every stored byte.
            repair: Make the index anew where it is wrong; bring missing and damaged objects back from other names,
                unfinished uploads, the cache, other addresses of the same bytes and remotes. Damaged bytes are put
                aside, never deleted.

        Raises:
            ReadOnlyRegistryError: It is to be repaired and cannot be written.
        """
        from modelstore.registry.fsck import fsck

        return fsck(self._registry, deep=deep, repair=repair)

    def gc(self, *, grace_s: float = 86_400.0, keep_former_s: float = 2_592_000.0, dry_run: bool = False) -> Collection:
        """Delete stored bytes that nothing refers to any more; others may go on using the registry.

        Args:
            grace_s: Spare what was stored or touched within so many seconds (a day): a process may be about to refer
                to it.
            keep_former_s: Spare bytes of removed models, and bytes that newer ones replaced, for so many seconds (30
                days) after that; until then a restoration brings them back.
            dry_run: Only say what would go.

        Raises:
            InvalidRequestError: A time is negative or none, or this thread is in a transaction, which could be undone.
            ReadOnlyRegistryError: The registry cannot be written.
        """
        from modelstore.registry.gc import collect

        return collect(self._registry, grace_s=grace_s, keep_former_s=keep_former_s, dry_run=dry_run)

    def retain(  # noqa: PLR0913 - one rule each, all by name
        self,
        *,
        project: str | None = None,
        where: Any = None,
        keep_best: int | None = None,
        by: Any = None,
        keep_last: int | None = None,
        keep_tagged: Sequence[str] = (),
        older_than_s: float | None = None,
        keep_weights: bool = False,
        dry_run: bool = False,
    ) -> Retention:
        """Remove the models that no rule keeps, and free the bytes that only they used.

        They are removed a few hundred at a time, so that others can write in between; what is changed meanwhile stays.

        Never removed are models that are published, used as input by a task, made by a published task, or have an
        unfinished upload. Archived models are treated like the others.

        Args:
            project: Only models of this project; None for those of all, taken together.
            where: Only models that match this condition, as `Model.query_models` takes it.
            keep_best: Keep so many, the first in the order ``by``.
            by: The order in which the best come first, as `Model.query_models` takes it: "-metadata.accuracy",
                "metrics.val.loss". Models without the value come last.
            keep_last: Keep so many of those registered last.
            keep_tagged: Keep those with any of these tags.
            older_than_s: Keep those that were changed within so many seconds.
            keep_weights: Leave the bytes, so that a restoration brings the models back whole.
            dry_run: Only say what would go.

        Raises:
            InvalidRequestError: There is no rule, or one is not acceptable; nothing was removed.
            ProjectNotFoundError: There is no such project.
        """
        from modelstore.registry.retention import Rules, retain

        rules = Rules(project, where, keep_best, by, keep_last, keep_tagged, older_than_s)
        return retain(self._registry, rules, keep_weights=keep_weights, dry_run=dry_run)

    def backup(self, target: str | os.PathLike[str], *, with_objects: bool = True, overwrite: bool = False) -> Backup:
        """Write this registry into one file, as it is at one moment; `modelstore.registry.backup.recover` reads it.

        Args:
            target: The file.
            with_objects: False leaves the stored bytes out.
            overwrite: Replace a file of that name.

        Raises:
            InvalidRequestError: The file is there already, and ``overwrite`` was not given.
            StorageError: It cannot be written; nothing is left.
        """
        from modelstore.registry.backup import backup

        return backup(self._registry, target, with_objects=with_objects, overwrite=overwrite)

    def export_models(self, ids: Sequence[str], target: str | os.PathLike[str], *, overwrite: bool = False) -> Exported:
        """Write models with their bytes, history, reports, tasks and projects into one file, for `import_models`.

        Args:
            ids: Ids of the models.
            target: The file.
            overwrite: Replace a file of that name.

        Raises:
            ModelNotFoundError: There is no such model; nothing was written.
            InvalidRequestError: The file is there already, and ``overwrite`` was not given.
            IntegrityError: Bytes of a model are damaged; nothing was written.
            StorageError: The file cannot be written.
        """
        from modelstore.registry.bundling import export_models

        return export_models(self._registry, ids, target, overwrite=overwrite)

    def import_models(self, source: str | os.PathLike[str]) -> Imported:
        """Take in a file that `export_models` wrote; all of it is checked first. Doing it again changes nothing.

        Raises:
            BlobNotFoundError: There is no such file.
            InvalidRequestError: It is no bundle of models, or holds what no bundle holds; nothing was changed.
            IntegrityError: It is cut off or damaged; nothing was changed.
            InvalidOperationError: An operation in it breaks the format; nothing was changed.
            StorageError, RegistryError: The registry cannot be written; nothing was changed.
        """
        from modelstore.registry.bundling import import_models

        return import_models(self._registry, source)

    def compact(self, *, quiet_ms: int = 3_600_000) -> Compacted:
        """Make a checkpoint of a shared registry, and pack the streams of writers that have been quiet.

        Closing a registry does so by itself when it is worth it. Others may go on using the registry.

        Args:
            quiet_ms: Milliseconds since a writer's last operation after which his streams are packed; 0 packs all.

        Raises:
            InvalidRequestError: The registry is of one machine: there is nothing to compact.
            StorageError: The registry's folder cannot be read or written; nothing was lost.
        """
        from modelstore.registry.compacting import compact

        return compact(self._registry, quiet_ms=quiet_ms)

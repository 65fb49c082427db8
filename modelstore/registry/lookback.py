"""What was, and taking it back; the half of `Registry` that the journal makes possible."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from modelstore.records.entities import Change
    from modelstore.registry.moments import Moment
    from modelstore.registry.registry import Registry
    from modelstore.registry.timediff import ModelChange
    from modelstore.registry.undoing import Undone

__all__ = ["Lookback"]


class Lookback:
    """Moments, what changed between them, and undoing; see `modelstore.registry.registry.Registry`."""

    __slots__ = ()

    @property
    def _registry(self) -> Registry:
        return cast("Registry", self)

    def at(self, moment: Moment) -> Self:
        """Return the registry as it was: queries, models, tasks and local copies of that moment, read-only.

        It is exact: the fold of the operations made until then, by their stamps. The first use of a moment folds them
        (about 0.1 ms each). The last few moments, and those of which somebody holds a model, are kept until this
        registry is closed. Bytes that were freed since are gone.

        Args:
            moment: A datetime or ISO text (local time where it has no zone), a date (its end), seconds since 1970, or
                an operation's stamp (that operation included).

        Raises:
            InvalidRequestError: It is no moment.
        """
        from modelstore.registry.past import Views

        return cast("Self", self._registry.part("views", Views).at(moment))

    def changes_between(
        self, first: Moment, second: Moment | None = None, *, project: str | None = None
    ) -> list[ModelChange]:
        """Return the models that were added, removed or changed between two moments, ordered by id.

        Args:
            first: The earlier moment, as for `at`.
            second: The later one; None for now.
            project: Only models that are or were in this project; None for all.

        Raises:
            InvalidRequestError: A moment is none.
        """
        from modelstore.registry.timediff import changes_between

        return changes_between(self._registry, first, second, project=project)

    def history(
        self,
        *,
        model: str | None = None,
        task: str | None = None,
        project: str | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        key: str | None = None,
        limit: int | None = None,
    ) -> Iterator[Change]:
        """Return who changed what, when, and what was there before: the latest first, read while it is asked for.

        Of one model, task or project, else of the whole registry. Reports are left out. What was there before is None
        too where the change that set it never arrived here.

        Args:
            model: Id of a model, removed or not.
            task: Id of a task, removed or not.
            project: Full name of a project: what became of it, and of the models and tasks that are or were in it.
            since: From then on, a date being its beginning; else as for `at`.
            until: Until then, as for `at`.
            key: Only of this field or keyed value ("name", "tag:prod"), or of all of a kind ("tag", "meta").
            limit: At most so many changes; None for all.

        Raises:
            ModelNotFoundError, TaskNotFoundError, ProjectNotFoundError: There is, and was, none such.
            InvalidRequestError: Another argument is not acceptable.
        """
        from modelstore.registry.history import History

        return History(model, task, project, since, until, key, limit).run(self._registry)

    def undo(self, stamp: str | None = None, *, dry_run: bool = False, force: bool = False) -> list[Undone]:
        """Bring back what a change, with its whole transaction, replaced: by a new change, which can be undone too.

        Args:
            stamp: The operation, as `history` shows it; None for the last change made on this host.
            dry_run: Only say what would be done.
            force: Bring back what nothing has changed since, and leave the rest; else that is refused.

        Returns:
            What was brought back, and, with ``force``, what was not.

        Raises:
            NotFoundError: There is no such operation.
            InvalidRequestError: Something has been changed since, or the operation only reported.
            PublishedModelError: A publication cannot be taken back.
        """
        from modelstore.registry.undoing import undo

        return undo(self._registry, stamp, dry_run=dry_run, force=force)

"""Finding tasks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from modelstore.errors import InvalidRequestError, ProjectNotFoundError
from modelstore.ids import clock_to_datetime
from modelstore.query.evaluate import regexp
from modelstore.records.entities import ProjectRecord, TaskRecord
from modelstore.registry.tasks import check_regex
from modelstore.sdk._context import Registry, current_registry
from modelstore.sdk.task_record import TaskBase

if TYPE_CHECKING:
    from modelstore.query import Node
    from modelstore.registry.moments import Moment

__all__ = ["TaskSearch"]

logger = logging.getLogger("modelstore")


class TaskSearch(TaskBase):
    """The part of `Task` that finds tasks and projects."""

    @classmethod
    def get_task(
        cls,
        task_id: str | None = None,
        project_name: str | None = None,
        task_name: str | None = None,
        tags: Sequence[str] | None = None,
        allow_archived: bool = True,
        task_filter: Mapping[str, Any] | None = None,
        *,
        as_of: Moment | None = None,
    ) -> Self | None:
        """Return one task.

        Args:
            task_id: Its id; the other arguments are then ignored.
            project_name: Full name of its project; None for any.
            task_name: Exact name; None for any.
            tags: Tags and operators that it must match.
            allow_archived: Also an archived one, when no other matches.
            task_filter: As for `get_tasks`.
            as_of: The task as it was then, as for `get_tasks`.

        Returns:
            The task; of several the one changed last, with a warning; None when there is none.

        Raises:
            ProjectNotFoundError: There is no such project.
            TaskNotFoundError: There is no task ``task_id``.
        """
        registry = _registry_at(as_of)
        if task_id is not None:
            return cls(registry, registry.tasks.get(task_id))
        if project_name:
            registry.tasks.project(project_name)
        found = registry.tasks.find(
            projects=[project_name] if project_name else None,
            name=task_name,
            tags=tags,
            archived=allow_archived,
            **_narrowed(task_filter),
        )
        found = [r for r in found if not r.archived] or found
        if len(found) > 1:
            logger.warning("%d tasks match; the one changed last, %s, is taken", len(found), found[0].id)
        return cls(registry, found[0]) if found else None

    @classmethod
    def get_tasks(
        cls,
        task_ids: Sequence[str] | None = None,
        project_name: Sequence[str] | str | None = None,
        task_name: str | None = None,
        tags: Sequence[str] | None = None,
        allow_archived: bool = True,
        task_filter: Mapping[str, Any] | None = None,
        *,
        where: Node | str | None = None,
        search: str | None = None,
        order_by: str | Sequence[Any] | None = None,
        max_results: int | None = None,
        as_of: Moment | None = None,
    ) -> list[Self]:
        """Return tasks, the one changed last first.

        Args:
            task_ids: Only these; None for any.
            project_name: Full name of their project, or several; an unknown one matches nothing.
            task_name: Regular expression that the name must contain a match of.
            tags: Tags and operators that they must match.
            allow_archived: Also archived ones.
            task_filter: "status" and "type" (one or several) narrow further; "order_by" is another order.
            where: A further condition on fields (`modelstore.query.TASK_FIELDS`), tags and hyper-parameters:
                ``(Field("status") == "completed") & (Meta("General/lr") < 0.01)``, or its text.
            search: Words that must all be found in the task's name, comment and tags.
            order_by: Fields, "-" in front for descending; None for "-updated". Ties come by id.
            max_results: At most so many; None for all.
            as_of: The tasks as they were then, read-only, as for `Model.query_models`; None for now.

        Raises:
            TagQueryError: ``tags`` is malformed.
            WhereSyntaxError: ``where`` is malformed.
            InvalidRequestError: Another argument is not acceptable.
        """
        registry = _registry_at(as_of)
        projects = [project_name] if isinstance(project_name, str) else [*(project_name or [])]
        found = registry.tasks.find(
            projects=[name for name in projects if name] or None,
            name_regex=task_name or None,
            ids=task_ids,
            tags=tags,
            archived=allow_archived,
            where=where,
            search=search,
            limit=max_results,
            **_narrowed(task_filter) | ({} if order_by is None else {"order_by": order_by}),
        )
        return [cls(registry, record) for record in found]

    @classmethod
    def query_tasks(
        cls,
        project_name: Sequence[str] | str | None = None,
        task_name: str | None = None,
        tags: Sequence[str] | None = None,
        additional_return_fields: Sequence[str] | None = None,
        task_filter: Mapping[str, Any] | None = None,
        *,
        where: Node | str | None = None,
        search: str | None = None,
        order_by: str | Sequence[Any] | None = None,
        max_results: int | None = None,
        as_of: Moment | None = None,
    ) -> list[str] | list[dict[str, Any]]:
        """Return the ids of matching tasks, the one changed last first.

        Args:
            project_name: As for `get_tasks`, as are ``task_name`` and ``tags``.
            task_name: See ``project_name``.
            tags: See ``project_name``.
            additional_return_fields: Return dictionaries with "id" and these fields of the task in place of ids.
            task_filter: As for `get_tasks`.
            where: As for `get_tasks`, as are ``search``, ``order_by``, ``max_results`` and ``as_of``.
            search: See ``where``.
            order_by: See ``where``.
            max_results: See ``where``.
            as_of: See ``where``.

        Raises:
            InvalidRequestError: A task has no such field, or as for `get_tasks`.
        """
        tasks = cls.get_tasks(
            project_name=project_name,
            task_name=task_name,
            tags=tags,
            task_filter=task_filter,
            where=where,
            search=search,
            order_by=order_by,
            max_results=max_results,
            as_of=as_of,
        )
        if not additional_return_fields:
            return [task.id for task in tasks]
        return [{"id": t.id} | {f: _field(t._record(), f) for f in additional_return_fields} for t in tasks]

    @classmethod
    def get_by_name(cls, task_name: str) -> Self | None:
        """Return the task of that name that was changed last; None when there is none."""
        return cls.get_task(task_name=task_name)

    @classmethod
    def get_project_id(cls, project_name: str, search_hidden: bool = True) -> str | None:
        """Return the id of a project; None when there is none of that name. No project is hidden here."""
        _ = search_hidden
        try:
            return current_registry().tasks.project(project_name).id
        except ProjectNotFoundError:
            return None

    @classmethod
    def get_projects(cls, **kwargs: Any) -> list[ProjectRecord]:
        """Return projects, sorted by name, with `id`, `name` and `description`.

        Args:
            **kwargs: ``name``, a regular expression that the name must contain a match of; nothing else is known.

        Raises:
            InvalidRequestError: It is none, or another condition was given.
        """
        pattern = kwargs.pop("name", None)
        if kwargs:
            raise InvalidRequestError(f"Projects cannot be narrowed by {next(iter(kwargs))!r}", "Use name.")
        regex = check_regex(pattern)
        found = current_registry().tasks.projects()
        return [project for project in found if regex is None or regexp(regex, project.name)]


def _registry_at(moment: Moment | None) -> Registry:
    return current_registry() if moment is None else current_registry().at(moment)


def _narrowed(task_filter: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a ``task_filter`` asks as filters of `Tasks.find`."""
    known = {"status": "statuses", "type": "types", "order_by": "order_by"}
    found: dict[str, Any] = {}
    for key, value in (task_filter or {}).items():
        if key not in known:
            raise InvalidRequestError(f"task_filter can narrow by {', '.join(known)}, not by {key!r}", "Use where.")
        several = [value] if isinstance(value, str) else value
        # ClearML's word for the time of the last change
        found[known[key]] = (
            [str(v).replace("last_update", "updated") for v in several] if key == "order_by" else several
        )
    return found


def _field(record: TaskRecord, name: str) -> Any:
    if name.startswith("_") or not hasattr(record, name):
        raise InvalidRequestError(f"A task has no field {name!r}")
    value = getattr(record, name)
    if name in ("created", "updated"):
        return clock_to_datetime(value)
    return list(value) if isinstance(value, tuple) else value

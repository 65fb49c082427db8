"""Finding tasks."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from modelstore.errors import InvalidRequestError, ProjectNotFoundError
from modelstore.ids import clock_to_datetime
from modelstore.query.evaluate import regexp
from modelstore.records.entities import ProjectRecord, TaskRecord
from modelstore.registry.tasks import check_regex
from modelstore.sdk._context import Registry, current_registry
from modelstore.sdk.task_record import TaskBase

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
    ) -> Self | None:
        """Return one task.

        Args:
            task_id: Its id; the other arguments are then ignored.
            project_name: Full name of its project; None for any.
            task_name: Exact name; None for any.
            tags: Tags and operators that it must match.
            allow_archived: Also an archived one, when no other matches.
            task_filter: {"status": [...]} narrows further.

        Returns:
            The task; of several the one changed last, with a warning; None when there is none.

        Raises:
            ProjectNotFoundError: There is no such project.
            TaskNotFoundError: There is no task ``task_id``.
        """
        registry = current_registry()
        if task_id is not None:
            return cls(registry, registry.tasks.get(task_id))
        found = _matching(registry, project_name, task_name, None, tags, allow_archived, task_filter)
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
    ) -> list[Self]:
        """Return tasks, the one changed last first.

        Args:
            task_ids: Only these; None for any.
            project_name: Full name of their project, or several; an unknown one matches nothing.
            task_name: Regular expression that the name must contain a match of.
            tags: Tags and operators that they must match.
            allow_archived: Also archived ones.
            task_filter: {"status": [...]} narrows further.
        """
        registry = current_registry()
        if project_name is None or isinstance(project_name, str):
            projects: list[str | None] = [project_name]
        else:
            projects = [*project_name] or [None]
        found: dict[str, TaskRecord] = {}
        for project in projects:
            for record in registry.tasks.find(
                project=project or None,
                name_regex=task_name or None,
                ids=task_ids,
                archived=allow_archived,
                statuses=_statuses(task_filter),
            ):
                found[record.id] = record
        records = sorted(_tagged(found.values(), tags), key=lambda r: (-r.updated, -r.key))
        return [cls(registry, record) for record in records]

    @classmethod
    def query_tasks(
        cls,
        project_name: Sequence[str] | str | None = None,
        task_name: str | None = None,
        tags: Sequence[str] | None = None,
        additional_return_fields: Sequence[str] | None = None,
        task_filter: Mapping[str, Any] | None = None,
    ) -> list[str] | list[dict[str, Any]]:
        """Return the ids of matching tasks, the one changed last first.

        Args:
            project_name: As for `get_tasks`, as are ``task_name`` and ``tags``.
            task_name: See ``project_name``.
            tags: See ``project_name``.
            additional_return_fields: Return dictionaries with "id" and these fields of the task in place of ids.
            task_filter: {"status": [...]} narrows further.

        Raises:
            InvalidRequestError: A task has no such field.
        """
        tasks = cls.get_tasks(project_name=project_name, task_name=task_name, tags=tags, task_filter=task_filter)
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


def _matching(
    registry: Registry,
    project: str | None,
    name: str | None,
    ids: Sequence[str] | None,
    tags: Sequence[str] | None,
    archived: bool,
    task_filter: Mapping[str, Any] | None,
) -> list[TaskRecord]:
    if project:
        registry.tasks.project(project)
    found = registry.tasks.find(
        project=project or None, name=name, ids=ids, archived=archived, statuses=_statuses(task_filter)
    )
    return _tagged(found, tags)


def _tagged(records: Iterable[TaskRecord], tags: Sequence[str] | None) -> list[TaskRecord]:
    from modelstore.query import matches, parse_tags

    node = parse_tags(tags)
    return [record for record in records if node is None or matches(node, set(record.tags))]


def _statuses(task_filter: Mapping[str, Any] | None) -> list[str] | None:
    if not task_filter:
        return None
    unknown = sorted(set(task_filter) - {"status"})
    if unknown:
        raise InvalidRequestError(f"task_filter can narrow by 'status', not by {unknown[0]!r}")
    status = task_filter["status"]
    return [status] if isinstance(status, str) else list(status)


def _field(record: TaskRecord, name: str) -> Any:
    if name.startswith("_") or not hasattr(record, name):
        raise InvalidRequestError(f"A task has no field {name!r}")
    value = getattr(record, name)
    if name in ("created", "updated"):
        return clock_to_datetime(value)
    return list(value) if isinstance(value, tuple) else value

"""Tasks: the runs that make and use models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from modelstore.errors import InvalidRequestError, ProjectNotFoundError, TaskClosedError, TaskNotFoundError
from modelstore.ids import is_id, new_id
from modelstore.index import reader
from modelstore.journal import Draft
from modelstore.records.entities import Link, ProjectRecord, TaskRecord
from modelstore.records.values import encode
from modelstore.registry import rules

if TYPE_CHECKING:
    from modelstore.registry.moments import Moment
    from modelstore.registry.registry import Registry

__all__ = ["OPEN_STATUSES", "Tasks", "check_regex"]

OPEN_STATUSES: Final = ("created", "queued", "in_progress")
"""Statuses in which a task can still be given inputs, labels and configuration."""

_FIELDS: Final = frozenset(
    (
        "name", "project", "type", "status", "status_reason", "status_message", "comment", "parent", "output_uri",
        "labels", "script", "runtime", "last_iteration", "started", "completed",
    )
)  # fmt: skip


class Tasks:
    """The tasks of one registry.

    Args:
        registry: The registry.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._database = registry.database

    # -- reading ---------------------------------------------------------------------------------------------------

    def get(self, task_id: str, *, deleted: bool = False) -> TaskRecord:
        """Return one task as it stands.

        Raises:
            TaskNotFoundError: There is no such task.
        """
        self._registry.refresh()
        text = task_id.strip() if isinstance(task_id, str) else task_id
        record = reader.task(self._database, text) if is_id(text) else None
        if record is None or (record.deleted and not deleted):
            raise TaskNotFoundError(f"There is no task {task_id!r:.80} in {self._registry.place}", "Check the id.")
        return record

    def find(self, *, as_of: Moment | None = None, **filters: Any) -> list[TaskRecord]:
        """Return tasks, newest change first.

        Args:
            as_of: As they were then, see `Registry.at`; None for now.
            **filters: The attributes of `TaskSearch`.

        Raises:
            InvalidRequestError: A filter is not acceptable.
        """
        from modelstore.registry.task_search import TaskSearch

        return TaskSearch(**filters).run(self._registry if as_of is None else self._registry.at(as_of))

    def links(self, task_id: str, direction: str) -> list[Link]:
        """Return a task's links to models, in the order in which they were made."""
        self._registry.refresh()
        return reader.links_of_task(self._database, task_id, direction)

    def made(self, task_id: str) -> list[str]:
        """Return the ids of the models that a task made, oldest first."""
        self._registry.refresh()
        return reader.models_of_task(self._database, task_id)

    def items(self, task_id: str, prefix: str) -> dict[str, Any]:
        """Return a task's hyper-parameters (``prefix`` "param:") or configuration objects ("config:")."""
        self._registry.refresh()
        return reader.items(self._database, task_id, prefix)

    def project(self, name: str) -> ProjectRecord:
        """Return one project.

        Raises:
            ProjectNotFoundError: There is none of that name; the message names the nearest.
        """
        self._registry.refresh()
        found = reader.projects(self._database, [rules.check_text("project name", name)])
        if found:
            return found[0]
        import difflib

        names = [record.name for record in reader.projects(self._database)]
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = "Did you mean " + " or ".join(repr(n) for n in near) + "?" if near else "Check the name."
        raise ProjectNotFoundError(f"No projects found when searching for {name!r} in {self._registry.place}", hint)

    def project_name(self, value: str) -> str:
        """Return a project's full name, given that or the id of a project.

        Raises:
            ProjectNotFoundError: It has the form of an id, and there is no such project.
        """
        self._registry.refresh()
        name = next(
            (record.name for record in reader.projects(self._database) if value in (record.id, record.name)), None
        )
        if name is None and is_id(value):
            raise ProjectNotFoundError(f"No project has the id {value} in {self._registry.place}", "Give its name.")
        return name if name is not None else value

    def projects(self) -> list[ProjectRecord]:
        """Return every project, sorted by name, with the numbers of its models and tasks."""
        self._registry.refresh()
        return reader.projects(self._database, counted=True)

    # -- writing ---------------------------------------------------------------------------------------------------

    def create(self, *, task_id: str | None = None, tags: Iterable[str] = (), **fields: Any) -> TaskRecord:
        """Create a task.

        Args:
            task_id: Its id; None makes one.
            tags: Its tags.
            **fields: name, project, type, status, comment, parent, output_uri, labels, script, runtime and the times.

        Raises:
            InvalidRequestError: A value is not acceptable; nothing was changed.
        """
        task_id = task_id or new_id()
        changes = {k: v for k, v in _checked(fields).items() if v is not None}
        changes |= {f"tag:{tag}": True for tag in rules.check_tags(tags)}
        self._registry.commit([Draft("task", task_id, "create", changes)])
        return self.get(task_id)

    def edit(
        self,
        task_id: str,
        *,
        items: Mapping[str, Any] | None = None,
        replace_items: str | None = None,
        require_open: bool = False,
        **fields: Any,
    ) -> TaskRecord:
        """Set fields and keyed values of a task; those not named keep theirs, None clears.

        Args:
            task_id: The task.
            items: Full keys ("param:General/lr", "config:General", "link:input:teacher") to values.
            replace_items: Remove keyed values that begin with this and are not in ``items``.
            require_open: Refuse a task that has ended.
            **fields: As for `create`.

        Raises:
            TaskNotFoundError: There is no such task.
            TaskClosedError: It has ended, and ``require_open`` was given.
            InvalidRequestError: A value is not acceptable; nothing was changed.
        """
        checked = _checked(fields)
        keyed = {
            rules.check_text("key", k): v if v is None or k.startswith("link:") else encode(v)
            for k, v in (items or {}).items()
        }
        with self._editing(task_id) as (record, changes):
            if require_open and record.status not in OPEN_STATUSES:
                raise TaskClosedError(
                    f"The task {record.name!r} ({record.id}) is {record.status}; only a running task can be changed so",
                    "Create a new task, or call mark_started(force=True) first.",
                )
            current = self._keyed(record, [*keyed, *([replace_items] if replace_items else [])])
            changes |= {k: v for k, v in checked.items() if getattr(record, k) != v or k in ("script", "runtime")}
            changes |= {k: v for k, v in keyed.items() if current.get(k) != v}
            if replace_items:
                changes |= {k: None for k in current if k.startswith(replace_items) and k not in keyed}
        return self.get(task_id)

    def _keyed(self, record: TaskRecord, keys: Iterable[str]) -> dict[str, Any]:
        current: dict[str, Any] = {}
        for prefix in {key.partition(":")[0] for key in keys}:
            if prefix == "link":
                for direction in ("input", "output"):
                    for link in self.links(record.id, direction):
                        current[f"link:{direction}:{link.name}"] = link.model
            else:
                found = self.items(record.id, f"{prefix}:")
                current |= {f"{prefix}:{name}": encode(value) for name, value in found.items()}
        return current

    def tag(
        self,
        task_id: str,
        *,
        add: Iterable[str] = (),
        remove: Iterable[str] = (),
        replace: Iterable[str] | None = None,
        system: bool = False,
    ) -> TaskRecord:
        """Add and remove tags, or replace them all; as `Models.tag`.

        Raises:
            TaskNotFoundError: There is no such task.
            InvalidRequestError: A tag is not acceptable; nothing was changed.
        """
        added, removed = rules.check_tags(add), rules.check_tags(remove)
        wanted = None if replace is None else rules.check_tags(replace)
        prefix = "systag:" if system else "tag:"
        with self._editing(task_id) as (record, changes):
            present = set(record.system_tags if system else record.tags)
            target = (present if wanted is None else set(wanted)) - set(removed) | set(added)
            changes |= {f"{prefix}{tag}": True for tag in sorted(target - present)}
            changes |= {f"{prefix}{tag}": None for tag in sorted(present - target)}
        return self.get(task_id)

    def publish(self, task_id: str) -> TaskRecord:
        """Mark a task as published; publishing again changes nothing.

        Raises:
            TaskNotFoundError: There is no such task.
        """
        with self._database.write():
            if not self.get(task_id).published:
                self._registry.commit([Draft("task", task_id, "publish", {"status": "published"})])
        return self.get(task_id)

    def delete(self, task_id: str) -> TaskRecord:
        """Remove a task, with its links to models: it is found no more, its history stays. Returns it as it was.

        Raises:
            TaskNotFoundError: There is no such task.
        """
        with self._database.write():
            record = self.get(task_id)
            links = [link for direction in ("input", "output") for link in self.links(record.id, direction)]
            drafts = [Draft("task", record.id, "delete", {"deleted": True})]
            if links:  # or its inputs would be in use for ever
                gone: dict[str, Any] = {f"link:{link.direction}:{link.name}": None for link in links}
                drafts.insert(0, Draft("task", record.id, "edit", gone))
            self._registry.commit(drafts)
        return record

    @contextmanager
    def _editing(self, task_id: str) -> Iterator[tuple[TaskRecord, dict[str, Any]]]:
        record = self.get(task_id)
        with self._database.write():
            changes: dict[str, Any] = {}
            yield self.get(record.id), changes
            if changes:
                self._registry.commit([Draft("task", record.id, "edit", changes)])


def _checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for field, value in fields.items():
        if field not in _FIELDS:
            raise InvalidRequestError(f"A task has no field {field!r}")
        if value is None and field != "name":
            checked[field] = None
        elif field == "name":
            checked[field] = rules.check_name("task name", value)
        elif field == "project":
            checked[field] = rules.check_project(value)
        elif field == "labels":
            checked[field] = rules.check_labels(value)
        elif field in ("script", "runtime"):
            checked[field] = encode(dict(value))
        elif field in ("last_iteration", "started", "completed"):
            checked[field] = rules.check_integer(field, value)
        else:
            checked[field] = rules.check_text(field, value)
    return checked


def check_regex(pattern: str | None) -> str | None:
    """Return a regular expression.

    Raises:
        InvalidRequestError: It is none.
    """
    if pattern is None:
        return None
    import re

    try:
        re.compile(pattern)
    except (re.error, RecursionError) as error:
        raise InvalidRequestError(
            f"{pattern!r} is no regular expression ({error})", "Escape special characters."
        ) from None
    return pattern

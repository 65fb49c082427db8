"""A task's row: its properties, its tags, where its models go."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from modelstore import config
from modelstore.ids import clock_to_datetime
from modelstore.records.entities import TaskRecord
from modelstore.registry import rules
from modelstore.sdk._context import Registry

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["TaskBase", "TaskTypes", "checked_output_uri"]


class TaskTypes(StrEnum):
    """Constants for the `task_type` of a task. Any other string is accepted there too."""

    training = "training"
    testing = "testing"
    inference = "inference"
    data_processing = "data_processing"
    application = "application"
    monitor = "monitor"
    controller = "controller"
    optimizer = "optimizer"
    service = "service"
    qc = "qc"
    custom = "custom"


class TaskBase:
    """The part of `Task` that is its row.

    Like a model object, a task object shows at once what its own process changed, and after `reload` what others did.
    """

    _owner_pid: int | None = None
    """The process that began the task and ends it; None for tasks that were found or created."""

    def __init__(self, registry: Registry, record: TaskRecord) -> None:
        self._registry = registry
        self._task_id = record.id
        self._cached: TaskRecord | None = None
        self._cached_version = -1
        self._initial_iteration = 0

    # -- the record ------------------------------------------------------------------------------------------------

    def _record(self) -> TaskRecord:
        version = self._registry.version
        if self._cached is None or self._cached_version != version:
            self._cached = self._registry.tasks.get(self._task_id)
            self._cached_version = version
        return self._cached

    def _edit(self, **fields: Any) -> None:
        self._registry.tasks.edit(self._task_id, **fields)

    def reload(self) -> None:
        """Read the task again, so that changes made by other processes show.

        Raises:
            TaskNotFoundError: The task was removed meanwhile.
        """
        self._cached = None
        self._record()

    @property
    def id(self) -> str:
        """The task's id: 32 hexadecimal digits."""
        return self._task_id

    @property
    def task_id(self) -> str:
        """The task's id: 32 hexadecimal digits."""
        return self._task_id

    @property
    def name(self) -> str | None:
        """The task's name."""
        return self._record().name

    @name.setter
    def name(self, value: str) -> None:
        self._edit(name=value)

    @property
    def project(self) -> str | None:
        """Id of the task's project; None for none."""
        return self._record().project_id

    @property
    def comment(self) -> str | None:
        """Free text about the task."""
        return self._record().comment

    @comment.setter
    def comment(self, value: str | None) -> None:
        self._edit(comment=value or None)

    @property
    def parent(self) -> str | None:
        """Id of the task that this one was cloned from."""
        return self._record().parent

    @property
    def status(self) -> str:
        """One of created, queued, in_progress, stopped, completed, failed, published."""
        return self._record().status or "created"

    @property
    def task_type(self) -> str:
        """The task's type."""
        return self._record().type or TaskTypes.training

    @property
    def created(self) -> datetime:
        """When the task was made (aware, UTC)."""
        return clock_to_datetime(self._record().created)

    @property
    def output_uri(self) -> str | None:
        """Where the task's models go; None where nothing was said, or the registry was.

        Setting takes a URI; True or False for the registry itself, whatever the defaults are; None for the defaults.
        """
        return self._record().output_uri or None

    @output_uri.setter
    def output_uri(self, value: str | PathLike[str] | bool | None) -> None:
        self._edit(output_uri=checked_output_uri(self._registry, value))

    @property
    def storage_uri(self) -> str | None:
        """The same as `output_uri`."""
        return self.output_uri

    @storage_uri.setter
    def storage_uri(self, value: str | PathLike[str] | bool | None) -> None:
        self.output_uri = value

    @property
    def cache_dir(self) -> str:
        """Folder of local copies."""
        return str(self._registry.cache_folder)

    def get_status(self) -> str:
        """Return the task's status, read anew."""
        self.reload()
        return self.status

    def get_project_name(self) -> str | None:
        """Return the full name of the task's project; None for none."""
        return self._record().project

    def set_name(self, name: str) -> None:
        """Set the task's name."""
        self.name = name

    def rename(self, new_name: str) -> None:
        """Set the task's name."""
        self.name = new_name

    def set_task_type(self, task_type: str) -> None:
        """Set the task's type: a constant of `TaskTypes`, or any other name."""
        self._edit(type=rules.check_name("task type", str(task_type)))

    def set_comment(self, comment: str | None) -> None:
        """Set the task's comment."""
        self.comment = comment

    def set_parent(self, parent: TaskBase | str | None) -> None:
        """Set the task's parent."""
        self._edit(parent=parent.id if isinstance(parent, TaskBase) else parent)

    def set_project(self, project_id: str | None = None, project_name: str | None = None) -> None:
        """Move the task to another project, named by id or full name."""
        self._edit(project=project_name or (self._registry.tasks.project_name(project_id) if project_id else None))

    def move_to_project(
        self, new_project_id: str | None = None, new_project_name: str | None = None, system_tags: object = None
    ) -> bool:
        """Move the task to another project, named by id or full name; returns True."""
        _ = system_tags
        self.set_project(new_project_id, new_project_name)
        return True

    # -- tags ------------------------------------------------------------------------------------------------------

    def add_tags(self, tags: str | Iterable[str]) -> None:
        """Add tags; a string is one tag, or several separated by blanks."""
        self._registry.tasks.tag(self._task_id, add=tags.split() if isinstance(tags, str) else tags)

    def remove_tags(self, tags: str | Iterable[str]) -> None:
        """Take tags away; those that it does not carry are ignored."""
        self._registry.tasks.tag(self._task_id, remove=tags.split() if isinstance(tags, str) else tags)

    def set_tags(self, tags: Iterable[str]) -> None:
        """Replace all tags."""
        self._registry.tasks.tag(self._task_id, replace=tags)

    def get_tags(self) -> list[str]:
        """Return the tags, sorted."""
        return list(self._record().tags)

    def set_system_tags(self, tags: Iterable[str]) -> None:
        """Replace all system tags."""
        self._registry.tasks.tag(self._task_id, replace=tags, system=True)

    def get_system_tags(self) -> list[str]:
        """Return the system tags, sorted."""
        return list(self._record().system_tags)

    def set_archived(self, archive: bool) -> None:
        """Archive the task, or bring it back."""
        change = {"add": ["archived"]} if archive else {"remove": ["archived"]}
        self._registry.tasks.tag(self._task_id, system=True, **change)

    def get_archived(self) -> bool:
        """Tell whether the task is archived."""
        return self._record().archived

    # -- where its models go ---------------------------------------------------------------------------------------

    def _destination(self, default: str | None = None) -> str | None:
        """Return where models go for which nothing was said, None for the registry; ``default`` is this process's."""
        record = self._record()
        if record.output_uri is not None:
            return record.output_uri or None
        if default is None and record.project is not None:
            default = self._registry.tasks.project(record.project).output_uri
        default = default or config.default_output_uri()
        return None if default is None else self._registry.weights.check_destination(default)

    def _advance_iteration(self, iteration: int | None) -> None:
        if iteration is not None and iteration + self._initial_iteration > (self._record().last_iteration or -1):
            self._edit(last_iteration=iteration + self._initial_iteration)

    def __repr__(self) -> str:
        return f"<Task {self._task_id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TaskBase) and other._task_id == self._task_id

    def __hash__(self) -> int:
        return hash(self._task_id)


def checked_output_uri(registry: Registry, value: str | PathLike[str] | bool | None) -> str | None:
    """Return an upload destination, normalised; "" for True and False, the registry; None for None and "": the default.

    Raises:
        InvalidUriError: It cannot be understood.
        MissingDriverError: The package for that storage is not installed.
        ReadOnlyStorageError: It cannot be written.
    """
    if isinstance(value, bool):
        return ""
    if value is None or not fspath(value):
        return None
    return registry.weights.check_destination(value)

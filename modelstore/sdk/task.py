"""`Task`: a run that makes and uses models."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, ClassVar, Final

from modelstore import config
from modelstore.errors import InvalidRequestError, ModelStoreError, TaskClosedError, TaskNotFoundError, UsageError
from modelstore.ids import clock_to_datetime, now_ms
from modelstore.records.entities import TaskRecord
from modelstore.registry import rules
from modelstore.registry.tasks import OPEN_STATUSES
from modelstore.sdk._context import Registry, current_registry, state
from modelstore.sdk.task_parameters import TaskParameters

if TYPE_CHECKING:
    from datetime import datetime

    from modelstore.sdk.logger import Logger
    from modelstore.sdk.model import BaseModel
    from modelstore.sdk.task_models import TaskModels

__all__ = ["Task", "TaskTypes"]

logger = logging.getLogger("modelstore")

_REUSE_WINDOW_MS: Final = 72 * 3600 * 1000


class TaskTypes:
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


class Task(TaskParameters):
    """A run. Made by `Task.init`, `Task.create` and `Task.get_task`, not directly.

    Like a model object, a task object shows at once what its own process changed, and after `reload` what others did.
    """

    TaskTypes = TaskTypes
    _owned: ClassVar[list[Task]] = []

    def __init__(self, registry: Registry, record: TaskRecord) -> None:
        self._registry = registry
        self._task_id = record.id
        self._cached: TaskRecord | None = record
        self._cached_version = registry.version
        self._initial_iteration = 0

    # -- making and finding ----------------------------------------------------------------------------------------

    @classmethod
    def init(
        cls,
        project_name: str | None = None,
        task_name: str | None = None,
        task_type: str = TaskTypes.training,
        tags: Sequence[str] | None = None,
        reuse_last_task_id: bool | str = True,
        continue_last_task: bool | str | int = False,
        output_uri: str | PathLike[str] | bool | None = None,
        auto_connect_arg_parser: bool | Mapping[str, bool] = True,
        auto_connect_frameworks: bool | Mapping[str, Any] = True,
        auto_resource_monitoring: bool | Mapping[str, Any] = True,
        auto_connect_streams: bool | Mapping[str, bool] = True,
        deferred_init: bool = False,
    ) -> Task:
        """Begin the main task of this process, which then is the current task.

        Args:
            project_name: Full name of its project; None for none.
            task_name: Its name; None takes the script's.
            task_type: A constant of `TaskTypes`.
            tags: Tags to add.
            reuse_last_task_id: True takes up the last task of this name and project again when it is less than 72
                hours old, has made no model, and was neither published nor archived; what it was given is forgotten
                then. A task's id takes up that one; False always makes a new one.
            continue_last_task: True goes on with the last task of this name and project, with its models; an id goes
                on with that task.
            output_uri: Where its models' weights go; True, False and None mean the registry.
            auto_connect_arg_parser: Accepted for compatibility; pass the parser to `connect`.
            auto_connect_frameworks: Accepted for compatibility; frameworks are not patched.
            auto_resource_monitoring: Accepted for compatibility; nothing is monitored.
            auto_connect_streams: Accepted for compatibility; output is not captured.
            deferred_init: Accepted for compatibility; beginning takes milliseconds.

        Returns:
            The task. A second call with the same project and name returns the same one.

        Raises:
            UsageError: Another task is the main task of this process.
            InvalidRequestError: A name or tag is not acceptable; nothing was changed.
            StorageError: ``output_uri`` cannot be written.
        """
        _ = auto_connect_arg_parser, auto_connect_frameworks, auto_resource_monitoring, auto_connect_streams
        _ = deferred_init
        name = rules.check_name("task name", task_name) if task_name else _script_name()
        project = rules.check_project(project_name) if project_name else None
        with state.lock:
            running = cls._running_main(project, name, task_name is not None, str(task_type))
            if running is not None:
                return running
            registry = current_registry()
            destination = _checked_output_uri(registry, output_uri)
            checked_tags = rules.check_tags(tags or ())
            task = cls._begin(registry, project, name, str(task_type), reuse_last_task_id, continue_last_task)
            if checked_tags:
                task.add_tags(checked_tags)
            if output_uri is not None:
                task._edit(output_uri=destination)
            state.main_task = task
            state.main_pid = os.getpid()
            cls._owned.append(task)
            _watch_exit()
        return task

    @classmethod
    def _running_main(cls, project: str | None, name: str, named: bool, task_type: str) -> Task | None:
        task = state.main_task
        if task is None:
            return None
        record = task._record()
        if record.status not in OPEN_STATUSES:
            return None
        same = (record.project or None) == project and (record.name == name or not named) and record.type == task_type
        if same or (project is None and not named):
            return task
        raise UsageError(
            f"Current task already created: {record.name!r} in project {record.project!r} ({record.id})",
            "Close it with task.close() before beginning another, or use Task.create().",
        )

    @classmethod
    def _begin(
        cls,
        registry: Registry,
        project: str | None,
        name: str,
        task_type: str,
        reuse: bool | str,
        continue_last: bool | str | int,
    ) -> Task:
        fields: dict[str, Any] = {
            "status": "in_progress",
            "status_reason": None,
            "status_message": None,
            "type": task_type,
            "script": _script(),
            "runtime": _runtime(),
            "started": now_ms(),
            "completed": None,
        }
        with registry.transaction():
            last = _last_task(registry, project, name)
            if continue_last is not False:
                record = registry.tasks.get(continue_last) if isinstance(continue_last, str) else last
                if record is not None:
                    return cls(registry, registry.tasks.edit(record.id, **fields))
            if isinstance(reuse, str):
                last = registry.tasks.get(reuse)
            if reuse and last is not None and (isinstance(reuse, str) or _reusable(registry, last)):
                logger.info("Overwriting (reusing) task id=%s", last.id)
                _reset(registry, last)
                return cls(registry, registry.tasks.edit(last.id, **fields))
            return cls(registry, registry.tasks.create(name=name, project=project, **fields))

    @classmethod
    def create(
        cls,
        project_name: str | None = None,
        task_name: str | None = None,
        task_type: str | None = None,
        repo: str | None = None,
        branch: str | None = None,
        commit: str | None = None,
        script: str | None = None,
        working_directory: str | None = None,
        packages: bool | Sequence[str] | None = None,
        requirements_file: str | PathLike[str] | None = None,
        docker: str | None = None,
        docker_args: str | None = None,
        docker_bash_setup_script: str | None = None,
        argparse_args: Sequence[tuple[str, str]] | None = None,
        base_task_id: str | None = None,
        add_task_init_call: bool = True,
        force_single_script_file: bool = False,
        binary: str | None = None,
        module: str | None = None,
        detect_repository: bool = True,
    ) -> Task:
        """Make a new task, which does not become the current one.

        Args:
            project_name: Full name of its project.
            task_name: Its name; None takes the script's.
            task_type: A constant of `TaskTypes`; None for training.
            repo: Kept as part of `script`, as are ``branch``, ``commit``, ``script``, ``working_directory``, ``binary``
                and ``module``.
            branch: See ``repo``.
            commit: See ``repo``.
            script: See ``repo``.
            working_directory: See ``repo``.
            packages: Kept too, as are ``docker`` and its companions; nothing is ever run from them here.
            requirements_file: See ``packages``.
            docker: See ``packages``.
            docker_args: See ``packages``.
            docker_bash_setup_script: See ``packages``.
            argparse_args: Names and values that become hyper-parameters of the section "Args".
            base_task_id: Begin with this task's parameters and configuration.
            add_task_init_call: Accepted for compatibility.
            force_single_script_file: Accepted for compatibility.
            binary: See ``repo``.
            module: See ``repo``.
            detect_repository: Accepted for compatibility.

        Raises:
            InvalidRequestError: A name is not acceptable; nothing was changed.
            TaskNotFoundError: There is no task ``base_task_id``.
        """
        _ = add_task_init_call, force_single_script_file, detect_repository
        registry = current_registry()
        described = {
            "repository": repo, "branch": branch, "version_num": commit, "entry_point": script, "binary": binary,
            "working_dir": working_directory, "module": module, "docker": docker, "docker_args": docker_args,
            "docker_setup": docker_bash_setup_script,
            "packages": list(packages) if isinstance(packages, (list, tuple)) else packages,
            "requirements_file": None if requirements_file is None else fspath(requirements_file),
        }  # fmt: skip
        with registry.transaction():
            record = registry.tasks.create(
                name=task_name or _script_name(),
                project=project_name or None,
                type=task_type or TaskTypes.training,
                status="created",
                script={k: v for k, v in described.items() if v is not None} or None,
            )
            task = cls(registry, record)
            if base_task_id is not None:
                base = registry.tasks.get(base_task_id)
                for prefix in ("param:", "config:"):
                    copied = registry.tasks.items(base.id, prefix)
                    registry.tasks.edit(record.id, items={f"{prefix}{k}": v for k, v in copied.items()})
            if argparse_args:
                task.set_parameters({f"Args/{k}": v for k, v in argparse_args})
        return task

    @classmethod
    def current_task(cls) -> Task | None:
        """Return the main task of this process, or of the process that forked it; None without one."""
        return state.main_task

    @classmethod
    def get_task(
        cls,
        task_id: str | None = None,
        project_name: str | None = None,
        task_name: str | None = None,
        tags: Sequence[str] | None = None,
        allow_archived: bool = True,
        task_filter: Mapping[str, Any] | None = None,
    ) -> Task | None:
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
    ) -> list[Task]:
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
        projects = [project_name] if project_name is None or isinstance(project_name, str) else list(project_name)
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
    def get_by_name(cls, task_name: str) -> Task | None:
        """Return the task of that name that was changed last; None when there is none."""
        return cls.get_task(task_name=task_name)

    @classmethod
    def get_project_id(cls, project_name: str) -> str | None:
        """Return the id of a project; None when there is none of that name."""
        from modelstore.errors import ProjectNotFoundError

        try:
            return current_registry().tasks.project(project_name).id
        except ProjectNotFoundError:
            return None

    @classmethod
    def get_projects(cls) -> list[Any]:
        """Return every project, sorted by name, with `id`, `name` and `description`."""
        return list(current_registry().tasks.projects())

    @classmethod
    def clone(
        cls,
        source_task: Task | str | None = None,
        name: str | None = None,
        comment: str | None = None,
        parent: str | None = None,
        project: str | None = None,
    ) -> Task:
        """Make a new task with another's parameters, configuration, labels, tags and input models.

        Args:
            source_task: The task or its id; None takes the current one.
            name: Name of the new one; None for "Clone Of …".
            comment: Its comment; None takes the source's.
            parent: Id of its parent; None for the source.
            project: Full name or id of its project; None for the source's.

        Raises:
            TaskNotFoundError: There is no such task.
            InvalidRequestError: There is no current task, and none was named.
        """
        source = cls.get_task(source_task) if isinstance(source_task, str) else source_task or state.main_task
        if source is None:
            raise InvalidRequestError("There is no task to clone", "Name one.")
        registry, record = source._registry, source._record()
        with registry.transaction():
            new = registry.tasks.create(
                name=name or f"Clone Of {record.name}",
                project=_project_name(registry, project) if project else record.project,
                type=record.type,
                status="created",
                comment=comment if comment is not None else record.comment,
                parent=parent or record.id,
                labels=record.labels,
                script=record.script or None,
                output_uri=record.output_uri,
                tags=record.tags,
            )
            items: dict[str, Any] = {}
            for prefix in ("param:", "config:"):
                items |= {f"{prefix}{k}": v for k, v in registry.tasks.items(record.id, prefix).items()}
            items |= {f"link:input:{link.name}": link.model for link in registry.tasks.links(record.id, "input")}
            registry.tasks.edit(new.id, items=items)
        return cls(registry, registry.tasks.get(new.id))

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
        """Where the task's models go; None for the registry. Setting takes a URI, or True, False or None for that."""
        return self._record().output_uri

    @output_uri.setter
    def output_uri(self, value: str | PathLike[str] | bool | None) -> None:
        self._edit(output_uri=_checked_output_uri(self._registry, value))

    storage_uri = output_uri

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

    rename = set_name

    def set_comment(self, comment: str | None) -> None:
        """Set the task's comment."""
        self.comment = comment

    def set_parent(self, parent: Task | str | None) -> None:
        """Set the task's parent."""
        self._edit(parent=parent.id if isinstance(parent, Task) else parent)

    def set_project(self, project_id: str | None = None, project_name: str | None = None) -> None:
        """Move the task to another project, named by id or full name."""
        self._edit(project=project_name or (_project_name(self._registry, project_id) if project_id else None))

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

    # -- models ----------------------------------------------------------------------------------------------------

    @property
    def models(self) -> TaskModels:
        """The models that the task uses ("input") and has made ("output"), as they are linked now."""
        from modelstore.sdk.task_models import collect

        return collect(self._registry, self._task_id)

    def get_models(self) -> TaskModels:
        """Return the models that the task uses and has made; see `models`."""
        return self.models

    @property
    def input_models_id(self) -> dict[str, str]:
        """Link names of the input models to their ids."""
        return {link.name: link.model for link in self._registry.tasks.links(self._task_id, "input")}

    @property
    def output_models_id(self) -> dict[str, str]:
        """Link names of the output models to their ids."""
        return {link.name: link.model for link in self._registry.tasks.links(self._task_id, "output")}

    def update_output_model(
        self,
        model_path: str | PathLike[str],
        name: str | None = None,
        comment: str | None = None,
        tags: Sequence[str] | None = None,
        model_name: str | None = None,
        iteration: int | None = None,
        auto_delete_file: bool = False,
    ) -> str | None:
        """Register a new model that this task made, from a file or folder, or from a URI.

        Args:
            model_path: File or folder to store; a URI is registered as it is.
            name: Under which it is linked; None takes the file's.
            comment: Free text.
            tags: Its tags.
            model_name: Its name; None for "<task name> - <name>".
            iteration: Training iteration.
            auto_delete_file: Delete the file once the stored bytes are verified.

        Returns:
            URI of the weights.

        Raises:
            BlobNotFoundError: There is no such file; nothing was changed.
            StorageError: It could not be stored; nothing was changed.
        """
        from modelstore.sdk.output_model import OutputModel

        text = fspath(model_path)
        label = name or os.path.basename(text.rstrip("/")).rsplit(".", 1)[0]
        default = f"{self.name} - {label}" if label else self.name
        model = OutputModel(task=self, name=model_name or default, tags=tags, comment=comment)
        if name:
            model.connect(self, name)
        if "://" in text:
            return model.update_weights(register_uri=text, iteration=iteration, update_comment=comment is None)
        return model.update_weights(
            weights_filename=text,
            iteration=iteration,
            auto_delete_file=auto_delete_file,
            update_comment=comment is None,
        )

    def set_input_model(
        self,
        model_id: str | None = None,
        model_name: str | None = None,
        update_task_design: bool = True,
        update_task_labels: bool = True,
        name: str | None = None,
    ) -> None:
        """Make a registered model an input of this task.

        Args:
            model_id: Its id.
            model_name: Its exact name, when no id is given; there must be exactly one published model of that name.
            update_task_design: Take its configuration where the task has none.
            update_task_labels: Take its labels where the task has none.
            name: Name of the link; None takes the weights' file name.

        Raises:
            ModelNotFoundError: There is no such model, or none of that name is published.
            InvalidRequestError: Neither id nor name, or several published models of that name.
        """
        from modelstore.errors import ModelNotFoundError
        from modelstore.sdk.input_model import link_name
        from modelstore.sdk.model import Model

        if model_id is None and not model_name:
            raise InvalidRequestError("Expected one of [model_id, model_name]")
        if model_id is None:
            found = Model.query_models(model_name=model_name, only_published=True, max_results=2)
            if not found:
                raise ModelNotFoundError(f"No published model is named {model_name!r}", "Publish it, or give its id.")
            if len(found) > 1:
                raise InvalidRequestError(f"Several published models are named {model_name!r}", "Give the id of one.")
            model_id = found[0].id
        record = self._registry.models.get(model_id)
        self._adopt(
            record.id,
            name or link_name(record),
            record.config if update_task_design else None,
            record.labels if update_task_labels else {},
        )

    def remove_input_models(self, models_to_remove: Sequence[str | BaseModel]) -> None:
        """Drop the links to input models; the models stay.

        Args:
            models_to_remove: Models, or their ids.
        """
        unwanted = {m if isinstance(m, str) else m.id for m in models_to_remove}
        links = [link for link in self._registry.tasks.links(self._task_id, "input") if link.model in unwanted]
        if links:
            self._registry.tasks.edit(self._task_id, items={f"link:input:{link.name}": None for link in links})

    def _adopt(
        self, model_id: str | None, link: str, model_config: dict[str, Any] | None, labels: Mapping[str, int]
    ) -> None:
        """Take a model as input, with its configuration and labels where there are none."""
        items: dict[str, Any] = {}
        fields: dict[str, Any] = {}
        if model_id is not None:
            items[f"link:input:{rules.check_name('link name', link)}"] = model_id
        if model_config and not self._registry.tasks.items(self._task_id, "config:"):
            items["config:General"] = {"type": "model", "config": model_config}
        if labels and not self._record().labels:
            fields["labels"] = dict(labels)
        self._registry.tasks.edit(self._task_id, items=items, require_open=True, **fields)

    def _input_named(self, link: str | None) -> str | None:
        """Return the input model that an output under the same name is made from."""
        return None if link is None else self.input_models_id.get(link)

    def _destination(self) -> str | None:
        record = self._record()
        if record.output_uri:
            return record.output_uri
        project = None
        if record.project is not None:
            project = self._registry.tasks.project(record.project).output_uri
        default = project or config.default_output_uri()
        return None if default is None else self._registry.weights.check_destination(default)

    def _advance_iteration(self, iteration: int | None) -> None:
        if iteration is not None and iteration + self._initial_iteration > (self._record().last_iteration or -1):
            self._edit(last_iteration=iteration + self._initial_iteration)

    # -- life cycle ------------------------------------------------------------------------------------------------

    def mark_started(self, force: bool = False) -> None:
        """Say that the task runs. With ``force`` also one that has ended.

        Raises:
            TaskClosedError: It has ended, and ``force`` was not given.
        """
        self._move("in_progress", ("created", "queued", "in_progress", "stopped"), force, completed=None)

    def mark_stopped(self, force: bool = False, status_message: str | None = None) -> None:
        """Say that the task was stopped.

        Raises:
            TaskClosedError: It had ended otherwise, and ``force`` was not given.
        """
        self._move("stopped", (*OPEN_STATUSES, "stopped"), force, status_message=status_message, completed=now_ms())

    def mark_completed(
        self, ignore_errors: bool = True, status_message: str | None = None, force: bool = False
    ) -> None:
        """Say that the task is completed.

        Raises:
            TaskClosedError: It had ended otherwise, and neither ``ignore_errors`` nor ``force`` was given.
        """
        allowed = (*OPEN_STATUSES, "stopped", "completed")
        self._move("completed", allowed, force, ignore=ignore_errors, status_message=status_message, completed=now_ms())

    def mark_failed(
        self,
        ignore_errors: bool = True,
        status_reason: str | None = None,
        status_message: str | None = None,
        force: bool = False,
    ) -> None:
        """Say that the task failed, and why.

        Raises:
            TaskClosedError: It had ended otherwise, and neither ``ignore_errors`` nor ``force`` was given.
        """
        self._move(
            "failed",
            (*OPEN_STATUSES, "stopped", "failed"),
            force,
            ignore=ignore_errors,
            status_reason=status_reason,
            status_message=status_message,
            completed=now_ms(),
        )

    def _move(self, status: str, allowed: Sequence[str], force: bool, ignore: bool = False, **fields: Any) -> None:
        current = self.get_status()
        if current not in allowed and not force:
            if ignore:
                return
            raise TaskClosedError(f"The task {self.name!r} ({self._task_id}) is {current}, and cannot become {status}")
        if current != status:
            self._edit(status=status, **fields)

    def publish(self, ignore_errors: bool = True) -> None:
        """Fix the task: its models can then be removed only by force. Its models are not published with it.

        Raises:
            TaskClosedError: It still runs.
        """
        _ = ignore_errors
        if self.get_status() not in ("stopped", "completed", "published", "failed"):
            raise TaskClosedError(
                f"Can't publish, the task {self.name!r} ({self._task_id}) is {self.status}", "Complete it first."
            )
        self._registry.tasks.publish(self._task_id)

    def publish_on_completion(self, enable: bool = True) -> None:
        """Publish the task when it is closed as completed."""
        self._publish_at_end = enable

    def close(self) -> None:
        """Wait for uploads and mark the task as completed; the process may then begin another.

        Raises:
            UploadError: An upload failed; the task is closed all the same.
        """
        try:
            self.flush(wait_for_uploads=True)
        finally:
            if state.main_task is self:
                state.main_task = None
            if self in Task._owned:
                Task._owned.remove(self)
            if self.get_status() in OPEN_STATUSES:
                self.mark_completed()
            if getattr(self, "_publish_at_end", False) and self.status == "completed":
                self.publish()

    def flush(self, wait_for_uploads: bool = False) -> bool:
        """Wait for what is on its way, uploads too when that is asked; returns True.

        Raises:
            UploadError: An upload failed.
        """
        if wait_for_uploads:
            self._registry.weights.wait(None)
        return True

    def delete(
        self,
        delete_artifacts_and_models: bool = True,
        skip_models_used_by_other_tasks: bool = True,
        raise_on_error: bool = False,
        callback: Callable[[str, str], bool] | None = None,
    ) -> bool:
        """Remove the task and, unless told otherwise, the models it made.

        Args:
            delete_artifacts_and_models: Also remove its models, with the bytes that the registry holds for them.
            skip_models_used_by_other_tasks: Spare models that are inputs of other tasks.
            raise_on_error: Raise instead of returning False.
            callback: Called with "model" and each URI before it is removed; False spares it.

        Returns:
            True when everything that was to go is gone.

        Raises:
            ModelStoreError: Something could not be removed. Only with ``raise_on_error``.
        """
        from modelstore.sdk.model import Model

        whole = True
        for model in self.models.output if delete_artifacts_and_models else []:
            users = [task for task in model.consumers() if task != self._task_id]
            if (users and skip_models_used_by_other_tasks) or (callback and not callback("model", model.url or "")):
                continue
            whole &= Model.remove(model, force=True, raise_on_errors=raise_on_error)
        try:
            self._registry.tasks.delete(self._task_id)
        except ModelStoreError:
            if raise_on_error:
                raise
            return False
        if state.main_task is self:
            state.main_task = None
        return whole

    def get_logger(self) -> Logger:
        """Return the task's logger."""
        from modelstore.sdk.logger import Logger

        return Logger(self)

    def get_last_iteration(self) -> int:
        """Return the greatest iteration reported so far; 0 for none."""
        return self._record().last_iteration or 0

    def set_initial_iteration(self, offset: int = 0) -> int:
        """Count iterations from here on; returns the offset."""
        self._initial_iteration = int(offset)
        return self._initial_iteration

    # -- offline is no mode ----------------------------------------------------------------------------------------

    @classmethod
    def set_offline(cls, offline_mode: bool = False) -> None:
        """Accepted for compatibility: everything works without a network anyway."""

    @classmethod
    def is_offline(cls) -> bool:
        """Return False: there is no offline mode, since nothing needs to be online."""
        return False

    def get_offline_mode_folder(self) -> str | None:
        """Return None: there is no offline session beside the registry."""
        return None

    @classmethod
    def import_offline_session(
        cls, session_folder_zip: str | PathLike[str], previous_task_id: str | None = None, iteration_offset: int = 0
    ) -> str:
        """Refuse: this version does not read ClearML's offline sessions.

        Raises:
            UsageError: Always.
        """
        _ = previous_task_id, iteration_offset
        raise UsageError(
            f"This version cannot read the ClearML offline session {fspath(session_folder_zip)!r}",
            "Runs made with modelstore need no import: their registry has them already.",
        )

    def __repr__(self) -> str:
        return f"<Task {self._task_id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Task) and other._task_id == self._task_id

    def __hash__(self) -> int:
        return hash(self._task_id)


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


def _project_name(registry: Registry, project: str) -> str:
    return next((p.name for p in registry.tasks.projects() if p.id == project), project)


def _checked_output_uri(registry: Registry, value: str | PathLike[str] | bool | None) -> str | None:
    if value is None or isinstance(value, bool) or not fspath(value):
        return None
    return registry.weights.check_destination(value)


def _last_task(registry: Registry, project: str | None, name: str) -> TaskRecord | None:
    found = registry.tasks.find(project=project, name=name, archived=False)
    return next((r for r in found if r.project == project), None)


def _reusable(registry: Registry, record: TaskRecord) -> bool:
    if record.published or record.archived or now_ms() - (record.updated >> 16) > _REUSE_WINDOW_MS:
        return False
    if record.status == "in_progress" and _is_running(record):
        return False
    return not registry.tasks.made(record.id) and not registry.tasks.links(record.id, "output")


def _is_running(record: TaskRecord) -> bool:
    """Tell whether the process of a task may still be alive; one on another host may."""
    if record.runtime.get("host") != os.uname().nodename:
        return True
    pid = record.runtime.get("pid")
    if not isinstance(pid, int) or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _reset(registry: Registry, record: TaskRecord) -> None:
    """Forget what a task was given in its former life."""
    for prefix in ("param:", "config:"):
        registry.tasks.edit(record.id, replace_items=prefix)
    links = registry.tasks.links(record.id, "input")
    registry.tasks.edit(
        record.id,
        items={f"link:input:{link.name}": None for link in links},
        labels=None,
        comment=None,
        last_iteration=None,
        output_uri=None,
    )
    registry.tasks.tag(record.id, replace=[])


def _script_name() -> str:
    path = sys.argv[0] if sys.argv and sys.argv[0] not in ("", "-c", "-m") else ""
    return os.path.basename(path).rsplit(".", 1)[0] or "Untitled task"


def _script() -> dict[str, Any]:
    return {"entry_point": sys.argv[0] if sys.argv else "", "args": list(sys.argv[1:]), "working_dir": os.getcwd()}


def _runtime() -> dict[str, Any]:
    from modelstore import __version__

    return {
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "python": sys.version.split()[0],
        "modelstore": __version__,
    }


def _watch_exit() -> None:
    """Have the end of the process close its tasks, and note the exception that ended it."""
    if getattr(_watch_exit, "pid", None) is not None:
        return
    _watch_exit.pid = os.getpid()  # type: ignore[attr-defined]
    previous = sys.excepthook

    def note(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            _watch_exit.error = f"{kind.__name__}: {error}"  # type: ignore[attr-defined]
        else:
            _watch_exit.stopped = True  # type: ignore[attr-defined]
        previous(kind, error, trace)

    sys.excepthook = note
    atexit.register(_at_exit)


def _at_exit() -> None:
    """Close the tasks that this process began; a forked child leaves them to its parent."""
    if os.getpid() != state.main_pid:
        return
    for task in list(Task._owned):
        try:
            error = getattr(_watch_exit, "error", None)
            if error is not None:
                task.mark_failed(status_reason="exception", status_message=error[:10_000])
            elif getattr(_watch_exit, "stopped", False):
                task.mark_stopped(status_message="interrupted")
            task.close()
        except TaskNotFoundError:
            continue
        except ModelStoreError as failure:
            logger.error("Task %s at exit: %s", task.id, failure)

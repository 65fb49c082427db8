"""`Task`: a run that makes and uses models."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from os import PathLike, fspath
from typing import Any

from modelstore import config
from modelstore.errors import InvalidRequestError, TaskNotFoundError, UsageError
from modelstore.registry import rules
from modelstore.registry.tasks import OPEN_STATUSES
from modelstore.sdk import task_begin
from modelstore.sdk._context import MAIN_TASK, current_registry, current_task, state
from modelstore.sdk.task_elsewhere import TaskElsewhere
from modelstore.sdk.task_exit import watch_exit
from modelstore.sdk.task_lifecycle import TaskLifeCycle
from modelstore.sdk.task_parameters import TaskParameters
from modelstore.sdk.task_record import TaskTypes, checked_output_uri
from modelstore.sdk.task_search import TaskSearch

__all__ = ["Task", "TaskTypes"]


class Task(TaskParameters, TaskSearch, TaskLifeCycle, TaskElsewhere):
    """A run. Made by `Task.init`, `Task.create` and `Task.get_task`, not directly.

    Like a model object, a task object shows at once what its own process changed, and after `reload` what others did.
    """

    TaskTypes = TaskTypes
    archived_tag = "archived"

    @classmethod
    def init(
        cls,
        project_name: str | None = None,
        task_name: str | None = None,
        task_type: str = TaskTypes.training,
        tags: Sequence[str] | str | None = None,
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
            task_type: A constant of `TaskTypes`, or any other name.
            tags: Tags to add; a string is one tag, or several separated by blanks.
            reuse_last_task_id: True takes up the last task of this name and project again when it is less than 72
                hours old, has made no model, no longer runs, and was neither published nor archived; what it was given
                is forgotten then. A task's id takes up that one; False always makes a new one.
            continue_last_task: True goes on with the last task of this name and project, with its models; an id goes
                on with that task; a number does as True, and iterations count from it.
            output_uri: Where its models' weights go; True and False mean the registry itself, None the project's
                default, that of `MODELSTORE_DEFAULT_OUTPUT_URI`, or else the registry.
            auto_connect_arg_parser: Accepted for compatibility; pass the parser to `connect`.
            auto_connect_frameworks: Accepted for compatibility; frameworks are not patched.
            auto_resource_monitoring: Accepted for compatibility; nothing is monitored.
            auto_connect_streams: Accepted for compatibility; output is not captured.
            deferred_init: Accepted for compatibility; beginning takes milliseconds.

        Returns:
            The task. A second call with the same project and name returns the same one, with the tags added and
            ``output_uri`` set. At the end of the process it is completed, or failed when an exception or an exit code
            other than 0 ends that, or stopped when the user does.

        Raises:
            UsageError: Another task is the main task of this process in this registry.
            TaskNotFoundError: There is no task of the id that was given.
            TaskClosedError: It is published.
            InvalidRequestError: A name or tag is not acceptable; nothing was changed.
            StorageError: ``output_uri`` cannot be written.
        """
        _ = auto_connect_arg_parser, auto_connect_frameworks, auto_resource_monitoring, auto_connect_streams
        _ = deferred_init
        name = rules.check_name("task name", task_name) if task_name else None
        project = rules.check_project(project_name) if project_name else None
        kind = rules.check_name("task type", str(task_type))
        checked_tags = rules.check_tags(tags.split() if isinstance(tags, str) else tags or ())
        with state.lock:
            registry = current_registry()
            destination = checked_output_uri(registry, output_uri)
            task = cls._running_main(project, name, kind)
            if task is None:
                record = task_begin.begin(
                    registry, project, name or task_begin.script_name(), kind,
                    reuse=reuse_last_task_id, continue_last=continue_last_task,
                )  # fmt: skip
                task = cls(registry, record)
                task._owner_pid = os.getpid()
                if type(continue_last_task) is int:
                    task.set_initial_iteration(continue_last_task)
                state.main_tasks.append(task)
                state.owned.append(task)
                if registry in state.defaults.values():
                    os.environ[MAIN_TASK] = f"{task.id}@{config.registry_uri()}"
                registry.database.at_end(undone=partial(state.forget, task.id))
                watch_exit()
            if checked_tags:
                task.add_tags(checked_tags)
            if output_uri is not None:
                task._edit(output_uri=destination)
        cls._seed()
        return task

    @classmethod
    def _running_main(cls, project: str | None, name: str | None, kind: str) -> Task | None:
        """Return the current task when the call means that one; None when there is none that still runs."""
        task = current_task()
        if task is None:
            return None
        try:
            task.reload()
        except TaskNotFoundError:
            state.forget(task.id)
            return None
        record = task._record()
        if record.status not in OPEN_STATUSES:
            state.forget(task.id)
            return None
        wanted = {"project": project, "name": name, "type": kind}
        if name is None and project is None:
            return task
        if all(getattr(record, field) == value for field, value in wanted.items() if value is not None):
            return task
        if task._owner_pid is None:  # it is that of the process which started this one by `multiprocessing`
            state.forget(task.id)
            return None
        raise UsageError(
            f"Current task already created: {record.name!r} in project {record.project!r} ({record.id})",
            "Close it with task.close() before beginning another, or use Task.create().",
        )

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
                name=task_name or task_begin.script_name(),
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
        """Return the task that `Task.init` began in this registry, here or in the process that started this one.

        The latter by a fork or by `multiprocessing`, whatever its method.
        """
        return current_task()

    def is_main_task(self) -> bool:
        """Tell whether this is the current task."""
        return current_task() == self

    is_current_task = is_main_task

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
        source = cls.get_task(source_task) if isinstance(source_task, str) else source_task or current_task()
        if source is None:
            raise InvalidRequestError("There is no task to clone", "Name one.")
        registry, record = source._registry, source._record()
        with registry.transaction():
            new = registry.tasks.create(
                name=name or f"Clone Of {record.name}",
                project=registry.tasks.project_name(project) if project else record.project,
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

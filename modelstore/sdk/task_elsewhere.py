"""What ClearML's `Task` has for agents, queues and its server: accepted where a run on this machine is the answer."""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn

from modelstore.errors import NotOfferedError
from modelstore.sdk.task_record import TaskBase

__all__ = ["SaysWhatIsMissing", "TaskElsewhere"]

logger = logging.getLogger("modelstore")

_ARTIFACTS: Final = (
    "Register a file with OutputModel.update_weights(), or report it with task.get_logger().report_media()."
)
_QUEUES: Final = "Start the script where it is to run; there are no agents and no queues here."
_SERVER: Final = "The registry is all there is; README.md has a table of the differences."
_MISSING: Final = {
    **dict.fromkeys(
        ("artifacts", "delete_artifacts", "get_registered_artifacts", "register_artifact", "set_artifacts",
         "unregister_artifact", "upload_artifact"), _ARTIFACTS),
    **dict.fromkeys(
        ("create_function_task", "debug_simulate_remote_task", "dequeue", "enqueue", "get_executed_queue",
         "get_num_enqueued_tasks", "last_worker", "launch_multi_node", "mark_stop_request", "register_abort_callback",
         "stop_request", "wait_for_status"), _QUEUES),
    **dict.fromkeys(
        ("data", "default_session", "export_task", "get_all", "get_dataviews", "get_debug_samples", "get_http_router",
         "get_project_object", "get_reported_console_output", "import_task", "labels_stats", "list_external_endpoints",
         "log", "metrics_manager", "request_external_endpoint", "reset", "resource_monitor", "send", "session",
         "set_dataview", "setup_upload", "update_task", "wait_for_external_endpoint"), _SERVER),
    **dict.fromkeys(("setup_aws_upload", "setup_azure_upload", "setup_gcp_upload"),
                    "Credentials come from where the storage's own tools look for them."),
    **dict.fromkeys(("get_output_log_web_page", "get_task_output_log_web_page"),
                    "There is no web page of a task; `modelstore show` and `modelstore tasks` tell about it."),
    **dict.fromkeys(("delete_user_properties", "get_user_properties", "set_user_properties"),
                    "Keep them with task.set_parameter('properties/…', value)."),
    **dict.fromkeys(("get_progress", "set_progress"), "Report it with task.get_logger().report_scalar()."),
}  # fmt: skip


def _refuse(name: str) -> NoReturn:
    hint = _MISSING.get(name)
    if hint is None:
        raise AttributeError(f"'Task' has no attribute {name!r}")
    raise NotOfferedError(f"ClearML's Task.{name} is not offered here", hint)


class SaysWhatIsMissing(type):
    """Lets a class say which of ClearML's members it does not have, and what to do instead."""

    if not TYPE_CHECKING:

        def __getattr__(cls, name: str) -> NoReturn:
            """Say what is missing.

            Raises:
                NotOfferedError: ClearML has it.
                AttributeError: ClearML has it neither.
            """
            _refuse(name)


class TaskElsewhere(TaskBase, metaclass=SaysWhatIsMissing):
    """The part of `Task` that tells agents how to run a script elsewhere; scripts that use it run here."""

    _random_seed: ClassVar[int | None] = None

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            """Say what is missing, as the class does."""
            _refuse(name)

    # -- before it begins ------------------------------------------------------------------------------------------

    @classmethod
    def add_requirements(cls, package_name: str, package_version: str | None = None) -> None:
        """Accept a package for agents to install; nothing is installed here."""

    @classmethod
    def ignore_requirements(cls, package_name: str) -> None:
        """Accept a package for agents not to install; nothing is installed here."""

    @classmethod
    def force_requirements_env_freeze(
        cls, force: bool = True, requirements_file: str | PathLike[str] | None = None
    ) -> None:
        """Accept how agents are told what to install; nothing is installed here."""

    @classmethod
    def force_store_standalone_script(cls, force: bool = True) -> None:
        """Accept that the script's text be kept; only its name is."""

    @classmethod
    def set_credentials(
        cls,
        api_host: str | None = None,
        web_host: str | None = None,
        files_host: str | None = None,
        key: str | None = None,
        secret: str | None = None,
        store_conf_file: bool = False,
    ) -> None:
        """Accept the address of a ClearML server, which is neither asked nor remembered."""

    @classmethod
    def set_resource_monitor_iteration_timeout(
        cls,
        seconds_from_start: float = 30.0,
        wait_for_first_iteration_to_start_sec: float = 180.0,
        max_wait_for_first_iteration_to_start_sec: float = 1800.0,
    ) -> bool:
        """Accept a setting of the monitoring of resources, which there is not. Returns True."""
        return True

    @classmethod
    def set_random_seed(cls, random_seed: int | None) -> None:
        """Seed `random`, and of numpy, torch and tensorflow what is loaded: now, and when a main task begins.

        Args:
            random_seed: The seed; None for none, which is where a process begins.
        """
        TaskElsewhere._random_seed = None if random_seed is None else int(random_seed)
        cls._seed()

    def get_random_seed(self) -> int | None:
        """Return the seed that `set_random_seed` was given."""
        return TaskElsewhere._random_seed

    @classmethod
    def _seed(cls) -> None:
        if (given := TaskElsewhere._random_seed) is None:
            return
        seed = given & 0xFFFFFFFF
        random.seed(seed)
        for module, path in (("numpy", "random.seed"), ("torch", "manual_seed"), ("tensorflow", "random.set_seed")):
            found: Any = sys.modules.get(module)
            for name in path.split("."):
                found = getattr(found, name, None)
            if found is not None:
                found(seed)

    # -- how it is to run ------------------------------------------------------------------------------------------

    @staticmethod
    def running_locally() -> bool:
        """Return True: there are no agents that would run it elsewhere."""
        return True

    def execute_remotely(self, queue_name: str | None = None, clone: bool = False, exit_process: bool = True) -> None:
        """Go on here, as ClearML does on the machine of an agent: there are no queues. A log message says so."""
        _ = clone, exit_process
        place = "elsewhere" if queue_name is None else f"in the queue {queue_name!r}"
        logger.warning("Task %s is not executed %s: there are no queues here, and the script goes on", self.id, place)

    def _describe_script(self, **fields: Any) -> None:
        self._edit(script=self._record().script | {k: v for k, v in fields.items() if v is not None})

    def set_base_docker(
        self,
        docker_cmd: str | None = None,
        docker_image: str | None = None,
        docker_arguments: str | Sequence[str] | None = None,
        docker_setup_bash_script: str | Sequence[str] | None = None,
    ) -> None:
        """Keep which image the script is meant for, as `Task.create` does; nothing is ever run from it here."""
        image, _, rest = (docker_cmd or "").strip().partition(" ")
        self._describe_script(
            docker=docker_image or image or None,
            docker_args=_joined(docker_arguments, " ") or rest.strip() or None,
            docker_setup=_joined(docker_setup_bash_script, "\n"),
        )

    def get_base_docker(self) -> str:
        """Return the image and its arguments, or an empty string."""
        script = self._record().script
        return " ".join(str(script[key]) for key in ("docker", "docker_args") if script.get(key))

    def set_packages(self, packages: str | PathLike[str] | Sequence[str]) -> None:
        """Keep what the script needs: a list of requirements, or the name of a file of them; nothing is installed."""
        self._describe_script(
            packages=fspath(packages) if isinstance(packages, (str, PathLike)) else [str(one) for one in packages]
        )

    def set_repo(self, repo: str | None = None, branch: str | None = None, commit: str | None = None) -> None:
        """Keep where the script's source is."""
        self._describe_script(repository=repo, branch=branch, version_num=commit)

    def set_script(
        self,
        repository: str | None = None,
        branch: str | None = None,
        commit: str | None = None,
        diff: str | None = None,
        working_dir: str | None = None,
        entry_point: str | None = None,
        binary: str | None = None,
    ) -> None:
        """Keep what the script is and where its source is."""
        self._describe_script(
            repository=repository, branch=branch, version_num=commit, diff=diff, working_dir=working_dir,
            entry_point=entry_point, binary=binary,
        )  # fmt: skip

    def get_script(self) -> dict[str, Any]:
        """Return what is known about the script: entry point, arguments, working directory, and what was set."""
        return dict(self._record().script)


def _joined(value: str | Sequence[str] | None, separator: str) -> str | None:
    return value if value is None or isinstance(value, str) else separator.join(value)

"""`Logger`: what a task says and reports."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from modelstore.sdk.reporting_files import ReportingFiles

if TYPE_CHECKING:
    from modelstore.registry.reports import Owner, Reports
    from modelstore.sdk._context import Registry
    from modelstore.sdk.task import Task

__all__ = ["Logger"]


class Logger(ReportingFiles):
    """The reporting side of one task: what is reported through it belongs to the task, not to its models.

    Args:
        task: The task.
    """

    def __init__(self, task: Task) -> None:
        self._task = task

    def _reports(self) -> tuple[Reports, Owner, str]:
        return self._task._registry.reports, "task", self._task.id

    def _home(self) -> Registry:
        return self._task._registry

    @classmethod
    def current_logger(cls) -> Logger | None:
        """Return the logger of the current task; None without one."""
        from modelstore.sdk.task import Task

        task = Task.current_task()
        return None if task is None else task.get_logger()

    def report_text(self, msg: str, level: int = logging.INFO, print_console: bool = True) -> None:
        """Say something about the run.

        Args:
            msg: One or several lines.
            level: A level of `logging`; the message goes to the logger "modelstore.task" with it.
            print_console: Also print it to standard output.
        """
        logging.getLogger("modelstore.task").log(level, "%s", msg, extra={"task": self._task.id})
        if print_console:
            sys.stdout.write(f"{msg}\n")
            sys.stdout.flush()

    def flush(self, wait: bool = False) -> bool:
        """Write what was reported; with ``wait``, wait for uploads too. Returns True."""
        return self._task.flush(wait_for_uploads=wait)

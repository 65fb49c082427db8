"""`Logger`: what a task says and reports."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelstore.sdk.logger_settings import LoggerSettings
from modelstore.sdk.reporting_files import ReportingFiles

if TYPE_CHECKING:
    from modelstore.registry.reports import Owner, Reports
    from modelstore.sdk._context import Registry
    from modelstore.sdk.task import Task

__all__ = ["Logger"]


class Logger(LoggerSettings, ReportingFiles):
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

    def report_table(
        self,
        title: str,
        series: str,
        iteration: int | None = None,
        table_plot: Any = None,
        csv: str | None = None,
        url: str | None = None,
        extra_layout: Mapping[str, Any] | None = None,
        extra_data: Mapping[str, Any] | None = None,
    ) -> None:
        """Report a table, as a model's `report_table` does.

        Args:
            title: Name of the chart.
            series: Name of the variant.
            iteration: The training iteration.
            table_plot: A frame, rows of which the first is the header, or a dictionary of columns.
            csv: Path of a CSV file in UTF-8, with a header.
            url: URI of such a file.
            extra_layout: Entries for the figure's layout.
            extra_data: Entries for the table itself, such as ``{"columnwidth": [2, 1, 1]}``.

        Raises:
            InvalidRequestError: An argument is not acceptable; nothing was reported.
            StorageError: What is at ``url`` could not be had.
        """
        figure = self._table(title, table_plot, csv, url, extra_layout, extra_data)
        self._report(title, series, iteration, figure)

    def report_text(
        self, msg: str, level: int = logging.INFO, print_console: bool = True, *args: Any, **_: Any
    ) -> None:
        """Say something about the run.

        Args:
            msg: One or several lines.
            level: A level of `logging`; the message goes to the logger "modelstore.task" with it.
            print_console: Also print it to standard output.
            args: What stands for the placeholders in the message, as in `logging`.
        """
        text = msg % args if args else msg
        logging.getLogger("modelstore.task").log(level, "%s", text, extra={"task": self._task.id})
        if print_console:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    def flush(self, wait: bool = False) -> bool:
        """Write what was reported; with ``wait``, wait for uploads too. Returns True."""
        return self._task.flush(wait_for_uploads=wait)

"""The life of a task: started, stopped, completed, failed, published, closed, removed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from modelstore.errors import ModelStoreError, TaskClosedError
from modelstore.ids import now_ms
from modelstore.registry.tasks import OPEN_STATUSES
from modelstore.sdk._context import state
from modelstore.sdk.reported import Reported
from modelstore.sdk.task_links import TaskLinks

if TYPE_CHECKING:
    from modelstore.sdk.logger import Logger
    from modelstore.sdk.task import Task

__all__ = ["TaskLifeCycle"]


class TaskLifeCycle(TaskLinks, Reported):
    """The part of `Task` that is about its status and its end."""

    def mark_started(self, force: bool = False) -> None:
        """Say that the task runs. With ``force`` also one that has ended.

        Raises:
            TaskClosedError: It has ended, and ``force`` was not given.
        """
        begun = self._record().started or now_ms()
        allowed = (*OPEN_STATUSES, "stopped")
        self._move("in_progress", allowed, force, completed=None, started=begun)

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
            state.forget(self._task_id)
            if self.get_status() in OPEN_STATUSES:
                self.mark_completed()
            if getattr(self, "_publish_at_end", False) and self.status == "completed":
                self.publish()

    def flush(self, wait_for_uploads: bool = False) -> bool:
        """Write what was reported, and wait for uploads when that is asked; returns True.

        Raises:
            UploadError: An upload failed.
        """
        self._registry.reports.flush()
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
            delete_artifacts_and_models: Also remove the models that it made, with the bytes that the registry holds
                for them; models of other tasks that it went on with stay.
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
            if model.original_task != self._task_id:
                continue
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
        state.forget(self._task_id)
        return whole

    def get_logger(self) -> Logger:
        """Return the task's logger."""
        from modelstore.sdk.logger import Logger

        return Logger(cast("Task", self))

    @property
    def logger(self) -> Logger:
        """The same as `get_logger()`."""
        return self.get_logger()

    def get_last_iteration(self) -> int:
        """Return the greatest iteration reported so far, with weights or a scalar; 0 for none."""
        reported = (record.last_iteration for record in self._series())
        return max(self._record().last_iteration or 0, 0, *reported)

    def _reported_id(self) -> str | None:
        return self._task_id

    def get_initial_iteration(self) -> int:
        """Return the number from which iterations count; 0 unless it was set."""
        return self._initial_iteration

    def set_initial_iteration(self, offset: int = 0) -> int:
        """Count iterations from here on; returns the offset."""
        self._initial_iteration = int(offset)
        return self._initial_iteration

"""An output model before and after it is registered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelstore.errors import InvalidRequestError, MissingWeightsError, ModelNotFoundError, PublishedModelError
from modelstore.ids import new_id, project_id
from modelstore.records.entities import HistoryEntry, ModelRecord
from modelstore.registry import rules
from modelstore.registry.models import dump_config
from modelstore.sdk._context import current_task
from modelstore.sdk.base_model import BaseModel
from modelstore.sdk.task_record import TaskBase

if TYPE_CHECKING:
    from modelstore.sdk.task import Task

__all__ = ["OutputDraft"]


class OutputDraft(BaseModel):
    """The part of `OutputModel` that is about its row: until it is registered, properties show what it would be."""

    def __init__(
        self,
        task: Task | None = None,
        config_text: str | None = None,
        config_dict: Mapping[str, Any] | None = None,
        label_enumeration: Mapping[str, int] | None = None,
        name: str | None = None,
        tags: Sequence[str] | None = None,
        comment: str | None = None,
        framework: str | None = None,
        base_model_id: str | None = None,
    ) -> None:
        task = task if task is not None else current_task()
        if task is None:
            raise InvalidRequestError(
                "task object was not provided, and no current task was found", "Call Task.init() first."
            )
        if not isinstance(task, TaskBase):
            raise InvalidRequestError(
                f"The task of an OutputModel must be a Task, not {task!r:.80}", "Task.get_task() finds one."
            )
        super().__init__(task._registry, None)
        self._task = task
        self._reserved_id = new_id()
        self._link_name: str | None = None
        # None means "not given": then the task's value is taken when the model is registered.
        self._draft: dict[str, Any] = {
            "name": None if name is None else rules.check_name("model name", name),
            "tags": rules.check_tags(tags or ()),
            "comment": None if comment is None else rules.check_text("comment", comment),
            "framework": None if framework is None else rules.check_text("framework", framework),
            "config": rules.check_config(config_text, config_dict),
            "labels": None if label_enumeration is None else rules.check_labels(label_enumeration),
        }
        if base_model_id is not None:
            self._continue(base_model_id)

    def _continue(self, base_model_id: str) -> None:
        record = self._registry.models.get(base_model_id)
        fields = {k: v for k, v in self._draft.items() if v is not None and k != "tags"}
        with self._registry.transaction():
            if fields:
                self._registry.models.edit(record.id, **fields)
            if self._draft["tags"]:
                self._registry.models.tag(record.id, add=self._draft["tags"])
        self._model_id = self._reserved_id = record.id

    # -- the record ------------------------------------------------------------------------------------------------

    @property
    def _identity(self) -> str | int:
        return self._reserved_id

    def _record(self) -> ModelRecord:
        return super()._record() if self._model_id is not None else self._drafted(self._values())

    def _drafted(self, values: dict[str, Any]) -> ModelRecord:
        """Return the row that the model would have if it were registered now, as `_values` says."""
        project = values["project"]
        return ModelRecord(
            key=0,
            id="",
            state=0,
            name=values["name"],
            project=project,
            project_id=None if project is None else project_id(project),
            task=self._task.id,
            parent=None,
            comment=values["comment"],
            framework=values["framework"],
            uri=None,
            digest=None,
            size=None,
            package=False,
            labels=values["labels"] or {},
            config=values["config"],
            iteration=None,
            tags=tuple(sorted(self._draft["tags"])),
            system_tags=(),
            published=False,
            created=0,
            updated=0,
        )

    def _values(self) -> dict[str, Any]:
        """Return the fields with which the model would be registered now."""
        draft, task = self._draft, self._task
        labels = draft["labels"] if draft["labels"] is not None else task.get_labels_enumeration()
        return {
            "name": draft["name"] or task.name or "Model",
            "project": draft["project"] if "project" in draft else task.get_project_name(),
            "comment": draft["comment"] or None,
            "framework": draft["framework"],
            "config": (draft["config"] if draft["config"] is not None else task._model_config()) or None,
            "labels": labels or None,
        }

    def _registered(self) -> ModelRecord | None:
        """Return the row as it is inside the transaction that is open; None when there is none yet."""
        try:
            return self._registry.models.get(self._reserved_id)
        except ModelNotFoundError:
            if self._model_id is not None:
                raise
            return None

    def _ensured_id(self) -> str:
        """Register the model when that is still to be done, and return its id."""
        if self._model_id is None:
            with self._registry.transaction():
                if self._registered() is None:  # another thread may have been faster
                    self._register(self._values())
            self._become_registered()
        return self._reserved_id

    def _become_registered(self) -> None:
        """Know that the model has a row, for as long as the transaction that made it is not undone."""
        if self._model_id is None:
            self._model_id = self._reserved_id
            self._registry.database.at_end(undone=self._become_draft)

    def _become_draft(self) -> None:
        self._model_id = self._cached = None

    def _register(self, values: dict[str, Any], link: str | None = None) -> None:
        self._registry.models.create(
            model_id=self._reserved_id,
            tags=self._draft["tags"],
            links=[(self._task.id, "output", link)] if link else [],
            **{"task": self._task.id, "parent": self._task._input_named(link)} | values,
        )

    def _edit(self, **fields: Any) -> None:
        if self._model_id is not None:
            super()._edit(**fields)
            return
        self._registry.models.checked(fields)
        self._draft |= {k: {} if v is None and k == "config" else v for k, v in fields.items()}

    def _check_not_published(self) -> None:
        self.refresh()  # another process may have published it
        if self.published:
            raise PublishedModelError(
                f"Model is published and cannot be changed: {self.name!r} ({self._model_id})",
                "Make a new OutputModel instead.",
            )

    def _set_content(self, **fields: Any) -> None:
        self._check_not_published()
        self._edit(**fields)

    # -- properties ------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str | None:  # type: ignore[override]
        """The model's id; None until it is registered."""
        return self._model_id

    @property
    def published(self) -> bool:
        """Whether the content is fixed for good; nothing that is not registered yet is."""
        return self._model_id is not None and super().published

    @property
    def tags(self) -> list[str]:
        """The model's tags, sorted. Setting replaces them all; [] removes them all."""
        return list(self._record().tags)

    @tags.setter
    def tags(self, value: Iterable[str] | None) -> None:
        wanted = rules.check_tags([] if value is None else value)
        if self._model_id is None:
            self._draft["tags"] = wanted
        else:
            self._registry.models.tag(self._model_id, replace=wanted)

    def add_tags(self, tags: str | Iterable[str]) -> None:
        """Add tags; see `Model.add_tags`. Before the model is registered they wait for that."""
        if self._model_id is not None:
            super().add_tags(tags)
            return
        added = rules.check_tags([tags] if isinstance(tags, str) else tags)
        self._draft["tags"] = list(dict.fromkeys([*self._draft["tags"], *added]))

    def remove_tags(self, tags: str | Iterable[str]) -> None:
        """Take tags away; see `Model.remove_tags`."""
        if self._model_id is not None:
            super().remove_tags(tags)
            return
        unwanted = set(rules.check_tags([tags] if isinstance(tags, str) else tags))
        self._draft["tags"] = [tag for tag in self._draft["tags"] if tag not in unwanted]

    @property
    def config_text(self) -> str:
        """The model's configuration as text, "" for none; the task's until one is given. Setting replaces it."""
        return dump_config(self._config())

    @config_text.setter
    def config_text(self, value: str | None) -> None:
        self._set_content(config=rules.check_config(value, None))

    @property
    def config_dict(self) -> dict[str, Any]:
        """The model's configuration as a dictionary, {} for none; setting replaces it."""
        value: dict[str, Any] = BaseModel.config_dict.fget(self)  # type: ignore[attr-defined]
        return value

    @config_dict.setter
    def config_dict(self, value: Mapping[str, Any] | None) -> None:
        self._set_content(config=rules.check_config(None, value))

    @property
    def framework(self) -> str | None:
        """The framework that the weights are for; None when it is not known."""
        return self._record().framework

    @framework.setter
    def framework(self, value: str | None) -> None:
        self._set_content(framework=value)

    @property
    def task(self) -> str | None:
        """Id of the task that this object belongs to."""
        return self._task.id

    @property
    def original_task(self) -> str | None:
        """Id of the task that made the model first; another than `task` when it was continued."""
        return self._record().task

    def history(self) -> list[HistoryEntry]:
        """Return every change of the model, oldest first; [] before it is registered."""
        return [] if self._model_id is None else super().history()

    def consumers(self) -> list[str]:
        """Return the ids of the tasks that use this model as input; [] before it is registered."""
        return [] if self._model_id is None else super().consumers()

    def publish(self, *, require_weights: bool = True) -> None:
        """Fix the model's content for good; see `Model.publish`. A refused model is not registered for it.

        Raises:
            MissingWeightsError: It has no weights, or another process is still uploading them.
            UploadError: The upload that was waited for failed.
        """
        if self._model_id is None and require_weights:
            raise MissingWeightsError(
                f"The model {self.name!r} has no weights to publish",
                "Give it some with update_weights(), or publish with require_weights=False.",
            )
        super().publish(require_weights=require_weights)

    def _write_metadata(self, values: Mapping[str, tuple[str | None, Any]], *, replace: bool) -> None:
        if self._model_id is None:  # nothing is registered for the sake of values that are refused
            for key, (kind, value) in values.items():
                rules.metadata_pair(rules.check_metadata_key(key), value, kind)
        super()._write_metadata(values, replace=replace)

    def delete_metadata(self, *keys: str) -> None:
        """Remove metadata keys; those that are not there are ignored."""
        if self._model_id is not None:
            super().delete_metadata(*keys)

    def __repr__(self) -> str:
        if self._model_id is None:
            return f"<{type(self).__name__} {self.name!r} (not registered yet)>"
        return super().__repr__()

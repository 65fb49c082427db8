"""`InputModel`: a model that an experiment starts from."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from os import PathLike
from typing import TYPE_CHECKING, Any

from modelstore.errors import InvalidRequestError, ModelNotFoundError
from modelstore.records.entities import ModelRecord
from modelstore.registry import rules
from modelstore.sdk._context import Registry, current_registry, current_task
from modelstore.sdk.framework import guess_framework
from modelstore.sdk.model import BaseModel, Model

if TYPE_CHECKING:
    from modelstore.sdk.task import Task

__all__ = ["InputModel"]

logger = logging.getLogger("modelstore")

_EMPTY_ID = "empty"
_LONGEST_TASK_NAME = rules.MAX_NAME - 20


class InputModel(Model):
    """A registered model, to be used by a task.

    Args:
        model_id: The model's id; the other arguments are then ignored.
        name: Exact name of the model, when no id is given.
        project: Full name of its project.
        tags: Tags and operators that it must match.
        only_published: Only a published one.

    Without an id, the most recently updated match is taken; without any argument, that of all models.

    Raises:
        ModelNotFoundError: Nothing matches (a `ValueError`).
        ProjectNotFoundError: There is no such project (a `ValueError`).
    """

    _empty: ModelRecord | None = None

    def __init__(
        self,
        model_id: str | None = None,
        name: str | None = None,
        project: str | None = None,
        tags: Sequence[str] | None = None,
        only_published: bool = False,
    ) -> None:
        if model_id is None:
            found = Model.query_models(
                project_name=project, model_name=name, tags=tags, only_published=only_published, max_results=1
            )
            if not found:
                raise ModelNotFoundError(
                    f"Could not locate model with name={name!r}, project={project!r}, tags={tags!r}"
                    f"{', published' if only_published else ''}",
                    "Loosen the conditions; archived models are found by their id.",
                )
            BaseModel.__init__(self, found[0]._registry, found[0].id)
        else:
            super().__init__(model_id)

    @classmethod
    def _from_record(cls, registry: Registry, record: ModelRecord) -> InputModel:
        model = cls.__new__(cls)
        BaseModel.__init__(model, registry, record.id)
        return model

    @classmethod
    def _of_model(cls, other: BaseModel) -> InputModel:
        model = cls.__new__(cls)
        BaseModel.__init__(model, other._registry, other.id)
        return model

    @classmethod
    def import_model(
        cls,
        weights_url: str | PathLike[str],
        config_text: str | None = None,
        config_dict: Mapping[str, Any] | None = None,
        label_enumeration: Mapping[str, int] | None = None,
        name: str | None = None,
        project: str | None = None,
        tags: Sequence[str] | None = None,
        comment: str | None = None,
        is_package: bool = False,
        create_as_published: bool = False,
        framework: str | None = None,
    ) -> InputModel:
        """Return the model with these weights, registered when no model has this URL yet.

        Look-up and registration are one transaction: any number of processes that import one URL at once get one model.
        The bytes are neither read nor copied; whether they exist is found out when they are wanted.

        Args:
            weights_url: Any URI that fsspec knows, or a path.
            config_text: The model's configuration as text.
            config_dict: The model's configuration as a dictionary; only one of the two.
            label_enumeration: Names to integers.
            name: Name of a new model; None makes one from the current task or the time.
            project: Full name of a new model's project; None takes that of the current task.
            tags: Tags of a new model.
            comment: Free text of a new model.
            is_package: The weights are an archive of several files.
            create_as_published: Publish it; also when the URL was registered before.
            framework: Its framework; None guesses from the file's name.

        Returns:
            The model. When the URL was registered before, it is that model, a warning says so, and the arguments other
            than ``create_as_published`` are ignored.

        Raises:
            InvalidRequestError: An argument is not acceptable; nothing was changed.
        """
        registry = current_registry()
        config = rules.check_config(config_text, config_dict)
        url = registry.weights.logical(weights_url)
        task = current_task()
        fields: dict[str, Any] = {
            "uri": url,
            "config": config,
            "labels": label_enumeration,
            "project": project or (task.get_project_name() if task is not None else None),
            "comment": comment,
            "package": bool(is_package),
            "framework": framework or guess_framework(url),
        }
        default_name = (
            f"Imported by {(task.name or '')[:_LONGEST_TASK_NAME]}"
            if task is not None
            else f"Anonymous model {datetime.now(UTC):%c}"
        )
        with registry.transaction():
            found = registry.models.by_uri(url)
            reused = found is not None
            record = found or registry.models.create(name=name or default_name, tags=tags or (), **fields)
            if create_as_published and not record.published:
                record = registry.models.publish(record.id)
        if reused:
            logger.warning(
                "The URL %s is registered already as model %r (%s): that model is used as it is, the arguments of "
                "import_model were ignored",
                registry.weights.shown(url), record.name, record.id,
            )  # fmt: skip
        return cls._from_record(registry, registry.models.get(record.id))

    @classmethod
    def load_model(cls, weights_url: str | PathLike[str], load_archived: bool = False) -> InputModel | None:
        """Return the model with exactly this URL; None when there is none. Nothing is ever registered.

        Args:
            weights_url: URI or path of the weights, as registered.
            load_archived: Also consider archived models.
        """
        registry = current_registry()
        record = registry.models.by_uri(registry.weights.logical(weights_url), archived=load_archived)
        return None if record is None else cls._from_record(registry, record)

    @classmethod
    def empty(
        cls,
        config_text: str | None = None,
        config_dict: Mapping[str, Any] | None = None,
        label_enumeration: Mapping[str, int] | None = None,
    ) -> InputModel:
        """Return a model without weights that is not registered; connecting it gives its configuration to the task.

        Args:
            config_text: The configuration as text.
            config_dict: The configuration as a dictionary; only one of the two.
            label_enumeration: Names to integers.

        Raises:
            InvalidRequestError: An argument is not acceptable.
        """
        model = cls.__new__(cls)
        BaseModel.__init__(model, current_registry(), None)
        model._empty = _empty_record(
            rules.check_config(config_text, config_dict), rules.check_labels(label_enumeration or {})
        )
        return model

    @property
    def id(self) -> str:
        """The model's id; "empty" for a model made by `empty`."""
        return _EMPTY_ID if self._empty is not None else super().id

    def _record(self) -> ModelRecord:
        return self._empty if self._empty is not None else super()._record()

    def _require_id(self) -> str:
        if self._empty is not None:
            raise InvalidRequestError("An empty model is not registered and cannot be changed", "Use an OutputModel.")
        return super()._require_id()

    def connect(self, task: Task, name: str | None = None, ignore_remote_overrides: bool = False) -> None:
        """Make this model an input of a task.

        The task takes the model's configuration and labels where it has none of its own. Connecting the same model
        under the same name again changes nothing; another model takes the name over.

        Args:
            task: The task.
            name: Name of the link; None takes the weights' file name without its ending.
            ignore_remote_overrides: Accepted for compatibility; nothing overrides here.

        Raises:
            ModelNotFoundError: There is no such model.
            TaskClosedError: The task has ended.
            InvalidRequestError: The task belongs to another registry.
        """
        _ = ignore_remote_overrides
        if self._empty is not None:
            task._adopt(None, "", self._config(), self.labels)
            return
        if task._registry.folder != self._registry.folder:
            raise InvalidRequestError(
                f"The model {self._model_id} is in {self._registry.place}, the task in {task._registry.place}",
                "Import the model into the task's registry.",
            )
        self.refresh()
        record = self._record()
        task._adopt(record.id, name or link_name(record), record.config, record.labels)

    def __repr__(self) -> str:
        return "<InputModel empty>" if self._empty is not None else super().__repr__()


def _empty_record(config: dict[str, Any] | None, labels: dict[str, int]) -> ModelRecord:
    return ModelRecord(
        key=0, id=_EMPTY_ID, state=0, name=None, project=None, project_id=None, task=None, parent=None, comment=None,
        framework=None, uri=None, digest=None, size=None, package=False, labels=labels, config=config, iteration=None,
        tags=(), system_tags=(), published=False, created=0, updated=0,
    )  # fmt: skip


def link_name(record: ModelRecord) -> str:
    """Return the name under which a model is linked when nobody names it: the stem of its file, or "Input Model"."""
    from modelstore.storage.uris import basename

    stem = basename(record.uri).rsplit(".", 1)[0].strip() if record.uri else ""
    try:
        return rules.check_name("link name", stem)
    except InvalidRequestError:
        return "Input Model"

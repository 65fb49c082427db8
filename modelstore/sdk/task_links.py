"""The models of a task: those it uses and those it has made."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, cast

from modelstore.errors import InvalidRequestError
from modelstore.registry import rules
from modelstore.registry.search import ModelSearch
from modelstore.sdk.task_record import TaskBase

if TYPE_CHECKING:
    from modelstore.sdk.base_model import BaseModel
    from modelstore.sdk.task import Task
    from modelstore.sdk.task_models import TaskModels

__all__ = ["TaskLinks"]


class TaskLinks(TaskBase):
    """The part of `Task` that is about models."""

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
        task = cast("Task", self)
        model = OutputModel(task=task, name=model_name or default, tags=tags, comment=comment)
        if name:
            model.connect(task, name)
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

        if model_id is None and not model_name:
            raise InvalidRequestError("Expected one of [model_id, model_name]")
        if model_id is None:
            found = ModelSearch(name=model_name, only_published=True, limit=2).run(self._registry)
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

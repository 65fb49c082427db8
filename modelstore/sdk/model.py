"""`Model`: any model of the registry."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelstore.errors import ModelStoreError
from modelstore.records.entities import ModelRecord
from modelstore.sdk._context import Registry, current_registry
from modelstore.sdk.base_model import BaseModel, model_to_dict

if TYPE_CHECKING:
    from modelstore.query import Node

__all__ = ["BaseModel", "Model", "model_to_dict"]

logger = logging.getLogger("modelstore")


class Model(BaseModel):
    """A model of the registry, whatever task made or uses it.

    Args:
        model_id: The model's id. Whether it exists is found out at the first use.
    """

    def __init__(self, model_id: str) -> None:
        super().__init__(current_registry(), model_id.strip() if isinstance(model_id, str) else model_id)

    @classmethod
    def _of(cls, registry: Registry, record: ModelRecord, version: int = -1) -> Model:
        model = Model.__new__(Model)
        BaseModel.__init__(model, registry, record.id, record, version)
        return model

    @classmethod
    def query_models(
        cls,
        project_name: str | None = None,
        model_name: str | None = None,
        tags: Sequence[str] | None = None,
        only_published: bool = False,
        include_archived: bool = False,
        max_results: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        where: Node | str | None = None,
        name_regex: str | None = None,
        order_by: str | Sequence[str] | None = None,
        dialect: str = "page",
    ) -> list[Model]:
        """Return the models that match all conditions, most recently updated first.

        The rows are read once, with their tags and metadata: reading properties of the results costs nothing more.

        Args:
            project_name: Full name of the project, without its sub-projects; None or "" for any.
            model_name: Exact name; None for any.
            tags: Tags and operators; `modelstore explain` and the README say how they are read. None or [] for any.
            only_published: Only published models.
            include_archived: Also archived models.
            max_results: At most so many; None for all.
            metadata: Key to value, all of which must match. A string is compared with the value's text, a list of
                strings with any of them, a number or boolean with a value of that kind, None is ignored.
            where: A further condition: an expression such as ``Meta("accuracy") > 0.9`` or its text.
            name_regex: Regular expression that the name must contain a match of.
            order_by: Fields or "metadata.KEY", "-" in front for descending; None for "-updated".
            dialect: "page" reads ``tags`` as ClearML documents them, "clearml-server" as its server does.

        Returns:
            The models.

        Raises:
            ProjectNotFoundError: There is no such project.
            TagQueryError: ``tags`` is malformed.
            WhereSyntaxError: ``where`` is malformed.
            InvalidRequestError: Another argument is not acceptable.
        """
        from modelstore.registry.search import ModelSearch

        registry = current_registry()
        search = ModelSearch(
            project=project_name or None,
            name=model_name,
            tags=tags,
            only_published=only_published,
            include_archived=include_archived,
            limit=max_results,
            metadata=metadata,
            where=where,
            name_regex=name_regex,
            order_by=order_by,
            dialect=dialect,
        )
        version = registry.version
        return [cls._of(registry, record, version) for record in search.run(registry)]

    @classmethod
    def remove(
        cls,
        model: str | BaseModel,
        delete_weights_file: bool = True,
        force: bool = False,
        raise_on_errors: bool = False,
    ) -> bool:
        """Remove a model from the registry, with the bytes that the registry holds for it and nothing else refers to.

        Files and objects that the registry did not write itself are never deleted. Uploads of the model that have not
        finished are given up.

        Args:
            model: The model or its id.
            delete_weights_file: Also free the bytes.
            force: Also when a task uses the model as input, or its task is published.
            raise_on_errors: Raise instead of returning False.

        Returns:
            True when the model is gone; False when it is still there (the reason is logged).

        Raises:
            ModelNotFoundError: There is no such model. Only with ``raise_on_errors``.
            ModelInUseError: Something refers to it. Only with ``raise_on_errors``.
            StorageError: The model is gone, but its bytes could not be deleted. Only with ``raise_on_errors``.
        """
        registry = model._registry if isinstance(model, BaseModel) else current_registry()
        model_id = model._require_id() if isinstance(model, BaseModel) else model
        try:
            record = registry.models.delete(model_id, force=force)
        except ModelStoreError as error:
            if raise_on_errors:
                raise
            logger.error("The model %s was not removed: %s", model_id, error)
            return False
        try:
            if delete_weights_file:
                registry.weights.release(record)
        except ModelStoreError as error:
            if raise_on_errors:
                raise
            logger.error("The model %s is removed, but its weights are left: %s", model_id, error)
        return True

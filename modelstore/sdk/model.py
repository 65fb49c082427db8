"""`Model`: any model of the registry."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict

from modelstore.errors import ModelStoreError
from modelstore.records.entities import ModelRecord
from modelstore.sdk._context import Registry, current_registry
from modelstore.sdk.base_model import BaseModel, model_to_dict

if TYPE_CHECKING:
    from typing import Unpack

    from modelstore.query import Node
    from modelstore.registry.moments import Moment
    from modelstore.registry.search import ModelSearch
    from modelstore.sdk.results import ModelResults

__all__ = ["BaseModel", "Model", "ModelFilters", "model_to_dict"]

logger = logging.getLogger("modelstore")


class ModelFilters(TypedDict, total=False):
    """The arguments of `Model.query_models`."""

    project_name: str | None
    model_name: str | None
    tags: Sequence[str] | None
    only_published: bool
    include_archived: bool
    max_results: int | None
    metadata: Mapping[str, Any] | None
    where: Node | str | None
    name_regex: str | None
    order_by: str | Sequence[Any] | None
    dialect: str
    search: str | None
    as_of: Moment | None


def _registry_of(filters: ModelFilters) -> Registry:
    """Take the moment out of the filters, and return the registry as it was then."""
    as_of = filters.pop("as_of", None)
    return current_registry() if as_of is None else current_registry().at(as_of)


def _search(
    *, project_name: str | None = None, model_name: str | None = None, max_results: int | None = None, **filters: Any
) -> ModelSearch:
    from modelstore.registry.search import ModelSearch

    return ModelSearch(project=project_name or None, name=model_name, limit=max_results, **filters)


class Model(BaseModel):
    """A model of the registry, whatever task made or uses it.

    Args:
        model_id: The model's id. Whether it exists is found out at the first use.
        as_of: The model as it was then, read-only, see `query_models`; None for now.
    """

    def __init__(self, model_id: str, *, as_of: Moment | None = None) -> None:
        registry = current_registry() if as_of is None else current_registry().at(as_of)
        super().__init__(registry, model_id.strip() if isinstance(model_id, str) else model_id)

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
        order_by: str | Sequence[Any] | None = None,
        dialect: str = "page",
        search: str | None = None,
        as_of: Moment | None = None,
    ) -> ModelResults:
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
            order_by: Fields, "metadata.KEY" or "metrics.TITLE.SERIES", "-" in front for descending; or a list of
                these. None for "-updated". Ties come by id.
            dialect: "page" reads ``tags`` as ClearML documents them, "clearml-server" as its server does.
            search: Words that must all be found in the model's name, comment, tags and metadata, each at the beginning
                of a word there; in double quotes, whole words that follow one another. None or "" for any.

            as_of: The models as they were then, read-only: a datetime or ISO text (local time where it has no zone), a
                date (its end), or seconds since 1970. None for now. The first use of a moment takes a while, see
                `Registry.at`.

        Returns:
            The models: a list, which has a method `to_pandas` as well.

        Raises:
            ProjectNotFoundError: There is no such project.
            TagQueryError: ``tags`` is malformed.
            WhereSyntaxError: ``where`` is malformed.
            InvalidRequestError: Another argument is not acceptable.
        """
        from modelstore.sdk.results import ModelResults

        search_for = _search(
            project_name=project_name,
            model_name=model_name,
            tags=tags,
            only_published=only_published,
            include_archived=include_archived,
            max_results=max_results,
            metadata=metadata,
            where=where,
            name_regex=name_regex,
            order_by=order_by,
            dialect=dialect,
            search=search,
        )
        registry = current_registry() if as_of is None else current_registry().at(as_of)
        version = registry.version
        return ModelResults(cls._of(registry, record, version) for record in search_for.run(registry))

    @classmethod
    def iter_models(cls, **filters: Unpack[ModelFilters]) -> Iterator[Model]:
        """Yield the models that match all conditions, in order, reading a page at a time: for very many.

        Each page begins where the one before it ended, whatever others write meanwhile: a model that stays as it is
        comes exactly once. One whose place in the order changes while it is read (any change does, in the order of the
        last one) may come again or be missed; in the order of "created" or "id" none can.

        Args:
            **filters: As for `query_models`, by name.

        Yields:
            The models. What is read of them is of the moment when their page was read.

        Raises:
            ValueError: As `query_models`, at once and not with the first model.
        """
        registry = _registry_of(filters)
        search = _search(**filters)
        search.check(registry)
        return cls._pages(registry, search)

    @classmethod
    def _pages(cls, registry: Registry, search: ModelSearch) -> Iterator[Model]:
        version = registry.version
        for page in search.pages(registry):
            for record in page:
                yield cls._of(registry, record, version)
            version = registry.version

    @classmethod
    def count_models(cls, **filters: Unpack[ModelFilters]) -> int:
        """Return how many models match all conditions, without reading them.

        Args:
            **filters: As for `query_models`, by name; ``max_results`` and ``order_by`` change nothing.

        Raises:
            ValueError: As `query_models`.
        """
        registry = _registry_of(filters)
        return _search(**filters).count(registry)

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
        if delete_weights_file:
            registry.database.at_end(well=partial(cls._release, registry, record, raise_on_errors=raise_on_errors))
        return True

    @staticmethod
    def _release(registry: Registry, record: ModelRecord, *, raise_on_errors: bool) -> None:
        try:
            registry.weights.release(record)
        except ModelStoreError as error:
            if raise_on_errors:
                raise
            logger.error("The model %s is removed, but its weights are left: %s", record.id, error)

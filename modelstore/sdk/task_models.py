"""`task.models`: the models that a task uses and has made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, SupportsIndex, overload

from modelstore.records.entities import Link
from modelstore.sdk.model import Model

if TYPE_CHECKING:
    from modelstore.sdk._context import Registry

__all__ = ["ModelsList", "TaskModels"]


class ModelsList(list[Model]):
    """Models in order, that can also be had by the names under which they are linked.

    Args:
        models: The models.
        names: Their names, one each.
    """

    def __init__(self, models: list[Model], names: list[str]) -> None:
        super().__init__(models)
        self._names = names

    @overload
    def __getitem__(self, key: SupportsIndex) -> Model: ...
    @overload
    def __getitem__(self, key: str) -> Model: ...
    @overload
    def __getitem__(self, key: slice) -> list[Model]: ...
    def __getitem__(self, key: SupportsIndex | slice | str) -> Model | list[Model]:
        """Return a model by position or name.

        Raises:
            IndexError: No such position.
            KeyError: No such name.
        """
        if isinstance(key, str):
            for name, model in zip(reversed(self._names), reversed(list(self)), strict=True):
                if name == key:
                    return model
            raise KeyError(f"No model is linked as {key!r}; there are {', '.join(map(repr, self._names)) or 'none'}")
        return super().__getitem__(key)

    def get(self, key: str, default: Model | None = None) -> Model | None:
        """Return the model of that name, or the default."""
        try:
            return self[key]
        except KeyError:
            return default

    def keys(self) -> list[str]:
        """Return the names, in order."""
        return list(self._names)


class TaskModels(Mapping[str, ModelsList]):
    """The models of a task, under "input" and "output".

    Models that were removed since are left out. Outputs come in the order in which they were made.
    """

    def __init__(self, input_models: ModelsList, output_models: ModelsList) -> None:
        self._lists = {"input": input_models, "output": output_models}

    @property
    def input(self) -> ModelsList:
        """Models that the task uses."""
        return self._lists["input"]

    @property
    def output(self) -> ModelsList:
        """Models that the task has made."""
        return self._lists["output"]

    def __getitem__(self, key: str) -> ModelsList:
        return self._lists[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._lists)

    def __len__(self) -> int:
        return len(self._lists)

    def __repr__(self) -> str:
        return f"{{'input': {list(self.input)!r}, 'output': {list(self.output)!r}}}"


def collect(registry: Registry, task_id: str) -> TaskModels:
    """Read the models of a task as they are linked now."""
    inputs = registry.tasks.links(task_id, "input")
    outputs = registry.tasks.links(task_id, "output")
    linked = {link.model: link.name for link in outputs}
    made = registry.tasks.made(task_id)
    ordered = made + [model for model in linked if model not in set(made)]
    numbered = [
        Link(task_id, "output", linked.get(model) or f"Output Model #{number}", model)
        for number, model in enumerate(ordered)
    ]
    return TaskModels(_list(registry, inputs), _list(registry, numbered))


def _list(registry: Registry, links: list[Link]) -> ModelsList:
    from modelstore.errors import ModelNotFoundError

    models, names = [], []
    version = registry.version
    for link in links:
        try:
            record = registry.models.get(link.model)
        except ModelNotFoundError:
            continue
        models.append(Model._of(registry, record, version))
        names.append(link.name)
    return ModelsList(models, names)

"""`modelstore.inspect`, `modelstore.compare`, `modelstore.diff`, and the pages that models are shown on."""

from __future__ import annotations

import os
from html import escape
from typing import TYPE_CHECKING, Any

from modelstore.errors import InvalidRequestError
from modelstore.registry.comparison import Comparison, compare_models
from modelstore.registry.lookup import find_model
from modelstore.sdk._context import Registry, current_registry
from modelstore.sdk.base_model import BaseModel

if TYPE_CHECKING:
    from modelstore.inspection import Inspection
    from modelstore.registry.moments import Moment
    from modelstore.registry.timediff import ModelChange

__all__ = ["Page", "SideBySide", "compare", "diff", "inspect"]

_FRAME_PX = 720


class Page:
    """A page that needs no network: shown in a notebook, or saved to a file.

    Args:
        title: Of the page.
        html: The whole page.
    """

    def __init__(self, title: str, html: str) -> None:
        self.title, self.html = title, html

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page; it appears at once and whole, in place of what was there.

        Raises:
            StorageError: It cannot be written.
        """
        from modelstore.pages import write_page

        write_page(path, self.html)

    def _repr_html_(self) -> str:
        # A frame of its own: neither its styles nor its scripts meet those of the notebook.
        return (
            f'<iframe sandbox="allow-scripts allow-downloads" style="width:100%;height:{_FRAME_PX}px;border:0" '
            f'title="{escape(self.title)}" srcdoc="{escape(self.html)}"></iframe>'
        )

    def __repr__(self) -> str:
        return f"<Page {self.title!r}, {len(self.html):,} characters; save(path) writes it>"


class SideBySide:
    """A comparison of models: `to_dict`, `page`, or shown in a notebook.

    Attributes:
        comparison: The models, the rows by section, and the tensors.
    """

    def __init__(self, registry: Registry, comparison: Comparison) -> None:
        self._registry, self.comparison = registry, comparison

    @property
    def differences(self) -> int:
        """How many rows differ, and tensors."""
        return self.comparison.differences

    def different(self, section: str) -> dict[str, tuple[Any, ...]]:
        """Return what differs in a section: key to the value of each model, None where one has none.

        Args:
            section: "fields", "tags", "metadata", "labels", "configuration", "single values" or "scalars".
        """
        return {row.key: row.values for row in self.comparison.sections.get(section, ()) if row.differs}

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values, as the command line's `--json` prints it."""
        return self.comparison.to_dict()

    def page(self) -> Page:
        """Return a page with tables, and scalars overlaid.

        Raises:
            StorageError: What was reported cannot be read.
        """
        from modelstore.pages import comparison_page

        title = " · ".join(name or identity for identity, name in self.comparison.models)
        return Page(title, comparison_page(self._registry, self.comparison))

    def _repr_html_(self) -> str:
        return self.page()._repr_html_()

    def __repr__(self) -> str:
        return repr(self.comparison)


def compare(*models: BaseModel | str, tensors: bool = True) -> SideBySide:
    """Put models side by side: fields, tags, metadata, labels, configuration, values, scalars, tensors.

    Args:
        models: Two or more: models, ids, beginnings of ids, or names.
        tensors: Compare their weights with those of the first too, by value where all bytes are on this machine.

    Raises:
        ModelNotFoundError: One of them is not there.
        InvalidRequestError: They are fewer than two, of several registries, or a name stands for several.
        StorageError: What was reported cannot be read.
    """
    own = [model for model in models if isinstance(model, BaseModel)]
    registry = own[0]._registry if own else current_registry()
    if any(model._registry.folder != registry.folder for model in own):
        raise InvalidRequestError("Models of several registries cannot be compared", "Name models of one.")
    records = [
        registry.models.get(model.id) if isinstance(model, BaseModel) else find_model(registry, model)
        for model in models
    ]
    return SideBySide(registry, compare_models(registry, records, tensors=tensors))


def diff(first: Moment, second: Moment | None = None, *, project: str | None = None) -> list[ModelChange]:
    """Return what became of models between two times, in the registry that is used here, ordered by id.

    Args:
        first: The earlier time: a datetime or ISO text (local time where it has no zone), a date (its end), seconds
            since 1970, or the stamp of a change.
        second: The later one; None for now.
        project: Only models that are or were in this project; None for all.

    Returns:
        For each model that was added, removed or changed: `id`, `name`, `what`, and by field, tag or metadata key the
        values before and after. What was changed and changed back is no difference.

    Raises:
        InvalidRequestError: A time is none.
    """
    return current_registry().changes_between(first, second, project=project)


def inspect(weights: BaseModel | str | os.PathLike[str]) -> Inspection:
    """Return what weights hold: tensors, types, shapes, parameters, layers, metadata; see `Model.inspect`.

    Args:
        weights: A model, or the path or URI of a file that need not be registered.

    Raises:
        UnreadableWeightsError: They are of no known format, or damaged.
        StorageError: They cannot be read.
    """
    if isinstance(weights, BaseModel):
        return weights.inspect()
    from modelstore.inspection import inspect_uri

    return inspect_uri(os.fspath(weights))

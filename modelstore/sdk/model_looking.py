"""Looking at models: into their weights, in a notebook, side by side."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from modelstore.errors import ModelStoreError

if TYPE_CHECKING:
    from modelstore.inspection import Inspection
    from modelstore.records.entities import ModelRecord
    from modelstore.sdk._context import Registry
    from modelstore.sdk.looking import Page

__all__ = ["ModelLooking"]


class ModelLooking:
    """The part of the model classes that is about looking."""

    _registry: Registry

    @property
    def url(self) -> str | None:
        """URI of the weights."""
        raise NotImplementedError

    def _record(self) -> ModelRecord:
        raise NotImplementedError

    def _require_id(self) -> str:
        raise NotImplementedError

    def inspect(self) -> Inspection:
        """Return what the weights hold: tensors, types, shapes, parameters, layers, metadata.

        Nothing in them is executed, and no framework is needed. Only headers are read, by ranged requests where the
        weights are remote. Known are safetensors, GGUF, ONNX, NumPy (npy, npz) and PyTorch's zip files.

        Raises:
            MissingWeightsError: There are no weights.
            UnreadableWeightsError: They are of no known format, or damaged.
            StorageError: They cannot be read.
        """
        from modelstore.registry.inspecting import inspect_model

        self._require_id()
        return inspect_model(self._registry, self._record())

    def show(self) -> Page:
        """Return a page with everything about the model: facts, values, charts, plots, what is in the weights.

        In a notebook it is shown where it is the last expression of a cell; `Page.save` writes it to a file. It needs
        no network.

        Raises:
            StorageError: What was reported cannot be read.
        """
        from modelstore.pages import model_page
        from modelstore.sdk.looking import Page

        self._require_id()
        record = self._record()
        return Page(record.name or record.id, model_page(self._registry, record))

    def save_picture(self, title: str, path: str | os.PathLike[str], *, width: int = 1200, height: int = 640) -> None:
        """Write a chart of scalars, or a plot, as PNG.

        Args:
            title: Of the chart or plot; "title / series" names one line or variant.
            path: Where to; what is there is replaced.
            width: In pixels.
            height: In pixels.

        Raises:
            InvalidRequestError: There is none of that title.
            UsageError: It is no chart of scalars, and Chromium, which would draw it, is not installed.
            StorageError: It cannot be written.
        """
        from modelstore.pages import picture_of, write_page

        self._require_id()
        write_page(path, picture_of(self._registry, self._record(), title, width, height))

    def _repr_html_(self) -> str:
        from modelstore.sdk._html import model_html, text_html

        try:
            self._require_id()
            return model_html(self._record(), self.url)
        except ModelStoreError:
            return text_html(repr(self))

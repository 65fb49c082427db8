"""Looking at models: into their weights, in a notebook, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelstore.errors import ModelStoreError

if TYPE_CHECKING:
    from modelstore.inspection import Inspection
    from modelstore.records.entities import ModelRecord
    from modelstore.sdk._context import Registry

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

    def _repr_html_(self) -> str:
        from modelstore.sdk._html import model_html, text_html

        try:
            self._require_id()
            return model_html(self._record(), self.url)
        except ModelStoreError:
            return text_html(repr(self))

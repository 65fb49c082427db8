"""Metadata of models: what can be set, read, and taken away."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelstore.errors import InvalidMetadataError

if TYPE_CHECKING:
    from modelstore.records.entities import MetadataItem, ModelRecord
    from modelstore.sdk._context import Registry

__all__ = ["ModelMetadata"]


class ModelMetadata:
    """The part of the model classes that is about metadata."""

    _registry: Registry

    def _record(self) -> ModelRecord:
        raise NotImplementedError

    def _ensured_id(self) -> str:
        raise NotImplementedError

    def set_metadata(self, key: str, value: Any, v_type: str | None = None) -> bool:
        """Set one metadata value; published models too can be annotated.

        Args:
            key: Any text; dots are fine.
            value: A number, string, boolean, None, list, tuple or dictionary; it comes back as it went in.
            v_type: Name of the type that the value is converted to: float, int, bool, str, list, tuple, dict. None
                keeps the value's own.

        Returns:
            True.

        Raises:
            InvalidMetadataError: The key, the type or the value is not acceptable; nothing was changed.
        """
        self._write_metadata({key: (v_type, value)}, replace=False)
        return True

    def set_all_metadata(self, metadata: Mapping[str, Any], replace: bool = True) -> bool:
        """Set several metadata values at once.

        Args:
            metadata: Key to value, or key to {"value": …, "type": …} as `get_all_metadata` returns it.
            replace: Remove all keys that are not named; {} then removes everything.

        Returns:
            True.

        Raises:
            InvalidMetadataError: A key, type or value is not acceptable; nothing was changed.
        """
        if not isinstance(metadata, Mapping):
            raise InvalidMetadataError(f"Metadata must be a dictionary, not {type(metadata).__name__}")
        values = {key: _metadata_entry(entry) for key, entry in metadata.items()}
        self._write_metadata(values, replace=replace)
        return True

    def _write_metadata(self, values: Mapping[str, tuple[str | None, Any]], *, replace: bool) -> None:
        self._registry.models.set_metadata(self._ensured_id(), values, replace=replace)

    def get_metadata(self, key: str) -> str | None:
        """Return one metadata value as text; None when there is none."""
        item = self._metadata().get(key)
        return None if item is None else item.text

    def get_metadata_casted(self, key: str) -> Any:
        """Return one metadata value as it was set; None when there is none."""
        item = self._metadata().get(key)
        return None if item is None else copy.deepcopy(item.value)

    def get_all_metadata(self) -> dict[str, dict[str, str]]:
        """Return all metadata as key to {"key", "type", "value"}, the values as text."""
        return {k: {"key": k, "type": i.type, "value": i.text} for k, i in self._metadata().items()}

    def get_all_metadata_casted(self) -> dict[str, Any]:
        """Return all metadata as key to the value that was set."""
        return {key: copy.deepcopy(item.value) for key, item in self._metadata().items()}

    def delete_metadata(self, *keys: str) -> None:
        """Remove metadata keys; those that are not there are ignored."""
        self._registry.models.delete_metadata(self._ensured_id(), keys)

    def _metadata(self) -> dict[str, MetadataItem]:
        return self._record().metadata


def _metadata_entry(entry: Any) -> tuple[str | None, Any]:
    if isinstance(entry, Mapping) and "value" in entry and set(entry) <= {"key", "type", "value"}:
        kind = entry.get("type")
        return (None if kind in (None, "None") else kind, entry["value"])
    return (None, entry)

"""modelstore: an embedded, local-first model registry with the interface of ClearML's Models.

    from modelstore import Task, OutputModel, InputModel, Model

No server and no configuration: the registry is a folder. Importing this package loads almost nothing; each part
loads when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from modelstore import errors as errors
    from modelstore.query import Field, Meta, Metric, Tag
    from modelstore.reports.figures import SeriesInfo
    from modelstore.sdk._context import Registry, open_registry, transaction
    from modelstore.sdk.framework import Framework
    from modelstore.sdk.input_model import InputModel
    from modelstore.sdk.logger import Logger
    from modelstore.sdk.model import Model
    from modelstore.sdk.output_model import OutputModel
    from modelstore.sdk.storage_manager import StorageManager
    from modelstore.sdk.task import Task, TaskTypes
    from modelstore.storage.progress import watch_transfers

    open = open_registry  # noqa: A001 - `modelstore.open(uri)` is the call

__version__ = "0.1.0"

__all__ = [
    "Field",
    "Framework",
    "InputModel",
    "Logger",
    "Meta",
    "Metric",
    "Model",
    "OutputModel",
    "Registry",
    "Search",
    "SeriesInfo",
    "StorageManager",
    "Tag",
    "Task",
    "TaskTypes",
    "compare",
    "diff",
    "errors",
    "inspect",
    "to_pandas",
    "transaction",
    "watch_transfers",
]
"""All but `open`: `from modelstore import *` must not hide Python's own."""

_HOMES: Final = {
    "Field": ("modelstore.query", "Field"),
    "Framework": ("modelstore.sdk.framework", "Framework"),
    "InputModel": ("modelstore.sdk.input_model", "InputModel"),
    "Logger": ("modelstore.sdk.logger", "Logger"),
    "Meta": ("modelstore.query", "Meta"),
    "Metric": ("modelstore.query", "Metric"),
    "Model": ("modelstore.sdk.model", "Model"),
    "OutputModel": ("modelstore.sdk.output_model", "OutputModel"),
    "Registry": ("modelstore.sdk._context", "Registry"),
    "Search": ("modelstore.query", "Search"),
    "SeriesInfo": ("modelstore.reports.figures", "SeriesInfo"),
    "StorageManager": ("modelstore.sdk.storage_manager", "StorageManager"),
    "Tag": ("modelstore.query", "Tag"),
    "Task": ("modelstore.sdk.task", "Task"),
    "TaskTypes": ("modelstore.sdk.task", "TaskTypes"),
    "compare": ("modelstore.sdk.looking", "compare"),
    "diff": ("modelstore.sdk.looking", "diff"),
    "errors": ("modelstore.errors", ""),
    "inspect": ("modelstore.sdk.looking", "inspect"),
    "open": ("modelstore.sdk._context", "open_registry"),
    "to_pandas": ("modelstore.sdk.results", "to_pandas"),
    "transaction": ("modelstore.sdk._context", "transaction"),
    "watch_transfers": ("modelstore.storage.progress", "watch_transfers"),
}


def __getattr__(name: str) -> Any:
    """Load a public name at its first use (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'modelstore' has no attribute {name!r}")
    module = import_module(home[0])
    value = getattr(module, home[1]) if home[1] else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

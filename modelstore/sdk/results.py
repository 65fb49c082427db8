"""What a query gives: a list of models, and the same as a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from modelstore.errors import UsageError
from modelstore.sdk.base_model import BaseModel

if TYPE_CHECKING:
    from modelstore.sdk.model import Model

__all__ = ["ModelResults", "to_pandas"]

_DTYPES: Final = {
    "id": "object",
    "name": "object",
    "project": "object",
    "framework": "object",
    "tags": "object",
    "published": "bool",
    "archived": "bool",
    "iteration": "Int64",
    "size": "Int64",
    "url": "object",
    "digest": "object",
    "comment": "object",
    "task": "object",
    "parent": "object",
    "created": "datetime64[ns, UTC]",
    "updated": "datetime64[ns, UTC]",
}


class ModelResults(list["Model"]):
    """The models that a query found, in its order: a list."""

    def to_pandas(self) -> Any:
        """Return the models as a table; see `modelstore.to_pandas`."""
        return to_pandas(self)


def to_pandas(models: Iterable[BaseModel]) -> Any:
    """Return models as a table: a row for each, a column for each field and for each metadata key.

    Args:
        models: Models, such as a query gives, or `Model.iter_models` for very many.

    Returns:
        A `pandas.DataFrame`. Its columns are id, name, project (full name), framework, tags (lists), published,
        archived, iteration, size (bytes), url, digest, comment, task, parent, created and updated, then
        ``metadata.KEY``, sorted, with the values as they were set, and None where a model has none.

    Raises:
        UsageError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise UsageError("A table of models needs pandas", "Install it with: pip install pandas") from error
    rows = [_row(model) for model in models]
    keys = sorted({key for _, metadata in rows for key in metadata})
    columns = {
        name: pd.Series([row[n] for row, _ in rows], dtype=dtype) for n, (name, dtype) in enumerate(_DTYPES.items())
    }
    for key in keys:
        values = [metadata.get(key) for _, metadata in rows]
        # Numbers become a column of numbers; whatever else is among them, everything stays as it is.
        numbers = all(isinstance(value, float) or type(value) is int for value in values if value is not None)
        columns[f"metadata.{key}"] = pd.Series(values, dtype="float64" if numbers else "object")
    return pd.DataFrame(columns)


def _row(model: BaseModel) -> tuple[tuple[Any, ...], dict[str, Any]]:
    record = model._record()
    values = (
        record.id,
        record.name,
        record.project,
        record.framework,
        list(record.tags),
        record.published,
        record.archived,
        record.iteration,
        record.size,
        model.url,
        record.digest,
        record.comment,
        record.task,
        record.parent,
        record.created_at,
        record.updated_at,
    )
    return values, {key: item.value for key, item in record.metadata.items()}

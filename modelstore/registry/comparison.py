"""Models side by side: what they have in common and where they differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from modelstore.errors import InvalidRequestError, ModelStoreError
from modelstore.records.points import SUMMARY
from modelstore.records.values import decode, encode
from modelstore.registry.inspecting import compare_weights
from modelstore.storage.uris import redact

if TYPE_CHECKING:
    from modelstore.inspection import TensorDifferences
    from modelstore.records.entities import ModelRecord
    from modelstore.records.reports import SeriesRecord
    from modelstore.registry.registry import Registry

__all__ = ["Comparison", "Row", "ScalarCell", "TensorResult", "compare_models"]

ABSENT: Final = None


@dataclass(frozen=True, slots=True)
class Row:
    """One thing of several models.

    Attributes:
        key: What it is.
        values: Of each model, in their order; None where one has none.
        differs: Whether they are not all the same.
    """

    key: str
    values: tuple[Any, ...]
    differs: bool


@dataclass(frozen=True, slots=True)
class ScalarCell:
    """A series of one model, in figures; a figure is None where all values are NaN."""

    points: int
    last: float | None
    last_iteration: int
    min: float | None
    max: float | None
    mean: float | None


@dataclass(frozen=True, slots=True)
class TensorResult:
    """How the tensors of a model differ from those of the first one.

    Attributes:
        model: Id of the model.
        differences: None where they could not be compared.
        problem: Why; "" where they could.
    """

    model: str
    differences: TensorDifferences | None
    problem: str = ""


@dataclass(frozen=True)
class Comparison:
    """Several models side by side.

    Attributes:
        models: Id and name of each, in the order given.
        sections: "fields", "tags", "metadata", "labels", "configuration", "single values" and "scalars", each with its
            rows; a section is missing where no model has anything for it. Scalars have `ScalarCell`s.
        tensors: The weights of each model but the first, compared with those of the first.
    """

    models: tuple[tuple[str, str], ...]
    sections: Mapping[str, tuple[Row, ...]]
    tensors: tuple[TensorResult, ...] = ()

    @property
    def differences(self) -> int:
        """How many rows differ, and tensors."""
        rows = sum(row.differs for rows in self.sections.values() for row in rows)
        found = [one.differences for one in self.tensors if one.differences is not None]
        return rows + sum(len(one.added) + len(one.removed) + len(one.changed) for one in found)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values; the stable form of the command line's `--json`."""
        return {
            "models": [{"id": identity, "name": name} for identity, name in self.models],
            "sections": {
                title: [
                    {"key": row.key, "values": [_plain(value) for value in row.values], "differs": row.differs}
                    for row in rows
                ]
                for title, rows in self.sections.items()
            },
            "tensors": [
                {
                    "model": one.model,
                    "problem": one.problem or None,
                    "differences": None if one.differences is None else one.differences.to_dict(),
                }
                for one in self.tensors
            ],
        }

    def __repr__(self) -> str:
        names = ", ".join(repr(name) for _, name in self.models)
        return f"<Comparison of {names}: {self.differences} differences>"


def _plain(value: Any) -> Any:
    if isinstance(value, ScalarCell):
        return {name: encode(getattr(value, name)) for name in ScalarCell.__slots__}
    return encode(value)


def compare_models(registry: Registry, records: Sequence[ModelRecord], *, tensors: bool = True) -> Comparison:
    """Put models side by side.

    Args:
        registry: Where they are.
        records: Two or more; one may be there several times.
        tensors: Compare their weights too, tensor by tensor, by value where all bytes are here.

    Raises:
        InvalidRequestError: They are fewer than two.
        StorageError: What was reported cannot be read.
    """
    if len(records) < 2:
        raise InvalidRequestError("One model cannot be compared with itself alone", "Name two or more.")
    series = [registry.reports.series(record.id) for record in records]
    sections = {
        "fields": _rows([_fields(registry, record) for record in records]),
        "tags": _rows([dict.fromkeys(record.tags, True) for record in records]),
        "metadata": _rows([{key: item.value for key, item in sorted(r.metadata.items())} for r in records]),
        "labels": _rows([record.labels for record in records]),
        "configuration": _rows([_configuration(record) for record in records]),
        "single values": _rows([_values(found) for found in series]),
        "scalars": _rows([_scalars(found) for found in series]),
    }
    return Comparison(
        models=tuple((record.id, record.name or "") for record in records),
        sections={title: rows for title, rows in sections.items() if rows},
        tensors=tuple(_tensors(registry, records[0], other) for other in records[1:]) if tensors else (),
    )


def _rows(columns: Sequence[Mapping[str, Any]]) -> tuple[Row, ...]:
    keys = dict.fromkeys(key for column in columns for key in column)
    rows = []
    for key in keys:
        values = tuple(column.get(key, ABSENT) for column in columns)
        # repr tells 1 from True and finds NaN equal to itself.
        rows.append(Row(key, values, differs=len({repr(value) for value in values}) > 1))
    return tuple(rows)


def _fields(registry: Registry, record: ModelRecord) -> dict[str, Any]:
    state = ["published"] * record.published + ["archived"] * record.archived
    found = {
        "name": record.name,
        "project": record.project,
        "framework": record.framework,
        "state": ", ".join(state) or "draft",
        "weights": None if record.uri is None else redact(registry.weights.address(record)),
        "size": record.size,
        "digest": record.digest,
        "iteration": record.iteration,
        "task": record.task,
        "parent": record.parent,
        "comment": record.comment,
        "created": record.created_at.isoformat(timespec="seconds"),
    }
    return {key: value for key, value in found.items() if value is not None}


def _configuration(record: ModelRecord) -> dict[str, Any]:
    """Return a configuration key by key where it is a dictionary, else line by line."""
    config = record.config
    if not config:
        return {}
    if "dict" in config:
        return dict(_flat("", decode(config["dict"]), 0))
    lines = str(config["text"]).splitlines()
    return {f"line {number}": line for number, line in enumerate(lines, 1)}


def _flat(above: str, value: Any, depth: int) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict) and value and depth < 20:
        for key, inner in value.items():
            yield from _flat(f"{above}.{key}" if above else str(key), inner, depth + 1)
    else:
        yield above, value


def _values(series: Iterable[SeriesRecord]) -> dict[str, Any]:
    nan = float("nan")
    return {one.series: nan if one.last is None else one.last for one in series if one.title == SUMMARY}


def _scalars(series: Iterable[SeriesRecord]) -> dict[str, ScalarCell]:
    return {
        f"{one.title} / {one.series}": ScalarCell(one.points, one.last, one.last_iteration, one.min, one.max, one.mean)
        for one in series
        if one.title != SUMMARY
    }


def _tensors(registry: Registry, first: ModelRecord, other: ModelRecord) -> TensorResult:
    try:
        return TensorResult(other.id, compare_weights(registry, first, other))
    except ModelStoreError as error:
        return TensorResult(other.id, None, error.message)

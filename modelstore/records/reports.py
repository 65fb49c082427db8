"""What was reported to a model or task, as it is read back."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PlotRecord", "SeriesRecord"]


@dataclass(frozen=True, slots=True)
class SeriesRecord:
    """A scalar series, and what is known of all its points together.

    Attributes:
        key: Small integer of this database only.
        entity: Id of the model or task.
        title: Name of the chart.
        series: Name of the line in it.
        points: How many there are.
        last: Value at the greatest iteration, of several there the one reported last; None for NaN.
        last_iteration: That iteration.
        min: Least value; None when all are NaN.
        max: Greatest value; None when all are NaN.
        mean: Mean of all values but NaN; None when there is none.
    """

    key: int
    entity: str
    title: str
    series: str
    points: int
    last: float | None
    last_iteration: int
    min: float | None
    max: float | None
    mean: float | None


@dataclass(frozen=True, slots=True)
class PlotRecord:
    """A plot, picture or other file that was reported.

    Attributes:
        entity: Id of the model or task.
        op: Number of its operation in this database's journal.
        kind: "plotly", "image" or "media".
        title: Name of the chart.
        series: Name of the variant.
        iteration: The training iteration, 0 where none was given.
        time: When, milliseconds since 1970.
        digest: "sha256:…" of the stored bytes; None for a small figure and for an address.
        size: Their size in bytes.
        name: Their file name.
        url: Address of what is not stored here.
    """

    entity: str
    op: int
    kind: str
    title: str
    series: str
    iteration: int
    time: int
    digest: str | None
    size: int | None
    name: str | None
    url: str | None

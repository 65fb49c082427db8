"""What was reported to a model or task, read back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from modelstore.errors import InvalidRequestError, NotFoundError
from modelstore.records.points import SINGLE_VALUE, SUMMARY
from modelstore.reports import columns

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

    from modelstore.records.reports import PlotRecord, SeriesRecord
    from modelstore.reports.columns import ScalarArrays
    from modelstore.sdk._context import Registry

__all__ = ["Reported"]


class Reported:
    """The part of models and tasks that reads what was reported; what this process reported is there at once."""

    _registry: Registry

    def _reported_id(self) -> str | None:
        """Return the id of the model or task; None while it is not registered."""
        raise NotImplementedError

    def _series(self, title: str | None = None, series: str | None = None) -> list[SeriesRecord]:
        entity = self._reported_id()
        return [] if entity is None else self._registry.reports.series(entity, title, series)

    def get_reported_scalars(
        self, max_samples: int = 0, x_axis: Literal["iter", "timestamp", "iso_time"] = "iter"
    ) -> dict[str, dict[str, dict[str, Any]]]:
        """Return all scalar series, without single values.

        Args:
            max_samples: At most so many points of each series, 4 or more, its extremes among them; 0 for all points.
            x_axis: "iter" for iterations, "timestamp" for milliseconds since 1970, "iso_time" for times as text.

        Returns:
            Title to series to {"name": series, "x": […], "y": […]}, sorted by iteration.

        Raises:
            InvalidRequestError: An argument is not acceptable.
        """
        if x_axis not in ("iter", "timestamp", "iso_time"):
            raise InvalidRequestError(f"Unknown x_axis {x_axis!r}", 'Use "iter", "timestamp" or "iso_time".')
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for record in self._series():
            if _is_single(record):
                continue
            points = columns.columns(self._registry.reports.blocks(record))
            if max_samples:
                points = columns.thinned(points, max_samples)
            x: list[Any] = (points.iterations if x_axis == "iter" else points.times).tolist()
            if x_axis == "iso_time":
                x = [datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds") for ms in x]
            found.setdefault(record.title, {})[record.series] = {"name": record.series, "x": x, "y": list(points[2])}
        return found

    def get_reported_single_values(self) -> dict[str, float]:
        """Return the single values: name to the value reported last."""
        return {r.series: _number(r.last) for r in self._series(SUMMARY) if _is_single(r)}

    def get_reported_single_value(self, name: str) -> float | None:
        """Return the single value of that name reported last; None when there is none."""
        return self.get_reported_single_values().get(name)

    def get_last_scalar_metrics(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return what is known of each series: title to series to "last", "min", "max", "mean" and "points".

        NaN is left out of "min", "max" and "mean"; they are NaN when there is nothing else.
        """
        found: dict[str, dict[str, dict[str, float]]] = {}
        for record in self._series():
            found.setdefault(record.title, {})[record.series] = {
                "last": _number(record.last),
                "min": _number(record.min),
                "max": _number(record.max),
                "mean": _number(record.mean),
                "points": record.points,
            }
        return found

    def scalar_arrays(self, title: str, series: str) -> ScalarArrays:
        """Return one series as numpy arrays: iterations, values, times (milliseconds since 1970).

        Raises:
            NotFoundError: There is no such series.
            UsageError: numpy is not installed.
        """
        records = self._series(title, series)
        if not records:
            raise NotFoundError(f"There is no series {title!r} / {series!r}", "get_last_scalar_metrics() lists them.")
        return columns.arrays(self._registry.reports.blocks(records[0]))

    def scalar_frame(self, title: str | None = None, series: str | None = None) -> pd.DataFrame:
        """Return scalars as a pandas frame, a row a point: title, series, iteration, value, time.

        Args:
            title: Only the series of this title; None for all.
            series: Only the series of this name; None for all. Single values are left out.

        Raises:
            UsageError: pandas is not installed.
        """
        records = [record for record in self._series(title, series) if not _is_single(record)]
        return columns.frame([(r.title, r.series, self._registry.reports.blocks(r)) for r in records])

    def get_reported_plots(self, max_iterations: int | None = None) -> list[dict[str, Any]]:
        """Return plots, pictures and files, sorted by title, series and iteration.

        Args:
            max_iterations: Of each title and series only the last so many; None for all.

        Returns:
            Dictionaries with "metric" (the title), "variant" (the series), "iter", "timestamp" (milliseconds since
            1970), "type" ("plotly", "image" or "media"), and "plot_str" (a figure as JSON, NaN as null) or "url".
        """
        found = []
        for plot in self._plots(max_iterations):
            entry: dict[str, Any] = {
                "metric": plot.title,
                "variant": plot.series,
                "iter": plot.iteration,
                "timestamp": plot.time,
                "type": plot.kind,
            }
            if plot.kind == "plotly":
                entry["plot_str"] = json.dumps(_finite(self._registry.reports.load_figure(plot)), ensure_ascii=False)
            else:
                entry["url"] = plot.url or self._registry.reports.path(plot).as_uri()
            found.append(entry)
        return found

    def _plots(self, max_iterations: int | None = None) -> list[PlotRecord]:
        entity = self._reported_id()
        plots = [] if entity is None else self._registry.reports.plots(entity)
        if max_iterations is None:
            return plots
        groups: dict[tuple[str, str], list[PlotRecord]] = {}
        for plot in plots:
            groups.setdefault((plot.title, plot.series), []).append(plot)
        return [plot for group in groups.values() for plot in group[max(len(group) - max_iterations, 0) :]]

    def figure(self, title: str, series: str | None = None, iteration: int | None = None) -> Figure:
        """Return a reported plot as a plotly `Figure`; or, when scalars have that title, a figure of these.

        Args:
            title: Its title.
            series: Its series; None takes any.
            iteration: Its iteration; None takes the last.

        Raises:
            NotFoundError: There is nothing of that name.
            UsageError: plotly is not installed.
        """
        from modelstore.reports import figures

        plots = [
            plot
            for plot in self._plots()
            if plot.kind == "plotly"
            and plot.title == title
            and series in (None, plot.series)
            and iteration in (None, plot.iteration)
        ]
        if plots:
            newest = max(plots, key=lambda plot: plot.iteration)
            return figures.plotly_figure(self._registry.reports.load_figure(newest))
        records = [record for record in self._series(title, series) if not _is_single(record)]
        if not records:
            raise NotFoundError(f"Nothing was reported as {title!r}" + ("" if series is None else f" / {series!r}"))
        lines = [(r.series, columns.columns(self._registry.reports.blocks(r))) for r in records]
        return figures.plotly_figure(figures.scalars(title, lines))


def _is_single(record: SeriesRecord) -> bool:
    return record.title == SUMMARY and record.last_iteration == SINGLE_VALUE


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _finite(value: Any) -> Any:
    """Return a figure with NaN and infinities as None, which is how Plotly writes a gap in JSON."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return value

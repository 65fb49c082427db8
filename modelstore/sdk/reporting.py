"""Reporting to a model or task: scalars and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelstore.errors import InvalidRequestError
from modelstore.registry import rules

if TYPE_CHECKING:
    from modelstore.registry.reports import Owner, Reports
    from modelstore.reports.figures import SeriesInfo
    from modelstore.sdk._context import Registry

__all__ = ["Reporting"]


class Reporting:
    """The part of models and loggers that reports numbers and plots.

    Nothing is stored of a report that is refused. Plots are figures of Plotly; inputs are lists, numpy arrays, pandas
    frames or tensors; NaN and infinities are kept. ``iteration`` is the training iteration, None counts as 0;
    ``extra_layout`` is put over the figure's layout.
    """

    def _reports(self) -> tuple[Reports, Owner, str]:
        """Return where reports go: the registry's reports, what kind of entity, its id (which is made to exist)."""
        raise NotImplementedError

    def _home(self) -> Registry:
        """Return the registry."""
        raise NotImplementedError

    def _report(self, title: str, series: str, iteration: int | None, figure: Mapping[str, Any]) -> None:
        from modelstore.registry.reports import Place

        reports, kind, entity = self._reports()
        reports.figure(Place(kind, entity, title, series, iteration), figure)

    # -- numbers ---------------------------------------------------------------------------------------------------

    def report_scalar(self, title: str, series: str, value: float, iteration: int) -> None:
        """Add a point to a scalar series; takes microseconds, and is written within a second.

        Args:
            title: Name of the chart.
            series: Name of the line in it.
            value: A number; NaN and infinities are kept.
            iteration: The training iteration; None counts as 0.

        Raises:
            InvalidRequestError: An argument is not acceptable; nothing was reported.
        """
        if type(value) is not float:
            value = rules.check_number("value", value)  # before an output model is registered for it
        reports, kind, entity = self._reports()
        reports.scalar(kind, entity, title, series, value, iteration)

    def report_single_value(self, name: str, value: float) -> None:
        """Report a value that belongs to no iteration; a later one of the same name takes its place.

        Args:
            name: Its name. In queries it is a metric: ``Metric("Summary", name)``.
            value: A number; NaN and infinities are kept.

        Raises:
            InvalidRequestError: An argument is not acceptable; nothing was reported.
        """
        value = rules.check_number("value", value)
        reports, kind, entity = self._reports()
        reports.single_value(kind, entity, name, value)

    # -- plots -----------------------------------------------------------------------------------------------------

    def report_histogram(
        self,
        title: str,
        series: str,
        values: Any,
        iteration: int | None = None,
        labels: Sequence[str] | None = None,
        xlabels: Sequence[str] | None = None,
        xaxis: str | None = None,
        yaxis: str | None = None,
        mode: str | None = None,
        data_args: Mapping[str, Any] | None = None,
        extra_layout: Mapping[str, Any] | None = None,
    ) -> None:
        """Report bars of heights that are given (nothing is counted).

        Args:
            title: Name of the chart.
            series: Name of the variant.
            values: N numbers, or a row of M numbers for each of several series: shape (series, bars).
            iteration: The training iteration.
            labels: A name for each row.
            xlabels: A name for each bar.
            xaxis: Title of the axis below.
            yaxis: Title of the axis of heights.
            mode: "group" (next to one another, the default), "stack", "relative" or "overlay".
            data_args: Entries for each trace of the figure, as {"orientation": "h"}.
            extra_layout: Entries for its layout.

        Raises:
            InvalidRequestError: An argument is not acceptable; nothing was reported.
        """
        from modelstore.reports.figures import Frame, bars

        frame = Frame(title, (xaxis, yaxis), extra=extra_layout)
        self._report(title, series, iteration, bars(series, values, labels, xlabels, mode, data_args, frame))

    def report_vector(
        self,
        title: str,
        series: str,
        values: Any,
        iteration: int | None = None,
        labels: Sequence[str] | None = None,
        xlabels: Sequence[str] | None = None,
        xaxis: str | None = None,
        yaxis: str | None = None,
        mode: str | None = None,
        extra_layout: Mapping[str, Any] | None = None,
    ) -> None:
        """Report the numbers of a vector as bars; see `report_histogram`.

        Raises:
            InvalidRequestError: An argument is not acceptable; nothing was reported.
        """
        self.report_histogram(
            title, series, values, iteration, labels, xlabels, xaxis, yaxis, mode, extra_layout=extra_layout
        )

    def report_table(
        self,
        title: str,
        series: str,
        iteration: int | None = None,
        table_plot: Any = None,
        csv: str | None = None,
        url: str | None = None,
        extra_layout: Mapping[str, Any] | None = None,
    ) -> None:
        """Report a table; exactly one of ``table_plot``, ``csv`` and ``url`` says what is in it.

        Args:
            title: Name of the chart.
            series: Name of the variant.
            iteration: The training iteration.
            table_plot: A pandas or polars frame, rows of which the first is the header, or a dictionary of columns.
            csv: Path of a CSV file in UTF-8, with a header.
            url: URI of such a file.
            extra_layout: Entries for the figure's layout.

        Raises:
            InvalidRequestError: An argument is not acceptable; nothing was reported.
            StorageError: What is at ``url`` could not be had.
        """
        figure = self._table(title, table_plot, csv, url, extra_layout, None)
        self._report(title, series, iteration, figure)

    def _table(
        self,
        title: str,
        rows: Any,
        csv: str | None,
        url: str | None,
        extra_layout: Mapping[str, Any] | None,
        extra_data: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        from modelstore.reports.figures import Frame
        from modelstore.reports.tables import from_csv, table
        from modelstore.sdk.storage_manager import fetch

        if sum(given is not None for given in (rows, csv, url)) != 1:
            raise InvalidRequestError("Exactly one of table_plot, csv and url must be given")
        if url is not None:
            csv = fetch(self._home(), url, force=True)
        found = rows if csv is None else from_csv(csv)
        return table(found, Frame(title, extra=extra_layout), extra_data)

    def report_line_plot(
        self,
        title: str,
        series: Sequence[SeriesInfo | Mapping[str, Any]],
        xaxis: str,
        yaxis: str,
        mode: str = "lines",
        iteration: int | None = None,
        reverse_xaxis: bool = False,
        comment: str | None = None,
        extra_layout: Mapping[str, Any] | None = None,
    ) -> None:
        """Report several lines in one chart.

        Args:
            title: Name of the chart.
            series: `SeriesInfo`, or dictionaries with "name", "data" (points (x, y): shape (N, 2)) and "labels".
            xaxis: Title of the axis of x.
            yaxis: Title of the axis of y.
            mode: "lines", "markers", "lines+markers", "text" or "none".
            iteration: The training iteration.
            reverse_xaxis: Let x grow to the left.
            comment: A line below the title.
            extra_layout: Entries for the figure's layout.

        Raises:
            InvalidRequestError: An argument is not acceptable; nothing was reported.
        """
        from modelstore.reports.figures import Frame, lines

        frame = Frame(title, (xaxis, yaxis), comment, extra_layout)
        self._report(title, "", iteration, lines(series, mode, frame, reverse=reverse_xaxis))

    def report_scatter2d(
        self,
        title: str,
        series: str,
        scatter: Any,
        iteration: int | None = None,
        xaxis: str | None = None,
        yaxis: str | None = None,
        labels: Sequence[str] | None = None,
        mode: str = "line",
        comment: str | None = None,
        extra_layout: Mapping[str, Any] | None = None,
    ) -> None:
        """Report points of a plane.

        Args:
            title: Name of the chart.
            series: Name of the variant.
            scatter: Points (x, y): shape (N, 2); or a list of several such.
            iteration: The training iteration.
            xaxis: Title of the axis of x.
            yaxis: Title of the axis of y.
            labels: A text for each point.
            mode: "lines" (also "line"), "markers", "lines+markers", "text" or "none".
            comment: A line below the title.
            extra_layout: Entries for the figure's layout.

        Raises:
            InvalidRequestError: An argument is not acceptable; nothing was reported.
        """
        from modelstore.reports import figures

        frame = figures.Frame(title, (xaxis, yaxis), comment, extra_layout)
        self._report(title, series, iteration, figures.scatter(series, scatter, labels, mode, frame))

    def report_scatter3d(
        self,
        title: str,
        series: str,
        scatter: Any,
        iteration: int | None = None,
        xaxis: str | None = None,
        yaxis: str | None = None,
        zaxis: str | None = None,
        labels: Sequence[str] | None = None,
        mode: str = "markers",
        fill: bool = False,
        comment: str | None = None,
        extra_layout: Mapping[str, Any] | None = None,
    ) -> None:
        """Report points in space.

        Args:
            title: Name of the chart.
            series: Name of the variant.
            scatter: Points (x, y, z): shape (N, 3); or a list of several such, each a series of its own.
            iteration: The training iteration.
            xaxis: Title of the axis of x.
            yaxis: Title of the axis of y.
            zaxis: Title of the axis of z.
            labels: A text for each point; for several series a list of them each.
            mode: "lines", "markers", "lines+markers", "text" or "none".
            fill: Fill what the points surround.
            comment: A line below the title.
            extra_layout: Entries for the figure's layout.

        Raises:
            InvalidRequestError: An argument is not acceptable; nothing was reported.
        """
        from modelstore.reports.figures import Frame, scatter3d

        frame = Frame(title, (xaxis, yaxis, zaxis), comment, extra_layout)
        self._report(title, series, iteration, scatter3d(series, scatter, labels, mode, frame, fill=fill))

    def report_confusion_matrix(
        self,
        title: str,
        series: str,
        matrix: Any,
        iteration: int | None = None,
        xaxis: str | None = None,
        yaxis: str | None = None,
        xlabels: Sequence[str] | None = None,
        ylabels: Sequence[str] | None = None,
        yaxis_reversed: bool = False,
        comment: str | None = None,
        extra_layout: Mapping[str, Any] | None = None,
    ) -> None:
        """Report a matrix as a map of colours, with the numbers in it up to 900 cells.

        Args:
            title: Name of the chart.
            series: Name of the variant.
            matrix: Numbers: shape (rows, columns).
            iteration: The training iteration.
            xaxis: Title of the axis of columns.
            yaxis: Title of the axis of rows.
            xlabels: A name for each column.
            ylabels: A name for each row.
            yaxis_reversed: Put the first row at the top; else it is at the bottom.
            comment: A line below the title.
            extra_layout: Entries for the figure's layout.

        Raises:
            InvalidRequestError: An argument is not acceptable; nothing was reported.
        """
        from modelstore.reports.figures import Frame, heatmap

        frame = Frame(title, (xaxis, yaxis), comment, extra_layout)
        self._report(title, series, iteration, heatmap(matrix, xlabels, ylabels, frame, reverse=yaxis_reversed))

    def report_matrix(
        self,
        title: str,
        series: str,
        matrix: Any,
        iteration: int | None = None,
        xaxis: str | None = None,
        yaxis: str | None = None,
        xlabels: Sequence[str] | None = None,
        ylabels: Sequence[str] | None = None,
        yaxis_reversed: bool = False,
        extra_layout: Mapping[str, Any] | None = None,
    ) -> None:
        """Report a matrix as a map of colours; see `report_confusion_matrix`.

        Raises:
            InvalidRequestError: An argument is not acceptable; nothing was reported.
        """
        self.report_confusion_matrix(
            title,
            series,
            matrix,
            iteration,
            xaxis,
            yaxis,
            xlabels,
            ylabels,
            yaxis_reversed,
            extra_layout=extra_layout,
        )

    def report_surface(
        self,
        title: str,
        series: str,
        matrix: Any,
        iteration: int | None = None,
        xaxis: str | None = None,
        yaxis: str | None = None,
        zaxis: str | None = None,
        xlabels: Sequence[str] | None = None,
        ylabels: Sequence[str] | None = None,
        camera: Sequence[float] | None = None,
        comment: str | None = None,
        extra_layout: Mapping[str, Any] | None = None,
    ) -> None:
        """Report a matrix as heights over a plane.

        Args:
            title: Name of the chart.
            series: Name of the variant.
            matrix: Heights: shape (rows, columns).
            iteration: The training iteration.
            xaxis: Title of the axis of columns.
            yaxis: Title of the axis of rows.
            zaxis: Title of the axis of heights.
            xlabels: A name for each column.
            ylabels: A name for each row.
            camera: From where it is seen: (x, y, z); (1, 1, 1) unless given.
            comment: A line below the title.
            extra_layout: Entries for the figure's layout.

        Raises:
            InvalidRequestError: An argument is not acceptable; nothing was reported.
        """
        from modelstore.reports.figures import Frame, surface

        frame = Frame(title, (xaxis, yaxis, zaxis), comment, extra_layout)
        self._report(title, series, iteration, surface(matrix, xlabels, ylabels, camera, frame))

    def report_plotly(self, title: str, series: str, figure: Any, iteration: int | None = None) -> None:
        """Report a figure of plotly's.

        Args:
            title: Name of the chart.
            series: Name of the variant.
            figure: A `Figure`, or a dictionary with "data" and "layout".
            iteration: The training iteration.

        Raises:
            InvalidRequestError: It is none; nothing was reported.
        """
        from modelstore.reports.figures import from_plotly

        self._report(title, series, iteration, from_plotly(figure))

"""Reporting to a model or task: scalars, plots, pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelstore.registry.reports import Owner, Reports

__all__ = ["Reporting"]


class Reporting:
    """The part of models and loggers that reports."""

    def _reports(self) -> tuple[Reports, Owner, str]:
        """Return where reports go: the registry's reports, what kind of entity, its id (which is made to exist)."""
        raise NotImplementedError

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
        reports, kind, entity = self._reports()
        reports.single_value(kind, entity, name, value)

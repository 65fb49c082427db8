"""Settings of ClearML's `Logger` that have nothing to set here: kept so that scripts which call them run."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, ClassVar

from modelstore.reports.figures import SeriesInfo

if TYPE_CHECKING:
    import os

    from modelstore.sdk._context import Registry

__all__ = ["LoggerSettings"]


class LoggerSettings:
    """The part of `Logger` that is about how reports travel and what becomes of them: setting it changes nothing."""

    SeriesInfo: ClassVar[type[SeriesInfo]] = SeriesInfo

    def _home(self) -> Registry:
        raise NotImplementedError

    def set_flush_period(self, period: float) -> None:
        """Accept a period in seconds; what was reported is on disk within a second, whatever it is."""

    def get_flush_period(self) -> float | None:
        """Return how many seconds it takes at the most until what was reported is on disk."""
        return 1.0

    def set_default_debug_sample_history(self, max_history: int) -> None:
        """Accept a number of pictures to keep of each variant; all are kept."""

    def get_default_debug_sample_history(self) -> int:
        """Return how many pictures are kept of each variant: as many as there are."""
        return sys.maxsize

    def set_default_upload_destination(self, uri: str | os.PathLike[str]) -> None:
        """Accept a place for pictures and files; they are kept in the registry, whose folder travels as one."""

    def get_default_upload_destination(self) -> str:
        """Return where pictures and files are kept, as a URI."""
        return self._home().folder.as_uri()

    @classmethod
    def set_reporting_nan_value(cls, value: float, warn_period: int = 1000) -> None:
        """Accept what NaN is to be replaced by; NaN stays NaN."""

    @classmethod
    def set_reporting_inf_value(cls, value: float, warn_period: int = 1000) -> None:
        """Accept what infinities are to be replaced by; they stay what they are."""

    @classmethod
    def tensorboard_auto_group_scalars(cls, group_scalars: bool = False) -> None:
        """Accept a setting of the capture of TensorBoard, which is not captured here."""

    @classmethod
    def tensorboard_single_series_per_graph(cls, single_series: bool = False) -> None:
        """Accept a setting of the capture of TensorBoard, which is not captured here."""

    @classmethod
    def matplotlib_force_report_non_interactive(cls, force: bool) -> None:
        """Accept that figures of matplotlib become pictures, which they always do."""

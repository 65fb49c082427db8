"""Plotly figures, as plain dictionaries, of what is reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelstore.errors import UsageError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from modelstore.reports.columns import Columns

__all__ = ["plotly_figure", "scalars"]


def plotly_figure(figure: Mapping[str, Any]) -> Figure:
    """Return a figure as an object of plotly's.

    Raises:
        UsageError: plotly is not installed.
    """
    try:
        from plotly.graph_objects import Figure
    except ImportError as error:
        raise UsageError("A figure needs plotly", "Install it with: pip install plotly") from error
    return Figure(data=figure.get("data"), layout=figure.get("layout"))


def scalars(title: str, lines: Sequence[tuple[str, Columns]]) -> dict[str, Any]:
    """Return the figure of scalar series over their iterations."""
    data = [
        {"type": "scatter", "mode": "lines", "name": name, "x": list(found.iterations), "y": list(found.values)}
        for name, found in lines
    ]
    return {"data": data, "layout": {"title": {"text": title}, "xaxis": {"title": {"text": "iteration"}}}}

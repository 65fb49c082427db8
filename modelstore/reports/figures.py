"""Plotly figures, as plain dictionaries, of what is reported."""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from modelstore.errors import InvalidRequestError, UsageError
from modelstore.reports import inputs

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from modelstore.reports.columns import Columns

__all__ = [
    "Frame",
    "SeriesInfo",
    "bars",
    "from_plotly",
    "heatmap",
    "lines",
    "plotly_figure",
    "scalars",
    "scatter",
    "scatter3d",
    "surface",
]

Plot = dict[str, Any]

_BAR_MODES: Final = ("group", "stack", "relative", "overlay")
_TYPES: Final = {"i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "f4": "f", "f8": "d"}
"""Plotly's names of number types to those of `array`."""

_LABELLED_CELLS: Final = 900
"""Up to so many cells of a heatmap have their number written into them."""


@dataclass
class SeriesInfo:
    """One line of `report_line_plot`.

    Attributes:
        name: Its name in the legend.
        data: Points (x, y): a list of pairs, or an array of N rows and 2 columns.
        labels: A text for each point; None for none.
    """

    name: str
    data: Any
    labels: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """What surrounds a figure.

    Attributes:
        title: Its title.
        axes: Titles of x, y and z.
        comment: A line below the title.
        extra: Entries of the layout that go before all others.
    """

    title: str
    axes: tuple[str | None, ...] = ()
    comment: str | None = None
    extra: Mapping[str, Any] | None = None

    def layout(self, **entries: Any) -> dict[str, Any]:
        """Return the layout of a flat figure.

        Raises:
            InvalidRequestError: ``extra`` is no dictionary.
        """
        axes = {f"{name}axis": _axis(title) for name, title in zip("xy", self.axes, strict=False)}
        return self._whole(axes | entries)

    def scene(self, axes: Mapping[str, Mapping[str, Any]] | None = None, **entries: Any) -> dict[str, Any]:
        """Return the layout of a figure of three dimensions.

        Raises:
            InvalidRequestError: ``extra`` is no dictionary.
        """
        ticks = axes or {}
        scene = {f"{n}axis": _axis(title) | dict(ticks.get(n, {})) for n, title in zip("xyz", self.axes, strict=False)}
        return self._whole({"scene": scene | entries})

    def _whole(self, entries: dict[str, Any]) -> dict[str, Any]:
        text = self.title if not self.comment else f"{self.title}<br><sup>{self.comment}</sup>"
        layout = {"title": {"text": text}, **entries}
        if self.extra is None:
            return layout
        return merged(layout, self.extra, "extra_layout")


def _axis(title: str | None) -> dict[str, Any]:
    return {} if title is None else {"title": {"text": str(title)}}


def merged(base: Mapping[str, Any], more: Any, what: str) -> dict[str, Any]:
    """Return a dictionary with another's entries in it, level by level.

    Raises:
        InvalidRequestError: The other is none.
    """
    if not isinstance(more, Mapping):
        raise InvalidRequestError(f"{what} must be a dictionary, not {type(more).__name__}")
    result = dict(base)
    for key, value in more.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value, what) if both else value
    return result


def _mode(mode: str) -> str:
    """Return how a line is drawn, ClearML's "line" and "marker" included.

    Raises:
        InvalidRequestError: Plotly knows no such mode.
    """
    words = [{"line": "lines", "marker": "markers"}.get(word, word) for word in str(mode).split("+")]
    if words != ["none"] and not set(words) <= {"lines", "markers", "text"}:
        raise InvalidRequestError(
            f"Unknown mode {mode!r}", 'Use "lines", "markers", "lines+markers", "text" or "none".'
        )
    return "+".join(words)


def bars(
    series: str, values: Any, labels: Any, xlabels: Any, mode: str | None, data_args: Any, frame: Frame
) -> dict[str, Any]:
    """Return bars: one row of numbers, or several next to or on one another.

    Raises:
        InvalidRequestError: Shapes do not fit, or the mode is unknown.
    """
    rows = inputs.vectors(values, "The values")
    if mode is not None and mode not in _BAR_MODES:
        raise InvalidRequestError(f"Unknown mode {mode!r}", f"Use one of {', '.join(_BAR_MODES)}.")
    titles = inputs.names(labels, len(rows), "labels") or _numbered(series, len(rows))
    ticks: list[Any] | None = inputs.names(xlabels, len(rows[0]), "xlabels")
    data: list[Plot] = []
    for name, row in zip(titles, rows, strict=True):
        trace = {"type": "bar", "name": name, "y": row, "x": ticks or list(range(len(row)))}
        data.append(trace if data_args is None else merged(trace, data_args, "data_args"))
    return {"data": data, "layout": frame.layout(barmode=mode or "group", bargap=0.08)}


def _numbered(series: str, count: int) -> list[str]:
    return [series] if count == 1 else [f"{series} {number}" for number in range(1, count + 1)]


def lines(series: Any, mode: str, frame: Frame, *, reverse: bool) -> dict[str, Any]:
    """Return several lines, each a `SeriesInfo` or a dictionary of its fields.

    Raises:
        InvalidRequestError: A line is neither, or its points are none.
    """
    if isinstance(series, (str, Mapping, SeriesInfo)) or not isinstance(series, Sequence):
        raise InvalidRequestError("series must be a list of SeriesInfo", "Pass [SeriesInfo(name=…, data=…)].")
    data = []
    for line in series:
        found = (
            dict(line) if isinstance(line, Mapping) else {k: getattr(line, k, None) for k in ("name", "data", "labels")}
        )
        if found.get("name") is None or found.get("data") is None:
            raise InvalidRequestError(f"{line!r:.80} is no SeriesInfo", "It needs a name and data.")
        data += scatter(str(found["name"]), found["data"], found.get("labels"), mode, frame)["data"]
    axis = {"autorange": "reversed"} if reverse else {}
    return {"data": data, "layout": merged(frame.layout(), {"xaxis": axis}, "layout")}


def scatter(series: str, points: Any, labels: Any, mode: str, frame: Frame) -> dict[str, Any]:
    """Return points of a plane: one list of (x, y), or several.

    Raises:
        InvalidRequestError: Shapes do not fit, or the mode is unknown.
    """
    found = inputs.pairs(points, 2, "The points")
    data = [
        {"type": "scatter", "name": name, "mode": _mode(mode), "x": x, "y": y, **_texts(labels, number, found)}
        for number, (name, (x, y)) in enumerate(zip(_numbered(series, len(found)), found, strict=True))
    ]
    return {"data": data, "layout": frame.layout()}


def scatter3d(series: str, points: Any, labels: Any, mode: str, frame: Frame, *, fill: bool) -> dict[str, Any]:
    """Return points in space: one list of (x, y, z), or several.

    Raises:
        InvalidRequestError: Shapes do not fit, or the mode is unknown.
    """
    found = inputs.pairs(points, 3, "The points")
    data = []
    for number, (name, (x, y, z)) in enumerate(zip(_numbered(series, len(found)), found, strict=True)):
        trace = {"type": "scatter3d", "name": name, "mode": _mode(mode), "x": x, "y": y, "z": z}
        data.append(trace | _texts(labels, number, found) | ({"surfaceaxis": 2} if fill else {}))
    return {"data": data, "layout": frame.scene()}


def _texts(labels: Any, number: int, found: Sequence[Sequence[Sequence[Any]]]) -> dict[str, Any]:
    """Return the labels of one series; several series have a list of labels each."""
    if labels is None:
        return {}
    if len(found) > 1:
        if len(labels) != len(found):
            raise InvalidRequestError(f"There are {len(labels)} lists of labels for {len(found)} series")
        labels = labels[number]
    texts = inputs.names(labels, len(found[number][0]), "labels")
    return {} if texts is None else {"text": texts}


def heatmap(matrix: Any, xlabels: Any, ylabels: Any, frame: Frame, *, reverse: bool) -> dict[str, Any]:
    """Return a matrix as a map of colours, its first row at the bottom, or at the top when ``reverse``.

    Raises:
        InvalidRequestError: It is no matrix, or labels do not fit.
    """
    rows = inputs.matrix(matrix, "The matrix")
    trace: Plot = {"type": "heatmap", "z": rows}
    for name, labels, count in (("x", xlabels, len(rows[0])), ("y", ylabels, len(rows))):
        trace[name] = inputs.names(labels, count, f"{name}labels") or list(range(count))
    if len(rows) * len(rows[0]) <= _LABELLED_CELLS:
        trace["texttemplate"] = "%{z}"
    layout = frame.layout()
    return {
        "data": [trace],
        "layout": merged(layout, {"yaxis": {"autorange": "reversed"}} if reverse else {}, "layout"),
    }


def surface(matrix: Any, xlabels: Any, ylabels: Any, camera: Any, frame: Frame) -> dict[str, Any]:
    """Return a matrix as heights over a plane.

    Raises:
        InvalidRequestError: It is no matrix, labels do not fit, or the camera is no point.
    """
    rows = inputs.matrix(matrix, "The matrix")
    ticks: dict[str, Mapping[str, Any]] = {}
    for name, labels, count in (("x", xlabels, len(rows[0])), ("y", ylabels, len(rows))):
        texts = inputs.names(labels, count, f"{name}labels")
        if texts:
            ticks[name] = {"ticktext": texts, "tickvals": list(range(count))}
    eye = inputs.vectors((1, 1, 1) if camera is None else camera, "The camera")
    if len(eye) != 1 or len(eye[0]) != 3:
        raise InvalidRequestError(f"The camera must be (x, y, z), not {camera!r:.60}")
    view = {"eye": dict(zip("xyz", eye[0], strict=True))}
    return {"data": [{"type": "surface", "z": rows}], "layout": frame.scene(ticks, camera=view)}


def scalars(title: str, found: Sequence[tuple[str, Columns]]) -> dict[str, Any]:
    """Return the figure of scalar series over their iterations."""
    data = [
        {"type": "scatter", "mode": "lines", "name": name, "x": list(line.iterations), "y": list(line.values)}
        for name, line in found
    ]
    return {"data": data, "layout": Frame(title, ("iteration",)).layout()}


# -- plotly's own ------------------------------------------------------------------------------------------------------


def from_plotly(figure: Any) -> dict[str, Any]:
    """Return a figure of plotly's, or a dictionary in its form, as plain values.

    Raises:
        InvalidRequestError: It is neither.
    """
    found = figure.to_plotly_json() if hasattr(figure, "to_plotly_json") else figure
    if not isinstance(found, Mapping) or "data" not in found:
        raise InvalidRequestError(
            f"{type(figure).__name__} is no figure of plotly", "Pass a Figure, or a dictionary with data and layout."
        )
    data = found["data"]
    traces = [data] if isinstance(data, Mapping) else list(data)
    rest = {key: value for key, value in found.items() if key in ("layout", "frames") and value}
    return {"data": [_plain(trace) for trace in traces], "layout": {}} | {k: _plain(v) for k, v in rest.items()}


def _plain(value: Any) -> Any:
    if hasattr(value, "to_plotly_json"):
        value = value.to_plotly_json()
    if isinstance(value, Mapping) and "bdata" in value and "dtype" in value:
        return _typed(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    value = inputs.plain(value)
    if isinstance(value, list):
        return (
            [_plain(inner) for inner in value]
            if any(isinstance(inner, (list, Mapping)) for inner in value)
            else [inner if isinstance(inner, (str, int, float, type(None))) else str(inner) for inner in value]
        )
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def _typed(value: Mapping[str, Any]) -> list[Any]:
    """Return an array that plotly wrote as base64 as lists.

    Raises:
        InvalidRequestError: It is malformed.
    """
    try:
        column = array(_TYPES[str(value["dtype"]).lstrip("<=|")], base64.b64decode(value["bdata"]))
        if sys.byteorder == "big":
            column.byteswap()
        found: list[Any] = column.tolist()
        for length in reversed([int(part) for part in str(value.get("shape", "")).split(",")[1:]]):
            found = [found[start : start + length] for start in range(0, len(found), length)]
    except (KeyError, ValueError, TypeError) as error:
        raise InvalidRequestError(f"An array in the figure cannot be read: {error}") from error
    return found


def plotly_figure(figure: Mapping[str, Any]) -> Figure:
    """Return a figure as an object of plotly's.

    Raises:
        UsageError: plotly is not installed.
    """
    try:
        from plotly.graph_objects import Figure
    except ImportError as error:
        raise UsageError("A figure needs plotly", "Install it with: pip install plotly") from error
    return Figure(data=figure.get("data"), layout=figure.get("layout"), frames=figure.get("frames"))

"""Figures: what Plotly itself takes for valid, and what is refused before anything is stored."""

from __future__ import annotations

import io
import math
import struct
import zlib
from array import array
from collections.abc import Callable
from typing import Any

import pytest

from modelstore.errors import InvalidRequestError
from modelstore.reports import figures, inputs, pictures, tables
from modelstore.reports.figures import Frame, SeriesInfo

FRAME = Frame("title", ("x", "y", "z"), "comment", {"height": 300, "xaxis": {"type": "log"}})
NAN = math.nan


class Tensor:
    """What torch's tensors answer to, where torch is not installed."""

    def __init__(self, values: Any) -> None:
        self._values = values

    def detach(self) -> Tensor:
        return self

    def cpu(self) -> Tensor:
        return self

    def tolist(self) -> Any:
        return self._values


def scatter3d(points: Any, labels: Any = None) -> dict[str, Any]:
    return figures.scatter3d("s", points, labels, "markers", FRAME, fill=True)


GOOD: dict[str, Callable[[], dict[str, Any]]] = {
    "bars": lambda: figures.bars("s", [1, 2.5, NAN], None, ["a", "b", "c"], None, None, FRAME),
    "bars of two rows": lambda: figures.bars("s", [(1, 2), (3, 4)], ["p", "q"], None, "stack", {"opacity": 0.5}, FRAME),
    "bars of an array": lambda: figures.bars("s", array("d", [1, 2]), None, None, None, None, FRAME),
    "bars of a tensor": lambda: figures.bars("s", Tensor([[1, 2]]), None, None, None, None, FRAME),
    "lines": lambda: figures.lines(
        [SeriesInfo("a", [(0, 1), (1, NAN)], ["p", "q"]), {"name": "b", "data": [[0, 1]]}], "lines", FRAME, reverse=True
    ),
    "scatter": lambda: figures.scatter("s", [(0, 1), (2, math.inf)], None, "line", FRAME),
    "scatter of none": lambda: figures.scatter("s", [], None, "markers", FRAME),
    "scatter of two": lambda: figures.scatter("s", [[(0, 1)], [(2, 3), (4, 5)]], [["a"], ["b", "c"]], "lines", FRAME),
    "scatter3d": lambda: scatter3d([(0, 1, 2)], ["a"]),
    "scatter3d of two": lambda: scatter3d([[(0, 1, 2)], [[3, 4, 5], (6, 7, 8)]]),
    "heatmap": lambda: figures.heatmap([[1, 2], [3, NAN]], ["a", "b"], None, FRAME, reverse=True),
    "large heatmap": lambda: figures.heatmap([[1] * 40] * 40, None, None, FRAME, reverse=False),
    "surface": lambda: figures.surface([[1, 2, 3], [3, 4, 5]], list("abc"), list("de"), (1, 2, 3), FRAME),
    "table": lambda: tables.table([["a", "b"], [1, "x"], [NAN, None]], FRAME),
    "table without rows": lambda: tables.table([["a", "b"]], FRAME),
    "table of columns": lambda: tables.table({"a": [1, 2], "b": ("x", 3)}, FRAME),
    "scalars": lambda: figures.scalars("val", []),
    "dictionary": lambda: figures.from_plotly(
        {"data": {"type": "scatter", "y": (1, 2)}, "layout": {"title": {"text": "t"}}}
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_figure_is_one_for_plotly(name: str) -> None:
    """Plotly checks every property of a figure when it is made."""
    pytest.importorskip("plotly")
    figure = GOOD[name]()
    made = figures.plotly_figure(figure)

    assert made.to_json()
    assert len(made.data) == len(figure["data"])
    if name not in ("scalars", "dictionary"):
        assert made.layout.height == 300
        assert made.layout.title.text in ("title<br><sup>comment</sup>", "title")


BAD: dict[str, Callable[[], Any]] = {
    "text for bars": lambda: figures.bars("s", "abc", None, None, None, None, FRAME),
    "None among bars": lambda: figures.bars("s", [1, None], None, None, None, None, FRAME),
    "rows that differ": lambda: figures.bars("s", [[1, 2], [3]], None, None, None, None, FRAME),
    "cube of bars": lambda: figures.bars("s", [[[1]]], None, None, None, None, FRAME),
    "labels that do not fit": lambda: figures.bars("s", [1, 2], ["a", "b"], None, None, None, FRAME),
    "xlabels that do not fit": lambda: figures.bars("s", [1, 2], None, ["a"], None, None, FRAME),
    "unknown bar mode": lambda: figures.bars("s", [1], None, None, "stacked", None, FRAME),
    "data_args of text": lambda: figures.bars("s", [1], None, None, None, "x", FRAME),
    "layout of text": lambda: figures.bars("s", [1], None, None, None, None, Frame("t", extra="x")),  # type: ignore[arg-type]
    "unknown mode": lambda: figures.scatter("s", [(1, 2)], None, "dots", FRAME),
    "three numbers for two": lambda: figures.scatter("s", [(1, 2, 3)], None, "lines", FRAME),
    "numbers for points": lambda: figures.scatter("s", [1, 2], None, "lines", FRAME),
    "text for points": lambda: figures.scatter("s", "ab", None, "lines", FRAME),
    "text for a number": lambda: figures.scatter("s", [(1, "2")], None, "lines", FRAME),
    "labels of points": lambda: figures.scatter("s", [(1, 2)], ["a", "b"], "lines", FRAME),
    "labels of series": lambda: scatter3d([[(0, 1, 2)], [(3, 4, 5)]], ["a"]),
    "two numbers for three": lambda: scatter3d([(1, 2)]),
    "vector for matrix": lambda: figures.heatmap([1, 2], None, None, FRAME, reverse=False),
    "empty matrix": lambda: figures.heatmap([], None, None, FRAME, reverse=False),
    "matrix of empty rows": lambda: figures.heatmap([[], []], None, None, FRAME, reverse=False),
    "ylabels": lambda: figures.heatmap([[1, 2]], None, ["a", "b"], FRAME, reverse=False),
    "camera": lambda: figures.surface([[1]], None, None, (1, 2), FRAME),
    "series alone": lambda: figures.lines(SeriesInfo("a", []), "lines", FRAME, reverse=False),
    "no series": lambda: figures.lines([3], "lines", FRAME, reverse=False),
    "series without data": lambda: figures.lines([{"name": "a"}], "lines", FRAME, reverse=False),
    "table of text": lambda: tables.table("abc", FRAME),
    "empty table": lambda: tables.table([], FRAME),
    "ragged table": lambda: tables.table([["a", "b"], [1]], FRAME),
    "ragged columns": lambda: tables.table({"a": [1], "b": [1, 2]}, FRAME),
    "no figure": lambda: figures.from_plotly([1]),
    "picture of four dimensions": lambda: pictures.png([[[[1]]]]),
    "ragged picture": lambda: pictures.png([[1, 2], [3]]),
    "picture of text": lambda: pictures.png([["a", "b"]]),
    "picture of nothing": lambda: pictures.png([]),
    "no matplotlib": lambda: pictures.from_matplotlib(3),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused(name: str) -> None:
    """With a sentence, before anything is stored."""
    with pytest.raises(InvalidRequestError):
        BAD[name]()


def test_arrays_of_numpy_and_frames_of_pandas_are_lists() -> None:
    """In whatever type their numbers are."""
    np: Any = pytest.importorskip("numpy")
    pd: Any = pytest.importorskip("pandas")

    assert inputs.matrix(np.arange(4, dtype="float16").reshape(2, 2), "it") == [[0, 1], [2, 3]]
    assert inputs.matrix([np.array([1, 2]), [np.float32(3), np.int8(4)]], "it") == [[1, 2], [3, 4]]
    assert inputs.matrix(pd.DataFrame({"a": [1, 2], "b": [3, 4]}), "it") == [[1, 3], [2, 4]]
    assert inputs.vectors(pd.Series([1.5, None]), "it")[0][0] == 1.5


def test_a_table_of_a_frame_has_its_index_and_its_dates() -> None:
    """An index that only counts says nothing; any other is a column."""
    pd: Any = pytest.importorskip("pandas")
    counted = tables.table(pd.DataFrame({"a": [1, 2], "t": pd.to_datetime(["2026-01-01", "2026-01-02"])}), FRAME)
    named = tables.table(pd.DataFrame({"a": [1, 2]}, index=pd.Index(["p", "q"], name="i")), FRAME)

    assert counted["data"][0]["header"]["values"] == ["a", "t"]
    assert counted["data"][0]["cells"]["values"][0] == [1, 2]
    assert all(isinstance(cell, (str, int)) for cell in counted["data"][0]["cells"]["values"][1])
    assert named["data"][0]["header"]["values"] == ["i", "a"]
    assert named["data"][0]["cells"]["values"] == [["p", "q"], [1, 2]]


def test_a_figure_of_plotly_keeps_its_numbers() -> None:
    """Plotly 6 writes arrays as base64, which nothing else reads."""
    go: Any = pytest.importorskip("plotly.graph_objects")
    np: Any = pytest.importorskip("numpy")
    found = figures.from_plotly(go.Figure(go.Heatmap(z=np.array([[1.0, NAN]]), x=np.array(["a", "b"])), {"title": "t"}))

    assert found["data"][0]["x"] == ["a", "b"]
    assert found["data"][0]["z"][0][0] == 1.0
    assert math.isnan(found["data"][0]["z"][0][1])
    for kind in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64"):
        figure = go.Figure(go.Scatter(y=np.array([1, 2, 3], dtype=kind)))
        assert list(figures.from_plotly(figure)["data"][0]["y"]) == [1, 2, 3]
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        figures.from_plotly({"data": [{"y": {"dtype": "f8", "bdata": "AAA="}}]})


def unpng(data: bytes) -> tuple[int, int, int, bytes]:
    """Return width, height, colour type and pixels of a PNG of ours, whose rows have no filter."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    assert depth == 8
    (length,) = struct.unpack(">I", data[33:37])
    raw = zlib.decompress(data[41 : 41 + length])
    stride = len(raw) // height
    return width, height, colour, b"".join(raw[row * stride + 1 : (row + 1) * stride] for row in range(height))


def test_lists_become_pictures() -> None:
    """Grey or colours, whole numbers, fractions or truths; channels last or first."""
    assert unpng(pictures.png([[0, 300, -5]])) == (3, 1, 0, bytes([0, 255, 0]))
    assert unpng(pictures.png([[0.0, 0.5], [1.0, NAN]])) == (2, 2, 0, bytes([0, 128, 255, 0]))
    assert unpng(pictures.png([[0.0, 200.0]])) == (2, 1, 0, bytes([0, 200]))
    assert unpng(pictures.png([[True, False]])) == (2, 1, 0, bytes([255, 0]))
    assert unpng(pictures.png([[[1, 2, 3, 4]]])) == (1, 1, 6, bytes([1, 2, 3, 4]))
    assert unpng(pictures.png([[[1] * 5] * 2, [[2] * 5] * 2, [[3] * 5] * 2])) == (5, 2, 2, bytes([1, 2, 3] * 10))


def test_arrays_and_lists_become_the_same_pictures() -> None:
    """The fast way for arrays is no other way."""
    np: Any = pytest.importorskip("numpy")
    chance = np.random.default_rng(0)
    for shape in [(4, 5), (4, 5, 1), (4, 5, 3), (3, 4, 5), (4, 5, 4)]:
        for image in (chance.random(shape), chance.integers(-9, 300, shape), chance.random(shape) > 0.5):
            assert pictures.png(image) == pictures.png(image.tolist())
    with pytest.raises(InvalidRequestError):
        pictures.png(np.zeros((5, 6, 7)))
    with pytest.raises(InvalidRequestError):
        pictures.png(np.zeros((0, 5)))


def test_pictures_of_pil_and_matplotlib_are_taken() -> None:
    """They know how to write themselves."""
    plt: Any = pytest.importorskip("matplotlib.figure")
    image: Any = pytest.importorskip("PIL.Image")
    figure = plt.Figure()
    figure.add_subplot().plot([1, 2])
    for made in (figure, image.new("CMYK", (3, 4)), image.new("P", (3, 4))):
        image.open(io.BytesIO(pictures.png(made))).verify()

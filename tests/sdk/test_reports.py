"""Reporting to models and tasks, and reading back."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

import modelstore
from modelstore import InputModel, Logger, Metric, Model, OutputModel, Registry, SeriesInfo, Task
from modelstore.errors import InvalidRequestError, ModelNotFoundError, NotFoundError
from modelstore.ids import new_id

NAN = math.nan
Watching = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def model(task: Task) -> OutputModel:
    """An output model that is registered."""
    made = OutputModel(task, name="net")
    made.set_metadata("n", 1)
    return made


def test_scalars_are_read_as_they_were_reported(model: OutputModel) -> None:
    """At once, by the process that reported them; sorted by iteration, NaN and infinities as they are."""
    for iteration, value in [(2, 0.3), (0, 0.1), (1, NAN), (1, math.inf), (3, -math.inf)]:
        model.report_scalar("val", "iou", value, iteration)
    found = model.get_reported_scalars()

    assert found["val"]["iou"]["x"] == [0, 1, 1, 2, 3]
    assert repr(found["val"]["iou"]["y"]) == "[0.1, nan, inf, 0.3, -inf]"
    assert model.get_last_scalar_metrics()["val"]["iou"] | {"mean": 0} == {
        "last": -math.inf,
        "min": -math.inf,
        "max": math.inf,
        "mean": 0,
        "points": 5,
    }


@pytest.mark.parametrize("value", [1, True, "0.5", "nan", " 7 "])
def test_what_is_a_number_is_taken_as_one(model: OutputModel, value: Any) -> None:
    """Also where a script hands over text, as ClearML allows."""
    model.report_scalar("t", "s", value, 1)
    model.report_scalar("t", "s", value, None)

    assert repr(model.get_reported_scalars()["t"]["s"]["y"]) == repr([float(value)] * 2)


def test_numbers_of_numpy_are_numbers(model: OutputModel) -> None:
    """Losses and counters usually are."""
    np: Any = pytest.importorskip("numpy")
    model.report_scalar("t", "s", np.float32(0.5), np.int64(3))
    model.report_scalar("t", "s", np.array([0.25]).mean(), 4.0)
    arrays = model.scalar_arrays("t", "s")

    assert (arrays.iterations.tolist(), arrays.values.tolist()) == ([3, 4], [0.5, 0.25])
    with pytest.raises(NotFoundError, match="no series"):
        model.scalar_arrays("t", "other")


@pytest.mark.parametrize(
    "arguments",
    [
        ("t", "s", None, 1),
        ("t", "s", "abc", 1),
        ("t", "s", [1, 2], 1),
        ("t", "s", 1j, 1),
        ("t", "s", 0.5, "1"),
        ("t", "s", 0.5, 1.5),
        ("t", "s", 0.5, True),
        ("t", "s", 0.5, 2**62),
        ("t", "s", 0.5, -(2**63)),
        (None, "s", 0.5, 1),
        ("t", 3, 0.5, 1),
        ("t\0", "s", 0.5, 1),
        ("\ud800", "s", 0.5, 1),
        ("t" * 1001, "s", 0.5, 1),
    ],
    ids=str,
)
def test_a_refused_scalar_leaves_nothing(
    model: OutputModel, registry: Registry, unchanged: Watching, arguments: tuple[Any, ...]
) -> None:
    """A value that could not be stored must not be found out at exit."""
    with unchanged():
        with pytest.raises(InvalidRequestError):
            model.report_scalar(*arguments)
        registry.reports.flush()


def test_an_output_model_is_registered_by_its_first_report(task: Task, registry: Registry) -> None:
    """As with ClearML; a refused report and reading register nothing."""
    model = OutputModel(task, name="net")
    with pytest.raises(InvalidRequestError):
        model.report_scalar("t", "s", "abc", 1)
    with pytest.raises(InvalidRequestError):
        model.report_scatter2d("t", "s", [1])
    with pytest.raises(InvalidRequestError):
        model.report_image("t", "s", image=3)
    assert model.get_reported_scalars() == {}
    assert model.get_reported_plots() == []
    assert model.id is None
    model.report_single_value("accuracy", 0.9)

    assert model.id is not None
    assert [m.name for m in Model.query_models()] == ["net"]


def test_reports_are_allowed_on_published_models_and_leave_the_time_of_change(model: OutputModel) -> None:
    """They say something of a model, and change nothing of it."""
    model.publish(require_weights=False)
    before = model.last_update
    history = len(model.history())
    for one in (model, Model(model.id), InputModel(model.id)):
        one.report_scalar("val", "iou", 0.5, 1)
        one.report_matrix("m", "s", [[1]])

    assert len(Model(model.id).get_reported_scalars()["val"]["iou"]["x"]) == 3
    assert len(model.get_reported_plots()) == 3
    assert Model(model.id).last_update == before
    assert len(model.history()) == history


def test_single_values_are_replaced(model: OutputModel) -> None:
    """The latest counts, and they are no series."""
    model.report_single_value("f1", 0.7)
    model.report_single_value("f1", 0.8)
    model.report_single_value("it's", NAN)
    model.report_scalar("Summary", "curve", 1.0, 3)

    assert model.get_reported_single_value("f1") == 0.8
    assert sorted(model.get_reported_single_values()) == ["f1", "it's"]
    assert math.isnan(model.get_reported_single_values()["it's"])
    assert model.get_reported_single_value("other") is None
    assert model.get_reported_scalars() == {"Summary": {"curve": {"name": "curve", "x": [3], "y": [1.0]}}}


def test_queries_compare_and_sort_by_what_was_reported(task: Task) -> None:
    """Last, least, greatest and mean, in conditions, in orders and as text."""
    for name, values in {"a": [0.9, 0.1], "b": [0.5, 0.6], "c": [NAN, 0.2], "d": [0.3, NAN]}.items():
        model = OutputModel(task, name=name)
        for iteration, value in enumerate(values):
            model.report_scalar("val", "iou", value, iteration)
    OutputModel(task, name="e").report_single_value("f1", 1)

    def names(**query: Any) -> list[str]:
        return [str(model.name) for model in Model.query_models(**query)]

    assert sorted(names(where=Metric("val", "iou") > 0.15)) == ["b", "c"]
    assert sorted(names(where=Metric("val", "iou").max > 0.55)) == ["a", "b"]
    assert sorted(names(where="metric('val', 'iou').mean >= 0.3")) == ["a", "b", "d"]
    assert names(where=Metric("Summary", "f1") == 1) == ["e"]
    assert names(order_by=["-metrics.val.iou.max"], max_results=2) == ["a", "b"]
    assert names(order_by=["metrics.val.iou.mean"], max_results=2) == ["c", "d"]


def test_fewer_samples_keep_the_extremes_and_other_axes_are_times(model: OutputModel) -> None:
    """What ClearML averages away is what one looks for."""
    for iteration in range(1000):
        model.report_scalar("t", "s", 100.0 if iteration == 567 else iteration % 7, iteration)
    few = model.get_reported_scalars(max_samples=50)["t"]["s"]
    when = model.get_reported_scalars(x_axis="timestamp")["t"]["s"]["x"][0]

    assert len(few["x"]) <= 50
    assert (few["x"][few["y"].index(100.0)], few["x"][0], few["x"][-1]) == (567, 0, 999)
    assert model.get_reported_scalars(x_axis="iso_time")["t"]["s"]["x"][0].endswith("+00:00")
    assert when > 1_600_000_000_000
    with pytest.raises(InvalidRequestError):
        model.get_reported_scalars(x_axis="hours")
    with pytest.raises(InvalidRequestError):
        model.get_reported_scalars(max_samples=2)


def test_what_is_reported_through_a_logger_belongs_to_the_task(task: Task, model: OutputModel) -> None:
    """As with ClearML: a model's reports are the model's."""
    logger = Logger.current_logger()
    assert logger is not None
    logger.report_scalar("train", "loss", 0.5, iteration=12)
    logger.report_single_value("best", 3)
    logger.report_vector("v", "s", [1, 2])

    assert task.get_reported_scalars()["train"]["loss"]["y"] == [0.5]
    assert task.get_reported_single_value("best") == 3
    assert task.get_last_iteration() == 12
    assert [plot["metric"] for plot in task.get_reported_plots()] == ["v"]
    assert model.get_reported_scalars() == {}
    assert task.get_last_scalar_metrics()["train"]["loss"]["last"] == 0.5


def test_a_logger_has_what_only_loggers_have(task: Task) -> None:
    """Widths of columns, the class of lines, and settings that change nothing here."""
    logger = task.get_logger()
    logger.report_table("t", "s", table_plot=[["a", "b"], [1, 2]], extra_data={"columnwidth": [2, 1]})
    logger.report_line_plot("l", [logger.SeriesInfo("one", [(1, 2)])], "x", "y")
    logger.set_flush_period(30.0)
    Logger.set_reporting_nan_value(0.0)
    logger.set_default_upload_destination("s3://bucket/samples")
    logger.report_scalar("a", "b", NAN, 1)

    figures = {plot["metric"]: json.loads(plot["plot_str"]) for plot in task.get_reported_plots()}
    assert figures["t"]["data"][0]["columnwidth"] == [2, 1]
    assert figures["l"]["data"][0]["name"] == "one"
    assert math.isnan(task.get_reported_scalars()["a"]["b"]["y"][0])
    assert (logger.get_flush_period(), logger.get_default_upload_destination()) == (
        1.0,
        task._registry.folder.as_uri(),
    )


def test_a_frame_has_a_row_a_point(model: OutputModel) -> None:
    """Single values apart, with times in UTC."""
    pytest.importorskip("pandas")
    for iteration in range(3):
        model.report_scalar("val", "iou", iteration / 2, iteration)
        model.report_scalar("val", "loss", NAN, iteration)
    model.report_single_value("f1", 1)
    frame = model.scalar_frame()

    assert frame.shape == (6, 5)
    assert frame[frame.series == "iou"].value.tolist() == [0.0, 0.5, 1.0]
    assert model.scalar_frame("val", "loss").value.isna().all()
    assert len(model.scalar_frame("other")) == 0


def test_every_plot_of_clearmls_is_one_of_plotlys_when_it_comes_back(model: OutputModel, tmp_path: Path) -> None:
    """With the arguments that ClearML documents, those that fail there included."""
    go: Any = pytest.importorskip("plotly.graph_objects")
    np: Any = pytest.importorskip("numpy")
    csv = tmp_path / "a.csv"
    csv.write_text('name,value\nx,1.5\n"y,z",\n', encoding="utf-8")
    model.report_histogram("histogram", "s", [[1, 2], [3, 4]], 1, ["a", "b"], ["x", "y"], "X", "Y", "relative", {}, {})
    model.report_vector("vector", "s", np.array([1.0, NAN]))
    model.report_table("table", "rows", 1, [["a", "b"], [1, 2]])
    model.report_table("table", "csv", csv=csv)
    model.report_table("table", "url", url=csv.as_uri())
    model.report_line_plot("lines", [SeriesInfo(name="a", data=[(0, 1)], labels=["p"])], "X", "Y", comment="c")
    model.report_scatter2d("scatter", "s", np.ones((3, 2)), labels=["a", "b", "c"])
    model.report_scatter3d("space", "s", [[(1, 2, 3)], [(4, 5, 6), (7, 8, 9)]], fill=True)
    model.report_confusion_matrix("confusion", "s", np.eye(2), 0, "X", "Y", ["a", "b"], ["c", "d"], True, "c", {})
    model.report_matrix("matrix", "s", [[1, math.inf]])
    model.report_surface("surface", "s", np.ones((2, 3)), camera=(1, 2, 3), extra_layout={"height": 300})
    model.report_plotly("plotly", "s", go.Figure(go.Pie(values=[1, 2])))
    plots = model.get_reported_plots()

    assert len(plots) == 12
    for plot in plots:
        figure = go.Figure(json.loads(plot["plot_str"]))
        assert figure.data, plot["metric"]
        assert len(model.figure(plot["metric"], plot["variant"]).data) == len(figure.data)
    assert model.figure("matrix").data[0].z[0][1] == math.inf
    assert model.figure("table", "csv").data[0].cells.values == (["x", "y,z"], [1.5, ""])
    assert model.figure("surface").layout.height == 300


def test_a_figure_of_scalars_is_made_when_there_is_no_plot(model: OutputModel) -> None:
    """`figure` shows whatever has that name; of several iterations the last, unless another is asked for."""
    pytest.importorskip("plotly")
    model.report_scalar("val", "iou", 0.5, 1)
    model.report_vector("v", "s", [1], iteration=1)
    model.report_vector("v", "s", [2], iteration=2)

    assert model.figure("val").data[0].name == "iou"
    assert model.figure("v").data[0].y == (2,)
    assert model.figure("v", iteration=1).data[0].y == (1,)
    assert len(model.get_reported_plots(max_iterations=1)) == 1
    with pytest.raises(NotFoundError):
        model.figure("other")


def test_large_figures_are_files_and_come_back_the_same(model: OutputModel, registry: Registry) -> None:
    """The database stays small, and nothing is changed on the way."""
    points = [(i / 7, math.sin(i)) for i in range(5000)] + [(0, NAN)]
    model.report_scatter2d("big", "s", points, mode="markers")
    (plot,) = registry.reports.plots(str(model.id))
    trace = registry.reports.load_figure(plot)["data"][0]

    assert plot.digest is not None
    assert list(zip(trace["x"], trace["y"], strict=True))[:5000] == points[:5000]
    assert math.isnan(trace["y"][-1])
    registry.weights.objects.remove(plot.digest)
    assert [f.severity for f in registry.check() if "plot 'big'" in f.what] == ["error"]
    with pytest.raises(FileNotFoundError):
        model.get_reported_plots()


def test_pictures_and_files_are_kept_with_the_model(
    model: OutputModel, registry: Registry, make_file: Callable[..., Path]
) -> None:
    """From a path, a stream, an array or elsewhere; a file is deleted only when that was asked for."""
    kept, given = make_file("a.png", b"picture"), make_file("b.wav", b"sound")
    model.report_image("image", "path", 1, local_path=kept)
    model.report_image("image", "list", 1, image=[[0, 255]])
    model.report_image("image", "url", 1, url="https://example.com/c.png")
    model.report_media("media", "path", 2, local_path=given, delete_after_upload=True)
    model.report_media("media", "stream", 2, stream=io.StringIO("<p>"), file_extension="html")
    found = {(plot["metric"], plot["variant"]): plot for plot in model.get_reported_plots()}

    assert kept.exists()
    assert not given.exists()
    assert found["image", "url"]["url"] == "https://example.com/c.png"
    stored = {plot.series: plot for plot in registry.reports.plots(str(model.id)) if plot.digest}
    assert registry.reports.path(stored["path"]).read_bytes() in (b"picture", b"sound")
    assert registry.reports.path(stored["stream"]).read_text() == "<p>"
    assert registry.reports.path(stored["stream"]).suffix == ".html"
    assert registry.reports.path(stored["list"]).read_bytes().startswith(b"\x89PNG")
    assert [f for f in registry.check(deep=True) if f.severity == "error"] == []


@pytest.mark.parametrize(
    "report",
    [
        lambda m: m.report_image("t", "s"),
        lambda m: m.report_image("t", "s", image=[[1]], url="https://h/x"),
        lambda m: m.report_image("t", "s", local_path="/does/not/exist"),
        lambda m: m.report_image("t", "s", "one", image=[[1]]),
        lambda m: m.report_image("t" * 2000, "s", image=[[1]]),
        lambda m: m.report_media("t", "s", stream=io.BytesIO(b"x")),
        lambda m: m.report_media("t", "s", stream=3, file_extension="x"),
        lambda m: m.report_media("t", "s", local_path="/"),
        lambda m: m.report_table("t", "s"),
        lambda m: m.report_table("t", "s", csv="/does/not/exist.csv"),
        lambda m: m.report_table("t", "s", url="file:///does/not/exist.csv"),
        lambda m: m.report_plotly("t", "s", {"x": 1}),
        lambda m: m.report_plotly("t", "s", {"data": [{"x": [object]}]}, iteration=0.5),
        lambda m: m.report_matplotlib_figure("t", "s", 3),
    ],
)
def test_a_refused_plot_leaves_nothing(
    model: OutputModel, registry: Registry, unchanged: Watching, report: Callable[[OutputModel], None]
) -> None:
    """Neither in the registry nor among its files."""
    with unchanged():
        with pytest.raises((ValueError, OSError)):
            report(model)
        registry.reports.flush()


def test_nothing_can_be_reported_to_what_does_not_exist(registry: Registry) -> None:
    """A wrong id is found out at the call, not at exit."""
    with pytest.raises(ModelNotFoundError):
        Model(new_id()).report_scalar("t", "s", 1.0, 1)
    assert Model(new_id()).get_reported_scalars() == {}


def test_a_removed_model_comes_back_with_its_reports(model: OutputModel, registry: Registry) -> None:
    """A removal hides; a restore brings back the true state."""
    model.report_scalar("t", "s", 1.0, 1)
    Model.remove(model)
    assert Model.query_models(where=Metric("t", "s") == 1) == []
    registry.models.restore(str(model.id))

    assert Model(model.id).get_reported_scalars()["t"]["s"]["y"] == [1.0]
    assert len(Model.query_models(where=Metric("t", "s") == 1)) == 1


def test_views_show_points_and_plots(model: OutputModel, registry: Registry) -> None:
    """For people with SQL: a row a point, NaN as NULL."""
    for value in (0.5, NAN, math.inf):
        model.report_scalar("val", "iou", value, 7)
    model.report_vector("v", "s", [1])
    registry.reports.flush()
    with registry.select("SELECT iteration, value FROM v_scalars ORDER BY value") as rows:
        assert list(rows) == [(7, None), (7, 0.5), (7, math.inf)]
    with registry.select("SELECT kind, title, json_extract(figure, '$.data[0].type') FROM v_plots") as rows:
        assert list(rows) == [("plotly", "v", "bar")]
    with registry.select("SELECT title, series, points, max FROM v_metrics") as rows:
        assert list(rows) == [("val", "iou", 3, math.inf)]
    with registry.select("SELECT changes FROM v_history WHERE action = 'report'") as rows:
        assert {row[0] for row in rows} == {"{}"}


def test_series_info_is_public() -> None:
    """Scripts import it from where the classes are."""
    assert modelstore.SeriesInfo is SeriesInfo

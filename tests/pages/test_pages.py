"""Pages and pictures of models: complete without a network, safe with anybody's names, small with many points."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import struct
import subprocess
import zlib
from array import array
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import modelstore
from modelstore import Model, OutputModel, Task
from modelstore.errors import InvalidRequestError, ModelNotFoundError, UsageError
from modelstore.pages import sparkline
from modelstore.pages.browser import find_browser
from modelstore.pages.charts import Line
from modelstore.pages.document import PLOTLY
from modelstore.pages.raster import line_chart
from modelstore.registry.reports import Place
from modelstore.sdk._context import forget_default
from modelstore.testing.httpserver import http_server
from tests.cli.conftest import Json, Run, run, run_json  # noqa: F401 - fixtures
from tests.effort import share

_HOSTILE = (
    "</script><script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">\u2028'\"&\x00\ud800"
)


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Close what the classes opened."""
    yield
    forget_default()


def _model(name: str = "net", *, width: int = 4, points: int = 50, factor: float = 1.0) -> OutputModel:
    task = Task.init(project_name="p", task_name=name, reuse_last_task_id=False)
    model = OutputModel(task=task, name=name, config_dict={"width": width, "same": [1, 2]}, label_enumeration={"a": 1})
    np.savez("net.npz", **{"layer.w": np.full((width, 3), factor), "layer.b": np.zeros(2)})  # type: ignore[arg-type]
    model.update_weights("net.npz")
    for i in range(points):
        model.report_scalar("loss", "train", factor / (i + 1), i)
    model.report_single_value("f1", 0.9 * factor)
    model.set_metadata("seed", width)
    task.close()
    return model


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


class _Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.data: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] == "script" and (name := self.found[-1][1].get("id")):
            self.data[name] = self.data.get(name, "") + data


def _numbers(text: str) -> array[float]:
    return array("d", base64.b64decode(text))


def test_a_page_has_everything_about_the_model_and_fetches_nothing() -> None:
    """Facts, values, charts with every point, layers, configuration; nothing from elsewhere."""
    page = _model().show()
    elements = _Elements(page.html)
    (chart,) = json.loads(elements.data["chart-data"])

    for text in ("net", "seed", "f1", "layer.w", "float64 4×3", "&quot;width&quot;: 4", "sha256:"):
        assert text in page.html
    assert chart["title"] == "loss"
    assert list(_numbers(chart["lines"][0]["x"])) == list(range(50))
    assert list(_numbers(chart["lines"][0]["y"])) == [1 / (i + 1) for i in range(50)]
    assert not [attrs for _, attrs in elements.found if "src" in attrs or "href" in attrs]
    assert "default-src 'none'" in page.html
    assert "plotly" not in elements.data
    assert len(page.html) < 60_000


def test_names_and_texts_of_strangers_are_only_text() -> None:
    """Whatever is in them: no element, script or attribute of the page comes from them."""
    calm = _Elements(_model("calm").show().html)
    model = _model("calm2")
    before = [tag for tag, _ in _Elements(model.show().html).found]
    text = _HOSTILE.replace("\x00", "").replace("\ud800", "")
    model.name = text
    model.comment = text
    model.tags = [text]
    model.set_metadata("k", text)
    for series in (text, "other"):
        model.report_scalar(text, series, 1.0, 1)
    model.report_single_value(text, 2.0)
    reports = model._registry.reports
    reports.figure(
        Place("model", str(model.id), text, text, 1), {"data": [{"type": "bar", "y": [1], "name": text}], "layout": {}}
    )
    reports.address(Place("model", str(model.id), "link", text, 1), "image", "javascript:alert(1)")
    page = model.show().html
    after = _Elements(page)

    assert [tag for tag, _ in calm.found if tag == "script"] == ["script", "script"]
    assert [(t, a.get("id")) for t, a in after.found if t == "script"] == [
        ("script", "chart-data"), ("script", "figure-data"), ("script", "plotly-code"), ("script", None)
    ]  # fmt: skip
    assert {"img", "a"}.isdisjoint(tag for tag, _ in after.found)
    assert not [name for _, attrs in after.found for name in attrs if name.startswith("on")]
    assert set(before) <= {tag for tag, _ in after.found}
    assert json.loads(after.data["figure-data"])[0]["data"][0]["name"] == text
    frame = model.show()._repr_html_()
    assert frame.count("<") == 2, "one frame, with the page in an attribute"


def test_many_points_are_thinned_and_no_extreme_is_lost() -> None:
    """A hundred thousand become at most twenty thousand; the spike of one of them stays."""
    model = _model(points=0)
    for i in range(100_000):
        model.report_scalar("loss", "train", 100.0 if i == 77_777 else (i * 7919 % 1000) / 1000, i)
    model.report_scalar("loss", "train", -5.0, 12_345)
    page = model.show().html
    (chart,) = json.loads(_Elements(page).data["chart-data"])
    values = _numbers(chart["lines"][0]["y"])

    assert 10_000 < len(values) <= 20_000
    assert max(values) == 100.0
    assert min(values) == -5.0
    assert len(page) < 500_000


@pytest.mark.long
def test_twenty_series_of_a_hundred_thousand_points_are_a_page_of_less_than_8_megabytes() -> None:
    """The bound is on the page, whatever was reported."""
    model = _model(points=0)
    for series in range(20):
        for i in range(100_000):
            model.report_scalar(f"chart {series // 2}", f"series {series}", (i * 7919 % 1000) / 1000, i)
    page = model.show().html

    assert len(page.encode()) <= 8_000_000


def test_plotting_code_is_that_of_the_published_package() -> None:
    """It ships with its licence, byte for byte."""
    import gzip
    import hashlib

    static = Path(modelstore.__file__).parent / "pages" / "static"
    code = gzip.decompress((static / PLOTLY).read_bytes())

    assert hashlib.sha256(code).hexdigest() == "fc84e3cfa55d23d3654c562ea5deb3c274eb6972a6adf66941d1a821e34825e4"
    assert "MIT License" in (static / "plotly-LICENSE.txt").read_text()
    assert code.startswith(b"/**\n* plotly.js v2.35.3\n")


def _browser() -> str:
    found = find_browser()
    if found is None:
        pytest.skip("Chromium is not installed")
    return found


def _dom(page: Path) -> str:
    """Return the page's elements after its scripts have run."""
    command = [
        _browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--virtual-time-budget=15000",
        f"--user-data-dir={page.parent}/profile", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout


def test_a_browser_draws_the_page_and_asks_nobody_for_anything(folder: Path) -> None:
    """Charts and plots are drawn, a stranger's script does not run, a stranger's picture is not fetched."""
    _browser()
    model = _model()
    text = _HOSTILE.replace("\x00", "").replace("\ud800", "")
    model.report_scalar(text, text, math.nan, 1)
    with http_server() as server:
        url = server.serve("/picture.png", b"x")
        image = {"source": url, "x": 0, "y": 1, "sizex": 1, "sizey": 1}
        title = {"text": f"drawn <a href='{url}'>x</a>{text}"}
        reports = model._registry.reports
        reports.figure(
            Place("model", str(model.id), "bars", "b", 1),
            {"data": [{"type": "bar", "y": [1, math.nan, 3]}], "layout": {"title": "plain title", "images": [image]}},
        )
        reports.figure(
            Place("model", str(model.id), "hills", "h", 1),
            {"data": [{"type": "surface", "z": [[1, 2], [3, 4]]}], "layout": {"title": title}},
        )
        model.show().save("page.html")
        dom = _dom(folder / "page.html")
        asked = dict(server.requests)

    assert 'data-ready="yes"' in dom
    assert "<title>pwned" not in dom
    assert dom.count("<canvas") >= 2
    assert dom.count("main-svg") >= 2
    assert "plain title</text>" in dom
    assert "cannot be drawn" not in re.sub(r"<script>.*?</script>", "", dom, flags=re.DOTALL)
    assert asked == {}


def test_files_of_strangers_neither_act_nor_fetch(folder: Path) -> None:
    """Pictures that are programs, pages that were reported as media, names that are markup: kept, shown as what they
    are, or only named."""
    model = _model()
    with http_server() as server:
        url = server.serve("/picture.png", b"x")
        act = f"document.title='pwned';new Image().src='{url}'"
        markup = f"<script>{act}</script><img src='{url}' onerror=\"{act}\"><link rel='stylesheet' href='{url}'>"
        inside = f"<script>{act}</script><image href='{url}'/>"
        picture = f"<svg xmlns='http://www.w3.org/2000/svg' onload=\"{act}\">{inside}</svg>"
        hostile = f'{url}?"><script>{act}</script>'
        for name, content in (
            ('a" onerror="document.title=1.svg', picture),
            ("<script>document.title='pwned'<.svg", picture),
            ("page.png", markup),
            ("video.mp4", markup),
            ("<img src=x>.wav", markup),
            ("page.html", markup),
            ("no ending", markup),
        ):
            (folder / name).write_text(content)
            model.report_image(name, "picture", 1, local_path=folder / name)
            model.report_media(name, markup, 1, local_path=folder / name)
        model.report_media("page", "stream", 1, stream=io.StringIO(markup), file_extension=".html")
        for address in (
            url,
            hostile,
            "javascript:document.title='pwned'",
            "data:text/html,x",
        ):
            model.report_image("elsewhere", "by address", 1, url=address)
            model.report_media(markup, "by address", 1, url=address)
        page = model.show()
        elements = _Elements(page.html)
        (folder / "framed.html").write_text(f"<!DOCTYPE html><title>calm</title>{page._repr_html_()}")
        page.save(folder / "page.html")
        doms = [_dom(folder / name) for name in ("page.html", "framed.html")] if find_browser() is not None else []
        asked = dict(server.requests)

    sources = [attrs["src"] for _, attrs in elements.found if "src" in attrs]
    assert len(sources) > 5
    assert all(str(source).startswith(("data:image/", "data:video/", "data:audio/")) for source in sources)
    assert {attrs.get("href") for tag, attrs in elements.found if tag == "a"} == {
        url,
        hostile,
    }
    assert not [name for _, attrs in elements.found for name in attrs if name.startswith("on")]
    assert {"iframe", "object", "embed", "link", "svg"}.isdisjoint(tag for tag, _ in elements.found)
    assert all("<title>pwned" not in dom for dom in doms)
    assert asked == {}


def test_plots_as_pictures_need_a_browser(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one a PNG of the wanted size, without one an error that says so."""
    model = _model()
    figure = {"data": [{"type": "heatmap", "z": [[1, 2], [3, 4]]}], "layout": {}}
    model._registry.reports.figure(Place("model", str(model.id), "heat", "h", 1), figure)
    with monkeypatch.context() as patch:
        patch.setenv("MODELSTORE_BROWSER", "no-such-browser")
        with pytest.raises(UsageError, match="Chromium is not installed"):
            model.save_picture("heat", "heat.png")
    _browser()
    model.save_picture("heat", "heat.png", width=600, height=400)

    width, height, pixels = _decoded(Path("heat.png").read_bytes(), depth=None)
    assert (width, height) == (600, 400)
    assert pixels == b""


def _decoded(png: bytes, depth: int | None = 3) -> tuple[int, int, bytes]:
    """Return width, height and, of a picture that was drawn here, its pixels."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">2I", png[16:24])
    if depth is None:
        return width, height, b""
    length = struct.unpack(">I", png[33:37])[0]
    rows = zlib.decompress(png[41 : 41 + length])
    stride = depth * width + 1
    return width, height, b"".join(rows[at + 1 : at + stride] for at in range(0, len(rows), stride))


def test_charts_as_pictures_need_nothing() -> None:
    """Drawn here; each line is there in its colour, and a title that is not there is an error that names others."""
    model = _model()
    model.report_scalar("loss", "other", 0.5, 1)
    model.save_picture("loss", "loss.png", width=640, height=360)
    width, height, pixels = _decoded(Path("loss.png").read_bytes())
    colours = {pixels[at : at + 3] for at in range(0, len(pixels), 3)}

    assert (width, height) == (640, 360)
    assert {bytes((0, 105, 180)), bytes((209, 83, 10)), b"\xff\xff\xff"} <= colours
    with pytest.raises(InvalidRequestError, match="There are 'loss'"):
        model.save_picture("nothing", "nothing.png")
    assert not Path("nothing.png").exists()


@settings(max_examples=share(20))
@example([[], [1.0]], "")
@example([[1.7e308, -1.7e308, math.inf, math.nan]], "\u2028")
@given(st.lists(st.lists(st.floats(), max_size=30), max_size=4), st.text(max_size=60))
def test_any_values_and_names_make_a_picture(columns: list[list[float]], name: str) -> None:
    """NaN, infinities, the largest floats, single points, none at all."""
    lines = [Line(name, name, array("d", range(len(values))), array("d", values)) for values in columns]

    assert _decoded(line_chart(name, lines, 300, 200))[:2] == (300, 200)


@given(st.lists(st.floats(), max_size=300), st.integers(1, 60))
def test_a_sparkline_shows_the_extremes(values: list[float], width: int) -> None:
    """At most as wide as wanted; the greatest or least value makes the highest or lowest block."""
    line = sparkline(values, width)
    finite = [value for value in values if math.isfinite(value)]

    assert len(line) <= width
    assert set(line) <= set(" ▁▂▃▄▅▆▇█")
    if finite and min(finite) < max(finite):
        assert "█" in line or "▁" in line
    assert bool(line.strip()) == bool(finite)


def test_two_models_are_compared_in_everything() -> None:
    """What differs is marked, what is the same is there as well."""
    one, two = _model("one"), _model("two", width=5, factor=2.0)
    two.tags = ["prod"]
    found = modelstore.compare(one, "two")

    assert found.different("configuration") == {"width": (4, 5)}
    assert found.different("tags") == {"prod": (None, True)}
    assert found.different("metadata") == {"seed": (4, 5)}
    assert found.different("labels") == {}
    assert found.different("single values") == {"f1": (0.9, 1.8)}
    assert found.different("scalars")["loss / train"][1].max == 2.0
    (tensors,) = found.comparison.tensors
    assert tensors.differences is not None
    assert [(change.name, change.what) for change in tensors.differences.changed] == [("layer.w", ("shape",))]
    plain = found.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert [model["name"] for model in plain["models"]] == ["one", "two"]
    assert "differences>" in repr(found)
    chart = json.loads(_Elements(found.page().html).data["chart-data"])[0]
    assert [line["name"] for line in chart["lines"]] == ["one", "two"]


def test_models_that_cannot_be_compared_are_told() -> None:
    """One alone, one that is not there; weights that cannot be looked into are only a remark."""
    one = _model("one")
    Path("net.bin").write_bytes(b"no tensors")
    two = OutputModel(task=Task.init(project_name="p", task_name="t"), name="two")
    two.update_weights("net.bin")
    with pytest.raises(InvalidRequestError):
        modelstore.compare(one)
    with pytest.raises(ModelNotFoundError):
        modelstore.compare(one, "missing")
    found = modelstore.compare(one, two)

    assert "no format" in found.comparison.tensors[0].problem
    assert "Not compared" in found.page().html


def test_values_that_are_nan_are_equal_and_numbers_are_no_truth_values() -> None:
    """As people see them, and not as Python compares."""
    one, two = _model("one"), _model("two")
    for model, value in ((one, 1), (two, True)):
        model.set_metadata("nan", math.nan)
        model.set_metadata("kind", value)

    assert modelstore.compare(one, two).different("metadata") == {"kind": (1, True)}


def test_the_commands_write_pages_and_pictures(run: Run, run_json: Json, folder: Path) -> None:  # noqa: F811
    """And print nothing then; with --json, JSON alone."""
    _model("one")
    _model("two", factor=2.0)
    text = run("compare", "one", "two").stdout

    assert "loss / train" in text
    assert "layer.w" in text
    assert "seed" not in text
    assert "= seed" in run("compare", "one", "two", "--all").stdout
    assert run("show", "one", "--html", folder / "one.html", "--png", "loss", folder / "one.png").stdout == ""
    assert run("compare", "one", "two", "--html", folder / "both.html").stdout == ""
    assert (folder / "one.html").read_text().startswith("<!DOCTYPE html>")
    assert (folder / "both.html").read_text().startswith("<!DOCTYPE html>")
    assert (folder / "one.png").read_bytes().startswith(b"\x89PNG")
    assert run_json("compare", "one", "two")["sections"]["single values"][0]["values"] == [0.9, 1.8]
    assert run_json("show", "one")["scalars"][1]["title"] == "loss"
    model = Model.query_models(model_name="one")[0]
    for iteration in (1, 5):
        model.report_scatter2d("errors", "val", [(0.1, 2), (0.4, 3)], iteration=iteration)
    model.report_image("worst", "val", iteration=5, image=[[0, 255]])
    assert len(model.get_reported_plots()) == 3  # what is read is written first
    shown = run("show", "one").stdout
    assert "▁" in shown
    assert "loss / train" in shown
    assert "errors / val  plot  iterations 1 to 5  (2)" in shown
    assert "worst / val   image  iteration 5" in shown
    assert [plot["kind"] for plot in run_json("show", "one")["plots"]] == ["plotly", "plotly", "image"]
    run("show", "one", "--png", "missing", folder / "x.png", code=2)
    run("show", "one", "--html", folder / "no" / "such" / "folder.html", code=3)
    assert sorted(path.name for path in folder.glob("*.html")) == ["both.html", "one.html"]


def test_a_model_of_anybody_is_shown(run: Run) -> None:  # noqa: F811
    """One without weights, project or reports."""
    task = Task.init(project_name="p", task_name="t")
    OutputModel(task=task, name="bare").set_metadata("k", 1)
    (model,) = Model.query_models(model_name="bare")

    assert "none yet" in model.show().html
    assert "bare" in run("show", "bare").stdout

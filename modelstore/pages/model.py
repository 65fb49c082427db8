"""The page of one model."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Final

from modelstore.errors import ModelStoreError
from modelstore.pages.charts import chart_data, chart_elements, load_lines, number_text, scalar_series
from modelstore.pages.document import document, facts, pills
from modelstore.records.points import SUMMARY
from modelstore.registry.models import dump_config
from modelstore.storage.uris import redact

if TYPE_CHECKING:
    from modelstore.inspection import Inspection
    from modelstore.records.entities import ModelRecord
    from modelstore.records.reports import PlotRecord, SeriesRecord
    from modelstore.registry.registry import Registry

__all__ = ["model_page"]

_MOST_FILE: Final = 1 << 20
_ALL_FILES: Final = 2 << 20
_ALL_FIGURES: Final = 2 << 20
_MOST_LAYERS: Final = 400
_SHOWN: Final = ("image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml", "image/bmp", "image/avif")


def model_page(registry: Registry, record: ModelRecord) -> str:
    """Return the page of a model as one HTML text, which needs no network.

    Raises:
        StorageError: What was reported cannot be read.
    """
    series = registry.reports.series(record.id)
    lines = scalar_series(series)
    charts = chart_data(load_lines(registry, [(one.series, one) for one in lines]))
    plots = registry.reports.plots(record.id)
    figures: list[dict[str, Any]] = []
    parts = [
        _head(record),
        _overview(registry, record),
        _single_values(series),
        f"<h2>Scalars</h2>{chart_elements(charts)}{_statistics(lines)}" if charts else "",
        _plots(registry, plots, figures),
        _files(registry, plots),
        _weights(registry, record),
        _configuration(record),
        f'<footer>model <span class="mono">{record.id}</span></footer>',
    ]
    return document(record.name or record.id, "\n".join(filter(None, parts)), charts=charts, figures=figures)


def _head(record: ModelRecord) -> str:
    states = ["published"] * record.published + ["archived"] * record.archived
    project = f'<span class="quiet">{escape(record.project)}</span>' if record.project else ""
    marks = f"<div>{pills([*states, *record.tags])}</div>" if states or record.tags else ""
    return f"<header>{project}<h1>{escape(record.name or record.id)}</h1>{marks}</header>"


def _overview(registry: Registry, record: ModelRecord) -> str:
    uri = "" if record.uri is None else redact(registry.weights.address(record))
    rows = [
        ("framework", escape(record.framework or "")),
        ("weights", f"<code>{escape(uri)}</code>" if uri else "none yet"),
        ("size", "" if record.size is None else f"{record.size:,} bytes"),
        ("digest", f"<code>{escape(record.digest)}</code>" if record.digest else ""),
        ("iteration", "" if record.iteration is None else str(record.iteration)),
        ("task", f"<code>{escape(record.task)}</code>" if record.task else ""),
        ("created", f"{record.created_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("last change", f"{record.updated_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("comment", escape(record.comment or "").replace("\n", "<br>")),
    ]
    cards = [f'<section class="card"><h3>Model</h3>{facts(rows)}</section>']
    metadata = [(key, escape(item.text)) for key, item in sorted(record.metadata.items())]
    if metadata:
        cards.append(f'<section class="card"><h3>Metadata</h3>{facts(metadata)}</section>')
    if record.labels:
        labels = [(name, str(number)) for name, number in record.labels.items()]
        cards.append(f'<section class="card"><h3>Labels</h3>{facts(labels)}</section>')
    return f'<div class="grid">{"".join(cards)}</div>'


def _single_values(series: Sequence[SeriesRecord]) -> str:
    cards = [
        f'<div class="card"><span class="quiet">{escape(one.series)}</span><b>{escape(number_text(one.last))}</b></div>'
        for one in series
        if one.title == SUMMARY
    ]
    return f'<h2>Values</h2><div class="values">{"".join(cards)}</div>' if cards else ""


def _statistics(lines: Sequence[SeriesRecord]) -> str:
    rows = "".join(
        f"<tr><td>{escape(one.title)}</td><td>{escape(one.series)}</td>"
        + "".join(f'<td class="number">{escape(number_text(v))}</td>' for v in (one.last, one.min, one.max, one.mean))
        + f'<td class="number">{one.last_iteration:,}</td><td class="number">{one.points:,}</td></tr>'
        for one in lines
    )
    heads = "".join(
        f'<th class="number">{name}</th>' for name in ("last", "least", "greatest", "mean", "iteration", "points")
    )
    return (
        f'<details open style="margin-top:14px" class="card"><summary>Figures of {len(lines)} series</summary>'
        f'<div class="scroll"><table><tr><th>chart</th><th>series</th>{heads}</tr>{rows}</table></div></details>'
    )


def _plots(registry: Registry, plots: Sequence[PlotRecord], figures: list[dict[str, Any]]) -> str:
    """Return the elements of figures, and put the figures into the list; the newest of each first, within bounds."""
    grouped: dict[tuple[str, str], list[PlotRecord]] = {}
    for plot in plots:
        if plot.kind == "plotly":
            grouped.setdefault((plot.title, plot.series), []).append(plot)
    elements, room = [], _ALL_FIGURES
    for (title, series), found in grouped.items():
        found.sort(key=lambda plot: (-plot.iteration, -plot.time))
        numbers: list[str] = []
        options: list[str] = []
        left_out = 0
        for plot in found:
            if numbers and room <= 0:
                left_out += 1
                continue
            figure = _figure(registry, plot)
            room -= _weight(figure)
            numbers.append(str(len(figures)))
            options.append(f"<option>iteration {plot.iteration}</option>")
            figures.append(figure)
        choice = f"<select>{''.join(options)}</select>" if len(options) > 1 else ""
        name = title if series in ("", title) else f"{title} / {series}"
        note = f'<p class="quiet">{left_out} earlier ones are left out of this page.</p>' if left_out else ""
        elements.append(
            f'<figure class="card" data-figures="{",".join(numbers)}">'
            f'<div class="head"><h3>{escape(name)}</h3>{choice}</div><div class="plot"></div>{note}</figure>'
        )
    return f'<h2>Plots</h2><div class="charts">{"".join(elements)}</div>' if elements else ""


def _figure(registry: Registry, plot: PlotRecord) -> dict[str, Any]:
    try:
        figure = registry.reports.load_figure(plot)
    except ModelStoreError as error:
        text = {"text": escape(error.message), "showarrow": False}
        return {"data": [], "layout": {"annotations": [text]}}
    return {"data": figure.get("data") or [], "layout": figure.get("layout") or {}}


def _weight(value: Any) -> int:
    """Return roughly how many characters a value takes as JSON."""
    waiting, total = [value], 0
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            total += sum(len(str(key)) + 4 for key in one)
            waiting.extend(one.values())
        elif isinstance(one, list | tuple):
            total += 2
            waiting.extend(one)
        else:
            total += len(one) if isinstance(one, str) else 12
    return total


def _files(registry: Registry, plots: Sequence[PlotRecord]) -> str:
    elements, room = [], _ALL_FILES
    for plot in sorted(plots, key=lambda one: (one.title, one.series, -one.iteration, -one.time)):
        if plot.kind == "plotly":
            continue
        name = " / ".join(filter(None, (plot.title, plot.series)))
        content, used = _file(registry, plot, room)
        room -= used
        elements.append(
            f'<figure class="card picture"><div class="head"><h3>{escape(name)}</h3>'
            f'<span class="quiet">iteration {plot.iteration}</span></div>{content}</figure>'
        )
    return f'<h2>Pictures and files</h2><div class="charts">{"".join(elements)}</div>' if elements else ""


def _file(registry: Registry, plot: PlotRecord, room: int) -> tuple[str, int]:
    if plot.url is not None:
        shown = escape(redact(plot.url))
        is_web = plot.url.startswith(("http://", "https://"))
        return (f'<a href="{shown}" rel="noreferrer noopener">{shown}</a>' if is_web else f"<code>{shown}</code>"), 0
    kind = mimetypes.guess_type(plot.name or "")[0] or ""
    tag = "img" if kind in _SHOWN else kind.partition("/")[0] if kind.startswith(("audio/", "video/")) else ""
    described = f'<p class="quiet">{escape(plot.name or "file")}, {plot.size or 0:,} bytes, not part of this page</p>'
    if not tag or (plot.size or 0) > min(room, _MOST_FILE):
        return described, 0
    try:
        data = registry.reports.path(plot).read_bytes()
    except (ModelStoreError, OSError):
        return '<p class="quiet">The file is missing.</p>', 0
    source = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    if tag == "img":
        return f'<img alt="{escape(plot.title)}" src="{source}">', len(data)
    return f'<{tag} controls src="{source}"></{tag}>', len(data)


def _weights(registry: Registry, record: ModelRecord) -> str:
    from modelstore.inspection import inspect_path
    from modelstore.registry.inspecting import nearby

    try:
        path = nearby(registry, record)
        inside = None if path is None else inspect_path(path)
    except ModelStoreError:
        inside = None
    if inside is None:
        return ""
    rows = [
        ("format", escape(inside.format)),
        ("tensors", f"{len(inside.tensors):,}"),
        ("parameters", f"{inside.parameters:,}"),
        ("types", escape(", ".join(f"{dtype} {count:,}" for dtype, count in inside.dtypes.items()))),
    ]
    table = "".join(_layer_rows(inside))
    heads = (
        '<th>layer</th><th class="number">tensors</th><th class="number">parameters</th><th class="number">bytes</th>'
    )
    return (
        f'<h2>Inside the weights</h2><div class="grid"><section class="card">{facts(rows)}</section></div>'
        f'<details open class="card" style="margin-top:14px"><summary>Layers</summary>'
        f'<div class="scroll"><table><tr>{heads}<th></th></tr>{table}</table></div></details>'
    )


def _layer_rows(inside: Inspection) -> Iterator[str]:
    root = inside.layers()
    total = root.size or 1
    shapes = {one.name: f"{one.dtype} {'×'.join(map(str, one.shape)) or 'scalar'}" for one in inside.tensors}
    for number, (level, layer) in enumerate(root.walk(3)):
        if number >= _MOST_LAYERS:
            yield f'<tr><td class="quiet">and more: {len(inside.tensors):,} tensors in all</td></tr>'
            return
        what = f"{layer.tensors:,}" if layer.children or layer.name not in shapes else escape(shapes[layer.name])
        yield (
            f'<tr><td style="padding-left:{18 * level}px">{escape(layer.name or "(no name)")}</td>'
            f'<td class="number">{what}</td><td class="number">{layer.parameters:,}</td>'
            f'<td class="number">{layer.size:,}</td><td style="width:124px"><div class="track">'
            f'<span class="bar" style="width:{100 * layer.size / total:.2f}%"></span></div></td></tr>'
        )


def _configuration(record: ModelRecord) -> str:
    text = dump_config(record.config)
    return f"<h2>Configuration</h2><pre>{escape(text)}</pre>" if text else ""

"""One chart or plot of a model as PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from modelstore.errors import InvalidRequestError
from modelstore.pages.browser import screenshot
from modelstore.pages.charts import load_lines, scalar_series
from modelstore.pages.document import document
from modelstore.pages.raster import line_chart

if TYPE_CHECKING:
    from modelstore.records.entities import ModelRecord
    from modelstore.registry.registry import Registry

__all__ = ["picture_of"]

_POINTS: Final = 4
"""Points for each pixel of width: two for the least and two for the greatest."""

_STYLE: Final = "main{padding:0;max-width:none}body{background:var(--card)}.modebar{display:none}"


def picture_of(registry: Registry, record: ModelRecord, title: str, width: int = 1200, height: int = 640) -> bytes:
    """Return the chart or plot of that title as a PNG file.

    Scalars are drawn here. Plots are drawn by Chromium, the newest of the title.

    Args:
        registry: Where the model is.
        record: The model.
        title: Of the chart or plot; "title / series" names one line or variant.
        width: In pixels.
        height: In pixels.

    Raises:
        InvalidRequestError: There is none of that title; the message names those there are.
        UsageError: It is no chart of scalars, and there is no browser to draw it.
        StorageError: It cannot be read or drawn.
    """
    series = scalar_series(registry.reports.series(record.id))
    lines = [one for one in series if title in (one.title, f"{one.title} / {one.series}")]
    if lines:
        loaded = load_lines(registry, [(one.series, one) for one in lines], _POINTS * width)
        return line_chart(lines[0].title, loaded, width, height)
    plots = registry.reports.plots(record.id)
    found = [one for one in plots if title in (one.title, f"{one.title} / {one.series}")]
    if not found:
        titles = sorted({one.title for one in series} | {one.title for one in plots})
        known = f"There are {', '.join(map(repr, titles[:20]))}." if titles else "Nothing was reported to it."
        raise InvalidRequestError(f"The model {record.name!r} ({record.id}) has no chart or plot {title!r:.200}", known)
    newest = max(found, key=lambda one: (one.iteration, one.time))
    if newest.kind != "plotly":
        raise InvalidRequestError(f"{title!r:.200} is a file of its own ({newest.kind})", "Take it as it is.")
    figure: dict[str, Any] = registry.reports.load_figure(newest)
    shown = {"data": figure.get("data") or [], "layout": figure.get("layout") or {}}
    # In pixels: the window that a browser without a screen thinks it has is lower than its picture.
    plot = (
        f"<style>{_STYLE}.plot{{width:{int(width)}px;height:{int(height)}px}}</style>"
        '<div data-figures="0"><div class="plot"></div></div>'
    )
    return screenshot(document(title, plot, figures=[shown]), width, height)

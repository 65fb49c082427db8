"""How a model shows in a notebook."""

from __future__ import annotations

from html import escape

from modelstore.records.entities import ModelRecord

__all__ = ["model_html", "size_text", "text_html"]


def size_text(size: int | None) -> str:
    """Return a number of bytes for people ("1.5 MB"); "" for None."""
    if size is None:
        return ""
    value, units = float(size), ["B", "kB", "MB", "GB", "TB", "PB"]
    unit = units[0]
    for unit in units:
        if value < 1000 or unit == units[-1]:
            break
        value /= 1000
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"


def text_html(text: str) -> str:
    """Return a text as HTML."""
    return f"<code>{escape(text)}</code>"


def model_html(record: ModelRecord, url: str | None) -> str:
    """Return a model as an HTML table."""
    states = ["published"] * record.published + ["archived"] * record.archived
    tags = " ".join(
        f'<span style="background:#e3e8f0;color:#223;border-radius:3px;padding:0 5px">{escape(tag)}</span>'
        for tag in record.tags
    )
    rows = [
        ("id", f"<code>{record.id}</code>"),
        ("project", escape(record.project or "")),
        ("framework", escape(record.framework or "")),
        ("weights", f"<code>{escape(url or 'none yet')}</code> {size_text(record.size)}"),
        ("tags", tags),
        ("labels", escape(", ".join(f"{k}: {v}" for k, v in record.labels.items()))),
        ("metadata", escape(", ".join(f"{k} = {i.text}" for k, i in sorted(record.metadata.items())))),
        ("comment", escape(record.comment or "").replace("\n", "<br>")),
        ("last update", f"{record.updated_at:%Y-%m-%d %H:%M:%S} UTC"),
    ]
    cells = "".join(
        f'<tr><th style="text-align:left;vertical-align:top">{name}</th><td style="text-align:left">{value}</td></tr>'
        for name, value in rows
        if value
    )
    state = f" <small>({', '.join(states)})</small>" if states else ""
    return f"<div><b>{escape(record.name or '')}</b>{state}<table>{cells}</table></div>"

"""One HTML file with everything in it, which the browser lets neither fetch nor run anything else."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
import os
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any, Final

from modelstore.storage.failures import translated
from modelstore.storage.objects import fsync_folder

__all__ = ["PLOTLY", "document", "facts", "json_script", "pills", "plain_json", "write_page"]

PLOTLY: Final = "plotly-2.35.3.min.js.gz"
"""Later versions drop titles that are given as plain texts, as many reported figures have them."""


def document(title: str, body: str, *, charts: Sequence[Any] = (), figures: Sequence[Any] = ()) -> str:
    """Return a whole page.

    Args:
        title: Plain text.
        body: HTML, everything in it escaped.
        charts: Data of the charts: those elements of the body with `data-chart` show them.
        figures: Plotly figures that elements with `data-figures` show.
    """
    script = _static("charts.js").decode()
    allowed = [_hash(script)]
    data = json_script("chart-data", charts) if charts else ""
    unsafe = ""
    if figures:
        code = _static(PLOTLY)
        allowed.append(_hash(gzip.decompress(code).decode()))
        unsafe = " 'unsafe-eval'"  # three-dimensional plots are compiled in the page
        packed = base64.b64encode(code).decode()
        data += f'{json_script("figure-data", figures)}<script type="text/plain" id="plotly-code">{packed}</script>\n'
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src {' '.join(allowed)}{unsafe}; "
        "img-src data: blob:; media-src data:; font-src data:; form-action 'none'; base-uri 'none'"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape(title)}</title>\n<style>{_static('page.css').decode()}</style></head>\n"
        f"<body><main>\n{body}\n</main>\n{data}<script>{script}</script></body></html>\n"
    )


@cache
def _static(name: str) -> bytes:
    return (files("modelstore.pages") / "static" / name).read_bytes()


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def json_script(identity: str, value: Any) -> str:
    """Return an element that holds JSON, which no text in it can end."""
    text = json.dumps(plain_json(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    text = text.encode("utf-8", "replace").decode()
    return f'<script type="application/json" id="{identity}">{text}</script>\n'


def plain_json(value: Any) -> Any:
    """Return a value as JSON can say it: NaN and infinities as null, as plots take them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(inner) for inner in value]
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Return a table of facts, without those that are empty; values are HTML."""
    cells = "".join(f"<tr><th>{escape(key)}</th><td>{value}</td></tr>" for key, value in rows if value)
    return f'<table class="facts">{cells}</table>' if cells else ""


def pills(texts: Iterable[str]) -> str:
    """Return short texts as a row of pills."""
    return "".join(f'<span class="pill">{escape(text)}</span>' for text in texts)


def write_page(path: str | os.PathLike[str], text: str | bytes) -> None:
    """Write a page or picture; it appears at once and whole, in place of what was there.

    Raises:
        StorageError: It cannot be written.
    """
    wanted = os.path.abspath(os.fspath(path))
    spare = os.path.join(os.path.dirname(wanted), f".modelstore-{os.urandom(6).hex()}")
    with translated(wanted, writing=True):
        try:
            with open(spare, "xb") as file:
                file.write(text if isinstance(text, bytes) else text.encode("utf-8", "replace"))
            os.replace(spare, wanted)
            fsync_folder(os.path.dirname(wanted))
        finally:
            if os.path.exists(spare):
                os.unlink(spare)

"""Line charts as PNG, drawn here: no library, and the same picture everywhere.

Lines are drawn anti-aliased into a canvas of bytes, texts with a font of five by seven dots.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from modelstore.pages.charts import number_text

if TYPE_CHECKING:
    from modelstore.pages.charts import Line

__all__ = ["line_chart"]

Colour = tuple[int, int, int]
_PAPER: Final = (255, 255, 255)
_INK: Final = (27, 35, 48)
_QUIET: Final = (91, 102, 118)
_GRID: Final = (223, 227, 233)
_COLOURS: Final[tuple[Colour, ...]] = (
    (0, 105, 180), (209, 83, 10), (0, 131, 95), (180, 80, 154), (176, 125, 0), (47, 155, 214), (132, 80, 62),
    (107, 111, 118),
)  # fmt: skip
# Columns of the printable characters of ASCII, from the space on: five bytes each, the lowest bit on top.
_FONT: Final = bytes.fromhex(
    "0000000000" "00005f0000" "0007000700" "147f147f14" "242a7f2a12" "2313086462" "3649552250" "0005030000"
    "001c224100" "0041221c00" "14083e0814" "08083e0808" "0050300000" "0808080808" "0060600000" "2010080402"
    "3e5149453e" "00427f4000" "4261514946" "2141454b31" "1814127f10" "2745454539" "3c4a494930" "0171090503"
    "3649494936" "064949291e" "0036360000" "0056360000" "0814224100" "1414141414" "0041221408" "0201510906"
    "324979413e" "7e1111117e" "7f49494936" "3e41414122" "7f4141221c" "7f49494941" "7f09090901" "3e4149497a"
    "7f0808087f" "00417f4100" "2040413f01" "7f08142241" "7f40404040" "7f020c027f" "7f0408107f" "3e4141413e"
    "7f09090906" "3e4151215e" "7f09192946" "4649494931" "01017f0101" "3f4040403f" "1f2040201f" "3f4038403f"
    "6314081463" "0708700807" "6151494543" "007f414100" "0204081020" "0041417f00" "0402010204" "4040404040"
    "0001020400" "2054545478" "7f48444438" "3844444420" "384444487f" "3854545418" "087e090102" "0c5252523e"
    "7f08040478" "00447d4000" "2040443d00" "7f10284400" "00417f4000" "7c04180478" "7c08040478" "3844444438"
    "7c14141408" "081414187c" "7c08040408" "4854545420" "043f444020" "3c4040207c" "1c2040201c" "3c4030403c"
    "4428102844" "0c5050503c" "4464544c44" "0008364100" "00007f0000" "0041360800" "0804081008"
)  # fmt: skip

_BELOW: Final = {"g": 1, "p": 2, "q": 2, "y": 2}
"""Rows by which letters hang below the line."""


class _Canvas:
    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.pixels = bytearray(bytes(_PAPER) * (width * height))

    def dot(self, x: int, y: int, colour: Colour, cover: float = 1.0) -> None:
        """Blend a colour into a pixel; outside of the canvas nothing happens."""
        if not (0 <= x < self.width and 0 <= y < self.height):
            return
        at = 3 * (y * self.width + x)
        for place, value in enumerate(colour, at):
            self.pixels[place] += round((value - self.pixels[place]) * cover)

    def box(self, left: int, top: int, right: int, bottom: int, colour: Colour) -> None:
        """Fill a rectangle, its ends included."""
        row = bytes(colour) * (right - left + 1)
        for y in range(top, bottom + 1):
            at = 3 * (y * self.width + left)
            self.pixels[at : at + len(row)] = row

    def text(self, x: int, y: int, text: str, colour: Colour, size: int = 2) -> None:
        """Write a text with its upper left corner there; characters that the font lacks are question marks."""
        for number, character in enumerate(_written(text)):
            start, lower = 5 * (ord(character) - 32), _BELOW.get(character, 0)
            for column, bits in enumerate(_FONT[start : start + 5]):
                for row in range(7):
                    if bits >> row & 1:
                        left, top = x + (6 * number + column) * size, y + (row + lower) * size
                        for across in range(size):
                            for down in range(size):
                                self.dot(left + across, top + down, colour)

    def line(self, x0: float, y0: float, x1: float, y1: float, colour: Colour, clip: tuple[int, int]) -> None:
        """Draw a line two pixels wide, within rows."""
        steep = abs(y1 - y0) > abs(x1 - x0)
        if steep:
            x0, y0, x1, y1 = y0, x0, y1, x1
        if x0 > x1:
            x0, y0, x1, y1 = x1, y1, x0, y0
        slope = (y1 - y0) / (x1 - x0) if x1 > x0 else 0.0
        reach = math.sqrt(1 + slope * slope)  # a slanted line takes more of a column
        for x in range(math.floor(x0), math.ceil(x1) + 1):
            middle = y0 + (min(max(x, x0), x1) - x0) * slope
            for y in range(math.floor(middle - reach), math.ceil(middle + reach) + 1):
                cover = min(1.0, reach + 0.5 - abs(y - middle))
                if cover > 0:
                    px, py = (y, x) if steep else (x, y)
                    if clip[0] <= py <= clip[1]:
                        self.dot(px, py, colour, cover)

    def png(self) -> bytes:
        """Return it as a PNG file."""
        stride = 3 * self.width
        rows = b"".join(b"\0" + self.pixels[at : at + stride] for at in range(0, len(self.pixels), stride))
        head = struct.pack(">2I5B", self.width, self.height, 8, 2, 0, 0, 0)
        chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows, 6)), (b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )


def line_chart(title: str, lines: Sequence[Line], width: int = 1200, height: int = 640) -> bytes:
    """Return a chart of lines as a PNG file.

    Args:
        title: Above it.
        lines: With their points; NaN is a gap, an infinity a mark at the edge.
        width: In pixels, at least 300.
        height: In pixels, at least 200.
    """
    width, height = max(300, width), max(200, height)
    canvas = _Canvas(width, height)
    canvas.text(20, 16, _fitted(title, width - 40, 3), _INK, 3)
    bottom = _legend(canvas, lines, height - 12)
    x0, x1 = _extent(x for line in lines for x in (line.x[:1] + line.x[-1:]))
    y0, y1 = _extent(y for line in lines for y in line.y)
    room = (y1 - y0) * 0.04
    y0, y1 = y0 - room, y1 + room
    marks = [(value, number_text(value).replace("∞", "inf")) for value in _ticks(y0, y1, (bottom - 110) / 60)]
    left = 24 + 12 * max((len(text) for _, text in marks), default=1)
    frame = (left, 54, width - 24, bottom - 34)
    scale = _Scale(frame, (x0, x1), (y0, y1))
    for value, text in marks:
        y = round(scale.y(value))
        canvas.box(frame[0], y, frame[2], y, _GRID)
        canvas.text(left - 10 - 12 * len(text), y - 7, text, _QUIET)
    _horizontal(canvas, scale, (x0, x1))
    for number, line in enumerate(lines):
        if not line.y:
            continue
        _stroke(canvas, scale, line, _COLOURS[number % len(_COLOURS)])
    return canvas.png()


class _Scale:
    def __init__(self, frame: tuple[int, int, int, int], xs: tuple[float, float], ys: tuple[float, float]) -> None:
        self.left, self.top, self.right, self.bottom = frame
        self._xs, self._ys = xs, ys

    def x(self, value: float) -> float:
        return self.left + (value - self._xs[0]) / (self._xs[1] - self._xs[0]) * (self.right - self.left)

    def y(self, value: float) -> float:
        place = self.bottom - (value - self._ys[0]) / (self._ys[1] - self._ys[0]) * (self.bottom - self.top)
        return min(max(place, self.top - 2), self.bottom + 2)  # the largest floats have no room on the axis


def _extent(numbers: Iterable[float]) -> tuple[float, float]:
    finite = [number for number in numbers if math.isfinite(number)]
    if not finite:
        return 0.0, 1.0
    low, high = max(min(finite), -1e300), min(max(finite), 1e300)
    if low == high:
        room = abs(low) * 0.1 or 1.0
        return low - room, high + room
    return low, high


def _ticks(low: float, high: float, wanted: float) -> list[float]:
    raw = (high - low) / max(1.0, wanted)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(one * power for one in (1, 2, 5, 10) if one * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [
        0.0 if number == 0 else number * step
        for number in range(first, first + 50)
        if number * step <= high + step * 1e-9
    ]


def _horizontal(canvas: _Canvas, scale: _Scale, xs: tuple[float, float]) -> None:
    free = 0
    for value in _ticks(*xs, (scale.right - scale.left) / 150):
        text = number_text(value)
        half = 6 * len(text)
        x = max(scale.left, min(round(scale.x(value)), scale.right - half) - half)
        if x >= free:
            canvas.text(x, scale.bottom + 12, text, _QUIET)
            free = x + 2 * half + 12


def _legend(canvas: _Canvas, lines: Sequence[Line], bottom: int) -> int:
    """Write the lines' names, and return where the room above begins."""
    rows: list[list[tuple[int, str]]] = [[]]
    used = 0
    for number, line in enumerate(lines):
        name = _fitted(line.name, 360, 2)
        wide = 12 * len(name) + 52
        if used + wide > canvas.width - 40 and rows[-1]:
            rows.append([])
            used = 0
        rows[-1].append((number, name))
        used += wide
    rows = rows[: max(1, canvas.height // 3 // 24)]
    for index, row in enumerate(rows):
        x, y = 24, bottom - 24 * (len(rows) - index) + 4
        for number, name in row:
            canvas.box(x, y + 5, x + 20, y + 8, _COLOURS[number % len(_COLOURS)])
            canvas.text(x + 28, y, name, _INK)
            x += 12 * len(name) + 52
    return bottom - 24 * len(rows) - 4


def _envelope(canvas: _Canvas, scale: _Scale, line: Line, colour: Colour) -> None:
    """Draw very many points: of each column of pixels what lies between its least and its greatest value."""
    column, low, high = -1, math.inf, -math.inf
    before: float | None = None
    for x, y in zip([*line.x, math.inf], [*line.y, math.nan], strict=True):
        place = round(scale.x(x)) if math.isfinite(x) else -2
        if place != column:
            if low <= high:
                canvas.box(column, math.floor(low), min(column + 1, canvas.width - 1), math.ceil(high), colour)
            column, low, high = place, math.inf, -math.inf
        if not math.isfinite(y):
            if math.isinf(y):
                _edge(canvas, place, scale, colour, up=y > 0)
            before = None
            continue
        at = scale.y(y)
        low = min(low, at if before is None else min(at, before))
        high = max(high, at if before is None else max(at, before))
        before = at


def _stroke(canvas: _Canvas, scale: _Scale, line: Line, colour: Colour) -> None:
    if len(line.y) > scale.right - scale.left:
        _envelope(canvas, scale, line, colour)
        return
    before: tuple[float, float] | None = None
    clip = scale.top - 2, scale.bottom + 2
    few = len(line.y) < 60
    for x, y, following in zip(line.x, line.y, [*line.y[1:], math.nan], strict=True):
        if not math.isfinite(y):
            if math.isinf(y):
                _edge(canvas, round(scale.x(x)), scale, colour, up=y > 0)
            before = None
            continue
        at = scale.x(x), scale.y(y)
        if before is not None:
            canvas.line(*before, *at, colour, clip)
        if few or (before is None and not math.isfinite(following)):
            x0, y0 = round(at[0]), round(at[1])
            canvas.box(x0 - 2, y0 - 2, x0 + 2, y0 + 2, colour)
        before = at


def _edge(canvas: _Canvas, x: int, scale: _Scale, colour: Colour, *, up: bool) -> None:
    for step in range(8):
        y = scale.top + step if up else scale.bottom - step
        canvas.box(max(0, x - step // 2), y, min(canvas.width - 1, x + step // 2), y, colour)


def _written(text: str) -> str:
    return "".join(one if " " <= one <= "~" else "-" if one in "−–—" else "?" for one in text)


def _fitted(text: str, width: int, size: int) -> str:
    room = max(4, width // (6 * size))
    return text if len(text) <= room else f"{text[: room - 2]}.."

"""Pictures as PNG: from arrays, without a library; from PIL and matplotlib by their own means."""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress
from typing import Any, Final

from modelstore.errors import InvalidRequestError
from modelstore.reports import inputs

__all__ = ["from_matplotlib", "png"]

_COLOURS: Final = {1: 0, 2: 4, 3: 2, 4: 6}
"""Channels to PNG's number for grey, grey with alpha, RGB, RGBA."""


def png(image: Any) -> bytes:
    """Return a picture as PNG.

    Args:
        image: One of PIL's or matplotlib's; or an array, tensor or nested list of height × width, or height × width ×
            channels (1 to 4), or channels × height × width. Whole numbers are 0 to 255; floats are 0 to 1, or 0 to 255
            where one is greater than 1; booleans are black and white.

    Raises:
        InvalidRequestError: It is none of these.
    """
    if hasattr(image, "savefig") or hasattr(image, "gcf"):
        return from_matplotlib(image)
    if hasattr(image, "save") and hasattr(image, "getbands"):
        buffer = io.BytesIO()
        (image if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else image.convert("RGB")).save(
            buffer, "PNG"
        )
        return buffer.getvalue()
    if hasattr(image, "detach"):
        image = inputs.tensor(image)
        with suppress(RuntimeError):  # without NumPy, by way of lists
            image = image.numpy()
    rows, channels = _array(image) if hasattr(image, "__array_interface__") else _pixels(inputs.plain(image))
    width = len(rows[0]) // channels
    body = zlib.compress(b"".join(b"\0" + row for row in rows), 6)
    head = struct.pack(">IIBBBBB", width, len(rows), 8, _COLOURS[channels], 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _array(image: Any) -> tuple[list[bytes], int]:
    """Do for an array of numpy's what `_pixels` does for lists, with the array's own methods."""
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or 0 in image.shape:
        raise InvalidRequestError(f"A picture has 2 or 3 dimensions, not the shape {image.shape}")
    if image.shape[2] not in _COLOURS and image.shape[0] in _COLOURS:
        image = image.transpose(1, 2, 0)
    if image.shape[2] not in _COLOURS or image.dtype.kind not in "biuf":
        raise InvalidRequestError(f"The shape {image.shape} of {image.dtype} is no picture of 1 to 4 channels")
    if image.dtype.kind == "f":
        image = image.astype("float64")
        image[image != image] = 0.0  # noqa: PLR0124 - NaN is black
        image = (image * (255.0 if image.max() <= 1 else 1.0)).clip(0.0, 255.0) + 0.5
    elif image.dtype.kind == "b":
        image = image.astype("uint8") * 255
    pixels = image.clip(0, 255).astype("uint8")
    return [row.tobytes() for row in pixels], pixels.shape[2]


def _pixels(image: Any) -> tuple[list[bytes], int]:
    """Return the rows of a picture as bytes, and how many channels it has."""
    depth = inputs.nested(image)
    if depth == 2:
        image = [[[pixel] for pixel in row] for row in image]
    elif depth != 3:
        raise InvalidRequestError(f"A picture has 2 or 3 dimensions, not {depth}")
    if len(image[0][0]) not in _COLOURS and len(image) in _COLOURS:  # channels first, as torch has them
        image = [list(zip(*rows, strict=True)) for rows in zip(*image, strict=True)]
    channels, width = len(image[0][0]), len(image[0])
    if channels not in _COLOURS or any(len(row) != width or any(len(p) != channels for p in row) for row in image):
        raise InvalidRequestError("The picture is no rectangle of pixels of 1 to 4 channels")
    flat = [[value for pixel in row for value in pixel] for row in image]
    return _bytes(flat), channels


def _bytes(rows: list[list[Any]]) -> list[bytes]:
    try:
        if any(isinstance(value, float) for value in rows[0]):
            scale = 255.0 if max(max(row) for row in rows) <= 1 else 1.0
            return [bytes(_byte(value * scale) for value in row) for row in rows]
        scale = 255 if isinstance(rows[0][0], bool) else 1
        return [bytes(min(max(int(value) * scale, 0), 255) for value in row) for row in rows]
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(f"A pixel of the picture is no number: {error}") from error


def _byte(value: float) -> int:
    return 0 if value != value else int(min(max(value, 0.0), 255.0) + 0.5)  # noqa: PLR0124 - NaN is black


def from_matplotlib(figure: Any) -> bytes:
    """Return a figure of matplotlib's (or `pyplot`, for its current one) as PNG.

    Raises:
        InvalidRequestError: It is none.
    """
    found = figure.gcf() if hasattr(figure, "gcf") else figure
    if not hasattr(found, "savefig"):
        raise InvalidRequestError(f"{type(figure).__name__} is no figure of matplotlib")
    buffer = io.BytesIO()
    found.savefig(buffer, format="png", dpi=150, bbox_inches="tight")
    return buffer.getvalue()

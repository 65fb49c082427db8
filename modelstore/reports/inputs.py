"""What people report, as plain lists: from lists, arrays, pandas frames and tensors, without importing any."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from modelstore.errors import InvalidRequestError

__all__ = ["matrix", "names", "nested", "pairs", "plain", "tensor", "vectors"]

_ONLY_OF_TORCH: Final = ("torch.bfloat16", "torch.float8")


def plain(value: Any) -> Any:
    """Return arrays, tensors, frames and other sequences as lists of lists; everything else as it is."""
    if hasattr(value, "detach"):
        value = tensor(value)
    if hasattr(value, "to_numpy"):
        value = value.to_numpy()
    elif hasattr(value, "numpy") and not hasattr(value, "tolist"):  # TensorFlow
        value = value.numpy()
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (str, bytes, Mapping)):
        return value
    if isinstance(value, Iterable):
        return [plain(inner) for inner in value]
    return value


def tensor(value: Any) -> Any:
    """Return a tensor of torch's as one that is here: out of its graph and device, dense, of a type that lists have.

    Raises:
        InvalidRequestError: It has no values.
    """
    try:
        value = value.detach()
        if getattr(value, "is_quantized", False):
            value = value.dequantize()
        if "strided" not in str(getattr(value, "layout", "strided")):
            value = value.to_dense()
        value = value.cpu() if hasattr(value, "cpu") else value
        return value.float() if str(getattr(value, "dtype", "")).startswith(_ONLY_OF_TORCH) else value
    except RuntimeError as error:  # on no device, for one
        raise InvalidRequestError(f"The values of the tensor cannot be read: {error!s:.200}") from error


def nested(value: Any) -> int:
    """Return how many levels of lists there are around the first innermost value."""
    depth = 0
    while isinstance(value, list):
        depth += 1
        value = value[0] if value else None
    return depth


def _row(value: Any, what: str, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidRequestError(f"{what}: {where} is no list of numbers but {value!r:.60}")
    return [number if type(number) in (int, float) else _number(number, what) for number in value]


def _number(value: Any, what: str) -> float | int:
    if isinstance(value, (list, str, bytes)) or value is None:
        raise InvalidRequestError(f"{what}: {value!r:.60} is no number")
    try:
        return int(value) if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidRequestError(f"{what}: {value!r:.60} is no number") from None


def matrix(value: Any, what: str) -> list[list[Any]]:
    """Return a rectangle of numbers as a list of rows.

    Raises:
        InvalidRequestError: It has not two dimensions, is empty, or its rows differ in length.
    """
    rows = plain(value)
    if not isinstance(rows, list) or not rows:
        raise InvalidRequestError(f"{what} must be a matrix, not {value!r:.60}", "Pass a list of rows, or a 2-D array.")
    found = [_row(row, what, f"row {number}") for number, row in enumerate(rows)]
    if len({len(row) for row in found}) != 1 or not found[0]:
        raise InvalidRequestError(f"{what}: its rows have {sorted({len(row) for row in found})} values")
    return found


def vectors(value: Any, what: str) -> list[list[Any]]:
    """Return one or several rows of numbers: a 1-D input is one row.

    Raises:
        InvalidRequestError: It has neither one dimension nor two, or its rows differ in length.
    """
    rows = plain(value)
    if not isinstance(rows, list):
        raise InvalidRequestError(f"{what} must be numbers in a list or array, not {value!r:.60}")
    if nested(rows) < 2:
        return [_row(rows, what, "it")]
    return matrix(rows, what)


def pairs(value: Any, width: int, what: str) -> list[list[list[Any]]]:
    """Return one or several series of points.

    Args:
        value: A list of points or an array of N rows, or a list of several such.
        width: Numbers in a point.
        what: Its name, for messages.

    Returns:
        For each series its columns: x, y and so on.

    Raises:
        InvalidRequestError: A point has more or fewer numbers.
    """
    rows = plain(value)
    depth = nested(rows)
    if not isinstance(rows, list) or depth > 3 or (depth == 1 and rows):
        raise InvalidRequestError(f"{what} must be a list of points of {width} numbers, not {value!r:.60}")
    series = rows if depth == 3 else [rows]
    return [_columns(one, width, what) for one in series]


def _columns(points: Any, width: int, what: str) -> list[list[Any]]:
    if not isinstance(points, list):
        raise InvalidRequestError(f"{what}: {points!r:.60} is no list of points")
    for number, point in enumerate(points):
        if not isinstance(point, list) or len(point) != width:
            raise InvalidRequestError(f"{what}: point {number} is {point!r:.60}, not {width} numbers")
    columns: Iterator[Any] = zip(*points, strict=True) if points else iter([()] * width)
    return [_row(list(column), what, "a column") for column in columns]


def names(value: Any, count: int, what: str) -> list[str] | None:
    """Return labels as text; None for none.

    Raises:
        InvalidRequestError: There are more or fewer than ``count``.
    """
    if value is None:
        return None
    found = plain(value)
    found = [found] if isinstance(found, str) else found
    if not isinstance(found, Sequence):
        raise InvalidRequestError(f"The {what} must be a list of texts, not {value!r:.60}")
    if len(found) != count:
        raise InvalidRequestError(f"There are {len(found)} {what} for {count}")
    return [str(name) for name in found]

"""Tables that are reported: of rows, of a pandas frame, of a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelstore.errors import InvalidRequestError
from modelstore.reports import inputs
from modelstore.reports.figures import Frame, merged

__all__ = ["from_csv", "table"]


def table(found: Any, frame: Frame, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a table as a figure.

    Args:
        found: Rows, the first of which is the header; or a pandas (or polars) frame, whose index becomes the first
            column unless it only counts; or a dictionary of columns.
        frame: What surrounds it.
        extra: Entries for the table itself, such as "columnwidth".

    Raises:
        InvalidRequestError: It is none of these, or its rows differ in length.
    """
    header, columns = _frame(found) if hasattr(found, "columns") else _rows(found)
    trace = {
        "type": "table",
        "header": {"values": [str(name) for name in header]},
        "cells": {"values": [[_cell(value) for value in column] for column in columns]},
    }
    return {"data": [trace if extra is None else merged(trace, extra, "extra_data")], "layout": frame.layout()}


def _frame(found: Any) -> tuple[list[Any], list[list[Any]]]:
    names = list(found.columns)
    columns = [
        inputs.plain(found.iloc[:, n] if hasattr(found, "iloc") else found[name]) for n, name in enumerate(names)
    ]
    index = getattr(found, "index", None)
    if index is None or type(index).__name__ == "RangeIndex":
        return names, columns
    return [getattr(index, "name", None) or "", *names], [[_cell(value) for value in index], *columns]


def _rows(found: Any) -> tuple[list[Any], list[list[Any]]]:
    if isinstance(found, Mapping):
        columns = [inputs.plain(column) for column in found.values()]
        if not columns or not all(isinstance(c, list) and len(c) == len(columns[0]) for c in columns):
            raise InvalidRequestError("The columns of the table differ in length, or there are none")
        return list(found), columns
    rows = inputs.plain(found)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) for row in rows):
        raise InvalidRequestError(f"A table must be a list of rows, not {found!r:.60}", "The first row is the header.")
    if len({len(row) for row in rows}) != 1 or not rows[0]:
        raise InvalidRequestError(f"The rows of the table have {sorted({len(row) for row in rows})} cells")
    return rows[0], [list(column) for column in zip(*rows[1:], strict=True)] or [[] for _ in rows[0]]


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, (str, bool, int, float)) else str(value)


def from_csv(path: str | Path) -> list[list[Any]]:
    """Return the rows of a CSV file, numbers as numbers.

    Raises:
        InvalidRequestError: It is no text in UTF-8, is empty, or cannot be read.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        rows = [[_value(cell) for cell in row] for row in csv.reader(io.StringIO(text, newline="")) if row]
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise InvalidRequestError(f"{str(path)!r} cannot be read as CSV: {error}") from error
    if not rows:
        raise InvalidRequestError(f"The CSV file {str(path)!r} is empty")
    return rows


def _value(cell: str) -> Any:
    for kind in (int, float):
        try:
            return kind(cell) if "_" not in cell else cell
        except ValueError:
            continue
    return cell

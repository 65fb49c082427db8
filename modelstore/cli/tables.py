"""Tables that fit: on a terminal into its width, elsewhere with everything in them."""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final

from modelstore.cli.output import note, plain, styled

__all__ = ["Column", "cells_width", "clip", "print_table", "terminal_width"]

_GAP: Final = "  "
_SAMPLE: Final = 500
"""Rows that the widths are made from; later ones, should there be any, are cut to them on a terminal."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        title: Its heading.
        least: Width below which it is not shrunk; 0 never shrinks it.
        right: Whether its cells stand at the right.
        rank: Columns of higher rank are left out first where the terminal is too narrow; 0 never is.
    """

    title: str
    least: int = 0
    right: bool = False
    rank: int = 0


def terminal_width() -> int | None:
    """Return the columns of the terminal that standard output is; None where it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def cells_width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(_width(character) for character in text)


def _width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def clip(text: str, width: int) -> str:
    """Return text cut to a width, with an ellipsis where something is missing."""
    if cells_width(text) <= width:
        return text
    kept, used = [], 0
    for character in text:
        used += _width(character)
        if used > width - 1:
            break
        kept.append(character)
    return "".join(kept) + ("…" if width > 0 else "")


def print_table(
    columns: Sequence[Column], rows: Iterable[Sequence[str]], width: int | None = None, none: str = ""
) -> None:
    """Write a table; with no rows, nothing, but for a remark where a person is looking.

    Args:
        columns: The columns.
        rows: Cells, as many as columns; what a terminal would obey is escaped. Read as they are written.
        width: Columns to fit into; None takes the terminal's, or no bound where there is none.
        none: What a terminal is told when there are no rows.
    """
    stream = ([plain(cell) for cell in row] for row in rows)
    sample = list(islice(stream, _SAMPLE))
    if not sample:
        if none and sys.stdout.isatty():
            note(none)
        return
    bound = terminal_width() if width is None else width
    natural = [max(cells_width(c.title), *(cells_width(r[i]) for r in sample)) for i, c in enumerate(columns)]
    shown = list(range(len(columns)))
    if bound is not None:
        shown = _chosen(columns, natural, bound)
        natural = _shrunk(columns, natural, shown, bound)
    for line in _lines(columns, chain(sample, stream), natural, shown, bound):
        sys.stdout.write(f"{line}\n")


def _chosen(columns: Sequence[Column], natural: Sequence[int], bound: int) -> list[int]:
    """Leave columns out, the least important first, until the rest fits when it is shrunk."""
    shown = list(range(len(columns)))
    while True:
        least = sum(min(natural[i], columns[i].least or natural[i]) for i in shown) + len(_GAP) * (len(shown) - 1)
        droppable = [i for i in shown if columns[i].rank]
        if least <= bound or not droppable:
            return shown
        shown.remove(max(droppable, key=lambda i: columns[i].rank))


def _shrunk(columns: Sequence[Column], natural: Sequence[int], shown: Sequence[int], bound: int) -> list[int]:
    """Take from the widest column that may still give, until all fit."""
    widths = list(natural)
    excess = sum(widths[i] for i in shown) + len(_GAP) * (len(shown) - 1) - bound
    while excess > 0:
        willing = [i for i in shown if columns[i].least and widths[i] > columns[i].least]
        if not willing:
            break
        widths[max(willing, key=lambda i: widths[i])] -= 1
        excess -= 1
    return widths


def _lines(
    columns: Sequence[Column],
    rows: Iterable[Sequence[str]],
    widths: Sequence[int],
    shown: Sequence[int],
    bound: int | None,
) -> Iterator[str]:
    def line(cells: Sequence[str]) -> str:
        fitted = [_fitted(cells[i], widths[i], columns[i], cut=bound is not None) for i in shown]
        text = _GAP.join(fitted).rstrip()
        return text if bound is None else clip(text, bound)

    yield styled(line([column.title for column in columns]), "bold")
    yield from map(line, rows)


def _fitted(cell: str, width: int, column: Column, *, cut: bool) -> str:
    text = clip(cell, width) if cut else cell
    padding = " " * (width - cells_width(text))
    return padding + text if column.right else text + padding

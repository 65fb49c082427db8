"""How answers look: sizes, times, widths, and text that cannot hurt a terminal."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstore.cli.output import ago, plain, size
from modelstore.cli.tables import Column, cells_width, clip, print_table

_NOW = datetime(2026, 5, 17, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, ""), (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (1024**2 - 1, "1.0 MiB"),
        (5 * 2**30, "5.0 GiB"), (2**40, "1.0 TiB"), (3 * 2**50, "3.0 PiB"),
    ],
)  # fmt: skip
def test_sizes_are_humane(count: int | None, text: str) -> None:
    """Never "1024.0 KiB"."""
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "just now"), (0, "just now"), (59, "just now"), (60, "1 min ago"), (3599, "59 min ago"), (3600, "1 h ago"),
        (86_399, "23 h ago"), (86_400, "yesterday"), (200_000, "2 days ago"), (40 * 86_400, "2026-04-07"),
        (-200_000, "2026-05-19"),
    ],
)  # fmt: skip
def test_times_are_humane(seconds: int, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is ahead somewhere else gives a date, not "-3 h ago"."""
    assert ago(_NOW - timedelta(seconds=seconds), _NOW) == text


@given(st.text())
def test_plain_text_is_one_line_that_no_terminal_obeys(text: str) -> None:
    """Control characters, separators of lines, directions of writing: all escaped."""
    shown = plain(text)

    assert len(shown.splitlines()) <= 1
    assert all(c.isprintable() or c == "\u200d" or c.isspace() for c in shown)
    assert "\x1b" not in shown
    assert plain(shown) == shown


@given(st.text(), st.integers(0, 40))
def test_clipped_text_is_never_wider_than_asked_and_whole_when_it_fits(text: str, width: int) -> None:
    """Wide characters count twice, combining ones not at all."""
    shown = clip(plain(text), width)

    assert cells_width(shown) <= width
    assert (shown == plain(text)) == (cells_width(plain(text)) <= width)


_CELLS = st.lists(st.text(max_size=60), min_size=4, max_size=4)


@given(st.lists(_CELLS, min_size=1, max_size=6), st.integers(12, 120))
def test_no_line_of_a_table_is_wider_than_its_terminal(rows: list[list[str]], width: int) -> None:
    """Whatever the cells hold; one line for each row."""
    columns = [Column("ID", least=3), Column("NAME", least=3), Column("N", right=True, rank=1), Column("LAST", rank=2)]
    written = io.StringIO()
    with redirect_stdout(written):
        print_table(columns, rows, width)
    lines = written.getvalue().split("\n")[:-1]

    assert len(lines) == len(rows) + 1
    assert all(cells_width(line) <= width for line in lines)


@given(st.lists(_CELLS, min_size=1, max_size=6))
def test_a_table_for_a_pipe_loses_nothing(rows: list[list[str]]) -> None:
    """Every cell is there in full."""
    columns = [Column("A", least=3), Column("B", rank=1), Column("C", right=True), Column("D")]
    written = io.StringIO()
    with redirect_stdout(written):
        print_table(columns, rows)
    lines = written.getvalue().split("\n")[1:-1]

    assert all(plain(cell).strip() in line for line, row in zip(lines, rows, strict=True) for cell in row)


def test_rows_are_read_as_they_are_written() -> None:
    """A list of a million models is not gathered first."""
    taken = 0

    def rows() -> object:
        nonlocal taken
        for number in range(2_000):
            taken += 1
            yield [str(number)]

    class Stopping(io.StringIO):
        def write(self, text: str) -> int:
            if text == "600\n":
                raise BrokenPipeError
            return super().write(text)

    with redirect_stdout(Stopping()), pytest.raises(BrokenPipeError):
        print_table([Column("N")], rows())  # type: ignore[arg-type]

    assert taken < 700

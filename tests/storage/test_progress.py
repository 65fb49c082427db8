"""The line on the terminal: only there, only when it takes long, and gone afterwards."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import modelstore
from modelstore import OutputModel, Task
from modelstore.storage.progress import (
    TerminalProgress,
    Transfer,
    _watchers,
    counting,
    format_bytes,
    progress_wanted,
    reporting,
    watch_transfers,
)


class Terminal(io.StringIO):
    """A stream that says that it is one."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError("no descriptor")


def test_nothing_is_drawn_where_nobody_looks() -> None:
    """Logs are not full of bars."""
    with reporting("storing a", io.StringIO()) as progress:
        assert progress is None


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [("MODELSTORE_PROGRESS", "0", False), ("MODELSTORE_PROGRESS", "1", True), ("MODELSTORE_PROGRESS", "off", False),
     ("MODELSTORE_DISABLE_PROGRESS_BARS", "1", False), ("MODELSTORE_DISABLE_PROGRESS_BARS", "0", True),
     ("MODELSTORE_OTHER", "0", True)],
)  # fmt: skip
def test_the_environment_decides(monkeypatch: pytest.MonkeyPatch, name: str, value: str, wanted: bool) -> None:
    """Two names: ours, and the one of a library that people know."""
    monkeypatch.setenv(name, value)

    assert progress_wanted(Terminal()) is wanted


def test_a_program_is_told_in_place_of_the_terminal(tmp_path: Path) -> None:
    """Every transfer of the process, whoever begins it, from the first byte to the end; nothing is drawn meanwhile."""
    seen: list[Transfer] = []
    source = tmp_path / "net.pt"
    source.write_bytes(bytes(3 << 20))
    with modelstore.open(tmp_path / "registry"), watch_transfers(seen.append):
        model = OutputModel(Task.init("p", "t"))
        model.update_weights(source, upload_uri="memory://watched", async_enable=False)
        model.get_local_copy(raise_on_error=True)
        with reporting("storing a", Terminal()) as progress:
            assert not isinstance(progress, TerminalProgress)

    by_action = {
        action: [one for one in seen if one.action == action] for action in ("storing", "uploading", "fetching")
    }
    for action, told in by_action.items():
        assert told[0].name == "net.pt", action
        assert [one.ended for one in told[:-1] if one.name == "net.pt"].count(True) <= 1
        assert any((one.done_bytes, one.total_bytes) == (3 << 20, 3 << 20) for one in told)
    assert seen[-1].ended
    assert not _watchers


def test_a_watcher_that_raises_ends_the_transfer(tmp_path: Path) -> None:
    """That is how a program cancels one; nothing is left of it."""

    class CancelledError(Exception):
        pass

    def cancel(transfer: Transfer) -> None:
        if transfer.done_bytes and not transfer.ended:
            raise CancelledError

    source = tmp_path / "net.pt"
    source.write_bytes(bytes(3 << 20))
    with modelstore.open(tmp_path / "registry") as registry:
        model = OutputModel(Task.init("p", "t"))
        with watch_transfers(cancel), pytest.raises(CancelledError):
            model.update_weights(source)

        assert list((registry.folder / "objects").rglob("*.pt")) == []
        assert list((registry.folder / "objects" / "tmp").iterdir()) == []


def test_what_is_over_soon_is_not_drawn() -> None:
    """A flicker tells nothing."""
    stream = Terminal()
    with reporting("storing a", stream) as progress:
        assert progress is not None
        progress(1, 2)
        progress(2, 2)

    assert stream.getvalue() == ""


def test_a_long_one_shows_bytes_rate_and_time_left_and_vanishes() -> None:
    """All that one wants to know while waiting."""
    stream = Terminal()
    bar = TerminalProgress("storing model.pt", stream, delay_s=0.0)
    bar(0, 4 << 20)
    bar._last -= 1
    bar(1 << 20, 4 << 20)
    drawn = stream.getvalue().split("\x1b[K")[-1]
    bar.close()

    assert drawn.startswith("storing model.pt")
    assert " 25%" in drawn
    assert "1.0 MiB of 4.0 MiB" in drawn
    assert "/s" in drawn
    assert len(drawn) < 80
    assert stream.getvalue().endswith("\r\x1b[K")


def test_an_unknown_length_shows_what_came() -> None:
    """No percentage of nothing."""
    stream = Terminal()
    bar = TerminalProgress("a" * 100, stream, delay_s=0.0)
    bar(5 << 20, None)

    assert "5.0 MiB" in stream.getvalue()
    assert "%" not in stream.getvalue()


@given(st.floats(0, 1e18))
def test_sizes_are_short(count: float) -> None:
    """They stand in a line that must not jump."""
    assert re.fullmatch(r"\d{1,4}(\.\d)? ([KMGT]i)?B", format_bytes(count)) or count >= 1e16


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal")
def test_on_a_real_terminal_after_a_second() -> None:
    """As the user sees it."""
    script = """if True:
        import time
        from modelstore.storage.progress import reporting
        with reporting("storing model.pt") as progress:
            progress(0, 15 << 20)
            time.sleep(1.1)
            progress(15 << 20, 15 << 20)
    """
    leader, follower = pty.openpty()
    subprocess.run([sys.executable, "-c", script], check=True, stderr=follower, cwd=Path.cwd())
    os.close(follower)
    seen = b""
    while True:
        try:
            block = os.read(leader, 65536)
        except OSError:
            break
        if not block:
            break
        seen += block
    os.close(leader)

    assert "15.0 MiB of 15.0 MiB" in seen.decode()
    assert " 0 B of" not in seen.decode()  # the first second was silent


def test_what_is_no_bytes_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn as soon as it takes long, and gone at the end."""
    from modelstore.storage import progress as module

    monkeypatch.setattr(module, "_PATIENCE_S", 0.0)
    terminal = Terminal()
    bar = TerminalProgress("sending changes", terminal, 0.0, lambda count: f"{count:,.0f}")
    bar(2_000, None)
    bar.close()
    assert "sending changes  2,000  " in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")
    with counting("sending changes", io.StringIO()) as progress:
        assert progress is None
    with counting("sending changes", terminal) as progress:
        assert progress is not None

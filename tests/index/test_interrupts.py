"""Ctrl-C in the middle of a statement: Python tells of it when the call has returned, and a notebook goes on."""

from __future__ import annotations

import ctypes
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import modelstore.index.driver as driver_module
from modelstore import Model, OutputModel, Task
from modelstore import open as open_registry


class _Interrupting:
    """Interrupts once, when a statement has been run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, statement: str) -> None:
        self.statement, self.armed = statement, False
        execute = driver_module.Cursor.execute

        def interrupted(cursor: driver_module.Cursor, *arguments: Any) -> driver_module.Cursor:
            done = execute(cursor, *arguments)
            if self.armed and arguments[0] == self.statement:
                self.armed = False
                raise KeyboardInterrupt
            return done

        monkeypatch.setattr(driver_module.Cursor, "execute", interrupted)


def test_an_interruption_at_the_beginning_changes_nothing_and_holds_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise every later change of this process would fail, and everybody else's would wait for it."""
    interrupting = _Interrupting(monkeypatch, "BEGIN IMMEDIATE")
    with open_registry(tmp_path / "registry", cache=tmp_path / "cache") as registry:
        task = Task.create(task_name="t")
        interrupting.armed = True
        with pytest.raises(KeyboardInterrupt):
            task.set_comment("first")

        assert not registry.database.connection.in_transaction
        task.set_comment("second")
        assert task.comment == "second"


def test_an_interruption_at_the_end_is_too_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is written, and the objects know it."""
    interrupting = _Interrupting(monkeypatch, "COMMIT")
    weights = tmp_path / "net.bin"
    weights.write_bytes(b"weights")
    with open_registry(tmp_path / "registry", cache=tmp_path / "cache") as registry:
        task = Task.create(task_name="t")
        model = OutputModel(task, name="m")
        with pytest.raises(KeyboardInterrupt), registry.transaction():
            model.update_weights(weights)
            interrupting.armed = True

        assert model.id == Model.query_models()[0].id
        model.update_weights(weights, iteration=2)
        assert [one.iteration for one in Model.query_models()] == [2]
        assert len(task.models["output"]) == 1


def test_an_interruption_leaves_an_upload_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is written down that a file is to be sent, the file is the upload's."""
    interrupting = _Interrupting(monkeypatch, "COMMIT")
    weights = tmp_path / "net.bin"
    weights.write_bytes(b"weights")
    with open_registry(tmp_path / "registry", cache=tmp_path / "cache"):
        model = OutputModel(Task.create(task_name="t"), name="m")
        interrupting.armed = True
        with pytest.raises(KeyboardInterrupt):
            model.update_weights(weights, upload_uri=str(tmp_path / "elsewhere"))
        OutputModel.wait_for_uploads()

        (found,) = Model.query_models()
        path = found.get_local_copy(raise_on_error=True)
        assert path is not None
        assert Path(path).read_bytes() == b"weights"


def test_an_interrupted_reading_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise this process would see that moment for ever, and could write no more."""
    interrupting = _Interrupting(monkeypatch, "BEGIN")
    with open_registry(tmp_path / "registry", cache=tmp_path / "cache") as registry:
        task = Task.create(task_name="t")
        interrupting.armed = True
        with pytest.raises(KeyboardInterrupt), registry.database.snapshot():
            pytest.fail("it was interrupted before")

        task.set_comment("goes on")
        assert task.comment == "goes on"


def test_an_interrupted_question_holds_no_moment(tmp_path: Path) -> None:
    """A kept traceback keeps the cursor; when others have written since, this process could not any more."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
    try:
        with open_registry(tmp_path / "registry", cache=tmp_path / "cache") as registry:
            task = Task.create(task_name="t")
            task.set_comment("one")
            connection = registry.database.connection
            connection.create_function("interrupt", 0, partial(ctypes.CDLL(None)["raise"], signal.SIGINT))
            with pytest.raises(KeyboardInterrupt) as kept:
                connection.execute("SELECT seq, interrupt() FROM ops")
            with open_registry(tmp_path / "registry", cache=tmp_path / "cache") as other:
                other.tasks.edit(task.id, comment="other")

            task.set_comment("two")
            assert task.comment == "two"
            assert kept.traceback
    finally:
        signal.signal(signal.SIGINT, former)

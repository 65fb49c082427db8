"""Uploads in the background: in order, whole, never lost, and failing loudly."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

import modelstore
from modelstore import Model, OutputModel, Registry, Task
from modelstore.errors import DownloadError, MissingWeightsError, StorageError, StorageUnavailableError, UploadError
from modelstore.registry.uploads import Uploads
from modelstore.sdk import _context
from modelstore.storage import uploads as sending

MakeFile = Callable[..., Path]
Unchanged = Callable[..., AbstractContextManager[None]]


class Gate:
    """Holds uploads back until it is opened, or makes them fail: the real sending with a door in front of it."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.failing = False
        self.sent: list[str] = []

    def __call__(self, snapshot: Any, fingerprint: Any, destination: str, filename: str, **options: Any) -> str:
        assert self.open.wait(100)
        if self.failing:
            raise StorageUnavailableError(f"{destination} does not answer")
        self.sent.append(filename)
        return self.real(snapshot, fingerprint, destination, filename, **options)

    real = staticmethod(sending.upload_object)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """A door in front of every destination."""
    made = Gate()
    monkeypatch.setattr(sending, "upload_object", made)
    yield made
    made.open.set()


def snapshots(registry: Registry) -> list[bytes]:
    folder = registry.weights.uploads.folder
    return sorted(path.read_bytes() for path in folder.iterdir()) if folder.exists() else []


def blocked(tmp_path: Path) -> Path:
    """A destination that fails when it is used: a file is where its folder should be."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "sha256").write_text("in the way")
    return out


@pytest.mark.parametrize("destination", ["file", "memory"])
def test_the_address_is_known_at_once_and_the_bytes_arrive(
    task: Task, make_file: MakeFile, tmp_path: Path, destination: str
) -> None:
    """From the copy: what is trained over the file meanwhile changes nothing."""
    uri = (tmp_path / "out").as_uri() if destination == "file" else f"memory://up-{os.urandom(4).hex()}"
    path = make_file(content=b"trained")
    model = OutputModel(task)
    url = model.update_weights(path, upload_uri=uri, iteration=3)
    path.write_bytes(b"overwritten")
    OutputModel.wait_for_uploads()

    assert url == model.url
    assert (model.digest, model.size) == (f"sha256:{hashlib.sha256(b'trained').hexdigest()}", 7)
    assert (model.iteration, model.framework) == (3, "PyTorch")
    assert Path(str(model.get_local_copy(raise_on_error=True))).read_bytes() == b"trained"


def test_until_the_bytes_are_there_readers_see_the_former_weights(
    task: Task, make_file: MakeFile, gate: Gate, registry: Registry
) -> None:
    """ClearML shows "uploading_file" to everybody, and publishes it."""
    model = OutputModel(task, name="n")
    url = model.update_weights(make_file(content=b"1"), upload_uri="memory://one")

    assert model.id is not None
    assert (model.url, model.digest, model.size) == (None, None, None)
    assert [u.model for u in registry.weights.uploads.pending()] == [model.id]
    assert snapshots(registry) == [b"1"]
    gate.open.set()
    OutputModel.wait_for_uploads()
    assert model.url == url
    gate.open.clear()
    later = model.update_weights(make_file(content=b"22"), upload_uri="memory://one")
    assert (model.url, model.size) == (url, 1)
    gate.open.set()
    OutputModel.wait_for_uploads()
    assert (model.url, model.size) == (later, 2)
    assert (registry.weights.uploads.pending(), snapshots(registry)) == ([], [])


def test_no_number_of_pending_uploads_blocks_a_call(task: Task, make_file: MakeFile, gate: Gate) -> None:
    """ClearML's third call waits for 30 seconds."""
    models = [OutputModel(task, name=f"{number}") for number in range(8)]
    for model in models:
        model.update_weights(make_file(content=str(model.name).encode()), upload_uri="memory://many")

    assert gate.sent == []
    gate.open.set()
    OutputModel.wait_for_uploads()
    assert all(model.size == 1 for model in models)


def test_uploads_of_one_model_arrive_in_order(task: Task, make_file: MakeFile, gate: Gate) -> None:
    """The last call wins, however long the first takes."""
    model = OutputModel(task)
    for number in range(5):
        last = model.update_weights(
            make_file(f"w{number}.pt", str(number).encode()), upload_uri="memory://order", iteration=number
        )
    gate.open.set()
    OutputModel.wait_for_uploads()

    assert gate.sent == [f"w{number}.pt" for number in range(5)]
    assert (model.url, model.iteration) == (last, 4)


def test_many_uploads_of_one_model_do_not_hold_up_another(
    task: Task, make_file: MakeFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads that only wait for their model's former upload would fill the pool."""
    release, arrived = threading.Event(), threading.Event()

    def send(snapshot: Any, fingerprint: Any, destination: str, filename: str, **options: Any) -> str:
        if filename == "slow.pt":
            assert release.wait(100)
        else:
            arrived.set()
        return Gate.real(snapshot, fingerprint, destination, filename, **options)

    monkeypatch.setattr(sending, "upload_object", send)
    slow, quick = OutputModel(task), OutputModel(task)
    for number in range(6):
        slow.update_weights(make_file("slow.pt", str(number).encode()), upload_uri="memory://slow")
    quick.update_weights(make_file("quick.pt"), upload_uri="memory://quick")

    assert arrived.wait(60)
    release.set()
    OutputModel.wait_for_uploads()


def test_weights_stored_meanwhile_are_not_replaced_by_older_ones(
    task: Task, make_file: MakeFile, gate: Gate, registry: Registry
) -> None:
    """A local update waits for the one on its way."""
    model = OutputModel(task)
    model.update_weights(make_file(content=b"old"), upload_uri="memory://x")
    threading.Timer(0.3, gate.open.set).start()
    model.update_weights(register_uri="s3://bucket/new.pt")

    assert model.url == "s3://bucket/new.pt"
    assert registry.weights.uploads.pending() == []


# -- failures ---------------------------------------------------------------------------------------------------------


def test_a_failed_upload_is_told_once_and_loses_nothing(
    task: Task, make_file: MakeFile, tmp_path: Path, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    """ClearML deletes the user's file and writes "failed_uploading" into the model."""
    out = blocked(tmp_path)
    path = make_file(content=b"precious")
    model = OutputModel(task)
    model.update_weights(path, upload_uri=out, auto_delete_file=True)
    with pytest.raises(UploadError, match="kept in the registry"):
        OutputModel.wait_for_uploads()
    OutputModel.wait_for_uploads()

    assert path.read_bytes() == b"precious"
    assert (model.url, model.digest) == (None, None)
    assert snapshots(registry) == [b"precious"]
    (upload,) = registry.weights.uploads.pending()
    assert (upload.status, upload.attempts) == ("failed", 1)
    assert upload.error
    assert str(model.id) in caplog.text
    with pytest.raises(MissingWeightsError, match="failed"):
        model.publish()
    (out / "sha256").unlink()
    assert [u.id for u in registry.weights.uploads.resume()] == [upload.id]
    assert Path(str(model.get_local_copy(raise_on_error=True))).read_bytes() == b"precious"
    assert snapshots(registry) == []
    assert not path.exists()  # it was asked for, and now the bytes are there
    model.publish()


def test_a_failed_upload_keeps_the_former_weights(task: Task, make_file: MakeFile, tmp_path: Path) -> None:
    """They are what the model has."""
    model = OutputModel(task)
    url = model.update_weights(make_file(content=b"good"))
    model.update_weights(make_file(content=b"never arrives"), upload_uri=blocked(tmp_path))

    assert Path(str(model.get_local_copy(raise_on_error=True))).read_bytes() == b"good"
    assert model.url == url
    with pytest.raises(UploadError):
        task.flush(wait_for_uploads=True)


def test_reading_leaves_the_failure_to_be_told_by_others(task: Task, make_file: MakeFile, tmp_path: Path) -> None:
    """`get_local_copy` answers None, and `close` still raises."""
    model = OutputModel(task)
    model.update_weights(make_file(), upload_uri=blocked(tmp_path))

    assert model.get_local_copy() is None
    with pytest.raises(DownloadError):
        model.get_local_copy(raise_on_error=True)
    with pytest.raises(UploadError):
        task.close()
    assert task.get_status() == "completed"


def test_a_failed_upload_without_background_is_raised_at_once(
    task: Task, make_file: MakeFile, tmp_path: Path, unchanged: Unchanged
) -> None:
    """And the model is as it was; ClearML leaves it at "uploading_file"."""
    out, path = blocked(tmp_path), make_file()
    with unchanged(path), pytest.raises(StorageError):
        OutputModel(task).update_weights(path, upload_uri=out, async_enable=False, auto_delete_file=True)


def test_newer_weights_make_a_failed_upload_needless(
    task: Task, make_file: MakeFile, tmp_path: Path, registry: Registry
) -> None:
    """Resuming it later would bring the old weights back."""
    out = blocked(tmp_path)
    for update in (
        lambda model: model.update_weights(make_file(content=b"new")),
        lambda model: model.update_weights(make_file(content=b"new"), upload_uri="memory://fine"),
    ):
        model = OutputModel(task)
        model.update_weights(make_file(content=b"old"), upload_uri=out)
        with pytest.raises(UploadError):
            OutputModel.wait_for_uploads()
        model._upload_uri = None
        update(model)
        OutputModel.wait_for_uploads()

        assert registry.weights.uploads.pending(model.id) == []
        assert Path(str(model.get_local_copy(raise_on_error=True))).read_bytes() == b"new"
        model.publish()
    assert snapshots(registry) == []


def test_a_failure_of_the_second_keeps_the_first(
    task: Task, make_file: MakeFile, gate: Gate, registry: Registry
) -> None:
    """Both are tried again, in order."""
    model = OutputModel(task)
    gate.failing = True
    gate.open.set()
    for content in (b"1", b"22"):
        model.update_weights(make_file(content=content), upload_uri="memory://both")
    with pytest.raises(UploadError):
        OutputModel.wait_for_uploads()
    assert snapshots(registry) == [b"1", b"22"]
    gate.failing = False
    registry.weights.uploads.resume()

    assert model.size == 2
    assert snapshots(registry) == []


def test_a_user_file_that_changed_while_it_was_being_sent_stays(task: Task, make_file: MakeFile, gate: Gate) -> None:
    """The new bytes were never stored."""
    path = make_file(content=b"one")
    OutputModel(task).update_weights(path, upload_uri="memory://keep", auto_delete_file=True)
    path.write_bytes(b"two")
    gate.open.set()
    OutputModel.wait_for_uploads()

    assert path.read_bytes() == b"two"


def test_a_model_that_is_removed_takes_its_upload_with_it(
    task: Task, make_file: MakeFile, gate: Gate, registry: Registry
) -> None:
    """Nothing is sent for it later."""
    model = OutputModel(task)
    model.update_weights(make_file(), upload_uri="memory://gone")

    assert Model.remove(model)
    assert (registry.weights.uploads.pending(), snapshots(registry)) == ([], [])
    gate.open.set()
    OutputModel.wait_for_uploads()
    assert Model.query_models(include_archived=True) == []


def test_an_upload_can_be_given_up(task: Task, make_file: MakeFile, gate: Gate, registry: Registry) -> None:
    """Also while it runs: then it changes nothing any more."""
    model = OutputModel(task)
    model.update_weights(make_file(), upload_uri="memory://cancel")
    (upload,) = registry.weights.uploads.pending()

    assert registry.weights.uploads.cancel(upload.id) is True
    assert registry.weights.uploads.cancel(upload.id) is False
    gate.open.set()
    OutputModel.wait_for_uploads()
    assert model.url is None


def test_waiting_has_a_limit(task: Task, make_file: MakeFile, gate: Gate) -> None:
    """In seconds, or in uploads."""
    for number in range(3):
        OutputModel(task).update_weights(make_file(content=str(number).encode()), upload_uri="memory://limit")
    OutputModel.wait_for_uploads(timeout=0.2)
    assert gate.sent == []
    gate.open.set()
    OutputModel.wait_for_uploads(max_num_uploads=1)
    OutputModel.wait_for_uploads(timeout=0)
    OutputModel.wait_for_uploads()


def test_publishing_waits_for_this_processs_uploads(task: Task, make_file: MakeFile, gate: Gate) -> None:
    """Then there is something to publish."""
    model = OutputModel(task)
    url = model.update_weights(make_file(), upload_uri="memory://publish")
    threading.Timer(0.3, gate.open.set).start()
    model.publish()

    assert (model.published, model.url) == (True, url)


def test_publishing_what_another_process_still_sends_is_refused(
    task: Task, make_file: MakeFile, gate: Gate, registry: Registry, unchanged: Unchanged
) -> None:
    """A published model has its bytes."""
    model = OutputModel(task)
    model.update_weights(make_file(), upload_uri="memory://other")
    with Registry(registry.folder) as elsewhere, unchanged(), pytest.raises(MissingWeightsError, match="still being"):
        elsewhere.models.publish(str(model.id))


def test_a_draft_whose_upload_cannot_be_written_down_stays_a_draft(
    task: Task, make_file: MakeFile, registry: Registry, monkeypatch: pytest.MonkeyPatch, unchanged: Unchanged
) -> None:
    """The object must not go on as if it were registered."""
    model = OutputModel(task)
    uploads = registry.weights.uploads

    def broken(*_: object) -> None:
        raise StorageError("no room for the row")

    with unchanged(), monkeypatch.context() as patch:
        patch.setattr(type(uploads), "enqueue", broken)
        with pytest.raises(StorageError):
            model.update_weights(make_file(), upload_uri="memory://x")
    assert model.id is None
    model.update_weights(make_file(), upload_uri="memory://x")
    OutputModel.wait_for_uploads()
    assert len(Model.query_models()) == 1


# -- other processes --------------------------------------------------------------------------------------------------


def child(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


@pytest.mark.parametrize("kind", ["Task.init", "Task.create"])
def test_the_end_of_the_process_waits_for_uploads(make_file: MakeFile, tmp_path: Path, kind: str) -> None:
    """Nobody has to remember to wait."""
    done = child(
        f"""
        import time
        from modelstore import Task, OutputModel
        from modelstore.storage import uploads
        real = uploads.upload_object
        def slow(*arguments, **options):
            time.sleep(1)
            return real(*arguments, **options)
        uploads.upload_object = slow
        model = OutputModel({kind}("p", "n"))
        model.update_weights({str(make_file())!r}, upload_uri={str(tmp_path / "out")!r})
        """
    )
    (model,) = Model.query_models()

    assert done.returncode == 0, done.stderr
    assert model.size == 7
    assert Path(str(model.get_local_copy(raise_on_error=True))).read_bytes() == b"weights"


def test_a_failure_at_the_end_of_the_process_is_said(make_file: MakeFile, tmp_path: Path) -> None:
    """On stderr; the bytes are kept."""
    done = child(
        f"""
        from modelstore import Task, OutputModel
        model = OutputModel(Task.init("p", "n"))
        model.update_weights({str(make_file())!r}, upload_uri={str(blocked(tmp_path))!r})
        """
    )

    assert "could not be sent" in done.stderr
    assert "--resume" in done.stderr
    assert [task.status for task in Task.get_tasks()] == ["completed"]
    assert snapshots(_context.current_registry()) == [b"weights"]


def test_an_upload_that_was_killed_is_finished_by_another_process(make_file: MakeFile, tmp_path: Path) -> None:
    """And the user's file goes only then."""
    path = make_file(content=b"half sent")
    out = tmp_path / "out"
    killed = child(
        f"""
        import os, signal
        from modelstore import Task, OutputModel
        from modelstore.storage import uploads
        uploads.upload_object = lambda *a, **o: os.kill(os.getpid(), signal.SIGKILL)
        OutputModel(Task.init("p", "n")).update_weights(
            {str(path)!r}, upload_uri={str(out)!r}, auto_delete_file=True)
        """
    )
    assert killed.returncode < 0
    (model,) = Model.query_models()
    assert model.url is None
    assert path.exists()
    done = child(
        """
        from modelstore.sdk._context import current_registry
        print([upload.attempts for upload in current_registry().weights.uploads.resume()])
        """
    )
    model.refresh()

    assert done.stdout == "[0]\n", done.stderr
    assert Path(str(model.get_local_copy(raise_on_error=True))).read_bytes() == b"half sent"
    assert not path.exists()


def test_an_upload_of_a_living_process_is_left_to_it(
    task: Task, make_file: MakeFile, gate: Gate, registry: Registry
) -> None:
    """Two processes need not send the same bytes."""
    OutputModel(task).update_weights(make_file(), upload_uri="memory://mine")
    done = child(
        """
        from modelstore.sdk._context import current_registry
        print(current_registry().weights.uploads.resume())
        """
    )

    assert done.stdout == "[]\n", done.stderr
    assert len(registry.weights.uploads.pending()) == 1


def test_a_forked_child_does_not_wait_for_its_parents_uploads(
    task: Task, make_file: MakeFile, gate: Gate, tmp_path: Path
) -> None:
    """The threads that work on them are not in the child; its own uploads work."""
    OutputModel(task).update_weights(make_file(), upload_uri="memory://parent")
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            OutputModel.wait_for_uploads()
            gate.open.set()
            model = OutputModel(task, name="child")
            model.update_weights(make_file("c.pt", b"child"), upload_uri=tmp_path / "out")
            OutputModel.wait_for_uploads()
            status = 0 if model.size == 5 else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    gate.open.set()
    OutputModel.wait_for_uploads()
    assert sorted(str(model.size) for model in Model.query_models()) == ["5", "7"]


def test_uploads_begun_at_the_very_end_are_sent_before_it(make_file: MakeFile, tmp_path: Path) -> None:
    """No thread can be started then: it happens in the main one."""
    done = child(
        f"""
        import atexit
        from modelstore import Task, OutputModel
        task = Task.create("p", "n")
        model = OutputModel(task)
        atexit.register(lambda: model.update_weights({str(make_file())!r}, upload_uri={str(tmp_path / "out")!r}))
        """
    )

    assert "Traceback" not in done.stderr
    assert [model.size for model in Model.query_models()] == [7], json.dumps(done.stderr)


def test_an_upload_that_was_given_up_takes_no_others_place(
    tmp_path: Path, make_file: MakeFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may have begun one under the same number meanwhile: its weights must arrive."""
    place, weights, destination = tmp_path / "r", make_file(), str(tmp_path / "elsewhere")
    monkeypatch.setattr(Uploads, "_submit", lambda *_: None)  # nothing is sent before this test says so
    with modelstore.open(place, cache=tmp_path / "cache") as one:
        removed = OutputModel(Task.create(task_name="t"), name="removed")
        removed.update_weights(weights, upload_uri=destination)
        (given_up,) = one.weights.uploads.pending()
        content = (place / given_up.snapshot).read_bytes()
        assert Model.remove(removed.id or "", force=True)
        with modelstore.open(place, cache=tmp_path / "cache") as other:
            kept = OutputModel(Task.create(task_name="t"), name="kept")
            kept.update_weights(weights, upload_uri=destination)
            (begun,) = other.weights.uploads.pending()
            assert begun.id == given_up.id
            (place / given_up.snapshot).write_bytes(content)  # it was being read when it was given up
            one.weights.uploads._deliver(given_up)

            assert [upload.id for upload in other.weights.uploads.pending()] == [begun.id]
            other.weights.uploads._deliver(begun)
            assert Path(kept.get_local_copy() or "").read_bytes() == weights.read_bytes()

        again = OutputModel(Task.create(task_name="t"), name="again")
        again.update_weights(weights, upload_uri=destination)
        assert one.weights.uploads.pending()[-1].id > given_up.id

"""The end of a process with uploads to do: it waits, ctrl-C leaves at once, and a later process goes on from there."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelstore import Model, Registry
from modelstore.storage import s3
from modelstore.storage.filesystems import open_filesystem

_BEGIN = """
    import sys, threading, time
    from pathlib import Path
    from modelstore import OutputModel, Task
    from modelstore.storage import uploads

    real = uploads.upload_object

    def slow(*words, **options):
        print("sending", flush=True)
        time.sleep({seconds})
        return real(*words, **options)

    uploads.upload_object = slow
    Path("w.pt").write_bytes(b"weights")
    task = Task.init("p", "t")
    OutputModel(task).update_weights("w.pt", upload_uri="out")
"""
_REPORTING = """
    other = OutputModel(task, name="reported")
    other.report_single_value("last", 1.0)
"""


def _child(folder: Path, script: str) -> subprocess.Popen[str]:
    # What runs in the background of a shell ignores ctrl-C, and so do its children unless they say otherwise.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    return subprocess.Popen(
        [sys.executable, "-c", heard + textwrap.dedent(script)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_process_says_what_it_waits_for(tmp_path: Path, registry: Registry) -> None:
    """Once, when it takes more than a moment; then everything is there."""
    child = _child(tmp_path, _BEGIN.format(seconds=1.5))
    _, said = child.communicate(timeout=100)

    assert child.returncode == 0
    assert said.count("Waiting for 1 upload;") == 1
    assert registry.weights.uploads.pending() == []


def test_an_interruption_leaves_at_once_and_loses_nothing(tmp_path: Path, registry: Registry) -> None:
    """No traceback, no second try: the task is closed, the upload waits for `uploads --resume`."""
    child = _child(tmp_path, _BEGIN.format(seconds=600))
    assert child.stdout is not None
    assert child.stderr is not None
    assert child.stdout.readline() == "sending\n"
    assert child.stderr.readline().startswith("Waiting for 1 upload;")
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=100)

    assert child.returncode == 130
    assert said == "Interrupted; 1 unfinished: send them with `modelstore uploads --resume`\n"
    (upload,) = registry.weights.uploads.pending()
    (task,) = registry.tasks.find()
    assert task.status in {"completed", "stopped"}
    assert [one.id for one in registry.weights.uploads.resume()] == [upload.id]
    assert Path(str(Model(upload.model).get_local_copy())).read_bytes() == b"weights"


def test_an_interruption_does_as_much_where_python_lacks_what_is_private_in_it(
    tmp_path: Path, registry: Registry
) -> None:
    """Tasks are closed and reports written by our own list, should Python's become unreachable."""
    script = _BEGIN.format(seconds=600) + _REPORTING + "\n    import atexit; del atexit._run_exitfuncs"
    child = _child(tmp_path, script)
    assert child.stderr is not None
    assert child.stderr.readline().startswith("Waiting for 1 upload;")
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=100)

    assert (child.returncode, said.startswith("Interrupted; 1 unfinished")) == (130, True)
    (task,) = registry.tasks.find()
    assert task.status in {"completed", "stopped"}
    (model,) = (one for one in Model.query_models() if one.name == "reported")
    assert model.get_reported_single_values() == {"last": 1.0}


def test_the_end_waits_where_python_lacks_what_is_private_in_it(tmp_path: Path, registry: Registry) -> None:
    """With its own waiting for threads."""
    script = "\n    import concurrent.futures.thread, threading; del threading._register_atexit" + _BEGIN.format(
        seconds=1.5
    )
    child = _child(tmp_path, script)
    _, said = child.communicate(timeout=100)

    assert (child.returncode, said) == (0, "")
    assert registry.weights.uploads.pending() == []
    (model,) = Model.query_models()
    assert Path(str(model.get_local_copy())).read_bytes() == b"weights"


def test_a_quick_end_says_nothing(tmp_path: Path) -> None:
    """Most uploads are done by then."""
    child = _child(
        tmp_path, _BEGIN.format(seconds=0) + "\n    from modelstore.registry import ending; ending._SOON_S = 60"
    )

    assert (child.communicate(timeout=100)[1], child.returncode) == ("", 0)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if any(importlib.util.find_spec(name) is None for name in ("s3fs", "moto", "flask")):
        pytest.skip("not installed: s3fs, moto, flask")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{host}:{port}")
    for name, value in (("ACCESS_KEY_ID", "me"), ("SECRET_ACCESS_KEY", "secret"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    name = f"bucket-{uuid.uuid4().hex}"
    fs, _ = open_filesystem(f"s3://{name}")
    fs.clear_instance_cache()
    fs, _ = open_filesystem(f"s3://{name}")
    fs.mkdir(name)
    yield name
    fs.clear_instance_cache()
    server.stop()


_KILLED = """
    import os, signal, time
    from pathlib import Path
    from modelstore import OutputModel, Task
    from modelstore.storage import s3

    real, sent = s3._Sending._put, []

    def put(self, body, **signed):
        if signed["PartNumber"] > 3:
            time.sleep(60)
        tag = real(self, body, **signed)
        sent.append(signed["PartNumber"])
        if len(sent) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return tag

    s3._Sending._put = put
    Path("w.pt").write_bytes(os.urandom(40 << 20))
    OutputModel(Task.init("p", "t")).update_weights("w.pt", upload_uri="s3://{bucket}/models")
    OutputModel.wait_for_uploads()
"""
_FORGETFUL = """
    from pathlib import Path
    from modelstore import OutputModel, Task

    task = Task.init("p", "t")
    for number in range(3):
        Path("w.pt").write_bytes(b"weights %d" % number)
        OutputModel(task, name=f"{{number}}").update_weights("w.pt", upload_uri="s3://{bucket}/models")
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_script_that_just_ends_has_its_weights_in_the_bucket(tmp_path: Path, registry: Registry, bucket: str) -> None:
    """Python begins no threads once it ends, and the driver needs them: a child process sends the rest."""
    child = _child(tmp_path, _FORGETFUL.format(bucket=bucket))
    _, said = child.communicate(timeout=100)

    assert child.returncode == 0
    assert "failed" not in said
    assert registry.weights.uploads.pending() == []
    for number, model in enumerate(sorted(Model.query_models(), key=lambda one: str(one.name))):
        path = Path(str(model.get_local_copy(raise_on_error=True)))
        assert path.read_bytes() == b"weights %d" % number
        assert str(model.url).startswith(f"s3://{bucket}/models/")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_killed_upload_to_a_bucket_is_continued_part_by_part(
    tmp_path: Path, registry: Registry, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What arrived before the kill is not sent again."""
    child = _child(tmp_path, _KILLED.format(bucket=bucket))
    _, said = child.communicate(timeout=100)
    assert child.returncode == -signal.SIGKILL, said
    sent: list[int] = []
    real = s3._Sending._put

    def put(self: s3._Sending, body: memoryview, *, PartNumber: int = 0, **signed: str) -> str | None:  # noqa: N803
        sent.append(PartNumber)
        return real(self, body, PartNumber=PartNumber, **signed)

    monkeypatch.setattr(s3._Sending, "_put", put)
    (upload,) = registry.weights.uploads.pending()
    registry.weights.uploads.resume()

    assert sorted(sent) == [4, 5]
    path = Path(str(Model(upload.model).get_local_copy(raise_on_error=True)))
    assert path.read_bytes() == (tmp_path / "w.pt").read_bytes()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_giving_an_upload_up_leaves_no_parts_in_the_bucket(tmp_path: Path, registry: Registry, bucket: str) -> None:
    """They would be paid for, unseen, for ever."""
    _child(tmp_path, _KILLED.format(bucket=bucket)).communicate(timeout=100)
    (upload,) = registry.weights.uploads.pending()
    fs, _ = open_filesystem(f"s3://{bucket}")
    assert len(fs.list_multipart_uploads(bucket)) == 1
    assert registry.weights.uploads.cancel(upload.id)

    assert fs.list_multipart_uploads(bucket) == []
    assert registry.weights.uploads.pending() == []

"""What is wrong is refused by an error of ours, before anything was changed."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

import modelstore
from modelstore import InputModel, Model, OutputModel, Registry, Task
from modelstore.errors import (
    BlobNotFoundError,
    CorruptRegistryError,
    InvalidRequestError,
    ModelStoreError,
    NewerRegistryError,
    ReadOnlyRegistryError,
    ReadOnlyStorageError,
    RegistryError,
    StorageError,
    StorageFullError,
)
from modelstore.sdk import _context
from tests.kinds import one_machine
from tests.permissions import obeying_permissions

MakeFile = Callable[..., Path]
Unchanged = Callable[..., AbstractContextManager[None]]


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("destination", [None, "memory://x"])
@pytest.mark.parametrize("path", ["nope.pt", "no/where.pt", "here.pt/deeper.pt", "~nobodyknows/x.pt", "\udcff.pt"])
def test_a_missing_file_is_an_error(
    task: Task, make_file: MakeFile, monkeypatch: pytest.MonkeyPatch, unchanged: Unchanged,
    path: str, destination: str | None, background: bool,
) -> None:  # fmt: skip
    """ClearML returns a URL for it."""
    monkeypatch.chdir(make_file("here.pt").parent)
    with unchanged(), pytest.raises(BlobNotFoundError, match="no file"):
        OutputModel(task).update_weights(path, upload_uri=destination, async_enable=background)


@pytest.mark.parametrize(
    "path", ["a\0b", "x" * 10_000, "x/" * 5_000, "/dev/null", "/dev/full", 5, 5.0, ["a"], object()]
)
def test_what_is_no_file_is_an_error(task: Task, unchanged: Unchanged, path: Any) -> None:
    """Devices, names that no file can have, things that are no names."""
    with unchanged(), pytest.raises((InvalidRequestError, BlobNotFoundError)):
        OutputModel(task).update_weights(path)


def test_pipes_and_sockets_are_no_files(
    task: Task, tmp_path: Path, unchanged: Unchanged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading a pipe would wait for ever."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as listener, unchanged():
        listener.bind("socket")
        for name in ("pipe", "socket"):
            with pytest.raises(InvalidRequestError, match="no regular file"):
                OutputModel(task).update_weights(name)
            with pytest.raises(InvalidRequestError):
                OutputModel(task).update_weights_package([name])


def test_a_loop_of_links_is_an_error(task: Task, tmp_path: Path, unchanged: Unchanged) -> None:
    """And no RecursionError."""
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "self").symlink_to(folder)
    (folder / "x").write_text("x")
    with unchanged():
        with pytest.raises(InvalidRequestError):
            OutputModel(task).update_weights(tmp_path / "a")
        with pytest.raises(InvalidRequestError):
            OutputModel(task).update_weights(folder)


def test_a_file_that_cannot_be_read_is_an_error(task: Task, make_file: MakeFile, unchanged: Unchanged) -> None:
    """For a user without permission."""
    path = make_file("locked.pt")
    inside = make_file("locked/inside.pt")
    path.chmod(0)
    inside.parent.chmod(0)

    def attempt() -> None:
        with unchanged():
            for bad in (path, inside):
                with pytest.raises(ModelStoreError):
                    OutputModel(task).update_weights(bad)
                with pytest.raises(ModelStoreError):
                    OutputModel(task).update_weights_package([bad])
            with pytest.raises(ModelStoreError):
                OutputModel(task).update_weights(inside.parent)

    try:
        obeying_permissions(attempt)
    finally:
        inside.parent.chmod(0o755)


@pytest.mark.parametrize("name", ["a/b", "..", ".", "", "\\", "a\0", 5, b"x", "  "])
def test_a_target_filename_is_a_name(task: Task, make_file: MakeFile, unchanged: Unchanged, name: Any) -> None:
    """It must not reach elsewhere."""
    path = make_file()
    with unchanged(path):
        if name != "":
            with pytest.raises(InvalidRequestError):
                OutputModel(task).update_weights(path, target_filename=name)
        else:
            with pytest.raises(InvalidRequestError):
                OutputModel(task).update_weights(path, target_filename=name)


@pytest.mark.parametrize("iteration", ["5", 1.5, True, 2**64, float("nan"), [1]])
def test_an_iteration_is_a_whole_number(task: Task, make_file: MakeFile, unchanged: Unchanged, iteration: Any) -> None:
    """Checked before a byte is stored."""
    path = make_file()
    with unchanged(path):
        for call in (
            lambda: OutputModel(task).update_weights(path, iteration=iteration),
            lambda: OutputModel(task).update_weights(path.parent, iteration=iteration),
            lambda: OutputModel(task).update_weights(register_uri="s3://b/c", iteration=iteration),
            lambda: OutputModel(task).update_weights(path, iteration=iteration, upload_uri="memory://x"),
        ):
            with pytest.raises(InvalidRequestError):
                call()


# -- disks ------------------------------------------------------------------------------------------------------------


def test_a_file_that_does_not_fit_leaves_nothing(task: Task, make_file: MakeFile, unchanged: Unchanged) -> None:
    """The system refuses the bytes in the middle; here by a limit on the size of files."""
    path = make_file(content=os.urandom(3_000_000))
    model = OutputModel(task)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with unchanged(path):
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, limits[1]))
        try:
            for call in (
                lambda: model.update_weights(path, auto_delete_file=True),
                lambda: model.update_weights(path, upload_uri="memory://x", auto_delete_file=True),
                lambda: model.update_weights_package([path], auto_delete_file=True),
            ):
                with pytest.raises(StorageError):
                    call()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, before)
    model.update_weights(path)
    assert model.size == 3_000_000


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Any:
    """A real disk of 4 MiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting needs a right that this user does not have")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_said_to_be_full(tiny_disk: Path, make_file: MakeFile) -> None:
    """And what was there before works on."""
    with modelstore.open(tiny_disk / "registry") as registry:
        task = Task.init("p", "n")
        model = OutputModel(task)
        model.update_weights(make_file(content=b"small"))
        big = make_file("big.pt", os.urandom(5_000_000))
        with pytest.raises(StorageFullError):
            model.update_weights(big, auto_delete_file=True)
        assert big.stat().st_size == 5_000_000
        filler = tiny_disk / "filler"
        with open(filler, "wb", buffering=0) as file, pytest.raises(OSError, match="space"):
            while True:
                file.write(b"x" * 4096)
        failures = 0
        for number in range(200):
            try:
                model.set_metadata(f"key {number}", "x" * 1000)
            except StorageFullError:
                failures += 1
        assert failures
        assert Path(str(model.get_local_copy(raise_on_error=True))).read_bytes() == b"small"
        filler.unlink()
        model.set_metadata("after", 1)
        assert [f for f in registry.check(deep=True) if f.severity == "error"] == []


def test_a_destination_without_permission_is_refused_when_it_is_named(
    task: Task, tmp_path: Path, make_file: MakeFile, unchanged: Unchanged
) -> None:
    """ClearML's message, before the training begins."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    path = make_file()

    def attempt() -> None:
        with unchanged(path):
            for uri in (closed, closed / "deeper" / "still", closed.as_uri()):
                with pytest.raises(ReadOnlyStorageError, match="Could not set destination uri"):
                    OutputModel(task).set_upload_destination(uri)
                with pytest.raises(ReadOnlyStorageError):
                    OutputModel(task).update_weights(path, upload_uri=uri)
                with pytest.raises(ReadOnlyStorageError):
                    task.output_uri = uri  # type: ignore[assignment]
            with pytest.raises(ReadOnlyStorageError):
                OutputModel(task).set_upload_destination(path)  # a file

    obeying_permissions(attempt)


# -- registries -------------------------------------------------------------------------------------------------------


def test_a_registry_that_cannot_be_written_can_be_read(task: Task, make_file: MakeFile, registry: Registry) -> None:
    """A mounted archive of models is useful."""
    model = OutputModel(task, name="net", tags=["t"])
    model.update_weights(make_file())
    model_id = str(model.id)
    _context.forget_default()
    folders = [path for path in (registry.folder, *registry.folder.rglob("*")) if path.is_dir()]
    for folder in folders:
        folder.chmod(0o555)
    for file in registry.folder.glob("registry.db*"):
        file.chmod(0o444)

    def attempt() -> None:
        (found,) = Model.query_models(tags=["t"])
        assert (found.id, found.name) == (model_id, "net")
        assert Path(str(found.get_local_copy(raise_on_error=True))).read_bytes() == b"weights"
        for change in (
            lambda: setattr(found, "name", "x"),
            found.archive,
            found.publish,
            lambda: found.set_metadata("k", 1),
            lambda: Task.init("p", "n"),
            lambda: InputModel.import_model("s3://b/c"),
            lambda: Model.remove(found, raise_on_errors=True),
        ):
            with pytest.raises(ReadOnlyRegistryError, match="read-only|cannot be written"):
                change()
        assert Model.remove(found) is False

    try:
        obeying_permissions(attempt)
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_a_registry_cannot_be_made_where_nothing_can_be_written(tmp_path: Path) -> None:
    """Nor where a file is."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)

    def attempt() -> None:
        with pytest.raises(ReadOnlyRegistryError):
            modelstore.open(closed / "registry")

    obeying_permissions(attempt)
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(InvalidRequestError):
            modelstore.open(place)


@one_machine("the version stands in its database; that of a shared one in each host's index, and in checkpoints")
def test_a_newer_registry_is_refused_and_left_alone(task: Task, registry: Registry) -> None:
    """Whether the folder or the database is newer."""
    _context.forget_default()
    path = registry.folder / "modelstore.json"
    text = path.read_text()
    for change in ({"format": 99}, {"kind": "served"}):
        path.write_text(json.dumps(json.loads(text) | change))
        with pytest.raises(NewerRegistryError, match="pip install"):
            Model.query_models()
    path.write_text(text)
    with Registry(registry.folder) as opened:
        opened.database.connection.execute("PRAGMA user_version = 99")
    content = (registry.folder / "registry.db").read_bytes()
    with pytest.raises(NewerRegistryError):
        Task.init("p", "n")
    assert (registry.folder / "registry.db").read_bytes() == content


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param(
            "registry.db",
            b"this is no database at all, but long enough to be read as a header " * 40,
            marks=one_machine("its database"),
        ),
        ("modelstore.json", b"{"),
        ("modelstore.json", b"[]"),
        ("modelstore.json", b"\xff\xfe"),
    ],
)
def test_a_damaged_registry_is_said_to_be_damaged(task: Task, registry: Registry, name: str, content: bytes) -> None:
    """And not written over."""
    _context.forget_default()
    for extra in registry.folder.glob("registry.db-*"):
        extra.unlink()
    (registry.folder / name).write_bytes(content)
    for use in (Model.query_models, lambda: Task.init("p", "n"), lambda: InputModel.import_model("s3://b/c")):
        with pytest.raises(CorruptRegistryError):
            use()
    assert (registry.folder / name).read_bytes() == content


def test_a_foreign_database_is_not_touched(tmp_path: Path) -> None:
    """Somebody may have another file of that name."""
    import sqlite3

    folder = tmp_path / "foreign"
    folder.mkdir()
    with sqlite3.connect(folder / "registry.db") as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    content = (folder / "registry.db").read_bytes()
    with pytest.raises(CorruptRegistryError, match="no modelstore registry"):
        modelstore.open(folder)
    assert (folder / "registry.db").read_bytes() == content


@pytest.mark.parametrize(
    "uri",
    [
        "",
        " ",
        "a\0b",
        "ftp://x/y",
        "sftp://b/registry",
        "s3://",
        "https://",
        "https://me:secret@example.com",
        "postgresql://x",
    ],
)
def test_a_registry_of_a_kind_that_cannot_be_opened_is_refused(uri: str) -> None:
    """And no folder named "s3:" appears."""
    with pytest.raises(InvalidRequestError):
        modelstore.open(uri)
    assert not Path(uri.partition(":")[0] + ":").exists()


def test_a_closed_registry_says_so(task: Task, registry: Registry) -> None:
    """Objects that outlive their registry are no mystery."""
    model = InputModel.import_model("s3://b/c")
    _context.forget_default()
    with pytest.raises(RegistryError, match="closed"):
        model.name = "x"


# -- everything at once -----------------------------------------------------------------------------------------------


def test_eight_processes_begin_one_registry_at_the_same_moment(tmp_path: Path, registry: Registry) -> None:
    """200 models, no error, whoever was first."""
    code = textwrap.dedent(
        """
        import sys, time
        from modelstore import Task, OutputModel
        while time.time() < float(sys.argv[1]):
            pass
        task = Task.init("p", "job " + sys.argv[2])
        for number in range(25):
            model = OutputModel(task, name=f"{sys.argv[2]}-{number}", tags=["t"])
            model.update_weights(sys.argv[3])
        """
    )
    import time

    weights = tmp_path / "w.pt"
    weights.write_bytes(b"x" * 1000)
    folder = tmp_path / "new" / "registry"
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "MODELSTORE_REGISTRY": str(folder)}
    start = str(time.time() + 2)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, start, str(number), str(weights)],
            env=environment, stderr=subprocess.PIPE, text=True,
        )
        for number in range(8)
    ]  # fmt: skip
    errors = [child.communicate(timeout=100)[1] for child in children]

    assert [child.returncode for child in children] == [0] * 8, errors
    with modelstore.open(folder) as opened:
        found = Model.query_models(project_name="p", tags=["t"])
        assert len({model.name for model in found}) == len(found) == 200
        assert {model.digest for model in found} == {found[0].digest}
        assert [task.status for task in Task.get_tasks()] == ["completed"] * 8
        assert [f for f in opened.check() if f.severity != "note"] == []


def test_errors_are_of_one_tree_and_also_builtins() -> None:
    """Scripts that catch ClearML's ValueError go on catching it."""
    with pytest.raises(ValueError, match="."):
        OutputModel()
    with pytest.raises(OSError, match="."):
        OutputModel(Task.init("p", "n")).update_weights("nope.pt")
    with pytest.raises(FileNotFoundError) as caught:
        OutputModel(Task.init("p", "n")).update_weights("nope.pt")
    assert isinstance(caught.value, ModelStoreError)
    assert caught.value.errno in (None, errno.ENOENT)

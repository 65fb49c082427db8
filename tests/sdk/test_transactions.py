"""`modelstore.transaction`: several changes as one, and what objects show when it is undone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import modelstore
from modelstore import InputModel, Model, OutputModel, Registry, Task
from modelstore.errors import MissingWeightsError, ModelNotFoundError, PublishedModelError, UsageError
from modelstore.index.contents import read_index
from modelstore.sdk import _context
from modelstore.testing.reference import fold
from tests.kinds import SHARED

MakeFile = Callable[..., Path]


class _UndoError(Exception):
    """Leaves a block, so that all is undone."""


def check(registry: Registry) -> None:
    """The index is the fold of the journal, transactions are whole, and nothing is wrong."""
    assert read_index(registry.database.connection) == fold(o for _, o in registry.operations())
    assert [f for f in registry.check(deep=True) if f.severity == "error"] == []


def test_models_are_published_and_tagged_as_one(task: Task, make_file: MakeFile, registry: Registry) -> None:
    """One batch of operations: whoever asks sees the former champions or the new ones."""
    models = [OutputModel(task, name=name) for name in ("encoder", "decoder")]
    for model in models:
        model.update_weights(make_file(content=str(model.name).encode()))
    before = registry.operations

    with modelstore.transaction() as same:
        for model in models:
            model.publish()
            model.add_tags("prod")
        imported = InputModel.import_model("s3://b/tokenizer.json", name="tokenizer")
        assert imported.name == "tokenizer"

    assert same is registry
    assert sorted(str(model.name) for model in Model.query_models(tags=["prod"], only_published=True)) == [
        "decoder", "encoder",
    ]  # fmt: skip
    operations = [operation for _, operation in before()][-5:]
    assert {(o.batch, o.batch_size) for o in operations} == {(operations[0].stamp, 5)}
    check(registry)


def test_nothing_of_a_block_that_raises_was_made(
    task: Task, make_file: MakeFile, unchanged: Callable[..., object]
) -> None:
    """Objects show what is there; a new model is a draft again, and can be registered after all."""
    old = OutputModel(task, name="old", tags=["a"])
    old.update_weights(make_file())
    new = OutputModel(task, name="new", tags=["x"])
    with pytest.raises(_UndoError), modelstore.transaction():
        old.name, old.tags, old.comment = "renamed", ["b"], "c"
        new.set_metadata("k", 1)
        made = str(new.id)
        imported = InputModel.import_model("s3://b/1")
        old.publish()
        assert (old.published, old.tags, new.get_all_metadata()["k"]["value"]) == (True, ["b"], "1")
        raise _UndoError

    assert (old.name, old.tags, old.published) == ("old", ["a"], False)
    assert (new.id, new.name, new.tags, new.published) == (None, "new", ["x"], False)
    assert "not registered" in repr(new)
    with pytest.raises(ModelNotFoundError):
        _ = imported.name
    assert [model.name for model in Model.query_models()] == ["old"]
    new.set_metadata("k", 2)
    assert new.id == made
    assert (new.tags, new.get_metadata("k")) == (["x"], "2")


def test_a_block_inside_another_is_undone_by_itself(task: Task, registry: Registry) -> None:
    """Whoever catches its error goes on with what was done before, objects and the size of the batch included."""
    kept, gone = OutputModel(task, name="kept"), OutputModel(task, name="gone")
    with modelstore.transaction():
        kept.set_metadata("k", 1)
        with pytest.raises(_UndoError), modelstore.transaction():
            gone.set_metadata("k", 1)
            kept.add_tags(["a", "b"])
            kept.name = "lost"
            raise _UndoError
        assert (kept.name, kept.tags, gone.id) == ("kept", [], None)
        kept.add_tags("c")

    assert (kept.name, kept.tags, gone.id) == ("kept", ["c"], None)
    check(registry)


def test_a_refused_change_leaves_the_rest_of_the_block(task: Task, make_file: MakeFile, registry: Registry) -> None:
    """Who catches it has decided to go on."""
    model = OutputModel(task, name="one")
    model.update_weights(make_file())
    model.publish()
    with modelstore.transaction():
        with pytest.raises(PublishedModelError):
            model.update_labels({"cat": 1})
        model.add_tags("prod")

    assert model.tags == ["prod"]
    check(registry)


def test_files_are_deleted_when_the_block_has_ended_well(task: Task, make_file: MakeFile, registry: Registry) -> None:
    """The user's own, and the bytes of removed models: an undone removal leaves a model that can be loaded."""
    model = OutputModel(task, name="one")
    path = make_file(content=b"precious")
    with pytest.raises(_UndoError), modelstore.transaction():
        model.update_weights(path, auto_delete_file=True)
        raise _UndoError
    assert path.read_bytes() == b"precious"
    model.update_weights(path, auto_delete_file=True)
    assert not path.exists()

    with pytest.raises(_UndoError), modelstore.transaction():
        assert Model.remove(str(model.id))
        raise _UndoError
    assert Path(str(model.get_local_copy())).read_bytes() == b"precious"

    with modelstore.transaction():
        assert Model.remove(str(model.id))
        assert registry.weights.objects.find(str(_digest(b"precious"))) is not None
    if SHARED:  # a collection frees them there
        registry.gc(grace_s=0, keep_former_s=0)
    assert registry.weights.objects.find(str(_digest(b"precious"))) is None


def _digest(content: bytes) -> str:
    import hashlib

    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_uploads_of_a_block_begin_when_it_has_ended(
    task: Task, make_file: MakeFile, tmp_path: Path, registry: Registry
) -> None:
    """And never when it was undone; then nothing lies about either."""
    model = OutputModel(task, name="sent")
    with pytest.raises(_UndoError), modelstore.transaction():
        model.update_weights(make_file(), upload_uri=tmp_path / "share")
        raise _UndoError
    assert registry.weights.uploads.pending() == []
    assert list(registry.weights.uploads.folder.iterdir()) == []
    assert not (tmp_path / "share").exists()

    with modelstore.transaction():
        model.update_weights(make_file(), upload_uri=tmp_path / "share")
        with pytest.raises(MissingWeightsError, match="still being uploaded"):
            model.publish()
        with pytest.raises(UsageError, match="wait for its end"):
            OutputModel.wait_for_uploads()
    model.publish()
    assert Path(str(model.get_local_copy())).read_bytes() == b"weights"
    assert registry.weights.uploads.pending() == []


def test_uploads_from_before_are_waited_for_first(task: Task, make_file: MakeFile, tmp_path: Path) -> None:
    """They end in transactions of their own: inside the block nobody could wait for them."""
    models = [OutputModel(task, name=f"{number}") for number in range(3)]
    for model in models:
        model.update_weights(make_file(), upload_uri=tmp_path / "share")

    with modelstore.transaction():
        for model in models:
            model.publish()

    assert len(Model.query_models(only_published=True)) == 3


def test_uploads_of_others_keep_nobody_from_ending_a_task_in_a_block(task: Task, registry: Registry) -> None:
    """They are another process's to wait for."""
    model = OutputModel(task, name="one")
    with registry.database.write() as connection:
        connection.execute(
            "INSERT INTO uploads (model, snapshot, destination, changes, status, host, pid, actor, created)"
            " VALUES ('m', 'uploads/x', 's3://b', '{}', 'pending', 'h', 1, 'a', 1)"
        )
    with modelstore.transaction():
        model.set_metadata("k", 1)
        task.close()

    assert task.status == "completed"


def test_an_undone_block_gives_back_the_upload_that_newer_weights_replaced(
    task: Task, make_file: MakeFile, tmp_path: Path, registry: Registry
) -> None:
    """Its snapshot must be there for it."""
    blocked = tmp_path / "share"
    model = OutputModel(task, name="one")
    model.update_weights(make_file(content=b"first"), upload_uri=blocked / "folder", async_enable=False)
    (blocked / "folder" / "sha256").rename(blocked / "aside")
    (blocked / "folder" / "sha256").write_text("in the way")
    model.update_weights(make_file(content=b"second"), upload_uri=blocked / "folder")
    with pytest.raises(_UndoError), modelstore.transaction():
        model.update_weights(register_uri="s3://b/third")
        raise _UndoError

    (upload,) = registry.weights.uploads.pending()
    assert (registry.folder / upload.snapshot).read_bytes() == b"second"
    registry.weights.wait(None, quiet=True)
    (blocked / "folder" / "sha256").unlink()
    registry.weights.uploads.resume()
    assert Path(str(model.get_local_copy())).read_bytes() == b"second"


def test_a_task_begun_or_closed_in_an_undone_block_is_as_it_was(registry: Registry) -> None:
    """No current task that the registry does not have; and none forgotten that still runs."""
    with pytest.raises(_UndoError), modelstore.transaction():
        Task.init(project_name="p", task_name="undone")
        raise _UndoError
    assert Task.current_task() is None
    assert Task.get_tasks() == []

    task = Task.init(project_name="p", task_name="running")
    with pytest.raises(_UndoError), modelstore.transaction():
        task.close()
        assert Task.current_task() is None
        raise _UndoError
    assert Task.current_task() == task
    assert task.status == "in_progress"
    assert task in _context.state.owned
    task.close()
    assert registry.tasks.get(task.id).status == "completed"


def test_reports_on_a_model_that_was_never_registered_are_dropped(
    task: Task, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    """They would wait in the journal for ever; those on others are written."""
    there, gone = OutputModel(task, name="there"), OutputModel(task, name="gone")
    there.report_scalar("loss", "train", 0.5, 1)
    with pytest.raises(_UndoError), modelstore.transaction():
        there.report_scalar("loss", "train", 0.4, 2)
        gone.report_scalar("loss", "train", 0.3, 1)
        raise _UndoError
    registry.reports.flush()

    assert there.get_reported_scalars()["loss"]["train"]["y"] == [0.5, 0.4]
    assert "never registered" in caplog.text
    check(registry)


def test_a_moment_seen_in_an_undone_block_is_forgotten(registry: Registry) -> None:
    """Others may write what then has the same place in the journal."""
    registry.models.create(name="one")
    with pytest.raises(_UndoError), modelstore.transaction():
        registry.models.create(name="two")
        assert Model.count_models(as_of="f" * 32) == 2
        raise _UndoError
    registry.models.create(name="three")

    assert sorted(str(model.name) for model in Model.query_models(as_of="f" * 32)) == ["one", "three"]


def test_it_is_of_the_registry_in_use(tmp_path: Path) -> None:
    """That of the `with` block around it; shared ones as well."""
    with modelstore.open(tmp_path / "team", shared=True) as team:
        with modelstore.transaction() as registry:
            InputModel.import_model("s3://b/1", name="one")
            InputModel.import_model("s3://b/2", name="two")
        assert registry is team
        assert team.home is not None
        with pytest.raises(_UndoError), modelstore.transaction():
            InputModel.import_model("s3://b/3")
            raise _UndoError
        assert len(Model.query_models()) == 2
        check(team)
    assert Model.query_models() == []

"""Which registry the classes use: the default one, that of a block, several in one process, and after a fork."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import modelstore
from modelstore import InputModel, Model, OutputModel, Registry, Task
from modelstore.errors import RegistryError, RegistryNotFoundError, UploadError, UsageError
from modelstore.sdk import _context
from tests.kinds import SHARED

MakeFile = Callable[..., Path]


def test_the_environment_names_the_default_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And may change between two calls."""
    first = InputModel.import_model("s3://b/c")
    monkeypatch.setenv("MODELSTORE_REGISTRY", str(tmp_path / "second"))
    assert Model.query_models() == []
    assert (tmp_path / "second" / "modelstore.json").exists()
    assert first.name


def test_a_block_has_a_registry_of_its_own(tmp_path: Path) -> None:
    """And objects belong to where they were made."""
    outside = InputModel.import_model("s3://b/outside")
    with modelstore.open(tmp_path / "a") as a:
        inside = InputModel.import_model("s3://b/inside")
        assert Model.query_models() == [inside]
        with modelstore.open(tmp_path / "b") as b:
            assert Model.query_models() == []
            inside.comment = "still in a"
            assert b.models.by_uri("s3://b/inside") is None
        assert Model.query_models() == [inside]
        assert a.models.get(inside.id).comment == "still in a"
    assert Model.query_models() == [outside]
    with pytest.raises(RegistryError, match="closed"):
        inside.refresh()


def test_the_same_model_of_two_registries_is_two_models(tmp_path: Path) -> None:
    """Ids are equal after a copy, models are not."""
    with modelstore.open(tmp_path / "a") as a, modelstore.open(tmp_path / "b") as b:
        one = a.models.create(name="n")
        b.ingest(operation for _, operation in a.operations())
        assert Model._of(a, one) != Model._of(b, b.models.get(one.id))
        assert Model._of(a, one) == Model._of(a, one)


def test_each_registry_has_its_current_task(tmp_path: Path, make_file: MakeFile) -> None:
    """A model made inside a block must not land outside of it."""
    outer = Task.init("p", "outer")
    with modelstore.open(tmp_path / "a"):
        assert Task.current_task() is None
        with pytest.raises(ValueError, match="no current task"):
            OutputModel(name="n")
        inner = Task.init("p", "inner")
        model = OutputModel(name="n")
        model.update_weights(make_file())
        assert Task.current_task() is inner
        assert model.task == inner.id
        with pytest.raises(UsageError):
            Task.init("p", "second")
    assert Task.current_task() is outer
    assert Model.query_models() == []


def test_the_end_of_a_block_is_the_end_of_its_tasks(tmp_path: Path) -> None:
    """Completed, or failed when an exception ends it."""
    with modelstore.open(tmp_path / "a"):
        Task.init("p", "fine")
        created = Task.create("p", "created")
        created.mark_started()
    with pytest.raises(ZeroDivisionError), modelstore.open(tmp_path / "a"):
        Task.init("p", "broken")
        raise ZeroDivisionError("boom")
    with modelstore.open(tmp_path / "a"):
        found = {str(task.name): task for task in Task.get_tasks()}

        assert {name: task.status for name, task in found.items()} == {
            "fine": "completed", "broken": "failed", "created": "in_progress",
        }  # fmt: skip
        assert found["broken"]._record().status_message == "ZeroDivisionError: boom"


def test_threads_of_a_block_are_in_it(tmp_path: Path) -> None:
    """A pool that registers models must not write to the user's own registry."""
    with modelstore.open(tmp_path / "a") as a, ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda i: InputModel.import_model(f"s3://b/{i}"), range(4)))
        assert {model._registry for model in made} == {a}
    assert not (Path(os.environ["MODELSTORE_REGISTRY"]) / "registry.db").exists()


def test_threads_with_blocks_of_their_own_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Nor the main thread."""
    barrier = threading.Barrier(3, timeout=60)
    seen: dict[str, int] = {}

    def work(name: str) -> None:
        with modelstore.open(tmp_path / name):
            barrier.wait()
            for number in range(len(name)):
                InputModel.import_model(f"s3://{name}/{number}")
            barrier.wait()
            seen[name] = len(Model.query_models())

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "bbb")]
    for thread in threads:
        thread.start()
    barrier.wait()
    assert Model.query_models() == []
    barrier.wait()
    for thread in threads:
        thread.join()
    assert seen == {"a": 1, "bbb": 3}


def test_tasks_of_an_event_loop_have_blocks_of_their_own(tmp_path: Path) -> None:
    """A block belongs to the coroutine that entered it."""

    async def work(name: str) -> int:
        with modelstore.open(tmp_path / name):
            for number in range(len(name)):
                await asyncio.sleep(0)
                InputModel.import_model(f"s3://{name}/{number}")
            return len(Model.query_models())

    async def both() -> tuple[int, int]:
        return await asyncio.gather(work("a"), work("bbb"))

    assert list(asyncio.run(both())) == [1, 3]


def test_a_block_can_be_entered_again(tmp_path: Path) -> None:
    """Nested use of one registry ends where it began."""
    registry = modelstore.open(tmp_path / "a")
    with registry:
        with modelstore.open(tmp_path / "b"):
            pass
        InputModel.import_model("s3://b/c")
    with pytest.raises(RegistryError):
        registry.models.get("0" * 32)


def test_a_registry_is_only_made_when_that_is_wanted(tmp_path: Path) -> None:
    """A typo in a path must not make an empty registry."""
    with pytest.raises(RegistryNotFoundError):
        modelstore.open(tmp_path / "typo", create=False)
    assert not (tmp_path / "typo").exists()
    modelstore.open(tmp_path / "real").close()
    modelstore.open((tmp_path / "real").as_uri(), create=False).close()


def test_a_registry_may_be_moved(tmp_path: Path, make_file: MakeFile) -> None:
    """What it stores itself is referred to by digest."""
    with modelstore.open(tmp_path / "old"):
        task = Task.init("p", "n")
        OutputModel(task).update_weights(make_file())
    (tmp_path / "old").rename(tmp_path / "new")
    with modelstore.open(tmp_path / "new"):
        (model,) = Model.query_models()
        path = Path(str(model.get_local_copy(raise_on_error=True)))

        assert path.read_bytes() == b"weights"
        assert path.is_relative_to(tmp_path / "new") or SHARED  # there the copy is in the cache
        assert InputModel.load_model(str(model.url)) == model


def test_a_closed_registry_is_closed_even_when_an_upload_failed(tmp_path: Path, make_file: MakeFile) -> None:
    """The failure is raised, the database closed."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "sha256").write_text("in the way")
    registry = modelstore.open(tmp_path / "a")
    with pytest.raises(UploadError), registry:
        OutputModel(Task.init("p", "n")).update_weights(make_file(), upload_uri=out)
    with pytest.raises(RegistryError, match="closed"):
        registry.models.get("0" * 32)


def test_a_forked_child_may_write_beside_its_parent(tmp_path: Path, make_file: MakeFile) -> None:
    """Each on a connection of its own; the child's end closes nothing of the parent's."""
    with modelstore.open(tmp_path / "a"):
        task = Task.init("p", "n")
        model = OutputModel(task, name="shared")
        model.update_weights(make_file())
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                with modelstore.open(tmp_path / "a"):
                    for number in range(20):
                        model.set_metadata(f"child {number}", number)
                status = 0
            finally:
                os._exit(status)
        for number in range(20):
            model.set_metadata(f"parent {number}", number)
        _, status = os.waitpid(pid, 0)

        assert os.waitstatus_to_exitcode(status) == 0
        model.refresh()
        assert len(model.get_all_metadata()) == 40
        assert task.get_status() == "in_progress"


def test_a_child_that_leaves_its_parents_block_leaves_the_parents_task_alone(tmp_path: Path) -> None:
    """A fork in the middle of a block runs the block's end twice."""
    with modelstore.open(tmp_path / "a") as registry:
        task = Task.init("p", "n")
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                registry.__exit__(None, None, None)
                status = 0
            finally:
                os._exit(status)
        os.waitpid(pid, 0)
        assert task.get_status() == "in_progress"
        task.comment = "works"
    with Registry(tmp_path / "a") as again:
        assert again.tasks.get(task.id).comment == "works"


def test_the_default_registry_can_be_opened_anew() -> None:
    """For tests, and after a folder was replaced."""
    InputModel.import_model("s3://b/c")
    _context.forget_default()
    _context.forget_default()

    assert len(Model.query_models()) == 1

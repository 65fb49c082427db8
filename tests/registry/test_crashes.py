"""Whatever a process is doing when it is killed, the registry is as it was before or as it would have been after."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from modelstore import OutputModel, Task
from modelstore import open as open_registry
from modelstore.index.contents import check_copies, read_index
from modelstore.records.entities import ModelRecord
from modelstore.registry.search import ModelSearch
from modelstore.sdk import _context
from modelstore.testing.reference import fold
from tests.effort import in_turn

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

_EVENTS = ("os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.utime", "os.truncate",
           "shutil.rmtree", "modelstore.step")  # fmt: skip
STEP_LIMIT = 400


class Template:
    """A registry folder with one task and one model, copied for each try."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.weights = folder.parent / "weights.pt"
        self.weights.write_bytes(os.urandom(70_000))
        (folder.parent / "first.pt").write_bytes(b"first")
        with open_registry(folder, cache=folder.parent / "cache") as registry:
            task = Task(registry, registry.tasks.create(name="train", project="p", status="in_progress"))
            model = OutputModel(task, name="old", tags=["a", "b"])
            model.set_metadata("n", 1)
            model.update_weights(folder.parent / "first.pt")
            self.task_id, self.model_id = task.id, str(model.id)

    def copy(self, target: Path) -> Path:
        shutil.copytree(self.folder, target)
        return target


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return Template(tmp_path_factory.mktemp("crash") / "registry")


def killed_at(step: int, folder: Path, action: Callable[[_context.Registry], None]) -> bool:
    """Run an action in a child that kills itself at its n-th step; tells whether it came that far.

    A step is any call that changes the filesystem, or any SQL statement: finer than the numbered steps of the code.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            registry = open_registry(folder, cache=folder.parent / "cache")
            count = 0

            def tick(*_: object) -> None:
                nonlocal count
                count += 1
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)

            def audit(event: str, arguments: tuple[object, ...]) -> None:
                if event in _EVENTS or (event == "open" and len(arguments) > 2 and int(str(arguments[2])) & os.O_CREAT):
                    tick()

            registry.database.connection.set_trace_callback(tick)
            sys.addaudithook(audit)
            action(registry)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def check_whole(registry: _context.Registry) -> None:
    """The index is the fold of the journal, every model has its bytes, and the registry still takes new models."""
    registry.refresh()
    assert read_index(registry.database.connection) == fold(o for _, o in registry.operations())
    check_copies(registry.database.connection)
    assert [f for f in registry.check() if f.severity == "error"] == []


def every_step(
    template: Template,
    tmp_path: Path,
    action: Callable[[_context.Registry], None],
    look: Callable[[_context.Registry], str],
) -> list[str]:
    """Kill the action at each of its steps, or each second, in turn; returns what `look` saw after each."""
    seen = []
    for step in itertools.takewhile(lambda number: number < STEP_LIMIT, in_turn(2)):
        folder = template.copy(tmp_path / f"{step}")
        killed = killed_at(step, folder, action)
        with open_registry(folder, cache=tmp_path / "cache") as registry:
            check_whole(registry)
            seen.append(look(registry))
            if step % 20 < 2 or not killed:
                task = Task(registry, registry.tasks.get(template.task_id))
                OutputModel(task, name="afterwards").update_weights(template.weights)
                check_whole(registry)
        shutil.rmtree(folder)
        if not killed:
            return seen
    raise AssertionError(f"The action has more than {STEP_LIMIT} steps")


def phases(seen: list[str]) -> list[str]:
    """Collapse runs: ["a", "a", "b"] becomes ["a", "b"]."""
    return [state for i, state in enumerate(seen) if i == 0 or seen[i - 1] != state]


def test_a_killed_registration_leaves_the_whole_model_or_none(template: Template, tmp_path: Path) -> None:
    """Blob first, row second, one transaction: no reader ever meets half a model."""

    def register(registry: _context.Registry) -> None:
        task = Task(registry, registry.tasks.get(template.task_id))
        model = OutputModel(task, name="new", tags=["x"], framework="ONNX", label_enumeration={"cat": 1})
        model.update_weights(template.weights, iteration=7)

    def look(registry: _context.Registry) -> str:
        found = [r for r in all_models(registry) if r.name == "new"]
        if not found:
            assert registry.tasks.links(template.task_id, "output") == [
                link for link in registry.tasks.links(template.task_id, "output") if link.name == "first"
            ]
            return "none"
        (record,) = found
        path = registry.weights.local_copy(record, verify=True)
        assert path.read_bytes() == template.weights.read_bytes()
        assert (record.tags, record.framework, record.iteration, record.labels) == (("x",), "ONNX", 7, {"cat": 1})
        assert [li.model for li in registry.tasks.links(template.task_id, "output") if li.name == "weights"] == [
            record.id
        ]
        return "whole"

    seen = every_step(template, tmp_path, register, look)

    assert phases(seen) == ["none", "whole"]
    assert len(seen) > 10


def test_killed_new_weights_leave_the_old_or_the_new(template: Template, tmp_path: Path) -> None:
    """Digest, size and URI belong together."""

    def update(registry: _context.Registry) -> None:
        task = Task(registry, registry.tasks.get(template.task_id))
        OutputModel(task, base_model_id=template.model_id).update_weights(template.weights)

    def look(registry: _context.Registry) -> str:
        content = registry.weights.local_copy(registry.models.get(template.model_id), verify=True).read_bytes()
        return {b"first": "old", template.weights.read_bytes(): "new"}[content]

    assert phases(every_step(template, tmp_path, update, look)) == ["old", "new"]


def test_a_killed_publication_happened_or_did_not(template: Template, tmp_path: Path) -> None:
    """Publication and what it freezes are one."""

    def publish(registry: _context.Registry) -> None:
        registry.models.publish(template.model_id)

    def look(registry: _context.Registry) -> str:
        record = registry.models.get(template.model_id)
        assert record.uri is not None
        return "published" if record.published else "draft"

    assert phases(every_step(template, tmp_path, publish, look)) == ["draft", "published"]


def test_a_killed_transaction_promotes_all_models_or_none(template: Template, tmp_path: Path) -> None:
    """`registry.transaction()` is one change for everybody else."""

    def promote(registry: _context.Registry) -> None:
        with registry.transaction():
            registry.models.tag(template.model_id, add=["prod"])
            registry.models.create(name="second", tags=["prod"])
            registry.models.archive(template.model_id)

    def look(registry: _context.Registry) -> str:
        count = sum("prod" in record.tags for record in all_models(registry))
        assert registry.models.get(template.model_id).archived == (count == 2)
        return str(count)

    assert phases(every_step(template, tmp_path, promote, look)) == ["0", "2"]


def test_a_killed_removal_leaves_the_model_whole_or_removes_it(template: Template, tmp_path: Path) -> None:
    """The row goes first, the bytes after: never a row without bytes."""

    def remove(registry: _context.Registry) -> None:
        record = registry.models.delete(template.model_id)
        registry.weights.release(record)

    def look(registry: _context.Registry) -> str:
        record = registry.models.get(template.model_id, deleted=True)
        if not record.deleted:
            assert registry.weights.local_copy(record, verify=True).read_bytes() == b"first"
            return "there"
        return "gone, bytes left" if registry.weights.objects.find(str(record.digest)) else "gone"

    assert phases(every_step(template, tmp_path, remove, look)) == ["there", "gone, bytes left", "gone"]


def test_a_killed_upload_is_taken_up_by_the_next_process(template: Template, tmp_path: Path) -> None:
    """What `update_weights` returned from is never lost, though the bytes were still on their way."""
    share = tmp_path / "share"

    def upload(registry: _context.Registry) -> None:
        task = Task(registry, registry.tasks.get(template.task_id))
        model = OutputModel(task, name="sent")
        model.update_weights(template.weights, upload_uri=share)
        registry.weights.wait(None)

    def look(registry: _context.Registry) -> str:
        found = [r for r in all_models(registry) if r.name == "sent"]
        if not found:
            return "none"
        waiting = registry.weights.uploads.pending()
        assert bool(waiting) == (found[0].uri is None)
        state = "waiting" if waiting else "sent"
        registry.weights.uploads.resume()
        record = registry.models.get(found[0].id)
        assert registry.weights.local_copy(record, verify=True).read_bytes() == template.weights.read_bytes()
        assert registry.weights.uploads.pending() == []
        return state

    assert phases(every_step(template, tmp_path, upload, look)) == ["none", "waiting", "sent"]


def all_models(registry: _context.Registry) -> list[ModelRecord]:
    return ModelSearch(include_archived=True).run(registry)

"""What was: the registry at a moment, what changed between two, and taking changes back."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import modelstore
from modelstore import InputModel, Model, Task
from modelstore.errors import InvalidRequestError, NotFoundError, PublishedModelError, ReadOnlyRegistryError
from modelstore.registry import Registry
from modelstore.registry.moments import last_stamp_of
from modelstore.registry.search import ModelSearch
from modelstore.testing.reference import fold, read_index
from tests.effort import share


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path / "registry", cache=tmp_path / "cache") as opened:
        yield opened


def last(registry: Registry) -> str:
    return max(operation.stamp for _, operation in registry.operations())


def names(registry: Registry, **filters: Any) -> list[str]:
    return sorted(str(model.name) for model in ModelSearch(**filters).run(registry))


def test_a_moment_shows_what_was(registry: Registry) -> None:
    """Names, tags, removals; and nothing can be changed there."""
    one = registry.models.create(name="one", tags=["prod"]).id
    then = last(registry)
    registry.models.edit(one, name="renamed")
    registry.models.tag(one, remove=["prod"])
    registry.models.create(name="two", tags=["prod"])

    past = registry.at(then)

    assert names(past, tags=["prod"]) == ["one"]
    assert names(registry, tags=["prod"]) == ["two"]
    assert past.models.get(one).name == "one"
    with pytest.raises(ReadOnlyRegistryError, match="as it was"):
        past.models.edit(one, name="x")
    assert registry.at(then) is past
    with registry.at(then) as again:
        assert again is past
    assert names(registry.at(then)) == ["one"]
    registry.models.create(name="three")
    assert names(registry.at(then)) == ["one"]


_EDITS = st.lists(
    st.tuples(st.sampled_from(["create", "name", "tag", "untag", "publish", "delete", "restore"]), st.integers(0, 3)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=share(20))
@given(edits=_EDITS)
def test_every_moment_is_the_fold_of_what_was_made_until_then(
    edits: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Exactly, for each stamp; against the fold over plain dictionaries."""
    with Registry(tmp_path_factory.mktemp("moments")) as registry:
        models: list[str] = []
        for action, number in edits:
            if action == "create" or not models:
                models.append(registry.models.create(name=f"m{number}", uri="s3://b/1").id)
                continue
            model = models[number % len(models)]
            try:
                _edit(registry, action, model, number)
            except modelstore.errors.ModelStoreError:
                continue
        operations = [operation for _, operation in registry.operations()]
        for stamp in sorted(o.stamp for o in operations)[-4:]:
            expected = fold(o for o in operations if o.stamp <= stamp)
            assert read_index(registry.at(stamp).database.connection) == expected


def _edit(registry: Registry, action: str, model: str, number: int) -> None:
    if action == "name":
        registry.models.edit(model, name=f"n{number}")
    elif action == "tag":
        registry.models.tag(model, add=[f"t{number}"])
    elif action == "untag":
        registry.models.tag(model, remove=[f"t{number}"])
    else:
        getattr(registry.models, action)(model)


def test_moments_are_said_in_many_ways() -> None:
    """A date is its end, a time without a zone is local."""
    moment = datetime(2026, 3, 1, 12, tzinfo=UTC)
    prefix = f"{int(moment.timestamp() * 1000):012x}"
    same: list[Any] = [moment, moment.isoformat(), moment.timestamp(), str(moment.timestamp()), moment.astimezone()]
    assert {last_stamp_of(one)[:12] for one in same} == {prefix}
    end = datetime(2026, 3, 1, 23, 59, 59, 999_000)  # noqa: DTZ001 - local time
    assert last_stamp_of("2026-03-01") == last_stamp_of(date(2026, 3, 1)) == last_stamp_of(end)
    assert last_stamp_of("0" * 32) == "0" * 32
    wrong: list[Any] = ["yesterday", "", None, True, float("nan"), -5, 1e300, [1]]
    for one in wrong:
        with pytest.raises(InvalidRequestError, match="moment"):
            last_stamp_of(one)


def test_the_classes_take_a_moment(tmp_path: Path) -> None:
    """Queries, single models, and local copies of weights that were replaced since."""
    with modelstore.open(tmp_path / "registry") as registry:
        task = modelstore.Task.create(project_name="p", task_name="t")
        file = tmp_path / "w.pt"
        file.write_bytes(b"old")
        model = modelstore.OutputModel(task, name="m", tags=["a"])
        model.update_weights(file, auto_delete_file=False)
        time.sleep(0.01)
        then = datetime.now(UTC)
        time.sleep(0.01)
        file.write_bytes(b"new")
        model.update_weights(file, auto_delete_file=False)
        model.tags = ["b"]

        (old,) = Model.query_models(tags=["a"], as_of=then)
        path = old.get_local_copy(raise_on_error=True)
        assert path is not None
        assert Path(path).read_bytes() == b"old"
        assert Model.query_models(tags=["a"]) == []
        assert Model.count_models(tags=["a"], as_of=then) == 1
        assert [m.tags for m in Model.iter_models(as_of=then)] == [["a"]]
        assert Model(str(model.id), as_of=then).tags == ["a"]
        assert Model.count_models(as_of=then - timedelta(days=1)) == 0
        with pytest.raises(ReadOnlyRegistryError):
            old.tags = ["c"]
        assert registry.models.get(str(model.id)).tags == ("b",)


def test_tasks_are_found_as_they_were(tmp_path: Path) -> None:
    """By what they were then, read-only; with their parameters and the models of then."""
    with modelstore.open(tmp_path / "registry") as registry:
        task = Task.create(project_name="p", task_name="before")
        task.set_parameter("General/lr", 0.1)
        model = InputModel.import_model("s3://b/1")
        then = last(registry)
        task.connect(model, name="start")
        task.set_parameter("General/lr", 0.2)
        task.rename("after")
        task.add_tags(["late"])
        Task.create(project_name="p", task_name="another")

        (old,) = Task.get_tasks(project_name="p", as_of=then)
        assert (old.id, old.name, old.get_tags(), old.get_parameter("General/lr")) == (task.id, "before", [], "0.1")
        assert len(old.models.input) == 0
        assert Task.get_tasks(tags=["late"], as_of=then) == []
        assert Task.query_tasks(where="meta('General/lr') < 0.15", as_of=then) == [task.id]
        same = Task.get_task(task_id=task.id, as_of=then)
        assert same is not None
        assert same.name == "before"
        assert Task.get_task(task_name="another", as_of=then) is None
        assert [record.name for record in registry.tasks.find(as_of=then)] == ["before"]
        with pytest.raises(ReadOnlyRegistryError, match="as it was"):
            old.rename("changed")


def test_a_difference_is_asked_for_without_opening_anything(tmp_path: Path) -> None:
    """In the registry that the classes use."""
    with modelstore.open(tmp_path / "registry") as registry:
        InputModel.import_model("s3://b/1", name="one")
        first = last(registry)
        InputModel.import_model("s3://b/2", name="two", project="p")

        assert [(change.name, change.what) for change in modelstore.diff(first)] == [("two", "added")]
        assert modelstore.diff(first, first) == []
        assert modelstore.diff(first, project="q") == []
        with pytest.raises(InvalidRequestError, match="no moment"):
            modelstore.diff("soon")


def test_changes_between_two_moments(registry: Registry) -> None:
    """Added, removed, changed; value by value; what was changed back is no change."""
    kept = registry.models.create(name="kept", project="a").id
    gone = registry.models.create(name="gone", project="a").id
    first = last(registry)
    registry.models.edit(kept, comment="x")
    registry.models.edit(kept, comment=None)
    assert registry.changes_between(first) == []
    registry.models.set_metadata(kept, {"acc": (None, 0.5)})
    registry.models.tag(kept, add=["prod"])
    registry.models.delete(gone)
    new = registry.models.create(name="new", project="b").id
    second = last(registry)
    registry.models.edit(new, name="later")

    found = {change.id: change for change in registry.changes_between(first, second)}

    assert {change.id: change.what for change in found.values()} == {kept: "changed", gone: "removed", new: "added"}
    assert found[kept].values == {"metadata.acc": (None, "0.5"), "tag:prod": (None, True)}
    assert found[new].name == "new"
    assert [c.id for c in registry.changes_between(first, second, project="b")] == [new]


def test_a_change_is_taken_back_and_that_too(registry: Registry) -> None:
    """A field, a tag, metadata: back to what was there before; undoing the undo brings it again."""
    model = registry.models.create(name="one", tags=["a"]).id
    registry.models.set_metadata(model, {"k": (None, 1)})
    changes: list[Callable[[], object]] = [
        lambda: registry.models.edit(model, name="two"),
        lambda: registry.models.tag(model, remove=["a"]),
        lambda: registry.models.set_metadata(model, {"k": (None, 2)}),
        lambda: registry.models.edit(model, labels={"cat": 1}),
        lambda: registry.models.delete(model),
    ]
    for change in changes:
        before = registry.models.get(model)
        change()
        assert registry.undo(dry_run=True)
        registry.undo()
        after = registry.models.get(model)
        assert (after.name, after.tags, after.labels) == (before.name, before.tags, before.labels)
        assert after.metadata.keys() == before.metadata.keys()
        assert [item.text for item in after.metadata.values()] == [item.text for item in before.metadata.values()]
        registry.undo()
        registry.undo()
    other = registry.models.create(name="other").id
    registry.undo()
    assert other not in {found.id for found in ModelSearch().run(registry)}


def test_a_transaction_is_taken_back_as_a_whole(registry: Registry) -> None:
    """Whichever of its operations is named."""
    one, two = (registry.models.create(name=name).id for name in ("one", "two"))
    with registry.transaction():
        registry.models.tag(one, add=["prod"])
        registry.models.tag(two, add=["prod"])
    registry.undo(last(registry))
    assert names(registry, tags=["prod"]) == []


def test_a_transaction_that_changed_one_value_twice_is_taken_back_to_before_it(registry: Registry) -> None:
    """Its own second change is no later change."""
    model = registry.models.create(name="one", tags=["a"]).id
    with registry.transaction():
        registry.models.edit(model, name="two")
        registry.models.tag(model, remove=["a"])
        registry.models.edit(model, name="three")
        registry.models.tag(model, add=["b"])
        registry.models.delete(model)

    undone = {one.key: (one.now, one.back) for one in registry.undo()}

    assert undone["name"] == ("three", "one")
    record = registry.models.get(model)
    assert (record.name, record.tags) == ("one", ("a",))


def test_a_creation_is_taken_back_as_long_as_nothing_was_done_with_the_model(registry: Registry) -> None:
    """Tags, edits and publications would go with it; removing it twice is nothing to do either."""
    model = registry.models.create(name="one", uri="s3://b/1").id
    stamp = last(registry)
    registry.models.tag(model, add=["prod"])
    registry.models.publish(model)

    with pytest.raises(InvalidRequestError, match="Changed since"):
        registry.undo(stamp)
    (left,) = registry.undo(stamp, force=True)
    assert left.later == last(registry)
    assert registry.models.get(model).published
    with registry.transaction():
        two = registry.models.create(name="two").id
        registry.models.tag(two, add=["x"])
    registry.undo()
    assert names(registry) == ["one"]
    registry.undo()
    assert names(registry) == ["one", "two"]


def test_models_of_a_moment_can_be_read_however_many_moments_are_asked_for_later(registry: Registry) -> None:
    """And what was made for a moment is removed with the last of them, or with the registry."""
    model = registry.models.create(name="n0").id
    stamps = [last(registry)]
    for number in range(1, 8):
        registry.models.edit(model, name=f"n{number}")
        stamps.append(last(registry))
    held = registry.at(stamps[0])
    folders = [held.database.path.parent]
    folders += [registry.at(stamp).database.path.parent for stamp in stamps[1:]]

    assert held.models.get(model).name == "n0"
    gc.collect()
    assert [folder.exists() for folder in folders] == [True, False, False, False, True, True, True, True]
    registry.close()
    assert not any(folder.exists() for folder in folders)


_LOOK_AND_DIE = """
import os, signal, sys
from modelstore.registry import Registry
registry = Registry(sys.argv[1])
registry.at("f" * 32)
if len(sys.argv) > 2:
    print(flush=True)
    sys.stdin.read()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_look_left_is_removed_by_others(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the next look, and by a collection; never that of a process that lives."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    (tmp_path / "temporary" / "modelstore-past-of somebody else").mkdir()
    registry.models.create(name="one")

    def look(*words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", _LOOK_AND_DIE, str(registry.folder), *words]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def left() -> int:
        return len(list((tmp_path / "temporary").iterdir())) - 1

    with look("and stay") as alive:
        assert alive.stdout is not None
        alive.stdout.readline()
        look().communicate()
        assert left() == 2
        assert next(f.what for f in registry.check() if "temporary" in f.what).startswith("1 temporary folders")
        assert [one.why for one in registry.gc(dry_run=True).garbage] == ["unfinished"]
        assert left() == 2
        assert registry.gc().freed_bytes > 0
        assert left() == 1
        alive.communicate()
    assert left() == 1
    registry.at("f" * 32)
    assert left() == 1  # our own
    registry.close()
    assert left() == 0


def test_a_forked_child_that_ends_leaves_its_parent_the_view(registry: Registry) -> None:
    """It has inherited what removes the folder."""
    registry.models.create(name="one")
    past = registry.at("f" * 32)
    child = os.fork()
    if child == 0:
        try:
            registry.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)

    assert past.database.path.exists()
    assert names(past) == ["one"]


def test_what_was_changed_since_is_left_alone(registry: Registry) -> None:
    """Nothing is done then, unless the rest is asked for."""
    model = registry.models.create(name="one").id
    with registry.transaction():
        registry.models.edit(model, name="two")
        registry.models.edit(model, comment="c")
    stamp = last(registry)
    registry.models.edit(model, name="three")

    with pytest.raises(InvalidRequestError, match="Changed since: name"):
        registry.undo(stamp)
    assert registry.models.get(model).comment == "c"
    left = [one for one in registry.undo(stamp, force=True) if one.later is not None]
    assert [one.key for one in left] == ["name"]
    record = registry.models.get(model)
    assert (record.name, record.comment) == ("three", None)


def test_what_cannot_be_taken_back_says_why(registry: Registry) -> None:
    """A publication, what does not exist, and an empty registry."""
    with pytest.raises(NotFoundError, match="Nothing"):
        registry.undo()
    model = registry.models.create(name="one", uri="s3://b/1").id
    registry.models.publish(model)
    with pytest.raises(PublishedModelError, match="taken back"):
        registry.undo()
    with pytest.raises(NotFoundError, match="no operation"):
        registry.undo("0" * 32)
    assert registry.models.get(model).published


def test_the_classes_see_a_change_taken_back(tmp_path: Path) -> None:
    """Objects read their row again."""
    with modelstore.open(tmp_path / "registry") as registry:
        model = InputModel.import_model("s3://b/1", name="one")
        model.tags = ["x"]
        registry.undo()
        assert model.tags == []

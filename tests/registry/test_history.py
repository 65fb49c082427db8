"""Who changed what, when: of models, tasks, projects, and the whole registry."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from modelstore.errors import InvalidRequestError, ModelNotFoundError, ProjectNotFoundError, TaskNotFoundError
from modelstore.records.entities import Change
from modelstore.registry import Registry
from modelstore.registry import history as history_module
from modelstore.registry.moments import first_stamp_of


@pytest.fixture(params=[500, 2])
def registry(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """With pages of the usual size, and so small that everything crosses them."""
    monkeypatch.setattr(history_module, "_TOGETHER", request.param)
    with Registry(tmp_path / "registry", cache=tmp_path / "cache", actor="ann@here") as opened:
        yield opened


def short(changes: Iterator[Change]) -> list[tuple[Any, ...]]:
    return [(one.kind, one.name, one.action, one.key, one.old, one.new) for one in changes]


def test_the_latest_comes_first_with_what_was_there_before(registry: Registry) -> None:
    """Of models and tasks alike, by whomever."""
    task = registry.tasks.create(name="train", status="in_progress").id
    model = registry.models.create(name="one", tags=["a"]).id
    registry.actor = "bob@there"
    registry.tasks.edit(task, status="completed", items={"param:General/lr": 0.1})
    registry.models.edit(model, name="two")
    registry.models.tag(model, remove=["a"])
    registry.models.delete(model)

    found = list(registry.history())

    assert short(iter(found)) == [
        ("model", "two", "delete", "deleted", None, True),
        ("model", "two", "edit", "tag:a", True, None),
        ("model", "two", "edit", "name", "one", "two"),
        ("task", "train", "edit", "status", "in_progress", "completed"),
        ("task", "train", "edit", "param:General/lr", None, 0.1),
        ("model", "two", "create", "name", None, "one"),
        ("model", "two", "create", "tag:a", None, True),
        ("task", "train", "create", "name", None, "train"),
        ("task", "train", "create", "status", None, "in_progress"),
    ]
    assert [one.actor for one in found] == ["bob@there"] * 5 + ["ann@here"] * 4
    assert [one.stamp for one in found] == sorted((one.stamp for one in found), reverse=True)


def test_of_one_model_it_is_what_the_model_says(registry: Registry) -> None:
    """Publications and metadata included; reports are none of it."""
    model = registry.models.create(name="one", uri="s3://b/1", labels={"cat": 1}).id
    registry.models.create(name="other")
    registry.models.set_metadata(model, {"acc": (None, 0.5)})
    registry.models.set_metadata(model, {"acc": (None, 0.6)})
    registry.reports.scalar("model", model, "loss", "train", 0.1, 1)
    registry.models.publish(model)
    registry.flush_reports()

    one_way = [(e.stamp, e.key, e.old, e.new) for e in registry.models.history(model)]
    other_way = [(e.stamp, e.key, e.old, e.new) for e in registry.history(model=model)]

    assert sorted(other_way, key=lambda e: e[0]) == one_way
    assert ("meta:acc", 0.5, 0.6) in {entry[1:] for entry in one_way if entry[1].startswith("meta")}


def test_of_a_project_it_is_what_is_or_was_in_it(registry: Registry) -> None:
    """A model that was moved away has a part of its life there."""
    task = registry.tasks.create(name="train", project="vision").id
    stays = registry.models.create(name="stays", project="vision").id
    leaves = registry.models.create(name="leaves", project="vision").id
    registry.models.create(name="never", project="vision/sub")
    registry.models.edit(leaves, project="speech")
    assert {one.entity for one in registry.history(project="vision")} == {task, stays, leaves}
    assert {one.name for one in registry.history(project="speech")} == {"leaves"}
    registry.models.delete(stays)

    assert next(registry.history(project="vision")).action == "delete"


def test_times_keys_and_limits_narrow_it(registry: Registry) -> None:
    """Both times are part of what they bound; a date begins or ends with its day."""
    model = registry.models.create(name="one", tags=["a", "b"]).id
    registry.models.edit(model, name="two")
    registry.models.tag(model, add=["c"])
    stamps = [one.stamp for one in registry.history(key="name")]

    assert [one.new for one in registry.history(key="name", since=stamps[0])] == ["two"]
    assert [one.new for one in registry.history(key="name", until=stamps[1])] == ["one"]
    assert {one.key for one in registry.history(key="tag")} == {"tag:a", "tag:b", "tag:c"}
    assert [one.key for one in registry.history(key="tag:b")] == ["tag:b"]
    assert [one.key for one in registry.history(limit=2)] == ["tag:c", "name"]
    now = datetime.now(UTC)
    assert len(list(registry.history(since=now - timedelta(hours=1), until=now + timedelta(hours=1)))) == 5
    assert list(registry.history(since=now + timedelta(hours=1))) == []
    assert first_stamp_of("2026-03-01") == first_stamp_of(date(2026, 3, 1)) == first_stamp_of("2026-03-01T00:00")


def test_others_may_write_while_it_is_read(registry: Registry) -> None:
    """What is read is what was there, each change once."""
    for number in range(5):
        registry.models.create(name=f"{number}")
    names = []
    for change in registry.history():
        names.append(change.new)
        registry.models.create(name="meanwhile")

    assert names == ["4", "3", "2", "1", "0"]


def test_a_moment_has_a_history_too(registry: Registry) -> None:
    """That of what had been done by then."""
    model = registry.models.create(name="one").id
    then = next(registry.history()).stamp
    registry.models.edit(model, name="two")

    assert short(registry.at(then).history()) == [("model", "one", "create", "name", None, "one")]


def test_what_is_asked_wrongly_is_told_at_once(registry: Registry) -> None:
    """Not with the first change that is read."""
    with pytest.raises(ModelNotFoundError):
        registry.history(model="f" * 32)
    with pytest.raises(TaskNotFoundError):
        registry.history(task="f" * 32)
    with pytest.raises(ProjectNotFoundError):
        registry.history(project="nowhere")
    wrong: list[dict[str, Any]] = [
        {"model": "f" * 32, "task": "f" * 32}, {"since": "soon"}, {"until": -1}, {"limit": 0}, {"limit": True},
        {"key": 1},
    ]  # fmt: skip
    for asked in wrong:
        with pytest.raises(InvalidRequestError):
            registry.history(**asked)

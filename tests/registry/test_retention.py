"""What rules keep stays, the rest goes, and a dry run says exactly what."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelstore.errors import InvalidRequestError, ProjectNotFoundError
from modelstore.journal import Draft
from modelstore.query import Search
from modelstore.records.entities import ModelRecord
from modelstore.registry import Registry, open_registry, retention
from tests.kinds import SHARED
from tests.registry.keeping import object_files, register


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """Ten models of a project: net0 to net9 with rising accuracy, but net3 the best, and net9 without any."""
    with open_registry(tmp_path / "registry") as opened:
        for number in range(10):
            accuracy = {3: 0.99}.get(number, number / 10)
            metadata = {} if number == 9 else {"accuracy": accuracy}
            register(opened, f"bytes {number}".encode(), f"net{number}", project="p", metadata=metadata)
        yield opened


def _names(models: tuple[ModelRecord, ...]) -> list[str]:
    return sorted(str(model.name) for model in models)


def _present(registry: Registry) -> list[str]:
    return sorted(row[0] for row in registry.database.all("SELECT name FROM models WHERE state < 2"))


def _id(registry: Registry, name: str) -> str:
    return str(registry.database.all("SELECT id FROM models WHERE name = ?", (name,))[0][0])


def test_the_union_of_the_rules_stays(registry: Registry) -> None:
    """Best, last, tagged; and what is published, whatever the rules say."""
    registry.models.tag(_id(registry, "net0"), add=["prod"])
    registry.models.publish(_id(registry, "net1"))
    done = registry.retain(
        project="p", keep_best=2, by="-metadata.accuracy", keep_last=1, keep_tagged=["prod", "staging"]
    )

    assert _present(registry) == ["net0", "net1", "net3", "net8", "net9"]
    assert done.kept == {"tagged": 1, "published": 1, "best": 2, "last": 1}
    if SHARED:  # a collection frees them there
        registry.gc(grace_s=0, keep_former_s=0)
    assert len(object_files(registry.folder)) == 5
    assert not registry.fsck(deep=True).damaged


def test_a_dry_run_says_exactly_what_goes(registry: Registry) -> None:
    """Models and bytes; bytes that somebody else uses too are not counted."""
    register(registry, b"bytes 0", "twin of net0")
    rules: dict[str, Any] = {"project": "p", "keep_last": 7}
    told = registry.retain(**rules, dry_run=True)
    before = _present(registry)
    done = registry.retain(**rules)

    assert len(before) == 11
    assert _names(told.removal.models) == _names(done.removal.models) == ["net0", "net1", "net2"]
    assert told.removal.freed_bytes == done.removal.freed_bytes == (0 if SHARED else 14)
    assert told.kept == done.kept


def test_the_least_is_the_best_where_the_order_says_so(registry: Registry) -> None:
    """Models without the value come last, whatever the direction."""
    registry.retain(keep_best=2, by="metadata.accuracy")

    assert _present(registry) == ["net0", "net1"]


def test_what_was_reported_decides_too(registry: Registry) -> None:
    """The best of a series, reported a moment ago."""
    for number in range(10):
        registry.reports.scalar("model", _id(registry, f"net{number}"), "val", "loss", abs(number - 6), 1)
    registry.retain(keep_best=1, by="metrics.val.loss")

    assert _present(registry) == ["net6"]


def test_the_young_stay(registry: Registry) -> None:
    """Counted from their last change."""
    assert registry.retain(older_than_s=3600).kept == {"young": 10}
    assert len(registry.retain(older_than_s=0).removal.models) == 10


def test_what_tasks_use_and_what_is_being_uploaded_stays(registry: Registry) -> None:
    """Removing them would break something."""
    task = registry.tasks.create(name="t", project="p")
    registry.commit([Draft("task", task.id, "edit", {"link:input:teacher": _id(registry, "net0")})])
    with registry.database.write() as connection:
        connection.execute(
            "INSERT INTO uploads (model, snapshot, destination, changes, status, host, pid, actor, created)"
            " VALUES (?, 'uploads/known', 's3://b', '{}', 'failed', 'h', 1, 'a', 1)",
            (_id(registry, "net1"),),
        )
    done = registry.retain(keep_last=0)

    assert _present(registry) == ["net0", "net1"]
    assert done.kept == {"used": 1, "uploading": 1}


def test_other_models_are_not_touched(registry: Registry) -> None:
    """Of other projects, and those that do not match."""
    register(registry, b"other", "other", project="q")
    registry.retain(project="p", where="accuracy < 0.5", keep_last=0)

    assert _present(registry) == ["net3", "net5", "net6", "net7", "net8", "net9", "other"]


def test_words_can_be_searched_for(registry: Registry) -> None:
    """Which takes the texts in first."""
    registry.retain(where=Search("net3"), keep_last=0)

    assert len(_present(registry)) == 9


def test_removed_models_can_come_back_whole_where_their_bytes_were_kept(registry: Registry) -> None:
    """As with `rm --keep-weights`."""
    done = registry.retain(keep_last=0, keep_weights=True)
    for model in done.removal.models:
        registry.models.restore(model.id)

    assert len(_present(registry)) == 10
    assert not registry.fsck(deep=True).damaged


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"keep_best": 3},
        {"by": "-metadata.accuracy"},
        {"keep_best": 3, "by": "nothing known"},
        {"keep_last": -1},
        {"keep_last": True},
        {"keep_tagged": "prod"},
        {"older_than_s": float("nan")},
        {"keep_last": 1, "where": "((("},
    ],
)
def test_rules_that_make_no_sense_remove_nothing(registry: Registry, rules: dict[str, Any]) -> None:
    """Above all: no rule at all."""
    with pytest.raises(InvalidRequestError):
        registry.retain(**rules)
    with pytest.raises(ProjectNotFoundError):
        registry.retain(project="no such", keep_last=0)
    assert len(_present(registry)) == 10


def test_what_is_changed_while_others_are_removed_stays(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tagged, published or used by somebody between the choice and the removal."""
    monkeypatch.setattr("modelstore.registry.retention._AT_ONCE", 2)
    task = registry.tasks.create(name="t", project="p")
    late = [row[0] for row in registry.database.all("SELECT id FROM models ORDER BY created")][:3]

    def interfere() -> None:
        registry.models.tag(late[0], add=["wanted"])
        registry.models.publish(late[1])
        registry.commit([Draft("task", task.id, "edit", {"link:input:teacher": late[2]})])

    removed = registry.weights.release
    calls: list[str] = []

    def release(record: ModelRecord) -> int:
        calls.append(record.id)
        if len(calls) == 2:  # the first batch is removed
            interfere()
        return removed(record)

    monkeypatch.setattr(registry.weights, "release", release)
    done = registry.retain(keep_last=0)

    assert len(done.removal.models) == 7
    assert done.kept == {"changed": 3}
    assert _present(registry) == ["net0", "net1", "net2"]
    assert not registry.fsck(deep=True).damaged


def test_what_is_registered_while_the_best_are_being_chosen_stays(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was in neither list, and is better and newer than what is."""
    first = retention._first

    def meanwhile(*given: Any) -> set[str]:
        found = first(*given)
        if given[-1] == "-created":
            register(registry, b"new", "new", project="p", metadata={"accuracy": 1.0})
        return found

    monkeypatch.setattr(retention, "_first", meanwhile)
    done = registry.retain(project="p", keep_last=1, keep_best=1, by="-metadata.accuracy")

    assert _present(registry) == ["net3", "net9", "new"]
    assert done.kept == {"best": 1, "last": 1, "changed": 1}

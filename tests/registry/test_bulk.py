"""Registering many models at once does what registering each would, only sooner."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelstore.errors import InvalidRequestError, TaskNotFoundError
from modelstore.ids import make_stamp, new_id, new_writer
from modelstore.index.contents import check_copies, read_index
from modelstore.journal import Draft
from modelstore.records.operations import Operation
from modelstore.registry.registry import Registry
from modelstore.testing.strategies import META_KEYS, PROJECTS, odd_text, tags
from tests.effort import share

TASK = f"{77:032x}"
IDS = [f"{n:032x}" for n in range(1, 5)]
TEXTS = odd_text().filter(lambda text: "\0" not in text)
VALUES = st.integers() | st.floats() | st.booleans() | TEXTS | st.none() | st.lists(st.integers(), max_size=2)

# What an index holds, without times; keys and numbers included, since both registries begin empty.
CONTENTS = (
    "SELECT key, id, name FROM projects ORDER BY 1",
    (
        "SELECT key, id, state, deleted, name, project, task, parent, comment, framework, uri, digest, size, package,"
        " iteration, created_op, labels, config, tags, system_tags FROM models ORDER BY 1"
    ),
    "SELECT key, name, visible, archived FROM tags ORDER BY 1",
    "SELECT tag, model, op FROM model_tags ORDER BY 1, 2",
    "SELECT tag, state, model FROM tag_walk ORDER BY tag, state, updated, model",
    "SELECT * FROM bitmaps ORDER BY 1, 2, 3",
    "SELECT * FROM metadata ORDER BY 1, 2",
    "SELECT * FROM links ORDER BY 1, 2, 3",
    "SELECT * FROM items ORDER BY 1, 2",
    "SELECT seq, entity_kind, entity, action, changes, actor FROM ops ORDER BY 1",
)


def arguments() -> st.SearchStrategy[dict[str, Any]]:
    """Return arguments of `Models.create`, with every field, odd tags, and tasks that refer to the model."""
    acceptable = tags().filter(lambda tag: bool(tag.strip()) and "\0" not in tag)
    name = TEXTS.filter(lambda text: bool(text.strip()) and text.isprintable())
    return st.fixed_dictionaries(
        {"name": name},
        optional={
            "tags": st.lists(acceptable, max_size=5),
            "system_tags": st.just(["archived"]) | st.just(["other"]),
            "metadata": st.dictionaries(st.sampled_from(META_KEYS), VALUES, max_size=3),
            "project": st.none() | st.sampled_from(PROJECTS),
            "uri": st.sampled_from(["s3://b/1", "s3://b/2", "/data/net.pt"]),
            "comment": TEXTS,
            "labels": st.just({"cat": 1}),
            "config": st.just({"text": "x"}),
            "framework": st.just("ONNX"),
            "parent": st.sampled_from(IDS),
            "iteration": st.integers(0, 5),
            "package": st.booleans(),
            "size": st.integers(0, 2**62),
            "links": st.just([(TASK, "output", "net")]),
        },
    )


class _UndoneError(Exception):
    pass


def outcome(registry: Registry, action: Callable[[], None]) -> list[list[tuple[Any, ...]]]:
    """Do something, look at the whole index, see that it agrees with itself and its journal, and undo it."""
    found: list[list[tuple[Any, ...]]] = []
    with pytest.raises(_UndoneError), registry.database.write() as connection:
        action()
        found += [[tuple(row) for row in connection.execute(statement)] for statement in CONTENTS]
        check_copies(connection)
        before = read_index(connection)
        registry.rebuild()
        assert read_index(connection) == before
        raise _UndoneError
    return found


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Registry, Registry]]:
    """Two registries with one task each."""
    with Registry(tmp_path_factory.mktemp("one")) as one, Registry(tmp_path_factory.mktemp("many")) as many:
        for registry in (one, many):
            registry.tasks.create(task_id=TASK, name="train", project="p", status="in_progress")
        yield one, many


@given(models=st.lists(arguments(), max_size=12), size=st.integers(1, 5), data=st.data())
@settings(max_examples=share(60))
def test_many_at_once_make_the_same_index_as_one_after_the_other(
    pair: tuple[Registry, Registry], models: list[dict[str, Any]], size: int, data: st.DataObject
) -> None:
    """Row for row, ids of one's own and links of tasks included."""
    one, many = pair
    ids = st.sampled_from(IDS) | st.uuids().map(lambda made: made.hex)
    count = len(models)
    for model, chosen in zip(
        models, data.draw(st.lists(ids, min_size=count, max_size=count, unique=True)), strict=True
    ):
        model["model_id"] = chosen

    def singly() -> None:
        for start in range(0, len(models), size):
            # The links of a batch come behind its models.
            batch = [dict(model) for model in models[start : start + size]]
            links = [(model.pop("links", []), model["model_id"]) for model in batch]
            for model in batch:
                one.models.create(**model)
            for found, model_id in links:
                for task, direction, name in found:
                    one.commit([Draft("task", task, "edit", {f"link:{direction}:{name}": model_id})])

    expected = outcome(one, singly)

    assert outcome(many, lambda: _count(many, models, size)) == expected


def _count(registry: Registry, models: list[dict[str, Any]], size: int) -> None:
    assert registry.models.create_many(iter(models), batch_size=size) == len(models)


def numbered(count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        yield {"name": f"m{number}", "tags": ["all", f"t{number % 3}"], "metadata": {"n": number}, "project": "p"}


def test_each_batch_is_one_transaction_of_the_journal(tmp_path: Path) -> None:
    """The journal says which operations belong together, and in which order."""
    with Registry(tmp_path) as registry:
        registry.models.create_many(numbered(25), batch_size=10)
        operations = [operation for _, operation in registry.operations()]

        assert [o.batch_size for o in operations] == [10] * 20 + [5] * 5
        assert [o.batch for o in operations] == [operations[n // 10 * 10].stamp for n in range(25)]
        assert [o.stamp for o in operations] == sorted({o.stamp for o in operations})


def test_inside_a_transaction_all_batches_are_one(tmp_path: Path) -> None:
    """All or nothing, and one batch of the journal."""
    with Registry(tmp_path) as registry:
        with pytest.raises(_UndoneError), registry.transaction():
            registry.models.create_many(numbered(25), batch_size=10)
            raise _UndoneError
        assert registry.database.all("SELECT 1 FROM models") == []

        with registry.transaction():
            registry.models.create_many(numbered(25), batch_size=10)
            registry.models.create(name="last")

        assert {(o.batch_size, o.batch) for _, o in registry.operations()} == {
            (26, next(o.stamp for _, o in registry.operations()))
        }


def test_memory_does_not_grow_because_models_are_read_as_they_are_written(tmp_path: Path) -> None:
    """When the eleventh is asked for, the first ten are registered."""
    written: list[int] = []

    def watched(registry: Registry) -> Iterator[dict[str, Any]]:
        for model in numbered(35):
            written.append(len(registry.database.all("SELECT 1 FROM models")))
            yield model

    with Registry(tmp_path) as registry:
        registry.models.create_many(watched(registry), batch_size=10)

        assert written == [n // 10 * 10 for n in range(35)]
        assert registry.check() == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"name": ""}, "Model number 14 cannot be registered: The model name is empty"),
        ({"name": "x", "tags": "prod"}, "Model number 14 cannot be registered: The tags must be a list"),
        ({"name": "x", "colour": "red"}, "Model number 14 cannot be registered: A model has no field 'colour'"),
        ({"name": "x", "registry": "red"}, "Model number 14 cannot be registered: A model has no field 'registry'"),
        ({"name": "x", "model_id": "5"}, "Model number 14 cannot be registered: '5' is no model id"),
        ({"name": "x", "links": [("a", "b")]}, "Model number 14 cannot be registered: not enough values"),
        ({"tags": ["a"]}, "Model number 14 cannot be registered: .*name"),
        (["name"], "Model number 14 is no dictionary but a list"),
        (None, "Model number 14 is no dictionary but a NoneType"),
    ],
)
def test_a_malformed_model_stops_it_and_is_named(tmp_path: Path, wrong: Any, words: str) -> None:
    """What came in earlier batches is registered, its own batch is not."""
    with Registry(tmp_path) as registry:
        models = list(numbered(20))
        models[13] = wrong
        with pytest.raises(InvalidRequestError, match=words):
            registry.models.create_many(models, batch_size=5)

        assert len(registry.database.all("SELECT 1 FROM models")) == 10


@pytest.mark.parametrize("wrong", [{"name": "x"}, 5, None])
def test_what_is_no_list_of_models_is_refused(tmp_path: Path, wrong: Any) -> None:
    """A single model in place of a list would be read as a list of its keys."""
    with Registry(tmp_path) as registry:
        with pytest.raises(InvalidRequestError, match="list or generator"):
            registry.models.create_many(wrong)
        for size in (0, -1, 1.5, True):
            with pytest.raises(InvalidRequestError):
                registry.models.create_many([], batch_size=size)  # type: ignore[arg-type]

        assert registry.models.create_many([]) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_killed_midway_leaves_whole_batches(tmp_path: Path) -> None:
    """No half batch, and an index that agrees with its journal."""

    def deadly() -> Iterator[dict[str, Any]]:
        yield from numbered(25)
        os.kill(os.getpid(), signal.SIGKILL)

    Registry(tmp_path).close()
    child = os.fork()
    if child == 0:
        try:
            Registry(tmp_path).models.create_many(deadly(), batch_size=10)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)

    assert os.WIFSIGNALED(status)
    with Registry(tmp_path) as registry:
        assert len(registry.database.all("SELECT 1 FROM models")) == 20
        assert registry.check(deep=True) == []


def test_several_who_register_many_at_once_take_turns(tmp_path: Path) -> None:
    """Nothing is lost between batches of different threads, nor what is written one by one meanwhile."""
    with Registry(tmp_path) as registry:
        makers = [
            threading.Thread(target=lambda: registry.models.create_many(numbered(100), batch_size=7)) for _ in range(3)
        ]
        for maker in makers:
            maker.start()
        chosen = [new_id() for _ in range(10)]
        for model_id in chosen:
            registry.models.create(model_id=model_id, name="single")
        for maker in makers:
            maker.join()

        assert len(registry.database.all("SELECT 1 FROM models")) == 310
        assert {registry.models.get(model_id).name for model_id in chosen} == {"single"}
        assert registry.check(deep=True) == []


@pytest.mark.parametrize("given_ids", [[IDS[0]], [IDS[1], IDS[2], IDS[1]]])
def test_an_id_is_given_once(tmp_path: Path, given_ids: list[str]) -> None:
    """A second creation of an id would silently edit the first model, a published one too."""
    with Registry(tmp_path / "registry") as registry:
        first = registry.models.create(model_id=IDS[0], name="first")
        with pytest.raises(InvalidRequestError, match="is taken"):
            registry.models.create_many([{"model_id": one, "name": "again"} for one in given_ids])
        with pytest.raises(InvalidRequestError, match="is taken"):
            registry.models.create(model_id=IDS[0], name="again")

        assert [row[0] for row in registry.database.all("SELECT name FROM models")] == ["first"]
        assert registry.models.get(first.id) == first


def test_links_to_unknown_tasks_and_negative_sizes_are_refused(tmp_path: Path) -> None:
    """Before anything is written; one at a time or many, and of which model it is."""
    with Registry(tmp_path / "registry") as registry:
        task = registry.tasks.create(name="train").id
        before = [operation.stamp for _, operation in registry.operations()]
        unknown = [(task, "output", "w"), ("f" * 32, "output", "w")]
        with pytest.raises(TaskNotFoundError, match="no task 'ffff"):
            registry.models.create(name="one", links=unknown)
        with pytest.raises(InvalidRequestError, match=r"Model number 2 cannot be registered: There is no task"):
            registry.models.create_many([{"name": "one"}, {"name": "two", "links": unknown}])
        with pytest.raises(InvalidRequestError, match="'input' or an 'output'"):
            registry.models.create(name="one", links=[(task, "made", "w")])
        with pytest.raises(InvalidRequestError, match="number of bytes, not -1"):
            registry.models.create(name="one", size=-1)
        with pytest.raises(InvalidRequestError, match="Model number 1 .*number of bytes"):
            registry.models.create_many([{"name": "one", "size": -5}])
        assert [operation.stamp for _, operation in registry.operations()] == before
        registry.tasks.delete(task)
        registry.models.create(name="of a task that was removed", links=unknown[:1])

        # What comes from elsewhere comes in any order: the link, and the task after it.
        model = registry.models.create(name="two", size=0).id
        writer = new_writer()
        link = Operation(make_stamp(1, 0, writer), "task", "e" * 32, "edit", {"link:output:w": model}, actor="x@y")
        registry.ingest([link])
        with pytest.raises(TaskNotFoundError):
            registry.models.create(name="three", links=[("e" * 32, "output", "w")])
        registry.ingest(
            [Operation(make_stamp(2, 0, writer), "task", "e" * 32, "create", {"name": "late"}, actor="x@y")]
        )
        assert registry.models.create(name="three", links=[("e" * 32, "output", "v")]).name == "three"

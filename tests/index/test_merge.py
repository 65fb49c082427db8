"""The merge rules: any operations, in any order, any number of times, make the same index."""

from __future__ import annotations

import math
import random
import sqlite3
from array import array
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelstore.ids import make_stamp, project_id
from modelstore.index.database import Database
from modelstore.index.ingest import ingest, rebuild
from modelstore.records.operations import FROZEN_FIELDS, Action, EntityKind, Operation, check_operation
from modelstore.records.points import Points, pack
from modelstore.testing.reference import check_copies, fold, read_index
from tests.effort import share

WRITERS = ["a" * 16, "b" * 16, "c" * 16]
MODELS = [f"{i:032x}" for i in (1, 2)]
TASKS = [f"{i:032x}" for i in (11, 12)]
PROJECTS = ["vision", "vision/ocr", "nlp"]

NAMES = st.sampled_from(["one", "two", "three"])
MODEL_VALUES = {
    "name": NAMES,
    "project": st.none() | st.sampled_from(PROJECTS),
    "comment": st.none() | NAMES,
    "uri": st.none() | st.sampled_from(["s3://b/1", "s3://b/2"]),
    "labels": st.none() | st.just({"cat": 1}) | st.just({"dog": 2}),
    "config": st.none() | st.just({"text": "x"}),
    "framework": st.none() | st.just("ONNX"),
    "iteration": st.none() | st.integers(0, 3),
    "package": st.booleans(),
    "tag:prod": st.none() | st.just(True),
    "tag:demo": st.none() | st.just(True),
    "systag:archived": st.none() | st.just(True),
    "meta:acc": st.none() | st.sampled_from([["float", 0.5], ["float", 0.9], ["str", "high"]]),
}
TASK_VALUES = {
    "name": NAMES,
    "status": st.sampled_from(["in_progress", "completed"]),
    "project": st.none() | st.sampled_from(PROJECTS),
    "tag:prod": st.none() | st.just(True),
    "link:input:teacher": st.none() | st.sampled_from(MODELS),
    "param:General/lr": st.none() | st.sampled_from([0.1, 0.2]),
    "systag:archived": st.none() | st.just(True),
}


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    """Several writers who see each other's operations now and then, and some who break the customs."""
    known: dict[str, list[Operation]] = {w: [] for w in WRITERS}
    everything: list[Operation] = []
    for tick in range(draw(st.integers(1, 25))):
        writer = draw(st.sampled_from(WRITERS))
        if draw(st.integers(0, 4)) == 0:  # a sync: this writer learns what another knows
            other = draw(st.sampled_from(WRITERS))
            known[writer] = list({o.stamp: o for o in known[writer] + known[other]}.values())
        operation = draw(operations(writer, tick, known[writer]))
        check_operation(operation)
        known[writer].append(operation)
        everything.append(operation)
    return everything


NUMBERS = st.sampled_from([0.1, 0.2, 0.3, -1.0, 1e300, -1e300, 5e-324, math.nan, math.inf, -math.inf]) | st.floats()


@st.composite
def reports(draw: st.DrawFn) -> dict[str, Any]:
    """Points of a few series, or a plot."""
    if draw(st.integers(0, 3)) == 0:
        plot: dict[str, Any] = {"title": "t", "series": draw(NAMES), "iteration": draw(st.integers(0, 3)), "time": 5}
        figure = {"kind": "plotly", "figure": {"data": [], "layout": {}}}
        stored = {"kind": "image", "digest": "sha256:" + "0" * 64, "size": 3, "name": "a.png"}
        return {"plot": plot | draw(st.sampled_from([figure, stored, {"kind": "media", "url": "https://h/x"}]))}
    rows = st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 9), NUMBERS), min_size=1, max_size=4)
    found = draw(st.dictionaries(st.sampled_from([("val", "iou"), ("val", "loss"), ("", "")]), rows, min_size=1))
    blocks = []
    for (title, series), points in found.items():
        iterations, times, values = zip(*points, strict=True)
        blocks.append(Points(title, series, array("q", iterations), array("q", times), array("d", values)))
    return {"scalars": pack(blocks)}


@st.composite
def operations(draw: st.DrawFn, writer: str, tick: int, known: list[Operation]) -> Operation:
    kind: EntityKind = draw(st.sampled_from(["model", "model", "model", "task", "project"]))
    skew = draw(st.sampled_from([0, 0, 5, -5]))  # clocks that differ
    stamp = make_stamp(1000 + tick + skew, tick, writer)
    if kind == "project":
        name = draw(st.sampled_from(PROJECTS))
        changes: dict[str, Any] = {"name": name, "description": draw(st.none() | NAMES)}
        return Operation(stamp, "project", project_id(name), "edit", changes, {}, "somebody@host")
    entity = draw(st.sampled_from(MODELS if kind == "model" else TASKS))
    values = MODEL_VALUES if kind == "model" else TASK_VALUES
    actions = ["create", "edit", "edit", "edit", "delete", "restore", "publish", "report", "report"]
    action: Action = draw(st.sampled_from(actions))
    if action == "report":
        return Operation(stamp, kind, entity, action, draw(reports()), {}, f"{writer[0]}@host")
    changes = draw(st.fixed_dictionaries({}, optional=values)) if action in ("create", "edit") else {}
    if action == "publish":
        changes = (
            {f: draw(MODEL_VALUES.get(f, st.none())) for f in FROZEN_FIELDS}
            if kind == "model"
            else {"status": "published"}
        )
    stamps = [o.stamp for o in known if o.stamp < stamp]
    if action == "edit" and stamps and draw(st.integers(0, 3)) == 0:
        fork = draw(st.sampled_from(stamps))
        changes = changes | {f"resolved:name:{fork}": draw(st.lists(st.sampled_from(stamps)))}
    if action in ("delete", "restore"):
        changes = {"deleted": action == "delete"}
    if action == "create":
        changes = {k: v for k, v in changes.items() if v is not None}
    mine = [o for o in known if o.entity == entity and o.stamp < stamp]
    keys = set(changes) if action != "delete" else {k for o in mine for k in o.changes} | {"deleted"}
    parents = {}
    for key in keys if action != "create" else ():
        before = [o.stamp for o in mine if key in o.changes or (o.action == "create" and ":" not in key)]
        if before:
            parents[key] = max(before)
    return Operation(stamp, kind, entity, action, changes, parents, f"{writer[0]}@host")


def index(tmp_path: Path) -> Database:
    return Database(tmp_path / "registry.db", tmp_path / "backups")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with closing(index(tmp_path_factory.mktemp("merge"))) as opened:
        yield opened


def folded(database: Database, operations: list[Operation], sizes: list[int] | None = None) -> dict[str, Any]:
    """Ingest into an empty index, look, and leave it empty again."""
    connection = database.connection
    connection.execute("BEGIN IMMEDIATE")
    try:
        start = 0
        for size in sizes or [len(operations)]:
            ingest(connection, operations[start : start + size])
            start += size
        ingest(connection, operations[start:])
        check_copies(connection)
        return read_index(connection)
    finally:
        connection.execute("ROLLBACK")


@given(history=histories(), seed=st.integers(0, 2**32))
@settings(max_examples=share(40))
def test_the_index_is_the_fold_whatever_the_order(database: Database, history: list[Operation], seed: int) -> None:
    """Commutative and associative: shuffled, cut into any batches, the result is that of the reference."""
    shuffled = list(history)
    chance = random.Random(seed)
    chance.shuffle(shuffled)
    sizes = [chance.randint(1, 5) for _ in range(6)]
    expected = fold(history)

    assert folded(database, history) == expected
    assert folded(database, shuffled, sizes) == expected


@given(history=histories(), seed=st.integers(0, 2**32))
def test_operations_that_arrive_again_change_nothing(database: Database, history: list[Operation], seed: int) -> None:
    """Idempotent: a sync that is cut off and repeated must do no harm."""
    chance = random.Random(seed)
    doubled = history + chance.choices(history, k=len(history))
    chance.shuffle(doubled)

    assert folded(database, doubled, [3, 1, 4]) == fold(history)


@given(history=histories(), together=st.integers(1, 9))
@settings(max_examples=share(25))
def test_rebuilding_makes_the_same_index(database: Database, history: list[Operation], together: int) -> None:
    """The index is nothing but the fold of the journal, however many operations are taken in together."""
    connection = database.connection
    connection.execute("BEGIN IMMEDIATE")
    try:
        ingest(connection, history)
        before = read_index(connection)
        with patch("modelstore.index.ingest._TOGETHER", together):
            count = rebuild(connection)
        check_copies(connection)

        assert read_index(connection) == before
        assert count == len({o.stamp for o in history})
    finally:
        connection.execute("ROLLBACK")


@given(history=histories())
def test_operations_survive_the_journey_as_json(history: list[Operation]) -> None:
    """What is sent to another registry is what was written."""
    assert [Operation.from_json(o.to_json()) for o in history] == history


@pytest.fixture
def own_database(tmp_path: Path) -> Iterator[Database]:
    with closing(index(tmp_path)) as opened:
        yield opened


def test_published_fields_cannot_be_changed_by_sql(own_database: Database) -> None:
    """Immutability is the store's, not a class's."""
    database = own_database
    fields: dict[str, Any] = dict.fromkeys(FROZEN_FIELDS) | {"uri": "s3://b/1", "package": False}
    with database.write() as connection:
        ingest(
            connection,
            [
                Operation(make_stamp(1, 0, WRITERS[0]), "model", MODELS[0], "create", {"name": "n", "uri": "s3://b/1"}),
                Operation(make_stamp(2, 0, WRITERS[0]), "model", MODELS[0], "publish", fields),
            ],
        )
    for statement in (
        "UPDATE models SET uri = 's3://b/2'",
        "UPDATE models SET published_op = NULL",
        "UPDATE models SET published_op = NULL, uri = NULL",
        "UPDATE models SET published_op = 1",
        "DELETE FROM models",
        "UPDATE ops SET changes = '{}'",
        "DELETE FROM ops",
    ):
        with pytest.raises(sqlite3.IntegrityError):
            database.connection.execute(statement)
    database.connection.execute("UPDATE models SET comment = 'annotated'")

    assert database.connection.execute("SELECT uri FROM models").fetchone()[0] == "s3://b/1"

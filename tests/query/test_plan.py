"""Every query, compiled and run on SQLite, gives what the evaluator says, in the order that the order says."""

import functools
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import modelstore.index.leap as leaping
import modelstore.index.orders as ordering
import modelstore.index.plan as planning
import modelstore.index.sources as sourcing
from modelstore.errors import InvalidRequestError
from modelstore.index import bitmaps, texts
from modelstore.index.facts import IndexFacts
from modelstore.index.plan import Plan, plan, plan_count
from modelstore.index.report_tables import REPORT_TABLES
from modelstore.index.schema import _V1, _V2, TRIGGERS
from modelstore.query import (
    NEWEST_FIRST,
    AllOf,
    AnyOf,
    Compare,
    Field,
    FieldTarget,
    HasTag,
    Meta,
    MetaTarget,
    Metric,
    MetricTarget,
    ModelQuery,
    Node,
    Not,
    Order,
    Subject,
    Tag,
    Untagged,
    accepts,
    condition,
    number_of,
    order_key,
    parse_order,
    parse_tags,
    regexp,
)
from modelstore.records.values import dumps
from modelstore.testing.strategies import (
    IDS,
    META_KEYS,
    METRICS,
    ODD_TAGS,
    PROJECTS,
    comparisons,
    odd_text,
    page_tag_lists,
    searches,
    subjects,
    trees,
)

TAGS = ODD_TAGS[:8]
LEAVES = (
    comparisons()
    | searches()
    | st.sampled_from(TAGS).map(HasTag)
    | st.sampled_from(TAGS).map(HasTag)
    | st.just(Untagged())
)
EXAMPLES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
"""The thresholds hold for every example."""

STATES = (0, 0, 0, 0, 1, 1, 2, 3)


@functools.cache
def empty_database() -> bytes:
    """Return the bytes of a database with the schema of this version."""
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in (*_V1, *_V2, *REPORT_TABLES, *TRIGGERS.values()):
            connection.execute(statement)
        return connection.serialize()


class Table:
    """Models in a database, filled by hand, and the same models as subjects."""

    def __init__(self, models: list[tuple[Subject, int]], apart: int = 63) -> None:
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        self.db.deserialize(empty_database())
        self.db.create_function("regexp", 2, regexp, deterministic=True)
        self.db.create_function("words_of", 4, texts.words_of, deterministic=True)
        self.db.create_function("mentioned", 5, texts.mentioned, deterministic=True)
        self.db.create_function("bit_count", 1, bitmaps.bit_count, deterministic=True)
        self.db.executemany(
            "INSERT INTO projects (key, id, name) VALUES (?,?,?)", [(n, f"{n}", p) for n, p in enumerate(PROJECTS)]
        )
        self.models: dict[int, tuple[Subject, int]] = {}
        # Keys far apart, so that blocks of bitmaps are crossed and the sign bit is used.
        for number, (subject, state) in enumerate(models):
            self.models[apart * number + 1] = subject, state
        for number, (key, (subject, state)) in enumerate(self.models.items()):
            if number == len(models) // 2:
                texts.take_in(self.db)  # the others are pending
            self._insert(key, subject, state)
            self.db.execute(
                "INSERT INTO ops (stamp, entity_kind, entity, action, changes, actor) VALUES (?,?,?,?,?,?)",
                (f"{key:032x}", "model", subject.fields["id"], "create", "{}", ""),
            )
        bitmaps.refill(self.db)

    def __del__(self) -> None:
        self.db.close()  # what is collected unclosed is a warning since Python 3.13

    def _insert(self, key: int, subject: Subject, state: int) -> None:
        f = dict(subject.fields)
        columns = {n: f[n] for n in ("id", "name", "task", "parent", "comment", "framework", "uri", "digest", "size")}
        columns |= {
            "key": key,
            "state": state,
            "project": PROJECTS.index(f["project"]) if f["project"] else None,
            "package": f["package"],
            "iteration": f["iteration"],
            "published_op": 1 if f["published"] else None,
            "created": f["created"] << 16,
            "updated": f["updated"] << 16,
            "tags": json.dumps(sorted(subject.tags)),
        }
        marks = ",".join("?" * len(columns))
        self.db.execute(f"INSERT INTO models ({','.join(columns)}) VALUES ({marks})", tuple(columns.values()))
        for tag in subject.tags:
            self.db.execute("INSERT OR IGNORE INTO tags (name) VALUES (?)", (tag,))
            (number,) = self.db.execute("SELECT key FROM tags WHERE name = ?", (tag,)).fetchone()
            self.db.execute("INSERT INTO model_tags VALUES (?,?,1)", (number, key))
            if state < 2:
                self.db.execute("INSERT INTO tag_walk VALUES (?,?,?,?)", (number, state, f["updated"] << 16, key))
                counter = ("visible", "archived")[state]
                self.db.execute(f"UPDATE tags SET {counter} = {counter} + 1 WHERE key = ?", (number,))
        for name, value in subject.metadata.items():
            row = (key, name, type(value).__name__, subject.texts[name], number_of(value), dumps(value))
            self.db.execute("INSERT INTO metadata VALUES (?,?,?,?,?,?,1)", row)
        for title, series in {k[:2] for k in subject.metrics}:
            values = [number_of(subject.metrics.get((title, series, stat))) for stat in ("last", "min", "max", "mean")]
            self.db.execute(
                "INSERT INTO metrics (model, title, series, last, min, max, mean) VALUES (?,?,?,?,?,?,?)",
                (key, title, series, *values),
            )

    def facts(self) -> IndexFacts:
        return IndexFacts(lambda sql, values: self.db.execute(sql, tuple(values)).fetchone())

    def plan(self, query: ModelQuery) -> Plan:
        return plan(query, self.facts())

    def rows(self, query: ModelQuery) -> list[tuple[Any, ...]]:
        made = self.plan(query)
        return self.db.execute(made.sql, made.parameters).fetchall()

    def keys(self, query: ModelQuery) -> list[int]:
        return [row[0] for row in self.rows(query)]

    def count(self, query: ModelQuery) -> int:
        made = plan_count(query, self.facts())
        return int(self.db.execute(made.sql, made.parameters).fetchone()[0])

    def expected(self, query: ModelQuery) -> list[int]:
        """Return the keys that the specification gives, all of them."""
        node = condition(query)
        states = (0, 1) if query.include_archived else (0,)
        found = [
            key
            for key, (subject, state) in self.models.items()
            if state in states and accepts(node, subject_in(subject, state))
        ]
        return sorted(found, key=functools.cmp_to_key(functools.partial(self._before, query)))

    def _before(self, query: ModelQuery, left: int, right: int) -> int:
        for order in query.order_by:
            a, b = (order_key(order, subject_in(*self.models[key])) for key in (left, right))
            for place, (x, y) in enumerate(zip(a, b, strict=True)):
                if x != y:
                    return (-1 if x < y else 1) * (-1 if order.descending and place % 2 else 1)
        if query.order_by == NEWEST_FIRST:
            return right - left
        return -1 if self.models[left][0].fields["id"] < self.models[right][0].fields["id"] else 1


def subject_in(subject: Subject, state: int) -> Subject:
    return replace(subject, fields={**subject.fields, "archived": state == 1})


ORDERS = st.one_of(
    st.sampled_from([FieldTarget(n) for n in ("name", "size", "created", "updated", "project", "published", "id")]),
    st.sampled_from(META_KEYS).map(MetaTarget),
    st.builds(
        lambda name, stat: MetricTarget(name[0], name[1], stat),
        st.sampled_from(METRICS),
        st.sampled_from(["last", "max", "mean"]),
    ),
)


def databases() -> st.SearchStrategy[Table]:
    return st.lists(st.tuples(subjects(), st.sampled_from(STATES)), max_size=10).map(Table)


@st.composite
def queries(draw: st.DrawFn) -> ModelQuery:
    some = functools.partial(st.one_of, st.none(), st.none())
    query = ModelQuery(
        where=draw(some(trees(LEAVES), page_tag_lists(st.sampled_from(TAGS)).map(parse_tags))),
        project=draw(some(st.sampled_from([*PROJECTS, "nowhere"]))),
        name=draw(some(odd_text())),
        name_regex=draw(some(st.sampled_from(["^a", "o", r"\d"]))),
        task=draw(some(st.sampled_from(IDS))),
        uri=draw(some(odd_text())),
        metadata=draw(
            st.just({})
            | st.dictionaries(st.sampled_from(META_KEYS), odd_text() | st.lists(odd_text(), max_size=2), max_size=2)
        ),
        only_published=draw(st.booleans()),
        include_archived=draw(st.booleans()),
        limit=draw(st.none() | st.integers(1, 5)),
    )
    order = draw(st.none() | st.lists(st.builds(Order, ORDERS, st.booleans()), min_size=1, max_size=2).map(tuple))
    return query if order is None else replace(query, order_by=order)


@pytest.fixture(params=[(2000, 1000, 5000), (0, 1, 3), (1, 0, 0)])
def thresholds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handful of models takes every way that a million does, once the thresholds are as small."""
    monkeypatch.setattr(planning, "FEW", request.param[0])
    monkeypatch.setattr(planning, "SAMPLE", request.param[1])
    monkeypatch.setattr(sourcing, "CAP", request.param[2])
    monkeypatch.setattr(leaping, "EARLY", 0 if request.param[0] == 0 else 100)
    monkeypatch.setattr(leaping, "SAMPLE", request.param[1])
    monkeypatch.setattr(ordering, "BUDGET", 3 * request.param[2])


@pytest.mark.usefixtures("thresholds")
@EXAMPLES
@given(databases(), st.lists(queries(), min_size=1, max_size=6))
def test_a_query_finds_exactly_what_the_evaluator_accepts_in_order(table: Table, asked: list[ModelQuery]) -> None:
    """Every filter, operator, order and limit."""
    for query in asked:
        expected = table.expected(query)

        assert table.keys(query) == expected[: query.limit], table.plan(query)
        assert table.count(query) == len(expected), plan_count(query, table.facts())


@pytest.mark.usefixtures("thresholds")
@EXAMPLES
@given(
    st.lists(st.tuples(st.frozensets(st.sampled_from(TAGS)), st.sampled_from(STATES)), max_size=40),
    st.lists(trees(st.sampled_from(TAGS).map(HasTag)), min_size=1, max_size=6),
    st.integers(1, 12),
    st.booleans(),
)
def test_tag_queries_find_exactly_what_the_evaluator_accepts(
    models: list[tuple[frozenset[str], int]], nodes: list[Node], limit: int, archived: bool
) -> None:
    """Tags alone, on more models and with more of the planner's ways."""
    plain = dict.fromkeys(("name", "task", "parent", "comment", "framework", "uri", "digest", "size", "project"))
    plain |= {"iteration": None, "package": False, "published": False}
    rows = [
        (Subject(tags=tags, fields={**plain, "id": f"{n}", "created": n, "updated": (n * 7) % 5}), state)
        for n, (tags, state) in enumerate(models)
    ]
    table = Table(rows)
    for node in nodes:
        query = ModelQuery(where=node, limit=limit, include_archived=archived)
        expected = table.expected(query)

        assert table.keys(query) == expected[:limit], table.plan(query)
        assert table.keys(replace(query, limit=None)) == expected
        assert table.count(query) == len(expected)


@pytest.mark.usefixtures("thresholds")
@EXAMPLES
@given(databases(), queries(), st.integers(1, 3))
def test_pages_follow_one_another_without_gap_or_overlap(table: Table, query: ModelQuery, size: int) -> None:
    """Continuing after a page's last row, in any order, gives what one long page gives."""
    whole = table.keys(replace(query, limit=None))
    read: list[int] = []
    page = replace(query, limit=size)
    while rows := table.rows(page):
        read += [row[0] for row in rows]
        page = replace(page, after=Plan.cursor(rows[-1]))

    assert read == whole


@pytest.mark.usefixtures("thresholds")
@EXAMPLES
@given(databases(), trees(LEAVES))
def test_a_condition_and_its_negation_divide_the_models(table: Table, node: Node) -> None:
    """Nothing is in both and nothing in neither, also where values are absent."""
    yes = table.keys(ModelQuery(where=node, include_archived=True))
    no = table.keys(ModelQuery(where=~node, include_archived=True))

    assert sorted(yes + no) == sorted(table.keys(ModelQuery(include_archived=True)))


def models(count: int, tags: Any) -> list[tuple[Subject, int]]:
    """Return models with tags as a function of their number, the latest changed last."""
    names = ("name", "task", "parent", "comment", "framework", "uri", "digest", "size", "project", "iteration")
    fields: dict[str, Any] = dict.fromkeys(names) | {"package": False, "published": False}
    return [
        (
            Subject(
                tags=frozenset(tags(n)),
                fields={**fields, "id": f"{n:032x}", "created": n, "updated": n, "name": f"m{n % 7}"},
                metadata={"accuracy": n / count, "note": f"n{n}"},
                texts={"accuracy": f"{n / count}", "note": f"n{n}"},
            ),
            0,
        )
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def halves() -> Table:
    """9,000 models: left and right halves that never meet, a broad tag, a rare one."""

    def tags(number: int) -> set[str]:
        found = {"left" if number % 2 else "right"}
        return found | ({"broad"} if number % 3 else set()) | ({"rare"} if number % 1000 == 7 else set())

    return Table(models(9000, tags), apart=1)


def plain_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "FEW", 2000)
    monkeypatch.setattr(planning, "SAMPLE", 2000)
    monkeypatch.setattr(sourcing, "CAP", 500)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (Tag("left"), 'walk models with the tag "left" (4,500)'),
        (Tag("rare") & Tag("left"), 'walk models with the tag "rare" (9)'),
        (Tag("left") & Tag("broad"), 'walk models with the tag "left" (4,500), test each for "broad"'),
        (~Tag("left"), 'walk all models (9,000), test each for NOT "left"'),
        (Tag("left") & Tag("right"), "bitmaps: 0 models"),
        (Tag("left") | Tag("rare"), 'walk models with the tag "rare" (9)'),
        (Tag("nowhere") & Tag("left"), "nothing can satisfy it"),
        (Meta("accuracy") > 0.99, 'take models for which meta("accuracy") > 0.99 (89)'),
        (Meta("note") == "n5", 'take models for which meta("note") == "n5" (1)'),
        (Meta("accuracy") > 0.1, "walk all models"),
        (Field("name") == "m3", 'walk models for which name == "m3"'),
        (Field("id") == f"{5:032x}", "take models for which id == "),
    ],
)
def test_the_plan_is_the_one_that_the_facts_suggest(
    halves: Table, where: Node, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row for each way of answering; `explain` says which was chosen and why."""
    plain_thresholds(monkeypatch)
    query = ModelQuery(where=where, limit=100)

    assert words in halves.plan(query).explain()
    assert halves.keys(query) == halves.expected(query)[:100]


@pytest.fixture(scope="module")
def turned() -> Iterator[Table]:
    """9,000 models: half of them, every second, got a tag after all were registered; a quarter has what is new."""
    made = models(9000, lambda n: ({"late"} if n % 2 else set()) | ({"new"} if n >= 6750 else {"old"}))
    for place, (subject, state) in enumerate(made):
        if "late" in subject.tags:
            made[place] = replace(subject, fields={**subject.fields, "updated": 20_000 + place * 7 % 9000}), state
    table = Table(made, apart=1)
    yield table
    table.db.close()


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (~Tag("late"), 'whatever else changed since then has the tag "late"'),
        (~Tag("late") & ~Tag("right"), 'whatever else changed since then has the tag "late"'),
        (Tag("old") & ~Tag("late"), 'whatever else changed since then has the tag "late"'),
        (~Tag("late") & (Meta("accuracy") < 0.9), 'whatever else changed since then has the tag "late"'),
        (~Tag("new") & ~Tag("late"), 'whatever else changed since then has the tag "late"'),
    ],
)
def test_a_walk_leaps_over_what_was_tagged_lately(
    turned: Table, where: Node, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of all models were given a tag and changed last; the others are found without testing them all."""
    plain_thresholds(monkeypatch)
    query = ModelQuery(where=where, limit=50)

    assert words in turned.plan(query).explain()
    assert turned.keys(query) == turned.expected(query)[:50]
    second = replace(query, after=Plan.cursor(turned.rows(query)[-1]))
    assert turned.keys(second) == turned.expected(query)[50:100]


def test_a_walk_leaps_over_what_was_registered_lately(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest third has a tag: those registered before are taken, and who changed since then is looked for."""
    plain_thresholds(monkeypatch)
    made = models(9000, lambda n: {"recent"} if n >= 6000 else set())
    # One old model without the tag was changed last but one, another in the middle of the newest.
    for place, updated in ((17, 8998), (18, 7000)):
        subject, state = made[place]
        made[place] = replace(subject, fields={**subject.fields, "updated": updated}), state
    table = Table(made, apart=1)
    query = ModelQuery(where=~Tag("recent"), limit=50)

    assert "registered earlier and changed later" in table.plan(query).explain()
    assert table.keys(query) == table.expected(query)[:50]
    assert table.keys(query)[:2] == [18, 19]
    table.db.close()


@pytest.mark.parametrize("term", ["name", "-name", "id", "-id", "updated", "metadata.accuracy", "-metadata.accuracy"])
@pytest.mark.parametrize("where", [None, Tag("broad"), ~Tag("broad") & (Meta("accuracy") > 0.2)])
def test_other_orders_sort_no_more_than_can_be_on_the_page(
    halves: Table, term: str, where: Node | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The value that the page reaches is looked up in an index first; pages follow each other as ever."""
    plain_thresholds(monkeypatch)
    query = ModelQuery(where=where, limit=60, order_by=(parse_order(term), parse_order("-created")))
    expected = halves.expected(query)
    for page in range(3):
        assert "models up to number 60 in this order" in halves.plan(query).explain()
        rows = halves.rows(query)
        assert [row[0] for row in rows] == expected[60 * page :][:60]
        query = replace(query, after=Plan.cursor(rows[-1]))


@pytest.mark.parametrize(
    ("where", "term"),
    [
        (Tag("rare"), "name"),  # so few that all are sorted
        (Tag("left") & Tag("right"), "name"),  # never a full page
        (None, "comment"),  # no index
        (None, "metadata.note"),  # text comes behind all numbers, and has no index of its own kind
    ],
)
def test_other_orders_sort_everything_where_no_index_helps(
    halves: Table, where: Node | None, term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is the same."""
    plain_thresholds(monkeypatch)
    query = ModelQuery(where=where, limit=60, order_by=(parse_order(term),))

    assert "models up to" not in halves.plan(query).explain()
    assert halves.keys(query) == halves.expected(query)[:60]


def test_values_are_bound_and_never_part_of_the_statement(halves: Table) -> None:
    """Whatever a value contains, the text of the statement is the same."""
    evil = "x'; DROP TABLE models; --"
    sql = {
        halves.plan(ModelQuery(name=value, metadata={value: value}, where=Meta(value).contains(value))).sql
        for value in (evil, "y")
    }

    assert len(sql) == 1
    assert evil not in sql.pop()


def test_wide_and_deep_queries_stay_within_the_limits_of_sqlite(halves: Table) -> None:
    """Parser depth, compound selects, joined tables and variables are all bounded."""
    names = [f"t{n}" for n in range(3000)] + ["left", "rare", "broad"]
    table = Table(models(200, lambda n: {f"t{n * 10}", f"t{n * 10 + 1}", "broad"}))
    node: Node = Tag("broad")
    for n in range(38):
        node = ~(node & Tag(f"t{n}")) if n % 2 else node | Tag(f"t{n}")
    for where in (
        AnyOf(tuple(map(HasTag, names))),
        AllOf(tuple(Not(HasTag(name)) for name in names)),
        AnyOf(tuple(AllOf((HasTag(name), HasTag("broad"))) for name in names)),
        AnyOf(tuple(Compare(MetaTarget("note"), "==", f"n{n}") for n in range(3000))),
        node,
    ):
        for query in (ModelQuery(where=where, limit=100), ModelQuery(where=where)):
            expected = table.expected(query)
            assert table.keys(query) == expected[: query.limit]
            assert table.count(query) == len(expected)


def test_ids_may_be_many(halves: Table) -> None:
    """Ten thousand named models are one statement; more than SQLite's variables are refused."""
    everything = halves.keys(ModelQuery())

    assert len(everything) == 9000
    assert halves.keys(ModelQuery(ids=tuple(f"{n:032x}" for n in range(20_000)))) == everything
    assert halves.keys(ModelQuery(ids=())) == []
    with pytest.raises(InvalidRequestError, match="values"):
        halves.plan(ModelQuery(ids=tuple(f"{n}" for n in range(40_000))))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: ModelQuery(limit=0),
        lambda: ModelQuery(limit=-1),
        lambda: ModelQuery(limit=True),
        lambda: ModelQuery(limit="5"),  # type: ignore[arg-type]
        lambda: ModelQuery(where="x > 1"),  # type: ignore[arg-type]
        lambda: condition(ModelQuery(name_regex="(")),
        lambda: condition(ModelQuery(name=5)),  # type: ignore[arg-type]
        lambda: condition(ModelQuery(ids="abc")),  # type: ignore[arg-type]
        lambda: condition(ModelQuery(metadata={"k": 5})),  # type: ignore[dict-item]
        lambda: condition(ModelQuery(metadata={"": "x"})),
        lambda: condition(ModelQuery(metadata=["k"])),  # type: ignore[arg-type]
        lambda: parse_order("nmae"),
        lambda: parse_order("metadata."),
        lambda: parse_order("metrics.val"),
        lambda: parse_order(5),
    ],
)
def test_malformed_filters_are_refused(wrong: Any) -> None:
    """Before anything is asked of the index."""
    with pytest.raises(InvalidRequestError):
        wrong()


def test_a_cursor_of_another_order_is_refused(halves: Table) -> None:
    """A page continues the order it began with."""
    with pytest.raises(InvalidRequestError):
        halves.plan(ModelQuery(limit=5, after=("a", 1, 2)))


def test_an_order_is_written_as_text_or_as_what_is_compared() -> None:
    """One row per form."""
    assert parse_order("-updated") == Order(FieldTarget("updated"), descending=True)
    assert parse_order("name") == Order(FieldTarget("name"))
    assert parse_order("-metadata.val.loss") == Order(MetaTarget("val.loss"), descending=True)
    assert parse_order("metrics.val.iou") == Order(MetricTarget("val", "iou"))
    assert parse_order("-metrics.val.iou.max") == Order(MetricTarget("val", "iou", "max"), descending=True)
    assert parse_order("metrics.val.max") == Order(MetricTarget("val", "max"))
    assert parse_order(Metric("a.b", "c").min) == Order(MetricTarget("a.b", "c", "min"))


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 200), st.integers(0, 3)), max_size=60))
def test_bitmaps_kept_step_by_step_equal_bitmaps_made_at_once(steps: list[tuple[bool, int, int]]) -> None:
    """`add` and `remove_blocks` against `refill`, repeated and pointless steps included."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.deserialize(empty_database())
        for adds, model, tag in steps:
            if adds:
                connection.execute("INSERT OR IGNORE INTO model_tags VALUES (?,?,1)", (tag, model))
                bitmaps.add(connection, model, [(bitmaps.TAG, tag)])
            else:
                connection.execute("DELETE FROM model_tags WHERE tag = ? AND model = ?", (tag, model))
                block, bit = bitmaps.place(model)
                bitmaps.remove_blocks(connection, {(bitmaps.TAG, tag, block): bit})
        kept = connection.execute("SELECT * FROM bitmaps ORDER BY 1, 2, 3").fetchall()
        bitmaps.refill(connection)

        assert connection.execute("SELECT * FROM bitmaps ORDER BY 1, 2, 3").fetchall() == kept
        (pairs,) = connection.execute("SELECT count(*) FROM model_tags").fetchone()
        assert sum(bitmaps.bit_count(row[3]) for row in kept) == pairs

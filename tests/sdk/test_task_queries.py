"""Tasks are found by the same conditions as models, exactly."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelstore import Field, Meta, Metric, Model, Search, Tag, Task
from modelstore.errors import InvalidRequestError, WhereSyntaxError
from modelstore.query import (
    Compare,
    FieldTarget,
    HasTag,
    MetaTarget,
    Node,
    Subject,
    Untagged,
    accepts,
    order_key,
    parse_order,
)
from modelstore.registry import Registry
from modelstore.testing.strategies import ODD_TAGS, page_tag_lists, searches, trees

NAMES = ("yolo small", "a", "Ab", "%", "é")
PARAMETERS: tuple[Any, ...] = (0.5, 1, True, 2**70, float("inf"), float("nan"), "a", "1", "", [1], None)
TAGS = [tag for tag in ODD_TAGS if tag.strip() and "\0" not in tag]
STATUSES = ("created", "completed", "failed")
_OPS = st.sampled_from(["==", "<", "<=", ">", ">="])


def compared(field: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Node]:
    return st.builds(Compare, st.just(FieldTarget(field)), _OPS, values)


KEYS = st.sampled_from(["General/lr", "odd key", "none"]).map(MetaTarget)
SCALARS = st.sampled_from([value for value in PARAMETERS if isinstance(value, (int, float, str))])
LEAVES = st.one_of(
    st.sampled_from(TAGS).map(HasTag),
    st.just(Untagged()),
    searches(),
    compared("name", st.sampled_from(NAMES)),
    compared("comment", st.sampled_from(["a small note"])),
    compared("project", st.sampled_from(["vision", "vision/ocr"])),
    compared("status", st.sampled_from(STATUSES)),
    compared("type", st.sampled_from(["training", "testing"])),
    compared("last_iteration", st.sampled_from([0, 5, 7.5])),
    compared("started", st.sampled_from([1_000, 1_700_000_000_000])),
    st.builds(
        Compare, st.sampled_from([FieldTarget(n) for n in ("archived", "published")]), st.just("=="), st.booleans()
    ),
    st.builds(Compare, st.just(FieldTarget("parent")), st.just("exists")),
    st.builds(Compare, KEYS, _OPS, SCALARS),
    st.builds(Compare, KEYS, st.just("in"), st.lists(SCALARS, max_size=3).map(tuple)),
    st.builds(Compare, KEYS, st.just("exists")),
    st.builds(Compare, KEYS, st.sampled_from(["contains", "matches"]), st.sampled_from(["a", "1", "^$"])),
)


@pytest.fixture
def subjects(registry: Registry) -> dict[str, Subject]:
    """Twenty-two tasks, newest change first, and what they are."""
    made: list[tuple[str, Subject]] = []
    for n in range(22):
        fields: dict[str, Any] = {
            "name": NAMES[n % len(NAMES)],
            "project": (None, "vision", "vision/ocr")[n % 3],
            "type": ("training", "testing")[n % 2],
            "status": STATUSES[n % 3],
            "comment": "a small note" if n % 4 == 0 else None,
            "last_iteration": n % 8 if n % 5 else None,
            "started": 1_000 * n if n % 2 else None,
            "parent": made[0][0] if n > 15 else None,
        }
        tags = TAGS[n : n + n % 4]
        task = registry.tasks.create(tags=tags, **fields)
        key, value = ("General/lr", "odd key")[n % 2], PARAMETERS[n % len(PARAMETERS)]
        registry.tasks.edit(task.id, items={f"param:{key}": value})
        if n % 6 == 0:
            registry.tasks.tag(task.id, add=["archived"], system=True)
        subject = fields | {"id": task.id, "archived": n % 6 == 0, "published": False}
        made.append(
            (task.id, Subject(tags=frozenset(tags), fields=subject, metadata={} if value is None else {key: value}))
        )
    return dict(reversed(made))


def test_every_condition_finds_exactly_what_the_evaluator_accepts(
    registry: Registry, subjects: dict[str, Subject]
) -> None:
    """Fields, odd tags, hyper-parameters of every type, words; nested; with tag lists, orders and limits."""

    @settings(suppress_health_check=[HealthCheck.too_slow])
    @given(
        trees(LEAVES),
        st.none() | page_tag_lists(st.sampled_from(TAGS)),
        st.booleans(),
        st.sampled_from([None, "name", "-last_iteration", "started"]),
        st.none() | st.integers(1, 9),
    )
    def check(where: Node, tags: list[str] | None, archived: bool, by: str | None, limit: int | None) -> None:
        from modelstore.query import parse_tags

        listed = parse_tags(tags)
        expected = [
            one
            for one, subject in subjects.items()
            if accepts(where, subject)
            and (listed is None or accepts(listed, subject))
            and (archived or not subject.fields["archived"])
        ]
        if by is not None:
            order = parse_order(by, dict.fromkeys([by.strip("-")], "number"))
            expected.sort()
            expected.sort(key=lambda one: order_key(order, subjects[one])[1], reverse=order.descending)
            expected.sort(key=lambda one: order_key(order, subjects[one])[0])
        found = Task.get_tasks(tags=tags, allow_archived=archived, where=where, order_by=by, max_results=limit)

        assert [task.id for task in found] == expected[:limit]

    check()


def test_conditions_are_written_as_text_too(subjects: dict[str, Subject]) -> None:
    """With the fields of tasks, and hyper-parameters by their full names."""
    first = next(iter(reversed(subjects)))

    assert Task.query_tasks(where="status == 'created' and meta('General/lr') == 0.5") == Task.query_tasks(
        where=(Field("status") == "created") & (Meta("General/lr") == 0.5)
    )
    assert Task.query_tasks(where=Field("parent") == first, order_by=["type", "-created"], max_results=2)
    assert Task.query_tasks(search="yol") == Task.query_tasks(where=Search("yolo"))
    assert Task.query_tasks(task_filter={"type": "testing", "order_by": ["-last_update"]}) == Task.query_tasks(
        where="type == 'testing'"
    )
    assert Task.query_tasks(tags=["a", "-b"], where=~Tag("a")) == Task.query_tasks(where=~Tag("a") & ~Tag("b"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"where": "nosuch >"},
        {"where": "framework"},
        {"where": Field("framework") == "ONNX"},
        {"where": Metric("a", "b") > 1},
        {"where": Meta("a").text == "1"},
        {"where": 5},
        {"search": "!"},
        {"tags": ["__$not"]},
        {"order_by": "framework"},
        {"order_by": "metadata.x"},
        {"max_results": 0},
        {"max_results": True},
        {"task_name": "("},
        {"task_ids": [5]},
        {"task_filter": {"colour": 1}},
    ],
)
def test_a_malformed_question_is_an_error(wrong: dict[str, Any]) -> None:
    """And not an empty list."""
    with pytest.raises(InvalidRequestError):
        Task.get_tasks(**wrong)


def test_a_field_of_tasks_is_none_of_models() -> None:
    """Whichever way it is asked for."""
    with pytest.raises(InvalidRequestError, match="A model has no field 'status'"):
        Model.query_models(where=Field("status") == "failed")
    with pytest.raises(WhereSyntaxError, match="no field 'status'"):
        Model.query_models(where="field('status') == 'failed'")
    assert Model.query_models(where="status == 'failed'") == []  # metadata of that name

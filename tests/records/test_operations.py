"""What an operation from elsewhere may hold: everything else is refused before it is let near the index."""

from __future__ import annotations

from typing import Any

import pytest

from modelstore.errors import InvalidOperationError
from modelstore.ids import new_id
from modelstore.records.operations import MODEL_FIELDS, PROJECT_FIELDS, TASK_FIELDS, EntityKind, Operation

FIELDS: dict[EntityKind, tuple[str, ...]] = {"model": MODEL_FIELDS, "task": TASK_FIELDS, "project": PROJECT_FIELDS}
VALUES: dict[str, Any] = {"text": "a", "number": 1, "flag": True, "object": {"a": 1}, "list": [1], "fraction": 1.5}
KINDS = {
    "size": "number", "iteration": "number", "last_iteration": "number", "started": "number", "completed": "number",
    "package": "flag", "deleted": "flag",
    "labels": "object", "config": "object", "script": "object", "runtime": "object",
}  # fmt: skip


def operation(kind: EntityKind, changes: dict[str, Any]) -> Operation:
    return Operation("0" * 11 + "1" * 21, kind, new_id(), "edit", changes)


@pytest.mark.parametrize("kind", list(FIELDS))
@pytest.mark.parametrize("value", list(VALUES))
def test_a_field_takes_values_of_its_own_type_alone(kind: EntityKind, value: str) -> None:
    for field in FIELDS[kind]:
        line = operation(kind, {field: VALUES[value]}).to_json()
        if KINDS.get(field, "text") == value:
            assert Operation.from_json(line).changes == {field: VALUES[value]}
        else:
            with pytest.raises(InvalidOperationError):
                Operation.from_json(line)


@pytest.mark.parametrize("kind", list(FIELDS))
def test_a_field_can_be_taken_back_but_a_flag_cannot(kind: EntityKind) -> None:
    for field in FIELDS[kind]:
        line = operation(kind, {field: None}).to_json()
        if KINDS.get(field) == "flag":
            with pytest.raises(InvalidOperationError):
                Operation.from_json(line)
        else:
            assert Operation.from_json(line).changes == {field: None}


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("model", "size", 2**63),
        ("model", "tag:a", False),
        ("model", "tag:a", "yes"),
        ("model", "tag:", True),
        ("model", "meta:a", ["float"]),
        ("model", "meta:a", "1"),
        ("model", "link:input:a", "0" * 32),
        ("model", "param:a", "1"),
        ("model", "unheard", "1"),
        ("model", "unheard:of", "1"),
        ("model", ":a", True),
        ("task", "link:input:a", "a"),
        ("task", "link:input:", "0" * 32),
        ("task", "link:sideways:a", "0" * 32),
        ("task", "link:", "0" * 32),
        ("task", "link", "0" * 32),
        ("task", "meta:a", ["str", "a"]),
        ("project", "tag:a", True),
        ("project", "resolved:a", "a"),
        ("project", "", "a"),
    ],
)
def test_what_no_registry_writes_is_refused(kind: EntityKind, key: str, value: Any) -> None:
    with pytest.raises(InvalidOperationError):
        Operation.from_json(operation(kind, {key: value}).to_json())


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("model", "tag:a:b", True),
        ("model", "tag:link:", True),
        ("model", "meta::", ["str", "a"]),
        ("model", "size", -(2**63) + 1),
        ("task", "link:output:a:b", "0" * 32),
        ("task", "param:a/b", "1"),
        ("project", "resolved:name", []),
    ],
)
def test_names_may_hold_what_separates_them_from_their_prefix(kind: EntityKind, key: str, value: Any) -> None:
    assert Operation.from_json(operation(kind, {key: value}).to_json()).changes == {key: value}

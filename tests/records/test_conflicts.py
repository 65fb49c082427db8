"""Which edits count as conflicts."""

from __future__ import annotations

from typing import Any

from modelstore.ids import make_stamp
from modelstore.records.conflicts import find_conflicts, resolution_key
from modelstore.records.operations import FROZEN_FIELDS, Action, Operation

MODEL = "1" * 32


def stamp(ms: int, writer: str = "a") -> str:
    return make_stamp(ms, 0, writer * 16)


def op(at: str, action: Action, changes: dict[str, Any], parents: dict[str, str] | None = None) -> Operation:
    return Operation(at, "model", MODEL, action, changes, parents or {})


CREATE = op(stamp(1), "create", {"name": "n", "tag:a": True})


def test_edits_in_a_row_are_no_conflict() -> None:
    """Each knew of the one before."""
    history = [
        CREATE,
        op(stamp(2), "edit", {"name": "b"}, {"name": stamp(1)}),
        op(stamp(3), "edit", {"name": "c"}, {"name": stamp(2)}),
    ]

    assert find_conflicts(MODEL, history) == []


def test_two_edits_of_one_value_are_one_conflict_however_long_the_branches() -> None:
    """The fork is reported once, with the operations that began each branch."""
    history = [
        CREATE,
        op(stamp(2, "a"), "edit", {"name": "b"}, {"name": stamp(1)}),
        op(stamp(3, "a"), "edit", {"name": "c"}, {"name": stamp(2, "a")}),
        op(stamp(2, "b"), "edit", {"name": "x"}, {"name": stamp(1)}),
    ]
    (conflict,) = find_conflicts(MODEL, history)

    assert (conflict.key, conflict.fork) == ("name", stamp(1))
    assert conflict.branches == (stamp(2, "a"), stamp(2, "b"))
    assert not conflict.agree


def test_edits_of_different_fields_are_no_conflict() -> None:
    """Column-level writes: they merge."""
    history = [
        CREATE,
        op(stamp(2, "a"), "edit", {"name": "b"}, {"name": stamp(1)}),
        op(stamp(2, "b"), "edit", {"comment": "x"}, {"comment": stamp(1)}),
        op(stamp(3, "b"), "edit", {"tag:b": True}),
    ]

    assert find_conflicts(MODEL, history) == []


def test_branches_that_end_in_the_same_value_agree() -> None:
    """Both added the tag: nobody needs to decide anything."""
    history = [
        CREATE,
        op(stamp(2, "a"), "edit", {"tag:prod": True}),
        op(stamp(2, "b"), "edit", {"tag:prod": True}),
    ]
    (conflict,) = find_conflicts(MODEL, history)

    assert conflict.agree
    assert conflict.fork == ""


def test_a_publication_that_had_not_seen_an_edit_conflicts_with_it() -> None:
    """The edit is not applied, so it must be reported."""
    fields: dict[str, Any] = dict.fromkeys(FROZEN_FIELDS) | {"package": False, "labels": {"cat": 1}}
    publication = op(stamp(3, "a"), "publish", fields, dict.fromkeys(FROZEN_FIELDS, stamp(1)))
    seen = op(stamp(2, "a"), "edit", {"labels": {"cat": 1}}, {"labels": stamp(1)})
    unseen = op(stamp(2, "b"), "edit", {"labels": {"dog": 2}}, {"labels": stamp(1)})
    known = op(stamp(3, "a"), "publish", fields, dict.fromkeys(FROZEN_FIELDS, stamp(1)) | {"labels": stamp(2, "a")})

    assert [c.key for c in find_conflicts(MODEL, [CREATE, publication, unseen])] == ["labels"]
    assert find_conflicts(MODEL, [CREATE, seen, known]) == []


def test_a_deletion_that_hid_an_edit_it_had_not_seen_is_reported_while_it_stands() -> None:
    """Somebody's work would vanish silently otherwise; a restore brings it back."""
    deletion = op(stamp(3, "a"), "delete", {"deleted": True}, {"deleted": stamp(1), "name": stamp(2, "a")})
    seen = op(stamp(2, "a"), "edit", {"name": "b"}, {"name": stamp(1)})
    unseen = op(stamp(2, "b"), "edit", {"comment": "x"}, {"comment": stamp(1)})
    restore = op(stamp(4, "a"), "restore", {"deleted": False}, {"deleted": stamp(3, "a")})

    assert find_conflicts(MODEL, [CREATE, seen, deletion]) == []
    (conflict,) = find_conflicts(MODEL, [CREATE, seen, unseen, deletion])
    assert (conflict.key, conflict.branches) == ("deleted", (unseen.stamp,))
    assert find_conflicts(MODEL, [CREATE, seen, unseen, deletion, restore]) == []


FORK = [
    CREATE,
    op(stamp(2, "a"), "edit", {"name": "b"}, {"name": stamp(1)}),
    op(stamp(2, "b"), "edit", {"name": "x"}, {"name": stamp(1)}),
    op(stamp(3, "b"), "edit", {"name": "y"}, {"name": stamp(2, "b")}),
]
RESOLVED = op(
    stamp(4, "a"),
    "edit",
    {"name": "b", resolution_key("name", stamp(1)): [stamp(2, "a"), stamp(3, "b")]},
    {"name": stamp(3, "b")},
)


def test_a_conflict_that_somebody_resolved_is_over() -> None:
    """Whoever resolves it had seen both branches; what he and others do afterwards follows from that."""
    later = op(stamp(5, "b"), "edit", {"name": "z"}, {"name": stamp(4, "a")})

    assert [c.agree for c in find_conflicts(MODEL, FORK)] == [False]
    assert [c.agree for c in find_conflicts(MODEL, [*FORK, RESOLVED])] == [True]
    assert [c.agree for c in find_conflicts(MODEL, [*FORK, RESOLVED, later])] == [True]


def test_an_edit_that_knew_nothing_of_the_resolution_opens_the_conflict_again() -> None:
    """Its value wins by its stamp, and undoes what was decided."""
    unaware = op(stamp(5, "a"), "edit", {"name": "c"}, {"name": stamp(2, "a")})

    assert [c.agree for c in find_conflicts(MODEL, [*FORK, RESOLVED, unaware])] == [False]


def test_two_resolutions_are_a_conflict_of_the_values_they_chose() -> None:
    """Two people decided, neither knew of the other."""
    other = op(
        stamp(4, "b"),
        "edit",
        {"name": "w", resolution_key("name", stamp(1)): [stamp(2, "a"), stamp(3, "b")]},
        {"name": stamp(3, "b")},
    )
    found = {c.fork: c.agree for c in find_conflicts(MODEL, [*FORK, RESOLVED, other])}

    assert found[stamp(3, "b")] is False


def test_what_a_deletion_had_not_seen_can_be_dismissed() -> None:
    """The branches are the operations it had not seen."""
    deletion = op(stamp(4, "a"), "delete", {"deleted": True}, {"name": stamp(2, "a")})
    (conflict,) = [c for c in find_conflicts(MODEL, [*FORK, deletion]) if c.key == "deleted"]
    dismissal = op(stamp(6), "edit", {resolution_key("deleted", conflict.fork): list(conflict.branches)})

    (after,) = [c for c in find_conflicts(MODEL, [*FORK, deletion, dismissal]) if c.key == "deleted"]
    assert not conflict.agree
    assert after.agree

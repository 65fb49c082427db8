"""Operations: the immutable records that a registry's journal is made of.

An operation changes one entity. Its `changes` map keys to new values; a key is a field ("name", "uri") or a keyed
value with a prefix ("tag:prod", "meta:accuracy", "link:input:teacher"), and every key is a register of its own in
which the greatest stamp wins. None as a value removes what is keyed and clears a field.

A *report* is no register: its scalars or its plot are added to those of the entity, whatever else was reported, and
replace nothing, so it has no parents.

A *resolution* of a conflict is a keyed value, "resolved:<key>:<fork>": the operations that whoever decided had seen.

Two rules go beyond that: a publication fixes the frozen fields for good, and of two publications the one with the
smaller stamp decides; and the time of last change is the greatest stamp of any operation on the entity but reports.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from modelstore.errors import InvalidOperationError
from modelstore.ids import is_digest, is_id, is_stamp, stamp_ms

__all__ = [
    "FROZEN_FIELDS",
    "MODEL_FIELDS",
    "PLOT_KINDS",
    "PREFIXES",
    "PROJECT_FIELDS",
    "TASK_FIELDS",
    "Action",
    "EntityKind",
    "NewerOperationError",
    "Operation",
    "check_operation",
]

EntityKind = Literal["model", "task", "project"]
Action = Literal["create", "edit", "publish", "delete", "restore", "report"]

FROZEN_FIELDS: Final = ("uri", "digest", "size", "package", "labels", "config", "framework", "iteration")
"""What a publication fixes for good."""

MODEL_FIELDS: Final = ("name", "project", "task", "parent", "comment", *FROZEN_FIELDS, "deleted")
TASK_FIELDS: Final = (
    "name",
    "project",
    "type",
    "status",
    "status_reason",
    "status_message",
    "comment",
    "parent",
    "output_uri",
    "labels",
    "script",
    "runtime",
    "last_iteration",
    "started",
    "completed",
    "deleted",
)
PROJECT_FIELDS: Final = ("name", "description", "output_uri")

PREFIXES: Final[dict[str, tuple[str, ...]]] = {
    "model": ("tag:", "systag:", "meta:", "resolved:"),
    "task": ("tag:", "systag:", "link:input:", "link:output:", "param:", "config:", "resolved:"),
    "project": ("resolved:",),
}
_FIELDS: Final[dict[str, frozenset[str]]] = {
    "model": frozenset(MODEL_FIELDS),
    "task": frozenset(TASK_FIELDS),
    "project": frozenset(PROJECT_FIELDS),
}
_ACTIONS: Final = frozenset(("create", "edit", "publish", "delete", "restore", "report"))
_PLOT_KEYS: Final = frozenset(
    ("kind", "title", "series", "iteration", "time", "figure", "digest", "size", "name", "url")
)
PLOT_KINDS: Final = ("plotly", "image", "media")
"""What a plot may be: a Plotly figure, a picture, or another file (audio, video, HTML …)."""
_TEXT_FIELDS: Final = frozenset(
    (
        "name", "project", "task", "parent", "comment", "uri", "digest", "framework", "type", "status",
        "status_reason", "status_message", "output_uri", "description",
    )
)  # fmt: skip
_INT_FIELDS: Final = frozenset(("size", "iteration", "last_iteration", "started", "completed"))
_BOOL_FIELDS: Final = frozenset(("package", "deleted"))
_TYPES: Final[dict[str, dict[str, type]]] = {
    kind: {
        field: str if field in _TEXT_FIELDS else bool if field in _BOOL_FIELDS else dict
        for field in fields - _INT_FIELDS
    }
    for kind, fields in _FIELDS.items()
}
_MAX_INT: Final = 2**63 - 1


_RECORD: Final = frozenset(("stamp", "kind", "entity", "action", "changes", "actor", "parents", "batch", "after"))
"""What a line may say; `after` is of the journal of a shared registry, which says so much of a writer's operations."""


class NewerOperationError(InvalidOperationError):
    """An operation has something that this version has never heard of.

    Nothing of it may be left out: whoever has it and whoever passes it on would disagree for ever, and not notice.
    """


@dataclass(frozen=True, slots=True)
class Operation:
    """One immutable record of the journal.

    Attributes:
        stamp: Its hybrid clock reading and writer; also its id.
        kind: What sort of entity it changes.
        entity: The entity's id.
        action: What the author did; `publish`, `create` and `report` have rules of their own.
        changes: Key to new value (JSON values as `modelstore.records.values.encode` makes them).
        parents: Key to the stamp of the operation whose value this one replaces; keys never set before are absent.
            A deletion names those of all keys, since it hides them all.
        actor: Who, as "user@host" or an authenticated name.
        batch: Stamp of the first operation of its transaction; None when it is alone.
        batch_size: How many operations the transaction has.
    """

    stamp: str
    kind: EntityKind
    entity: str
    action: Action
    changes: dict[str, Any]
    parents: dict[str, str] = field(default_factory=dict)
    actor: str = ""
    batch: str | None = None
    batch_size: int = 1

    @property
    def ms(self) -> int:
        """Milliseconds since 1970 of its stamp."""
        return stamp_ms(self.stamp)

    def to_json(self) -> str:
        """Write it as one line of JSON, the form in which journals travel."""
        record: dict[str, Any] = {
            "stamp": self.stamp,
            "kind": self.kind,
            "entity": self.entity,
            "action": self.action,
            "changes": self.changes,
            "actor": self.actor,
        }
        if self.parents:
            record["parents"] = self.parents
        if self.batch is not None:
            record["batch"] = [self.batch, self.batch_size]
        return json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Operation:
        """Read one line written by `to_json`.

        Raises:
            NewerOperationError: It has something that this version does not know.
            InvalidOperationError: The text is no operation, or one that breaks a rule.
        """
        try:
            record = json.loads(text)
            unheard = record.keys() - _RECORD
            batch, batch_size = record.get("batch") or (None, 1)
            operation = cls(
                stamp=record["stamp"],
                kind=record["kind"],
                entity=record["entity"],
                action=record["action"],
                changes=record["changes"],
                parents=record.get("parents") or {},
                actor=record["actor"],
                batch=batch,
                batch_size=batch_size,
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidOperationError(f"Not an operation: {text[:200]!r}") from error
        if unheard:
            raise _newer(operation, f"{min(unheard)[:100]!r}")
        check_operation(operation)
        return operation


def _newer(operation: Operation, what: str) -> NewerOperationError:
    return NewerOperationError(
        f"Operation {str(operation.stamp)[:64]!r} has what this version does not know: {what}",
        'If a newer modelstore made it, upgrade this one: pip install -U "modelstore-local".',
    )


def check_operation(operation: Operation) -> None:  # noqa: C901, PLR0912 - one branch a rule
    """Verify that an operation from elsewhere obeys the format, before it is let near the index.

    Raises:
        InvalidOperationError: It does not; the message says where.
    """

    def refuse(what: str) -> InvalidOperationError:
        return InvalidOperationError(f"Operation {str(operation.stamp)[:64]!r} is malformed: {what}")

    if not is_stamp(operation.stamp):
        raise refuse("its stamp is not 32 hex digits")
    if not isinstance(operation.kind, str) or operation.kind not in _FIELDS:
        raise _newer(operation, f"the kind of entity {str(operation.kind)[:100]!r}")
    if not is_id(operation.entity):
        raise refuse(f"its entity {operation.entity!r} is not 32 hex digits")
    if not isinstance(operation.action, str) or operation.action not in _ACTIONS:
        raise _newer(operation, f"the action {str(operation.action)[:100]!r}")
    if operation.action == "publish" and operation.kind == "project":
        raise refuse("a project cannot be published")
    if not isinstance(operation.changes, dict) or not isinstance(operation.parents, dict):
        raise refuse("changes and parents must be objects")
    if not isinstance(operation.actor, str):
        raise refuse("its actor is not text")
    if operation.batch is not None and not is_stamp(operation.batch):
        raise refuse("its batch is not a stamp")
    if type(operation.batch_size) is not int or not 1 <= operation.batch_size <= _MAX_INT:
        raise refuse("its batch size is not a positive number of 64 bits")
    if operation.action == "report":
        _check_report(operation, refuse)
        return
    types = _TYPES[operation.kind]
    for key, value in operation.changes.items():
        # What nearly all changes are: a value of the field's type. Whatever else there is, is looked at closely.
        if types.get(key) is not type(value):
            _check_change(operation, key, value, refuse)
    for key, stamp in operation.parents.items():
        if key not in operation.changes and operation.action != "delete":
            raise refuse(f"a parent for {key!r}, which it does not change")
        if not is_stamp(stamp) or stamp >= operation.stamp:
            raise refuse(f"the parent of {key!r} is not an earlier operation")


def _check_report(operation: Operation, refuse: Any) -> None:
    if operation.kind == "project" or operation.parents:
        raise refuse("projects have no reports, and reports replace nothing")
    if list(operation.changes) == ["scalars"]:
        if not isinstance(operation.changes["scalars"], dict):  # the fold looks inside
            raise refuse("its scalars are no object")
        return
    if list(operation.changes) != ["plot"] or not isinstance(operation.changes["plot"], dict):
        raise refuse("a report is of scalars, or of one plot")
    plot: dict[str, Any] = operation.changes["plot"]
    if not _PLOT_KEYS.issuperset(plot) or plot.get("kind") not in PLOT_KINDS:
        raise _newer(operation, "a plot of an unknown kind")
    texts = [plot.get(key) for key in ("title", "series")] + [plot[key] for key in ("name", "url") if key in plot]
    numbers = [plot.get(key) for key in ("iteration", "time")] + [plot[key] for key in ("size",) if key in plot]
    if not all(isinstance(text, str) for text in texts):
        raise refuse("a name in a plot is no text")
    if not all(type(number) is int and abs(number) <= _MAX_INT for number in numbers):
        raise refuse("a number in a plot is no whole number of 64 bits")
    if "digest" in plot and not is_digest(plot["digest"]):
        raise refuse("a plot's digest is none")
    if sum(key in plot for key in ("figure", "digest", "url")) != 1:
        raise refuse("a plot is a figure, stored bytes or an address")


def _check_change(  # noqa: C901, PLR0912 - one branch a rule
    operation: Operation, key: Any, value: Any, refuse: Any
) -> None:
    kind = operation.kind
    if not isinstance(key, str):
        raise refuse("a key is not text")
    if key in _FIELDS[kind]:
        if value is None and key not in _BOOL_FIELDS:
            return
        if key in _TEXT_FIELDS and not isinstance(value, str):
            raise refuse(f"{key!r} is not text")
        if key in _INT_FIELDS and (type(value) is not int or abs(value) > _MAX_INT):
            raise refuse(f"{key!r} is not a whole number of 64 bits")
        if key in _BOOL_FIELDS and type(value) is not bool:
            raise refuse(f"{key!r} is not true or false")
        if key in ("labels", "config", "script", "runtime") and not isinstance(value, dict):
            raise refuse(f"{key!r} is not an object")
        return
    prefix = key[: key.find(":", 5 if key.startswith("link:") else 0) + 1]
    if prefix not in PREFIXES[kind] or len(key) == len(prefix):
        raise _newer(operation, f"the key {key[:100]!r}")
    if value is None:
        return
    if prefix in ("tag:", "systag:") and value is not True:
        raise refuse(f"{key!r} is neither true nor null")
    if prefix.startswith("link:") and not is_id(value):
        raise refuse(f"{key!r} does not name a model")
    if prefix == "resolved:" and not (isinstance(value, list) and all(map(is_stamp, value))):
        raise refuse(f"{key!r} is no list of stamps")
    if prefix == "meta:" and not (isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)):
        raise refuse(f"{key!r} is not a pair of type and value")

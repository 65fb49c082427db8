"""Models, tasks and projects as they stand: frozen copies of index rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from modelstore.ids import clock_to_datetime

__all__ = ["HistoryEntry", "Link", "MetadataItem", "ModelRecord", "ProjectRecord", "TaskRecord", "UploadRecord"]


@dataclass(frozen=True, slots=True)
class MetadataItem:
    """One metadata value.

    Attributes:
        type: Its type's name ("int", "float", "bool", "str", "list", "tuple", "dict", "None").
        text: The value as text, which plain equality compares.
        value: The value itself.
    """

    type: str
    text: str
    value: Any


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """One model.

    Attributes:
        key: Its number in this index; means nothing elsewhere.
        state: 0 visible, 1 archived, 2 deleted.
        project: Full name of its project; None for none.
        uri: Where the weights are: a `modelstore://` address for bytes that the registry holds itself, any other URI
            for bytes that it refers to, None for no weights yet.
        digest: "sha256:hex" of the weights; None while unknown.
        size: Bytes of the weights; None while unknown.
        config: {"text": …} or {"dict": …} as encoded; None for none.
        created: Clock reading of its creation.
        updated: Clock reading of the last change.
    """

    key: int
    id: str
    state: int
    name: str | None
    project: str | None
    project_id: str | None
    task: str | None
    parent: str | None
    comment: str | None
    framework: str | None
    uri: str | None
    digest: str | None
    size: int | None
    package: bool
    labels: dict[str, int]
    config: dict[str, Any] | None
    iteration: int | None
    tags: tuple[str, ...]
    system_tags: tuple[str, ...]
    published: bool
    created: int
    updated: int
    metadata: dict[str, MetadataItem] = field(default_factory=dict)

    @property
    def archived(self) -> bool:
        """Whether it is hidden from queries that do not ask for archived models."""
        return "archived" in self.system_tags

    @property
    def deleted(self) -> bool:
        """Whether it was removed."""
        return self.state == 2

    @property
    def created_at(self) -> datetime:
        """When it was created (aware, UTC)."""
        return clock_to_datetime(self.created)

    @property
    def updated_at(self) -> datetime:
        """When it was last changed (aware, UTC)."""
        return clock_to_datetime(self.updated)


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One task; the fields are those of `TASK_FIELDS`, times in milliseconds since 1970."""

    key: int
    id: str
    state: int
    name: str | None
    project: str | None
    project_id: str | None
    type: str | None
    status: str | None
    status_reason: str | None
    status_message: str | None
    comment: str | None
    parent: str | None
    output_uri: str | None
    labels: dict[str, int] | None
    script: dict[str, Any]
    runtime: dict[str, Any]
    last_iteration: int | None
    started: int | None
    completed: int | None
    tags: tuple[str, ...]
    system_tags: tuple[str, ...]
    published: bool
    created: int
    updated: int

    @property
    def archived(self) -> bool:
        """Whether it is hidden from queries that do not ask for archived tasks."""
        return "archived" in self.system_tags

    @property
    def deleted(self) -> bool:
        """Whether it was removed."""
        return self.state == 2


@dataclass(frozen=True, slots=True)
class ProjectRecord:
    """One project; `models` and `tasks` count what is neither archived nor deleted, None where nobody counted."""

    id: str
    name: str
    description: str | None
    output_uri: str | None
    models: int | None
    tasks: int | None


@dataclass(frozen=True, slots=True)
class Link:
    """A model that a task uses (`direction` "input") or has made ("output"), under a name."""

    task: str
    direction: str
    name: str
    model: str


@dataclass(frozen=True, slots=True)
class UploadRecord:
    """An upload that has not finished: the bytes are safe in the registry folder, the destination lacks them.

    Attributes:
        id: Number of the upload in this registry.
        model: The model whose weights they are.
        snapshot: Path of the bytes inside the registry folder.
        destination: URI that they are sent to.
        status: "pending" or "failed".
        attempts: How often it was tried.
        error: What the last try said; None when it was not tried.
        created: Milliseconds since 1970.
    """

    id: int
    model: str
    snapshot: str
    destination: str
    changes: dict[str, Any]
    status: str
    attempts: int
    error: str | None
    host: str
    pid: int
    created: int


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One change in the life of a model.

    Attributes:
        at: When (aware, UTC).
        actor: Who.
        action: "create", "edit", "publish", "delete" or "restore".
        key: What changed: a field, or a keyed value such as "tag:prod" or "meta:accuracy".
        old: The value before, None for none.
        new: The value after, None when it was removed.
        stamp: The operation's id.
    """

    at: datetime
    actor: str
    action: str
    key: str
    old: Any
    new: Any
    stamp: str


@dataclass(frozen=True, slots=True)
class Change(HistoryEntry):
    """One change in the life of a registry.

    Attributes:
        kind: What was changed: "model", "task" or "project".
        entity: Its id.
        name: What it is called now; None where that is not known.
    """

    kind: str
    entity: str
    name: str | None

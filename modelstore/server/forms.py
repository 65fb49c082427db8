"""The JSON that goes over the wire, as msgspec reads and writes it; the OpenAPI description is made of these."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

__all__ = [
    "ConflictList",
    "EntityList",
    "ErrorBody",
    "ErrorDetails",
    "Knowledge",
    "Limits",
    "MissingQuestion",
    "Model",
    "ModelPage",
    "ModelQuestion",
    "ObjectList",
    "PullQuestion",
    "Pushed",
    "RegistryInfo",
    "SelectQuestion",
    "Stored",
    "UploadQuestion",
    "UploadState",
    "Whoami",
]

Stamp = Annotated[str, Meta(pattern="^[0-9a-f]{32}$", description="Time and writer of an operation; its id.")]
Digest = Annotated[str, Meta(pattern="^sha256:[0-9a-f]{64}$")]
Id = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]


class Whoami(Struct):
    """Who asks: name of the token ("" where none is needed), role, and patterns of actors that it writes as."""

    name: str
    role: str
    actors: list[str]


class Limits(Struct):
    """What the server takes at once."""

    body_bytes: int


class RegistryInfo(Struct):
    """The registry behind the server."""

    id: str
    kind: str
    format: int
    software: str
    version: str
    api: int
    oldest: int
    you: Whoami
    limits: Limits


class Knowledge(Struct):
    """What a registry has: by writer the stamp up to which all is there, and the stamps of what is there besides."""

    heads: dict[str, Stamp]
    strays: list[Stamp]


class PullQuestion(Struct, forbid_unknown_fields=True):
    """What the caller has, and up to which state of the server he wants the rest."""

    known: Knowledge
    upto: Knowledge | UnsetType = UNSET


class Pushed(Struct):
    """What came of operations: how many were new, how many known, and what the new ones touched."""

    new: int
    known: int
    entities: list[str]


class SelectQuestion(Struct, forbid_unknown_fields=True):
    """Conditions on models, as `models/search` has them."""

    filters: dict[str, Any]


class EntityList(Struct):
    """Ids of models, of their tasks and their projects."""

    entities: list[str]


class MissingQuestion(Struct, forbid_unknown_fields=True):
    """Which bytes are asked about: of which models ("all", "published", "wanted"), and of which entities."""

    which: str = "all"
    entities: list[str] | None = None


class MissingObject(Struct):
    """An object that is referred to and not there."""

    digest: str
    name: str
    size: int | None
    entity: str
    what: str


class ObjectList(Struct):
    """Objects that are referred to and not there."""

    objects: list[MissingObject]


class Stored(Struct):
    """An object that is stored."""

    digest: str
    name: str
    uri: str


class UploadQuestion(Struct, forbid_unknown_fields=True):
    """An object that is to be uploaded."""

    digest: Digest
    name: Annotated[str, Meta(min_length=1, max_length=200)]
    size: Annotated[int, Meta(ge=0, le=2**63 - 1)]


class UploadState(Struct):
    """An object on its way: how many of its bytes have come, and whether it is stored."""

    id: str
    digest: str
    name: str
    size: int
    offset: int
    complete: bool


class ModelQuestion(Struct, forbid_unknown_fields=True):
    """A question about models, in the terms of `Model.query_models`; what is left out does not filter."""

    project: str | None = None
    name: str | None = None
    tags: list[str] | None = None
    only_published: bool = False
    include_archived: bool = False
    metadata: dict[str, Any] | None = None
    where: str | None = None
    name_regex: str | None = None
    order_by: str | list[str] | None = None
    dialect: str = "page"
    task: str | None = None
    search: str | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    cursor: Annotated[str | None, Meta(description="`next` of the page before.")] = None


class Model(Struct):
    """A model, as `Model.to_dict` gives it."""

    id: Id
    name: str | None
    project: str | None
    framework: str | None
    url: str | None
    digest: str | None
    size: int | None
    package: bool
    tags: list[str]
    system_tags: list[str]
    comment: str | None
    labels: dict[str, Any] | None
    config: Any
    iteration: int | None
    metadata: dict[str, Any]
    published: bool
    archived: bool
    task: str | None
    parent: str | None
    created: str
    last_update: str


class ModelPage(Struct):
    """Models, in order; `next` asks for those behind them, null where there are none."""

    models: list[Model]
    next: str | None


class ConflictBranch(Struct):
    """One side of a conflict."""

    value: Any
    actor: str
    at: str
    stands: bool
    operations: list[str]


class Conflict(Struct):
    """Edits that did not know of each other and that nobody has settled."""

    id: str
    kind: str
    entity: str
    name: str | None
    key: str
    before: Any
    fixed: bool
    branches: list[ConflictBranch]


class ConflictList(Struct):
    """The conflicts that are open."""

    conflicts: list[Conflict]


class ErrorDetails(Struct):
    """What went wrong, and what to do."""

    type: str
    message: str
    hint: str


class ErrorBody(Struct):
    """The body of every answer that is no success."""

    error: ErrorDetails

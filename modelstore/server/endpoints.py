"""Every endpoint: its name, who may use it, what goes in and out. The routes and the description are made of this."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from starlette.responses import Response

from modelstore.server import contents, finding, forms, journal, status
from modelstore.server.service import Call
from modelstore.server.tokens import Role

__all__ = ["ENDPOINTS", "Endpoint"]

Handler = Callable[[Call], Awaitable[Response]]
Binary = Literal["bytes", "lines", "text"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint.

    Attributes:
        method: Of HTTP.
        path: With its parameters in braces.
        handler: Answers.
        summary: What it does.
        role: Least role of the token; None needs none.
        body: What is sent: a form, or bytes; None for nothing.
        answers: Status to what is answered with it, of those that are no error.
        errors: Statuses of errors, besides those that every endpoint has.
        headers: Of the request: name to what it is.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    role: Role | None
    body: type[Any] | Binary | None = None
    answers: dict[int, type[Any] | Binary | None] = field(default_factory=dict)
    errors: tuple[int, ...] = ()
    headers: dict[str, str] = field(default_factory=dict)


_RANGE: Final = {
    "Range": "One range of bytes.",
    "If-Range": "The ETag that the range is of.",
    "If-None-Match": "An ETag.",
}

ENDPOINTS: Final = (
    Endpoint("GET", "/healthz", status.health, "Whether the server answers", None, answers={200: "text"}),
    Endpoint("GET", "/metrics", status.metrics, "Counters for Prometheus", "read", answers={200: "text"}),
    Endpoint("GET", "/v1/openapi.json", status.openapi, "This description", None, answers={200: dict}),
    Endpoint(
        "GET", "/v1/registry", status.registry, "Which registry this is, and who asks", "read",
        answers={200: forms.RegistryInfo},
    ),
    Endpoint(
        "GET", "/v1/journal/heads", journal.heads, "What the registry has", "read",
        answers={200: forms.Knowledge, 304: None}, headers={"If-None-Match": "The ETag of an earlier answer."},
    ),
    Endpoint(
        "POST", "/v1/journal/pull", journal.pull, "Operations that the caller lacks, as lines of JSON", "read",
        forms.PullQuestion, {200: "lines"}, (400, 413, 415),
    ),
    Endpoint(
        "POST", "/v1/journal/push", journal.push, "Take operations in: all of them, durably, or none", "write",
        "lines", {200: forms.Pushed}, (400, 409, 413, 415, 422, 507),
    ),
    Endpoint(
        "POST", "/v1/select", journal.select, "Ids of models that match, and of what is around them", "read",
        forms.SelectQuestion, {200: forms.EntityList}, (400, 413, 415),
    ),
    Endpoint(
        "POST", "/v1/models/search", finding.search, "Models that match, page by page", "read",
        forms.ModelQuestion, {200: forms.ModelPage}, (400, 404, 413, 415),
    ),
    Endpoint(
        "GET", "/v1/models/{id}", finding.model, "One model", "read", answers={200: forms.Model}, errors=(400, 404)
    ),
    Endpoint(
        "GET", "/v1/conflicts", finding.conflicts, "Edits that did not know of each other", "read",
        answers={200: forms.ConflictList},
    ),
    Endpoint(
        "POST", "/v1/objects/missing", contents.missing, "Bytes that are referred to and not there", "read",
        forms.MissingQuestion, {200: forms.ObjectList}, (400, 413, 415),
    ),
    Endpoint(
        "GET", "/v1/objects/{digest}/{name}", contents.read_object, "The bytes of an object", "read",
        answers={200: "bytes", 206: "bytes", 304: None}, errors=(400, 404, 416), headers=_RANGE,
    ),
    Endpoint(
        "HEAD", "/v1/objects/{digest}/{name}", contents.read_object, "Whether an object is there, and its size", "read",
        answers={200: None, 206: None, 304: None}, errors=(400, 404, 416), headers=_RANGE,
    ),
    Endpoint(
        "PUT", "/v1/objects/{digest}/{name}", contents.store_object, "Store an object in one piece", "write",
        "bytes", {200: forms.Stored, 201: forms.Stored}, (400, 408, 422, 507),
    ),
    Endpoint(
        "POST", "/v1/uploads", contents.begin_upload, "Begin an upload, or find the one that was cut off", "write",
        forms.UploadQuestion, {200: forms.UploadState, 201: forms.UploadState}, (400, 413, 415, 507),
    ),
    Endpoint(
        "GET", "/v1/uploads/{id}", contents.upload_state, "How far an upload is", "write",
        answers={200: forms.UploadState}, errors=(404,),
    ),
    Endpoint(
        "HEAD", "/v1/uploads/{id}", contents.upload_state, "How far an upload is: Upload-Offset", "write",
        answers={200: None}, errors=(404,),
    ),
    Endpoint(
        "PATCH", "/v1/uploads/{id}", contents.continue_upload,
        "Append to an upload; with the last byte it is verified and stored", "write",
        "bytes", {204: None}, (400, 404, 408, 409, 422, 507), {"Upload-Offset": "How many bytes have come before."},
    ),
    Endpoint(
        "DELETE", "/v1/uploads/{id}", contents.drop_upload, "Forget an upload", "write",
        answers={204: None}, errors=(404,),
    ),
)  # fmt: skip

"""The OpenAPI description, made from the table of endpoints."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final

import msgspec

from modelstore import __version__
from modelstore.server import forms
from modelstore.server.endpoints import ENDPOINTS, Endpoint

__all__ = ["description"]

_MEDIA: Final = {"bytes": "application/octet-stream", "lines": "application/x-ndjson", "text": "text/plain"}
_WORDS: Final = {
    200: "Done", 201: "Made", 204: "Done", 206: "The range", 304: "As you have it",
    400: "The request cannot be understood", 401: "A token is needed, or this one is unknown",
    403: "The token may not do this", 404: "There is no such thing", 408: "The body did not come",
    409: "It is there already, and is another; or the offset is another", 413: "The body is too large",
    415: "The body is of the wrong kind", 416: "The object is shorter", 422: "What came is malformed or damaged",
    426: "The client is too old",
    429: "Too many bad tokens from there", 500: "A mistake of the server", 503: "It cannot be done now",
    507: "The disk is full",
}  # fmt: skip
_EVERYWHERE: Final = (500, 503)
_WITH_TOKEN: Final = (401, 403, 426, 429)
_PARAMETERS: Final = {
    "id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    "digest": {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"},
    "name": {"type": "string", "minLength": 1, "maxLength": 200},
}


@cache
def description() -> dict[str, Any]:
    """Return the description of this server's interface, OpenAPI 3.1."""
    used = [one for endpoint in ENDPOINTS for one in (endpoint.body, *endpoint.answers.values())]
    structs = [one for one in used if isinstance(one, type) and issubclass(one, msgspec.Struct)]
    _, components = msgspec.json.schema_components(
        [*dict.fromkeys(structs), forms.ErrorBody], ref_template="#/components/schemas/{name}"
    )
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "modelstore",
            "version": __version__,
            "description": "A model registry: the exchange of operations and bytes between registries, and queries.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "Made with `modelstore token create`."}
            },
        },
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    name = re.sub(r"\W+", "_", f"{endpoint.method.lower()}{endpoint.path}").strip("_")
    found: dict[str, Any] = {
        "operationId": name,
        "summary": endpoint.summary,
        "tags": [endpoint.path.split("/")[2 if endpoint.path.startswith("/v1/") else 1]],
        "security": [] if endpoint.role is None else [{"token": []}],
        "responses": _responses(endpoint),
    }
    if endpoint.role is not None:
        found["description"] = f"Needs a token of role {endpoint.role!r} or above."
    parameters = [
        {"name": one, "in": "path", "required": True, "schema": _PARAMETERS[one]}
        for one in re.findall(r"{(\w+)}", endpoint.path)
    ]
    for header, what in endpoint.headers.items():
        schema = {"type": "integer", "minimum": 0} if header == "Upload-Offset" else {"type": "string"}
        required = header == "Upload-Offset"
        parameters.append({"name": header, "in": "header", "required": required, "description": what, "schema": schema})
    if parameters:
        found["parameters"] = parameters
    if endpoint.body is not None:
        found["requestBody"] = {"required": endpoint.body != "bytes", "content": _content(endpoint.body)}
    return found


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for status, what in endpoint.answers.items():
        answers[str(status)] = {"description": _WORDS[status]}
        if what is not None:
            answers[str(status)]["content"] = _content(what)
    for status in sorted({*endpoint.errors, *_EVERYWHERE, *(_WITH_TOKEN if endpoint.role else ())}):
        answers[str(status)] = {"description": _WORDS[status]}
        if endpoint.method != "HEAD":
            answers[str(status)]["content"] = _content(forms.ErrorBody)
    return answers


def _content(what: type[Any] | str) -> dict[str, Any]:
    if isinstance(what, str):
        form = {"type": "string"} if what != "bytes" else {"type": "string", "format": "binary"}
        return {_MEDIA[what]: {"schema": form}}
    if what is dict:
        return {"application/json": {"schema": {"type": "object"}}}
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{what.__name__}"}}}

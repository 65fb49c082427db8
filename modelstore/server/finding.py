"""Questions about models over HTTP."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

import msgspec

from modelstore.errors import AccessDeniedError, InvalidRequestError
from modelstore.query import has_pattern
from modelstore.query.filters import condition
from modelstore.records.entities import ModelRecord
from modelstore.records.values import encode
from modelstore.registry.conflicts import OpenConflict
from modelstore.registry.search import ModelSearch
from modelstore.sdk.base_model import model_to_dict
from modelstore.server import forms
from modelstore.server.encoding import json_answer
from modelstore.server.service import Call
from modelstore.server.tokens import Token

if TYPE_CHECKING:
    from starlette.responses import Response

__all__ = ["asked", "conflicts", "model", "search"]

_FIELDS: Final = tuple(one.name for one in fields(ModelSearch) if one.name != "limit")


async def search(call: Call) -> Response:
    """Answer with a page of models."""
    question = await call.json(forms.ModelQuestion)

    def work() -> Response:
        found = asked(call.who, {name: getattr(question, name) for name in _FIELDS})
        records, last = found.page(call.registry, question.limit, _cursor(question.cursor))
        return json_answer({"models": [_model(one) for one in records], "next": _token(last)})

    return await call.service.read(work)


async def model(call: Call) -> Response:
    """Answer with one model."""

    def work() -> Response:
        with call.registry.reading():
            return json_answer(_model(call.registry.models.get(call.path("id"))))

    return await call.service.read(work)


async def conflicts(call: Call) -> Response:
    """Answer with the conflicts that are open."""

    def work() -> Response:
        with call.registry.reading():
            found = call.registry.conflicts.open()
        return json_answer(forms.ConflictList([_conflict(one) for one in found]))

    return await call.service.read(work)


def asked(who: Token, filters: Mapping[str, Any]) -> ModelSearch:
    """Return the question that conditions amount to, if somebody may ask it.

    Raises:
        InvalidRequestError: They are none.
        AccessDeniedError: They have a regular expression, which can keep the server busy for ever: one token, and
            nobody else gets an answer.
    """
    try:
        found = ModelSearch(**filters)
        tried = has_pattern(condition(found.query()))
    except (TypeError, RecursionError) as error:
        raise InvalidRequestError(f"These are no conditions on models: {error}") from error
    if tried and who.role != "admin":
        raise AccessDeniedError(
            "Regular expressions are for tokens of the role admin: one can keep a server busy for ever",
            "Use `contains`, or sync and ask your own registry.",
        )
    return found


def _model(record: ModelRecord) -> dict[str, Any]:
    # The logical address of what the registry keeps: a path of this machine means nothing to the caller.
    return model_to_dict(record, record.uri)


def _conflict(one: OpenConflict) -> forms.Conflict:
    branches = [
        forms.ConflictBranch(encode(b.value), b.actor, b.at.isoformat(), b.stands, list(b.stamps)) for b in one.branches
    ]
    return forms.Conflict(one.id, one.kind, one.entity, one.name, one.key, encode(one.before), one.fixed, branches)


def _token(last: tuple[Any, ...] | None) -> str | None:
    return None if last is None else base64.urlsafe_b64encode(json.dumps(last).encode()).decode()


def _cursor(token: str | None) -> list[bool | int | float | str | None] | None:
    if token is None:
        return None
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(token), type=list[bool | int | float | str | None])
    except (ValueError, binascii.Error, msgspec.DecodeError) as error:
        raise InvalidRequestError("The cursor is none", "Give `next` of the page before, as it is.") from error

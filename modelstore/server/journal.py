"""The exchange of operations over HTTP."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from typing import IO, Final

from starlette.responses import Response, StreamingResponse

from modelstore.errors import InvalidOperationError, InvalidRequestError, ModelStoreError
from modelstore.records.operations import NewerOperationError
from modelstore.server import forms
from modelstore.server.admission import take_in
from modelstore.server.answers import RefusedError
from modelstore.server.encoding import json_answer
from modelstore.server.finding import asked
from modelstore.server.service import Call
from modelstore.sync import Knowledge, Parcel
from modelstore.sync.wire import END, REGISTRY, parcel_lines, read_parcel

__all__ = ["heads", "pull", "push", "select"]

logger = logging.getLogger("modelstore.server")

_NDJSON: Final = "application/x-ndjson"


async def heads(call: Call) -> Response:
    """Answer what the registry has; who names what he was told last is only told that nothing is new."""
    body, etag = await call.service.read(call.service.told.heads)
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", REGISTRY: call.registry.id}
    if call.request.headers.get("if-none-match") == etag:
        return Response(None, 304, headers)
    return Response(body, 200, headers, "application/json")


async def pull(call: Call) -> Response:
    """Answer with the operations that the caller lacks, as a stream."""
    question = await call.json(forms.PullQuestion)
    known = _knowledge(question.known)
    mine = await call.service.read(call.service.partner.knowledge)
    upto = mine if not isinstance(question.upto, forms.Knowledge) else _knowledge(question.upto)
    # Whatever the caller asks for, he gets nothing said about operations that are not there.
    heads = {writer: min(stamp, mine.heads[writer]) for writer, stamp in upto.heads.items() if writer in mine.heads}
    wanted = Knowledge(heads, upto.strays & mine.strays)
    return StreamingResponse(_stream(call, known, wanted), media_type=_NDJSON)


async def _stream(call: Call, known: Knowledge, upto: Knowledge) -> AsyncIterator[bytes]:
    """Yield parcels; each is read in one go, in a thread, and nothing is held in the database between them."""
    parcels = call.service.partner.parcels(known, upto)
    try:
        while True:
            data = await call.service.read(lambda: _next(parcels))
            if data is None:
                break
            yield data
        yield END.encode()
    except ModelStoreError as error:
        logger.warning("a stream of operations was broken off: %s", error)
        yield b'{"error":"it cannot read its journal; see its log"}\n'


def _next(parcels: Iterator[Parcel]) -> bytes | None:
    parcel = next(parcels, None)
    return None if parcel is None else "".join(parcel_lines(parcel)).encode()


async def push(call: Call) -> Response:
    """Take operations in: all of them, durably, or none."""
    if not call.request.headers.get("content-type", "").lower().startswith(_NDJSON):
        raise RefusedError(415, "UnsupportedMediaType", "The body must be lines of JSON", f"Content-Type: {_NDJSON}")

    def work(body: IO[bytes]) -> forms.Pushed:
        try:
            parcel = read_parcel(body.read().split(b"\n"))
        except NewerOperationError as error:
            raise InvalidOperationError(
                error.message, "If a newer modelstore made it, upgrade the one on the server."
            ) from error
        done = take_in(call.registry, parcel, call.who, call.service.settings.max_ahead_ms)
        return forms.Pushed(done.new, done.known, sorted(done.entities))

    with await call.body() as body:
        done = await call.service.write(lambda: work(body))
    call.count("operations", done.new)
    return json_answer(done)


async def select(call: Call) -> Response:
    """Answer with the ids of the models that match, and of what is around them."""
    question = await call.json(forms.SelectQuestion)

    def work() -> list[str]:
        asked(call.who, question.filters)
        return sorted(call.service.partner.select(question.filters))

    return json_answer(forms.EntityList(await call.service.read(work)))


def _knowledge(form: forms.Knowledge) -> Knowledge:
    if any(stamp[16:] != writer for writer, stamp in form.heads.items()):
        raise InvalidRequestError("A head is no stamp of its writer")
    return Knowledge(form.heads, frozenset(form.strays))

"""Bytes over HTTP: objects by digest, whole or in ranges, and uploads that can be continued."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Final, get_args
from urllib.parse import quote

from starlette.responses import Response, StreamingResponse

from modelstore.errors import BlobNotFoundError, InvalidRequestError
from modelstore.server import forms
from modelstore.server.answers import RefusedError
from modelstore.server.encoding import json_answer
from modelstore.server.service import Call
from modelstore.server.uploads import Incoming, Upload, checked_name
from modelstore.sync import Objects

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

__all__ = ["begin_upload", "continue_upload", "drop_upload", "missing", "read_object", "store_object", "upload_state"]

_BLOCK: Final = 1 << 20
_RANGE: Final = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")
_WHICH: Final = frozenset(get_args(Objects))


async def missing(call: Call) -> Response:
    """Answer with the bytes that the registry refers to, wants and has not."""
    question = await call.json(forms.MissingQuestion)
    if question.which not in _WHICH:
        raise InvalidRequestError(f"Unknown objects {question.which!r}", f"Use one of {', '.join(sorted(_WHICH))}.")
    entities = None if question.entities is None else set(question.entities)
    which: Objects = question.which  # type: ignore[assignment]
    needs = await call.service.read(lambda: call.service.partner.needs(which, entities))
    found = [forms.MissingObject(one.digest, one.name, one.size, one.entity, one.what) for one in needs]
    return json_answer(forms.ObjectList(found))


# -- out ---------------------------------------------------------------------------------------------------------------


async def read_object(call: Call) -> Response:
    """Answer with an object, or with a range of it."""
    digest, name = call.path("digest"), call.path("name")
    checked_name(digest, name)
    descriptor, size = await call.service.move(lambda: _open(call, digest, name))
    try:
        etag = f'"{digest}"'
        headers = {
            "ETag": etag,
            "Accept-Ranges": "bytes",
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
            "Cache-Control": "private, max-age=31536000, immutable",
        }
        asked = call.request.headers
        if etag in asked.get("if-none-match", "") or asked.get("if-none-match") == "*":
            os.close(descriptor)
            return Response(None, 304, headers)
        begin, end, status = _range(asked.get("range"), asked.get("if-range"), etag, size)
        if status == 206:
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
        headers["Content-Length"] = str(end - begin)
        if call.request.method == "HEAD":
            os.close(descriptor)
            return Response(None, status, headers, "application/octet-stream")
    except BaseException:
        os.close(descriptor)
        raise
    return _Sent(call, descriptor, begin, end, status, headers)


def _open(call: Call, digest: str, name: str) -> tuple[int, int]:
    path = call.registry.weights.object_file(digest, name)  # of a bucket's, the copy in this host's cache
    if path is not None:
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            return descriptor, os.fstat(descriptor).st_size
    raise BlobNotFoundError(f"There is no object {digest}", "`POST /v1/objects/missing` lists what is wanted.")


def _range(wanted: str | None, if_range: str | None, etag: str, size: int) -> tuple[int, int, int]:
    """Return where to begin and end, and the status; what is no single range is answered as a whole."""
    match = _RANGE.fullmatch(wanted.strip()) if wanted is not None else None
    if match is None or match[0] == "bytes=-" or (if_range is not None and if_range != etag):
        return 0, size, 200
    if not match[1]:
        begin, end = max(0, size - int(match[2])), size
    else:
        begin, end = int(match[1]), min(size, int(match[2]) + 1 if match[2] else size)
        if match[2] and int(match[2]) < begin:
            return 0, size, 200
    if begin >= size:
        raise RefusedError(
            416, "RangeNotSatisfiable", f"The object has {size} bytes", "", {"Content-Range": f"bytes */{size}"}
        )
    return begin, end, 206


class _Sent(StreamingResponse):
    """A range of a file as an answer; the file is closed with it, however it ends."""

    def __init__(self, call: Call, descriptor: int, begin: int, end: int, status: int, headers: dict[str, str]) -> None:
        super().__init__(_blocks(call, descriptor, begin, end), status, headers, "application/octet-stream")
        self._descriptor = descriptor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            os.close(self._descriptor)


async def _blocks(call: Call, descriptor: int, begin: int, end: int) -> AsyncIterator[bytes]:
    while begin < end:
        length = min(_BLOCK, end - begin)
        block = await call.service.move(lambda at=begin, count=length: os.pread(descriptor, count, at))  # type: ignore[misc]
        if not block:
            return  # cut off by whoever shortened the file: the client sees that bytes are missing
        begin += len(block)
        yield block


# -- in ----------------------------------------------------------------------------------------------------------------


async def store_object(call: Call) -> Response:
    """Store an object that comes in one piece."""
    digest, name = call.path("digest"), call.path("name")
    checked_name(digest, name)
    store = call.registry.weights.objects
    if await call.service.move(lambda: store.size(digest, name)) is not None:
        async for _ in call.blocks():
            pass  # it is here; the connection stays usable
        return json_answer(forms.Stored(digest, name, _uri(digest, name)))
    announced = call.request.headers.get("content-length", "")
    size = int(announced) if announced.isdigit() else None
    incoming = await call.service.move(lambda: call.service.uploads.receive(digest, name, size))
    try:
        await _receive(call, incoming)
        uri = await call.service.move(incoming.finish)
    except BaseException:
        incoming.discard()
        raise
    finally:
        incoming.close()
    call.count("objects")
    return json_answer(forms.Stored(digest, name, uri), 201)


async def begin_upload(call: Call) -> Response:
    """Begin an upload, or find the one that was cut off."""
    question = await call.json(forms.UploadQuestion)
    upload = await call.service.move(
        lambda: call.service.uploads.begin(call.who, question.digest, question.name, question.size)
    )
    headers = {} if upload.complete else {"Location": f"/v1/uploads/{upload.id}"}
    return json_answer(_state(upload), 200 if upload.complete or upload.offset else 201, headers)


async def upload_state(call: Call) -> Response:
    """Answer how far an upload is."""
    upload = await call.service.move(lambda: call.service.uploads.get(call.who, call.path("id")))
    headers = {
        "Upload-Offset": str(upload.offset),
        "Upload-Length": str(upload.size),
        "Cache-Control": "no-store",
    }
    return json_answer(_state(upload), 200, headers)


async def continue_upload(call: Call) -> Response:
    """Append to an upload; with its last byte it becomes an object, if the digest is right."""
    text = call.request.headers.get("upload-offset", "")
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise RefusedError(400, "InvalidRequestError", "Upload-Offset is missing or no number")
    upload_id = call.path("id")
    incoming = await call.service.move(lambda: call.service.uploads.proceed(call.who, upload_id, int(text)))
    try:
        await _receive(call, incoming)
        headers = {"Upload-Offset": str(incoming.offset)}
        if not incoming.whole:
            return Response(None, 204, headers)
        await call.service.move(incoming.finish)
    finally:
        incoming.close()
    call.count("objects")
    return Response(None, 204, headers)


async def drop_upload(call: Call) -> Response:
    """Forget an upload."""
    await call.service.move(lambda: call.service.uploads.drop(call.who, call.path("id")))
    return Response(None, 204)


async def _receive(call: Call, incoming: Incoming) -> None:
    """Write the body down, a block while the next one arrives."""
    writing: asyncio.Task[None] | None = None
    waiting = bytearray()
    try:
        async for block in call.blocks():
            waiting += block
            if len(waiting) >= _BLOCK:
                if writing is not None:
                    await writing
                writing = asyncio.create_task(_append(call, incoming, waiting))
                waiting = bytearray()
    finally:
        if writing is not None:
            await writing
        await _append(call, incoming, waiting)  # what came before the line went dead is kept


async def _append(call: Call, incoming: Incoming, data: bytearray) -> None:
    if data:
        await call.service.move(lambda: incoming.append(data))


def _state(upload: Upload) -> forms.UploadState:
    return forms.UploadState(upload.id, upload.digest, upload.name, upload.size, upload.offset, upload.complete)


def _uri(digest: str, name: str) -> str:
    from modelstore.storage.objects import object_uri

    return object_uri(digest, name)

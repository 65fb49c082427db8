"""The application: who is let in, which endpoint answers, and what becomes of errors."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route

from modelstore.server.answers import answer_for, error_answer
from modelstore.server.door import let_in
from modelstore.server.endpoints import ENDPOINTS, Endpoint
from modelstore.server.logs import access, configure
from modelstore.server.service import Call, Service
from modelstore.server.settings import Settings

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["create_app"]

logger = logging.getLogger("modelstore.server")

_ORPHAN_S: Final = 1.0


def create_app(settings: Settings, *, logs: bool) -> ASGIApp:
    """Return the application of one worker; `modelstore.server.running` starts it."""
    if logs:
        configure()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service = app.state.service = await asyncio.to_thread(Service, settings)
        tasks = [asyncio.create_task(service.sweep())]
        if settings.parent is not None:
            tasks.append(asyncio.create_task(_end_with(settings.parent)))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await asyncio.to_thread(service.close)

    routes = [Route(one.path, _Served(one), methods=[one.method]) for one in ENDPOINTS]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _not_served})
    app.router.redirect_slashes = False
    return _Noted(app)


async def _end_with(parent: int) -> None:
    """End this worker when whoever looks after the workers was killed."""
    while os.getppid() == parent:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(_ORPHAN_S)
    os.kill(os.getpid(), signal.SIGTERM)


async def _not_served(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    return error_answer(error.status_code, "NotServed", str(error.detail), "See /v1/openapi.json.", error.headers)


class _Served:
    """One endpoint, behind the door."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        service: Service = scope["app"].state.service
        try:
            who = let_in(service, request, self._endpoint.role)
            scope["modelstore.who"] = who.name
            response = await self._endpoint.handler(Call(request, service, who))
        except Exception as error:  # the last line: whatever it is, the client gets an answer and the log the rest
            found = answer_for(error)
            if found is None or found.status_code == 500:
                logger.exception("%s %s failed", request.method, scope["path"])
            response = found or error_answer(500, "InternalError", "The server made a mistake", "Its log says which.")
        await response(scope, receive, send)


class _Noted:
    """Counts and logs every request."""

    def __init__(self, app: Starlette) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.monotonic()
        status = 500
        sent = 0

        async def noting(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-content-type-options", b"nosniff")]
            sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            seconds = time.monotonic() - begun
            board = self._app.state.service.board
            board.note(scope["method"], status, seconds)
            board.add("sent_bytes", sent)
            access(scope, status, sent, seconds)

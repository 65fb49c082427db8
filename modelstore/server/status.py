"""What a server says of itself."""

from __future__ import annotations

from starlette.responses import PlainTextResponse, Response

from modelstore import __version__
from modelstore.index import ops
from modelstore.index.schema import SCHEMA_VERSION
from modelstore.server import forms
from modelstore.server.encoding import json_answer
from modelstore.server.service import Call
from modelstore.sync.wire import OLDEST, SPEAKS

__all__ = ["health", "metrics", "openapi", "registry"]


async def health(call: Call) -> Response:
    """Answer when the registry can be read."""
    await call.service.read(lambda: call.registry.database.one("SELECT 1"))
    return PlainTextResponse("ok\n")


async def metrics(call: Call) -> Response:
    """Answer with the counters of all workers."""

    def work() -> str:
        connection = call.registry.database.connection
        rows = connection.execute("SELECT count(*) FROM models WHERE state = 0").fetchone()
        gauges = {
            "models": ("Models that are neither archived nor removed.", float(rows[0])),
            "journal_operations": ("Operations in the journal.", float(ops.count(connection))),
        }
        return call.service.board.text(gauges)

    text = await call.service.read(work)
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")


async def openapi(_: Call) -> Response:
    """Answer with the description of all endpoints."""
    from modelstore.server.openapi import description

    return json_answer(description())


async def registry(call: Call) -> Response:
    """Answer which registry this is."""
    found = call.registry
    you = forms.Whoami(call.who.name, call.who.role, list(call.who.actors))
    limits = forms.Limits(call.service.settings.max_body)
    return json_answer(
        forms.RegistryInfo(found.id, found.kind, SCHEMA_VERSION, "modelstore", __version__, SPEAKS, OLDEST, you, limits)
    )

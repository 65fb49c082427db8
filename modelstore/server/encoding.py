"""Answers in JSON."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from starlette.responses import Response

__all__ = ["json_answer"]


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a value as an answer in JSON; text that is no Unicode is escaped."""
    try:
        body = msgspec.json.encode(value)
    except UnicodeEncodeError:
        body = json.dumps(msgspec.to_builtins(value)).encode()
    return Response(body, status, headers, media_type="application/json")

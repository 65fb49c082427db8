"""Logs of a server: lines of JSON on standard error, with nothing in them that opens a door."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final

from modelstore.storage.uris import redact_text

__all__ = ["access", "configure"]

_access: Final = logging.getLogger("modelstore.access")


class _Lines(logging.Formatter):
    """One line of JSON for each record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return it."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        fields = getattr(record, "fields", None)
        if fields is not None:
            line |= fields
        else:
            line["message"] = redact_text(record.getMessage())
        if record.exc_info:
            line["traceback"] = redact_text(self.formatException(record.exc_info))
        return json.dumps(line)


def configure() -> None:
    """Let this process log as a server does."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    for name in ("modelstore", "uvicorn", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.INFO if name == "modelstore" else logging.WARNING)


def access(scope: Any, status: int, sent: int, seconds: float) -> None:
    """Write a line about a request that was answered; its query may hold anything, and is left out."""
    if not _access.isEnabledFor(logging.INFO):
        return
    client = scope.get("client")
    fields = {
        "client": client[0] if client else None,
        "token": scope.get("modelstore.who") or None,
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "sent_bytes": sent,
        "ms": round(seconds * 1000, 1),
    }
    _access.info("request", extra={"fields": fields})

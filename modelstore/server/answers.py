"""Errors as answers: a status for every class, and one form of body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.responses import JSONResponse, Response

from modelstore import errors
from modelstore.errors import ModelStoreError
from modelstore.server.admission import RewritingError
from modelstore.storage.uris import redact_text

__all__ = ["STATUSES", "RefusedError", "answer_for", "error_answer", "status_of"]

STATUSES: Final[dict[type[BaseException], int]] = {
    ModelStoreError: 500,
    errors.InvalidRequestError: 400,
    errors.NotFoundError: 404,
    errors.BlobNotFoundError: 404,
    errors.PublishedModelError: 409,
    errors.TaskClosedError: 409,
    errors.AccessDeniedError: 403,
    RewritingError: 409,
    errors.InvalidOperationError: 422,
    errors.IntegrityError: 422,
    errors.StorageFullError: 507,
    errors.StorageUnavailableError: 503,
    errors.RegistryBusyError: 503,
    errors.ReadOnlyRegistryError: 403,
    errors.ReadOnlyStorageError: 403,
}
"""Error class to status; a class that is not listed has that of its nearest ancestor."""

_SERVED: Final = (errors.ModelStoreError,)


class RefusedError(Exception):
    """An answer to the request as such, not about what it asks for.

    Attributes:
        status: Of HTTP.
        kind: What it is called in the body.
        message: What is wrong.
        hint: What to do.
        headers: That go with it.
    """

    def __init__(
        self, status: int, kind: str, message: str, hint: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.hint, self.headers = status, kind, message, hint, headers


def status_of(error: BaseException) -> int:
    """Return the status for an error of our tree."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def answer_for(error: BaseException) -> Response | None:
    """Return the answer that tells of an error; None for one that is nobody's business but ours."""
    if isinstance(error, RefusedError):
        return error_answer(error.status, error.kind, error.message, error.hint, error.headers)
    if not isinstance(error, _SERVED):
        return None
    status = status_of(error)
    if status == 500:  # about this machine: its paths and its files are nobody's business
        return error_answer(status, type(error).__name__, "The server cannot do that", "Its log says why.")
    headers = {"Retry-After": "2"} if status == 503 else None
    kind = "InvalidOperationError" if isinstance(error, RewritingError) else type(error).__name__
    return error_answer(status, kind, error.message, error.hint, headers)


def error_answer(
    status: int, kind: str, message: str, hint: str = "", headers: Mapping[str, str] | None = None
) -> Response:
    """Return an answer in the one form that errors have."""
    said = {"type": kind, "message": redact_text(message), "hint": hint}
    body = {"error": {name: text.encode("utf-8", "backslashreplace").decode() for name, text in said.items()}}
    return JSONResponse(body, status_code=status, headers=dict(headers or {}))

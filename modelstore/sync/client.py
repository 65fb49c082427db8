"""Asking a modelstore server: requests that are tried again, and its answers or errors as ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from ssl import SSLCertVerificationError
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from modelstore import config, errors
from modelstore.errors import (
    AccessDeniedError,
    InvalidOperationError,
    InvalidRequestError,
    ModelStoreError,
    NotFoundError,
    RegistryNotFoundError,
    StorageFullError,
    StorageUnavailableError,
)
from modelstore.storage import uris
from modelstore.storage.failures import is_transient, translate
from modelstore.storage.retries import Patience
from modelstore.storage.webclient import HttpStatusError, Response, WebClient
from modelstore.sync.credentials import token_for
from modelstore.sync.wire import SPEAKS, VERSION

__all__ = ["FAILURES", "REFUSALS", "Client", "lines_of"]

T = TypeVar("T")

FAILURES: Final = (OSError, HTTPException, ModelStoreError)
"""What a request may raise; `Client.wait` tells which of them may pass."""

REFUSALS: Final = (AccessDeniedError, InvalidOperationError, InvalidRequestError)
"""After these the server has changed nothing, for certain."""

_ANSWERS: Final = frozenset((*range(200, 300), 304, *range(400, 600)))
_NO_TRY_AGAIN: Final = frozenset({500, 501})
_CLASSES: Final[dict[int, type[ModelStoreError]]] = {
    400: InvalidRequestError,
    401: AccessDeniedError,
    403: AccessDeniedError,
    404: NotFoundError,
    409: InvalidOperationError,
    413: InvalidRequestError,
    422: InvalidOperationError,
    507: StorageFullError,
}
_BY_NAME: Final[dict[str, type[ModelStoreError]]] = {
    name: getattr(errors, name) for name in errors.__all__ if "__init__" not in vars(getattr(errors, name))
}
"""Those that are made of a message and a hint."""
_LOGIN: Final = "Set MODELSTORE_TOKEN, or keep the token with `modelstore remote login`."


class Client:
    """One server; any number of threads may use it.

    Args:
        url: Its address, maybe with a path in front of its own; without credentials.

    Attributes:
        url: The address, without a slash at the end.
        headers: What goes with every request: the token.

    Raises:
        InvalidUriError: The address holds credentials, or is none.
        AccessDeniedError: The file of tokens is readable by others, or the token would be on the way.
    """

    def __init__(self, url: str) -> None:
        self.url = uris.refuse_secrets(uris.normalise(url)).rstrip("/")
        token = token_for(self.url)
        if token is not None:
            self._check_private()
        self.headers: dict[str, str] = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._web = WebClient(self._every)

    @property
    def _every(self) -> dict[str, str]:
        return {VERSION: str(SPEAKS), **self.headers}

    def get(self, path: str) -> Any:
        """Return the JSON at a path."""
        return self.tried(lambda: self.answered(self.request("GET", path)))

    @contextmanager
    def understanding(self) -> Iterator[None]:
        """Let what breaks while an answer is read be told as what it is: the answer is none of a modelstore server.

        Raises:
            RegistryNotFoundError: It broke.
        """
        try:
            yield
        except ModelStoreError:
            raise
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise self._stranger() from error

    def get_if_new(self, path: str, etag: str | None) -> tuple[Mapping[str, str], Any]:
        """Return the headers of what is at a path, and its JSON: None where it is still what an ETag is of.

        Args:
            path: Below the server's address.
            etag: Of an earlier answer; None for none.
        """

        def ask() -> tuple[Mapping[str, str], Any]:
            response = self.request("GET", path, {} if etag is None else {"If-None-Match": etag})
            headers = {name.lower(): value for name, value in response.headers.items()}
            if response.status == 304:
                response.close()
                return headers, None
            return headers, self.answered(response)

        return self.tried(ask)

    def post(self, path: str, record: Any, *, web: WebClient | None = None) -> Any:
        """Send JSON, maybe on connections of the caller's own, and return the JSON that is answered."""
        content = json.dumps(record, separators=(",", ":")).encode()
        headers = {"Content-Type": "application/json"}
        return self.tried(lambda: self.answered(self.request("POST", path, headers, content, web=web)))

    def push(self, path: str, body: bytes) -> Any:
        """Send lines of JSON that change something, and return the JSON that is answered.

        Raises:
            ModelStoreError: As `tried`; one of `REFUSALS` only where no earlier attempt may have arrived.
        """
        unanswered = False

        def attempt() -> Any:
            nonlocal unanswered
            try:
                return self.answered(self.request("POST", path, {"Content-Type": "application/x-ndjson"}, body))
            except REFUSALS as error:
                if not unanswered:
                    raise
                raise StorageUnavailableError(
                    f"{error.message}; before, an attempt went unanswered", error.hint
                ) from error
            except FAILURES:
                unanswered = True
                raise

        return self.tried(attempt)

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        *,
        web: WebClient | None = None,
    ) -> Response:
        """Send one request and return the answer, whose body is still to be read, if it is a success.

        Args:
            method: Such as ``GET``.
            path: Below the server's address.
            headers: On top of the client's own.
            body: Bytes, or a file with its length in ``headers``.
            web: Connections of the caller's own; None for this client's.

        Raises:
            ModelStoreError: The server refuses; its words.
            HttpStatusError: It cannot answer now.
            OSError: It cannot be reached.
        """
        sent = dict(headers or {})
        if isinstance(body, bytes):
            sent["Content-Length"] = str(len(body))
        try:
            response = (web or self._web).request(method, self.url + path, sent, body, accept=_ANSWERS)
        except HttpStatusError as error:
            where = error.headers.get("Location", "elsewhere")
            raise RegistryNotFoundError(
                f"{uris.redact(self.url)} sends clients to {uris.redact(where)}", "Use the address behind that."
            ) from error
        if response.status < 400:
            return response
        with response:
            raise self._failure(response, response.read(1 << 16))

    def answered(self, response: Response) -> Any:
        """Return the JSON of an answer, which is read to its end and closed.

        Raises:
            RegistryNotFoundError: It is none, so no modelstore server answered.
        """
        with response:
            data = bytearray()
            buffer = memoryview(bytearray(1 << 16))
            while count := response.readinto(buffer):
                data += buffer[:count]
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self._stranger() from error

    def connection(self, timeout_s: float) -> WebClient:
        """Return connections on which the server may be silent for so long; the caller closes them."""
        return WebClient(self._every, timeout_s)

    def tried(self, action: Callable[[], T], patience: Patience | None = None) -> T:
        """Return what ``action`` returns, called again after failures that may pass.

        Raises:
            ModelStoreError: What the last attempt raised, in our terms.
        """
        left = (patience or Patience()).fresh()
        while True:
            try:
                return action()
            except FAILURES as error:
                self.wait(error, left)

    def wait(self, error: Exception, patience: Patience) -> None:
        """Return when it is time to try again after an error.

        Raises:
            ModelStoreError: Trying again would not help, or was done often enough: the error in our terms.
        """
        if isinstance(error, ModelStoreError) and not is_transient(error):
            raise error
        if getattr(error, "status", None) in _NO_TRY_AGAIN or not patience.after(error):
            raise self._unreachable(error) from error

    def close(self) -> None:
        """Drop the connections."""
        self._web.close()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _check_private(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme == "http" and not uris.is_this_machine(parts.netloc) and not config.plain_http():
            raise AccessDeniedError(
                f"Over {uris.redact(self.url)} everybody on the way could read the token",
                "Use https://; where that is no matter, set MODELSTORE_PLAIN_HTTP=1.",
            )

    def _failure(self, response: Response, body: bytes) -> Exception:
        status = response.status
        try:
            said = json.loads(body)["error"]
            kind, message, hint = str(said["type"]), str(said["message"]), str(said.get("hint") or "")
        except (ValueError, KeyError, TypeError, AttributeError):
            if status in (404, 405, 400, 501):
                return self._stranger()
            kind, message, hint = "", f"{uris.redact(self.url)} answered with status {status}", ""
        if status in (408, 429) or (status >= 500 and status != 507):
            error = HttpStatusError(status, message, self.url, dict(response.headers))
            error.hint = hint  # type: ignore[attr-defined]
            return error
        chosen: type[ModelStoreError] = _BY_NAME.get(kind) or _CLASSES.get(status, StorageUnavailableError)
        return chosen(f"{uris.redact(self.url)}: {message}", hint or (_LOGIN if status == 401 else ""))

    def _stranger(self) -> ModelStoreError:
        return RegistryNotFoundError(
            f"What answers at {uris.redact(self.url)} is no modelstore server",
            "Check the address; `modelstore serve` on the other side prints it.",
        )

    def _unreachable(self, error: Exception) -> Exception:
        if isinstance(error, ModelStoreError):
            return error
        host = urlsplit(self.url).netloc
        if isinstance(error, SSLCertVerificationError):
            return StorageUnavailableError(
                f"The certificate of {host} is not trusted: {error.verify_message}",
                "If it is the right one, let SSL_CERT_FILE name a file with it, or with who signed it.",
            )
        ours = translate(error, self.url)
        if isinstance(error, HttpStatusError):
            return StorageUnavailableError(
                f"The server at {host} cannot answer now: {error}", getattr(error, "hint", "") or "Try again later."
            )
        if isinstance(ours, StorageUnavailableError):
            return StorageUnavailableError(
                f"The server at {host} cannot be reached: {error}",
                "Check the address and the network; what was exchanged before stays, and the next run goes on.",
            )
        return ours


def lines_of(response: Response) -> Iterator[bytes]:
    """Yield the lines of an answer as they arrive, without their ends."""
    buffer = memoryview(bytearray(1 << 18))
    rest = b""
    while count := response.readinto(buffer):
        *whole, rest = (rest + bytes(buffer[:count])).split(b"\n")
        yield from whole
    if rest:
        yield rest

"""A proxy in front of an object store that fails as networks and stores do: for tests with the real drivers."""

from __future__ import annotations

import http.client
import random
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import urlsplit

__all__ = ["FaultyProxy", "faulty_proxy"]

_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host"})
_KEPT: Final = 3
"""So many answers to one listing are remembered, to be given again."""


class FaultyProxy(ThreadingHTTPServer):
    """Passes requests on, most of the time.

    Args:
        target: The store's address, ``http://host:port``.
        seed: Decides when it fails.

    Attributes:
        rate: How often, 0 to 1; may be changed at any time.
        refused: HTTP methods that the caller has no right to, as with credentials that may only read; may be changed
            at any time.
        faults: How often it did what: ``busy`` (503, nothing was done), ``lost`` (done, and no answer), ``stale`` (a
            listing of a while ago).
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, target: str, seed: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(target).netloc
        self.rate = 0.0
        self.refused: frozenset[str] = frozenset()
        self.faults: Counter[str] = Counter()
        self._random = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self._lists: dict[str, list[tuple[int, list[tuple[str, str]], bytes]]] = {}
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def choose(self, *faults: str) -> str | None:
        """Return which of these faults happens now; None for none."""
        with self._lock:
            if self._random.random() >= self.rate:
                return None
            fault = self._random.choice(faults)
            self.faults[fault] += 1
            return fault

    def older(self, path: str, answer: tuple[int, list[tuple[str, str]], bytes]) -> bool:
        """Remember the answer to a listing, and tell whether there was one before."""
        with self._lock:
            self._lists[path] = [*self._lists.get(path, ()), answer][-_KEPT:]
            return len(self._lists[path]) > 1

    def oldest(self, path: str) -> tuple[int, list[tuple[str, str]], bytes]:
        """Return the oldest remembered answer to a listing."""
        with self._lock:
            return self._lists[path][0]

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that went away; they are killed on purpose."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyProxy

    def _pass_on(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self._chunks() if "chunked" in self.headers.get("Transfer-Encoding", "") else self.rfile.read(length)
        if self.command in self.server.refused:
            self._answer(403, [], b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")
            return
        fault = self.server.choose("busy", "lost", "stale")
        if fault == "busy":
            self._answer(503, [("Retry-After", "0")], b"<Error><Code>SlowDown</Code></Error>")
            return
        answer = self._forward(body)
        query = urlsplit(self.path).query
        listing = self.command == "GET" and ("list-type" in query or "delimiter" in query) and "token" not in query
        if listing and self.server.older(self.path, answer) and fault == "stale":
            answer = self.server.oldest(self.path)
        if fault == "lost":
            self.close_connection = True
            return
        self._answer(*answer)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815 - names of the base class

    def _chunks(self) -> bytes:
        found = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.server.target, timeout=60)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
            connection.request(self.command, self.path, body or None, headers | {"Host": self.server.target})
            response = connection.getresponse()
            data = response.read()
            kept = [(name, value) for name, value in response.getheaders() if name.lower() not in _HOP]
            if self.command == "HEAD":
                kept.append(("Content-Length", response.getheader("Content-Length") or "0"))
            return response.status, kept, data
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def faulty_proxy(target: str, seed: int = 0) -> Iterator[FaultyProxy]:
    """Run a proxy in front of a store."""
    proxy = FaultyProxy(target, seed)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()

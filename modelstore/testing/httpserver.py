"""A web server that behaves as badly as it is told to: for tests of everything that downloads."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Behaviour", "HttpServer", "http_server"]

_RANGE: Final = re.compile(r"bytes=(\d+)-(\d*)")
_BLOCK: Final = 1 << 16


@dataclass(slots=True)
class Behaviour:
    """How one resource is served.

    Attributes:
        body: The bytes.
        ranges: Whether ranges are honoured; otherwise every answer is the whole.
        length: Whether the length is announced. Without it the end of the connection is the end of the body.
        chunked: Send in chunks, which announce the end but not the length.
        etag: What to call it; None makes it from the body, "" sends none, "random" a new one each time.
        bytes_per_s: Speed of one connection; None for as fast as it goes.
        drop_after: Cut the connection after so many bytes of each answer; None never.
        drops: How many answers are cut; None all of them.
        statuses: Answered to the first requests, one each, before anything else.
        retry_after_s: Sent with those.
        redirect: Where to send the client instead.
        shift: Ranges begin so many bytes too late, as a broken server's.
        authorization: The header that must come with each request; None asks for none.
        gate: Called, in the thread that answers, between the headers and the body of each answer.
    """

    body: bytes
    ranges: bool = True
    length: bool = True
    chunked: bool = False
    etag: str | None = None
    bytes_per_s: float | None = None
    drop_after: int | None = None
    drops: int | None = None
    statuses: list[int] = field(default_factory=list)
    retry_after_s: int | None = None
    redirect: str | None = None
    shift: int = 0
    authorization: str | None = None
    gate: Callable[[], object] | None = None


class HttpServer:
    """Resources by path, and what was asked of them.

    Attributes:
        url: Without a slash at the end.
        resources: Path to `Behaviour`; may be changed while serving.
        requests: Method and path, counted.
        sent_bytes: Bytes of bodies, over all answers.
    """

    def __init__(self) -> None:
        self.resources: dict[str, Behaviour] = {}
        self.requests: Counter[str] = Counter()
        self.sent_bytes = 0
        self.url = ""
        self._lock = threading.Lock()

    def serve(self, path: str, body: bytes, **behaviour: object) -> str:
        """Serve ``body`` at ``path`` as the keywords of `Behaviour` say, and return its URL."""
        self.resources[path] = Behaviour(body, **behaviour)  # type: ignore[arg-type]
        return self.url + path

    def note(self, what: str, size: int = 0) -> None:
        """Count a request, or bytes sent."""
        with self._lock:
            if what:
                self.requests[what] += 1
            self.sent_bytes += size

    def take_drop(self, behaviour: Behaviour) -> bool:
        """Tell whether this answer is to be cut."""
        with self._lock:
            if behaviour.drop_after is None or behaviour.drops == 0:
                return False
            if behaviour.drops is not None:
                behaviour.drops -= 1
            return True


@contextmanager
def http_server() -> Iterator[HttpServer]:
    """Give a server on a free port of the loopback interface, gone at the end of the block."""
    state = HttpServer()

    class Handler(_Handler):
        server_state = state

    server = _Server(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a slow answer that nobody waits for any more
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are what is tested here."""


class _Handler(BaseHTTPRequestHandler):
    server_state: HttpServer
    protocol_version = "HTTP/1.1"
    wbufsize = _BLOCK
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_PUT(self) -> None:
        self._refuse(405)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
        """Tests look at `HttpServer.requests` instead."""

    def _answer(self, *, with_body: bool) -> None:
        state = self.server_state
        path = unquote(urlsplit(self.path).path)
        state.note(f"{self.command} {path}")
        behaviour = state.resources.get(path)
        if behaviour is None:
            self._refuse(404)
        elif behaviour.statuses:
            self._refuse(behaviour.statuses.pop(0), behaviour.retry_after_s)
        elif behaviour.authorization and self.headers.get("Authorization") != behaviour.authorization:
            self._refuse(401)
        elif behaviour.redirect is not None:
            self.send_response(302)
            self.send_header("Location", behaviour.redirect)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._send(behaviour, with_body=with_body)

    def _refuse(self, status: int, retry_after_s: int | None = None) -> None:
        if length := int(self.headers.get("Content-Length") or 0):
            self.rfile.read(length)
        self.send_response(status)
        if retry_after_s is not None:
            self.send_header("Retry-After", str(retry_after_s))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, behaviour: Behaviour, *, with_body: bool) -> None:
        body = behaviour.body
        wanted = _RANGE.fullmatch(self.headers.get("Range", "")) if behaviour.ranges else None
        begin, end = 0, len(body)
        if wanted:
            begin = int(wanted[1])
            end = min(int(wanted[2]) + 1 if wanted[2] else len(body), len(body))
            if begin >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self._send_etag(behaviour)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        self.send_response(206 if wanted else 200)
        self._send_etag(behaviour)
        if wanted:
            self.send_header("Content-Range", f"bytes {begin + behaviour.shift}-{end - 1}/{len(body)}")
        self._send_body(behaviour, memoryview(body)[begin + behaviour.shift * bool(wanted) : end], with_body=with_body)

    def _send_etag(self, behaviour: Behaviour) -> None:
        if behaviour.etag == "random":
            self.send_header("ETag", f'"{time.monotonic_ns()}"')
        elif behaviour.etag is None:
            behaviour.etag = f'"{hashlib.sha256(behaviour.body).hexdigest()[:16]}"'
            self.send_header("ETag", behaviour.etag)
        elif behaviour.etag:
            self.send_header("ETag", behaviour.etag)

    def _send_body(self, behaviour: Behaviour, body: memoryview, *, with_body: bool) -> None:
        if behaviour.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif behaviour.length:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if not with_body:
            return
        if behaviour.gate is not None:
            self.wfile.flush()
            behaviour.gate()
        dropping = self.server_state.take_drop(behaviour)
        stop = min(len(body), behaviour.drop_after or 0) if dropping else len(body)
        for start in range(0, stop, _BLOCK):
            block = body[start : min(start + _BLOCK, stop)]
            if behaviour.chunked:
                self.wfile.write(f"{len(block):x}\r\n".encode() + block + b"\r\n")
            else:
                self.wfile.write(block)
            self.server_state.note("", len(block))
            if behaviour.bytes_per_s:
                self.wfile.flush()
                time.sleep(len(block) / behaviour.bytes_per_s)
        if dropping:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif behaviour.chunked:
            self.wfile.write(b"0\r\n\r\n")

"""HTTP with the standard library alone: kept connections, proxies, redirects, ranges read into the caller's memory.

One range costs a fraction of the processor time that the asynchronous clients take, and a plain installation can
fetch ``https://`` weights.
"""

from __future__ import annotations

import base64
import http.client
import os
import socket
import ssl
import threading
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from modelstore.storage.uris import redact

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HttpStatusError", "Response", "TruncatedError", "WebClient"]

_TIMEOUT_S: Final = 30.0
_MAX_REDIRECTS: Final = 10
_BLOCK: Final = 1 << 18  # of files that are sent: the standard library's 16 KiB cost more than the sending
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_STALE: Final = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError, http.client.CannotSendRequest)
_AGENT: Final = "modelstore"


class HttpStatusError(OSError):
    """A server answered with a status that is no success."""

    def __init__(self, status: int, reason: str, url: str, headers: Mapping[str, str]) -> None:
        super().__init__(f"HTTP {status} {reason} from {redact(url)}")
        self.status, self.url, self.headers = status, url, headers


class TruncatedError(ConnectionError):
    """A connection ended before everything that was announced had arrived."""


@dataclass(slots=True)
class Response:
    """An answer whose body is still to be read, by one thread; to be closed in every case."""

    url: str
    status: int
    headers: http.client.HTTPMessage
    _raw: http.client.HTTPResponse
    _connection: http.client.HTTPConnection
    _home: list[http.client.HTTPConnection]
    _done: bool = field(default=False)

    @property
    def length(self) -> int | None:
        """Bytes of body still to come, None if the server did not say."""
        return self._raw.length

    def readinto(self, buffer: memoryview) -> int:
        """Read what has arrived, at least one byte; 0 at the end of the body.

        Raises:
            TruncatedError: The connection ended before the announced length.
        """
        before = self._raw.length
        # read1 semantics would copy; the buffered reader fills large buffers straight from the socket.
        count = self._raw.readinto(buffer)
        if count == 0 and len(buffer):
            if before:
                raise TruncatedError(f"the connection ended {before} bytes early")
            self._done = True
        elif self._raw.length == 0:
            self._done = True
        return count

    def read(self, limit: int = 1 << 20) -> bytes:
        """Return the rest of a small body, at most ``limit`` bytes of it."""
        body = self._raw.read(limit)
        self._done = self._raw.length == 0 or self._raw.isclosed()
        return body

    def close(self) -> None:
        """Give the connection back if the body was read to its end or there is none, else drop it."""
        if (self._done or self._raw.length == 0) and not self._raw.will_close:
            self._raw.close()
            self._home.append(self._connection)
        else:
            self._connection.close()
            self._raw.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class WebClient:
    """Connections that are kept open between requests; any number of threads may use it.

    Args:
        headers: Sent with every request to the host first asked, and not to others it redirects to.
        timeout_s: Longest silence of a server, seconds.
    """

    def __init__(self, headers: Mapping[str, str] | None = None, timeout_s: float = _TIMEOUT_S) -> None:
        self._headers = dict(headers or {})
        self._timeout_s = timeout_s
        self._idle: dict[tuple[str, str, str | None], list[http.client.HTTPConnection]] = {}
        self._live: weakref.WeakSet[http.client.HTTPConnection] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._tls: ssl.SSLContext | None = None

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        *,
        accept: frozenset[int] = frozenset({200, 206}),
    ) -> Response:
        """Send a request, follow redirects, and return the answer.

        Args:
            method: Such as ``GET``.
            url: Absolute.
            headers: On top of the client's own.
            body: Bytes or an open file, sent from its beginning; its length must be in ``headers``.
            accept: Statuses that are returned; all others raise.

        Raises:
            HttpStatusError: The server answered otherwise.
            OSError: There is no connection.
        """
        origin = urlsplit(url)
        for _ in range(_MAX_REDIRECTS + 1):
            parts = urlsplit(url)
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                raise HttpStatusError(400, "Redirect to something that is no web address", url, {})
            own = self._headers if (parts.scheme, parts.netloc) == (origin.scheme, origin.netloc) else {}
            response = self._exchange(method, parts, {**_netrc(parts, own), **own, **(headers or {})}, body)
            if response.status in accept:
                return response
            with response:
                location = response.headers.get("Location")
                if response.status not in _REDIRECTS or not location or body is not None:
                    response.read(1 << 16)
                    raise HttpStatusError(response.status, response._raw.reason, url, dict(response.headers))  # noqa: SLF001
            url = urljoin(url, quote(location, safe="%/:=&?~#+!$,;'@()*[]|"))
        raise HttpStatusError(310, "Too many redirects", url, {})

    def close(self) -> None:
        """Drop all connections; what other threads are reading from them fails."""
        with self._lock:
            for connection in list(self._live):
                sock = connection.sock
                if sock is not None:
                    try:
                        sock.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits in recv; close alone does not
                    except OSError:
                        continue  # it is closed already
                connection.close()
            self._live.clear()
            self._idle.clear()

    def __del__(self) -> None:
        # A file over the web may be dropped without being closed; sockets complain when that happens to them.
        self.close()

    def _exchange(self, method: str, parts: SplitResult, headers: Mapping[str, str], body: Any) -> Response:
        proxy = _proxy_for(parts)
        home = self._idle.setdefault((parts.scheme, parts.netloc, proxy), [])
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if proxy and parts.scheme == "http":
            target = f"http://{parts.netloc}{target}"
        while True:
            try:
                connection, reused = home.pop(), True
            except IndexError:
                connection, reused = self._connect(parts, proxy), False
            try:
                connection.request(
                    method, quote(target, safe="%/:=&?~#+!$,;'@()*[]|"), body,
                    {"User-Agent": _AGENT, "Accept-Encoding": "identity", **headers},
                )  # fmt: skip
                raw = connection.getresponse()
            except BaseException as error:
                connection.close()
                # A server may close a kept connection at any moment; that says nothing about the next one.
                if reused and isinstance(error, _STALE):
                    if hasattr(body, "seek"):
                        body.seek(0)
                    continue
                raise
            return Response(parts.geturl(), raw.status, raw.headers, raw, connection, home)

    def _connect(self, parts: SplitResult, proxy: str | None) -> http.client.HTTPConnection:
        place = urlsplit(proxy) if proxy else parts
        host, port = place.hostname or "", place.port
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            if self._tls is None:
                self._tls = _tls_context()
            connection = http.client.HTTPSConnection(
                host, port, timeout=self._timeout_s, context=self._tls, blocksize=_BLOCK
            )
            if proxy:
                connection.set_tunnel(parts.hostname or "", parts.port, _proxy_login(place))
        else:
            connection = http.client.HTTPConnection(host, port, timeout=self._timeout_s, blocksize=_BLOCK)
        with self._lock:
            self._live.add(connection)
        return connection


def _tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        if bundle := os.environ.get(name):
            context.load_verify_locations(bundle)
    return context


def _proxy_for(parts: SplitResult) -> str | None:
    from urllib.request import getproxies, proxy_bypass

    proxy = getproxies().get(parts.scheme)
    if not proxy or proxy_bypass(parts.netloc):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _proxy_login(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}


def _netrc(parts: SplitResult, own: Mapping[str, str]) -> dict[str, str]:
    """Return the credentials that the user's netrc has for this host, as curl and requests use it."""
    path = os.path.expanduser(os.environ.get("NETRC", "~/.netrc"))
    if any(name.lower() == "authorization" for name in own) or not os.path.isfile(path):
        return {}
    from netrc import NetrcParseError, netrc

    try:
        entry = netrc(path).authenticators(parts.hostname or "")
    except (NetrcParseError, OSError):
        return {}
    if entry is None:
        return {}
    login = base64.b64encode(f"{entry[0]}:{entry[2]}".encode()).decode()
    return {"Authorization": f"Basic {login}"}

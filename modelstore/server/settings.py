"""How a server is started; what its worker processes are told."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import Final

from modelstore.errors import InvalidRequestError

__all__ = ["MAX_BODY", "Settings", "is_loopback"]

MAX_BODY: Final = 32 << 20


@dataclass(frozen=True, slots=True)
class Settings:
    """How a server is started.

    Attributes:
        registry: Folder or URI of its registry.
        host: Address that it listens on.
        port: 0 takes a free one.
        workers: Processes that answer.
        tls_cert: File of the certificate chain; None for no TLS.
        tls_key: File of its key.
        max_body: Largest body of a request, in bytes; objects have no limit.
        max_ahead_ms: How far in the future an operation may have been made.
        grace_s: How long requests may go on when the server is told to end.
        silence_s: How long a client may send or take nothing.
        board: Folder in which the workers count; None for one of its own.
        parent: Process that looks after the workers; None where there is none.
    """

    registry: str
    host: str = "127.0.0.1"
    port: int = 8008
    workers: int = 1
    tls_cert: str | None = None
    tls_key: str | None = None
    max_body: int = MAX_BODY
    max_ahead_ms: int = 86_400_000
    grace_s: int = 30
    silence_s: float = 60.0
    board: str | None = None
    parent: int | None = None

    def check(self) -> None:
        """Find out whether a server can be started like this.

        Raises:
            InvalidRequestError: It cannot.
        """
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InvalidRequestError("TLS needs a certificate and its key", "Give --tls-cert and --tls-key together.")
        if not 0 <= self.port < 65536 or self.workers < 1 or self.max_body < 1024:
            raise InvalidRequestError("The port, the number of workers or the largest body is out of range")


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches what listens on an address."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError as error:
        raise InvalidRequestError(f"{host!r} is no address of this machine", "Such as 127.0.0.1 or 0.0.0.0.") from error
    return all(ipaddress.ip_address(one.partition("%")[0]).is_loopback for one in found)

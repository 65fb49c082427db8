"""Starting a server, and ending it in good order."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from modelstore.errors import (
    AccessDeniedError,
    InvalidRequestError,
    RegistryNotFoundError,
    StorageUnavailableError,
    UsageError,
)
from modelstore.registry import Registry, open_registry
from modelstore.server.peers import CAN_TELL
from modelstore.server.settings import Settings, is_loopback
from modelstore.server.tokens import Tokens

__all__ = ["config", "listen", "open_served", "serve"]


def serve(settings: Settings, ready: Callable[[str, str], object] | None = None) -> None:
    """Serve a registry until SIGTERM or SIGINT; requests that are under way are finished.

    Args:
        settings: How.
        ready: Told the address, and who may ask, when connections are accepted.

    Raises:
        InvalidRequestError: The settings contradict each other.
        AccessDeniedError: Others than this machine could ask, and there are no tokens.
        RegistryNotFoundError: There is no registry.
        StorageUnavailableError: The port is taken.
        UsageError: The extra `server` is not installed.
    """
    settings.check()
    uvicorn = _uvicorn()
    who = _who_may(settings)
    listening = listen(settings)
    board = tempfile.mkdtemp(prefix="modelstore-server-")
    try:
        host, port = listening.getsockname()[:2]
        parent = os.getpid() if settings.workers > 1 else None
        settings = replace(settings, board=board, port=port, parent=parent)
        prepared = config(settings)
        shown = f"[{host}]" if ":" in host else host
        if ready is not None:
            ready(f"{'https' if settings.tls_cert else 'http'}://{shown}:{port}", who)
        for number in (signal.SIGTERM, signal.SIGINT):
            # uvicorn hands them on when it has ended: then there is something left to do here.
            signal.signal(number, lambda *_: None)
        if settings.workers == 1:
            uvicorn.Server(prepared).run(sockets=[listening])
        else:
            from uvicorn.supervisors import Multiprocess

            Multiprocess(prepared, sockets=[listening]).run()
    finally:
        listening.close()
        shutil.rmtree(board, ignore_errors=True)


def open_served(uri: str | None) -> Registry:
    """Open a registry that others shall reach; none is made, since whoever mistypes its address would serve nothing.

    Raises:
        RegistryNotFoundError: There is none, or it is behind a server itself.
    """
    try:
        registry = open_registry(uri, create=False)
    except RegistryNotFoundError as error:
        place = "" if uri is None else f" {shlex.quote(uri)}"
        raise RegistryNotFoundError(error.message, f"Make one first: modelstore init{place}.") from error
    if registry.server is not None:
        registry.close()
        raise InvalidRequestError(f"{registry.uri} is behind a server already", "Name the registry that it serves.")
    return registry


def _uvicorn() -> Any:
    try:
        import httptools  # noqa: F401 - looked for, as the next ones
        import msgspec  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise UsageError(
            f"The server needs the package {error.name!r}", 'Install it: pip install "modelstore-local[server]".'
        ) from error
    return uvicorn


def _who_may(settings: Settings) -> str:
    """Return in words who may ask.

    Raises:
        AccessDeniedError: Others than this machine could, and there are no tokens.
    """
    with open_served(settings.registry) as registry:
        tokens = Tokens(registry)
        wanted, count = tokens.wanted, len(tokens.all())
    if wanted:
        return f"{count} {'token' if count == 1 else 'tokens'}"
    if not is_loopback(settings.host):
        raise AccessDeniedError(
            f"{settings.host} can be reached from other machines, and this registry has no tokens",
            "Make one first: modelstore token create NAME --role write.",
        )
    return f"no tokens: open to {'your own' if CAN_TELL else 'all'} programs on this machine"


def listen(settings: Settings) -> socket.socket:
    """Return the socket on which connections come.

    Raises:
        StorageUnavailableError: The port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # With its protocol named: only then does asyncio send small answers at once, instead of 40 ms later.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((settings.host, settings.port))
        listening.listen(1024)
        listening.set_inheritable(True)
    except (OSError, OverflowError) as error:
        listening.close()
        raise StorageUnavailableError(
            f"Nothing can listen on {settings.host}:{settings.port} ({getattr(error, 'strerror', error)})",
            "Choose another --port; 0 takes a free one.",
        ) from error
    return listening


def config(settings: Settings, *, logs: bool = True) -> Any:
    """Return what uvicorn is told.

    Args:
        settings: With a board.
        logs: Let the process log as a server does.

    Raises:
        InvalidRequestError: The TLS files cannot be used.
    """
    from modelstore.server.app import create_app
    from modelstore.server.lines import Line, LineConfig

    try:
        prepared = LineConfig(
            partial(create_app, settings, logs=logs),
            factory=True,
            host=settings.host,
            port=settings.port,
            workers=settings.workers,
            log_config=None,
            access_log=False,
            lifespan="on",
            http=Line,
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=settings.grace_s,
            timeout_keep_alive=75,
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
        )
        if settings.tls_cert is not None:
            import ssl

            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ValueError) as error:
        raise InvalidRequestError(f"The TLS files cannot be used: {error}", "They must be PEM.") from error
    prepared.silence_s = settings.silence_s
    return prepared

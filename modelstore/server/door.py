"""Who is let in: by token; without any tokens, this user's programs on this machine, and no page in a browser."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from modelstore import __version__
from modelstore.errors import AccessDeniedError
from modelstore.server.answers import RefusedError
from modelstore.server.peers import owner
from modelstore.server.service import Service
from modelstore.server.tokens import ANYBODY, Role, Token
from modelstore.storage.uris import is_this_machine
from modelstore.sync.wire import OLDEST, VERSION

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["let_in"]

_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


def let_in(service: Service, request: Request, role: Role | None) -> Token:
    """Return who makes a request, if he may.

    Raises:
        RefusedError: He has no token, or one that is not known.
        AccessDeniedError: His token may not do this.
    """
    if role is None:
        return ANYBODY
    _check_version(request)
    if service.open_to_all:
        _check_is_here(request)
        return ANYBODY
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise _unknown("A token is needed")
    found = service.tokens.find(secret.strip())
    if found is None:
        service.board.add("refused", 1)
        wait_s = service.failures.note(request.client.host if request.client else "")
        if wait_s is not None:
            raise RefusedError(
                429,
                "TooManyFailures",
                "Too many unknown tokens came from there",
                "Wait, and come with a good one.",
                {"Retry-After": str(wait_s)},
            )
        raise _unknown("The token is not known")
    if not found.may(role):
        raise AccessDeniedError(
            f"The token {found.name!r} has the role {found.role!r}, and this needs {role!r}",
            "Ask for another token.",
        )
    return found


def _check_version(request: Request) -> None:
    said = request.headers.get(VERSION, "1")
    if said.isascii() and said.isdigit() and len(said) < 10 and int(said) < OLDEST:
        raise RefusedError(
            426,
            "NewerRegistryError",
            f"This is modelstore {__version__}: it takes clients from version {OLDEST} of its interface on, not {said}",
            'Upgrade modelstore on this machine: pip install -U "modelstore-local".',
        )


def _unknown(message: str) -> RefusedError:
    return RefusedError(
        401,
        "AccessDeniedError",
        message,
        "Set MODELSTORE_TOKEN, or keep the token with `modelstore remote login`.",
        {"WWW-Authenticate": 'Bearer realm="modelstore"'},
    )


def _check_is_here(request: Request) -> None:
    """See that a program of this user on this machine asks.

    A page in a browser here could ask as well: under a name that its author points at this machine, or blindly, and
    browsers tell of both. So could anybody else on this machine, and a proxy would let the world in: most say that they
    are one, nginx by default asks in the words of HTTP/1.0 and hides the rest, and all run as somebody else.

    Raises:
        AccessDeniedError: It does not look so.
    """
    headers = request.headers
    browser = "origin" in headers or headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
    proxy = request.scope["http_version"] == "1.0" or any(name in headers for name in _FORWARDED)
    if browser or proxy or not is_this_machine(headers.get("host", "")) or not _is_ours(request):
        raise AccessDeniedError(
            "This server has no tokens and answers its own user's programs on its own machine alone",
            "Make a token: modelstore token create NAME --role write.",
        )


def _is_ours(request: Request) -> bool:
    """Tell whether the other end is a program of this user, as far as the system tells; proxies may run as root."""
    client, server = request.scope["client"], request.scope["server"]
    user = None if client is None or server is None else owner(tuple(client), tuple(server))
    return user in (None, os.getuid())

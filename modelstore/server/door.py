"""Who is let in: by token; without any tokens, programs of this machine, and no page in a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from modelstore.errors import AccessDeniedError
from modelstore.server.answers import RefusedError
from modelstore.server.service import Service
from modelstore.server.settings import is_loopback_name
from modelstore.server.tokens import ANYBODY, Role, Token

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


def _unknown(message: str) -> RefusedError:
    return RefusedError(
        401,
        "AccessDeniedError",
        message,
        "Set MODELSTORE_TOKEN, or keep the token with `modelstore remote login`.",
        {"WWW-Authenticate": 'Bearer realm="modelstore"'},
    )


def _check_is_here(request: Request) -> None:
    """See that a program of this machine asks.

    A page in a browser here could ask as well: under a name that its author points at this machine, or blindly, and
    browsers tell of both. A proxy would let the world in.

    Raises:
        AccessDeniedError: It does not look so.
    """
    host = request.headers.get("host", "")
    foreign = "origin" in request.headers or request.headers.get("sec-fetch-site", "none") not in (
        "none",
        "same-origin",
    )
    if foreign or not is_loopback_name(host) or any(name in request.headers for name in _FORWARDED):
        raise AccessDeniedError(
            "This server has no tokens and answers programs of its own machine alone",
            "Make a token: modelstore token create NAME --role write.",
        )

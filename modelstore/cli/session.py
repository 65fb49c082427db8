"""What every command shares: which registry, and how it is opened."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from modelstore.registry import Registry

__all__ = ["REGISTRY", "Session", "as_of_option", "json_option", "registry_option", "session_of"]

F = TypeVar("F", bound=Callable[..., Any])


class Session:
    """One run of the program.

    Attributes:
        uri: The registry that `--registry` names; None for the environment's or the default one.
        as_of: The moment that `--as-of` names; None for now.
    """

    def __init__(self) -> None:
        self.uri: str | None = None
        self.as_of: str | None = None

    def open(self, context: click.Context, *, create: bool = False) -> Registry:
        """Open the registry until the command ends.

        Args:
            context: Of the command.
            create: Make it where there is none. Only commands that put something into it do so: a mistyped path of
                the others is an error, not an empty registry.

        Raises:
            RegistryNotFoundError: There is none, and ``create`` is False.
            ModelStoreError: It cannot be opened.
        """
        from modelstore.registry import open_registry

        registry = context.with_resource(open_registry(self.uri, create=create))
        return registry if self.as_of is None else registry.at(self.as_of)


def session_of(context: click.Context) -> Session:
    """Return the session of a command."""
    return context.ensure_object(Session)


def _remember(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        session_of(context).uri = value


def _remember_moment(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        session_of(context).as_of = value


def as_of_option(command: F) -> F:
    """Give a command `--as-of`: it sees the registry as it was."""
    return click.option(
        "--as-of",
        metavar="TIME",
        expose_value=False,
        callback=_remember_moment,
        help="As it was then: 2026-03-01 (its end), 2026-03-01T12:00, seconds since 1970, or a stamp of `history`.",
    )(command)


REGISTRY: Final = "Registry to use, a folder or URI.  [default: MODELSTORE_REGISTRY, or the user's data folder]"


def registry_option(command: F) -> F:
    """Give a command `--registry`, so that it can stand behind the command's name too."""
    return click.option(
        "--registry", metavar="URI", expose_value=False, is_eager=True, callback=_remember, help=REGISTRY
    )(command)


def json_option(command: F) -> F:
    """Give a command `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Write JSON, and nothing else, to standard output.")(
        command
    )

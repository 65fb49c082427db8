"""Commands about the server: `serve` and `token`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from modelstore.cli.output import note, plain, print_json, print_json_list, print_lines
from modelstore.cli.records import iso
from modelstore.cli.session import json_option, registry_option, session_of
from modelstore.cli.tables import Column, print_table

if TYPE_CHECKING:
    from modelstore.server import Tokens

__all__ = ["serve", "token"]


@click.command(short_help="Serve a registry over HTTP.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8008, show_default=True, help="0 takes a free one.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes that answer.")
@click.option("--tls-cert", metavar="FILE", help="Certificate chain (PEM), for https without a proxy.")
@click.option("--tls-key", metavar="FILE", help="Its key (PEM).")
@click.option(
    "--max-body",
    type=click.IntRange(min=1),
    metavar="MIB",
    default=32,
    show_default=True,
    help="Largest body of a request but objects, MiB.",
)
@registry_option
@click.pass_context
def serve(context: click.Context, /, max_body: int, **options: Any) -> None:
    r"""Serve a registry over HTTP, so that others sync with it and fetch weights from it.

    Without tokens it answers this user's programs on this machine alone; beyond that it wants tokens (see `token
    create`), and TLS files or a proxy in front. SIGTERM lets requests finish. Logs are lines of JSON on standard
    error. Needs the extra `server`.

    \b
    Examples:
      modelstore init ./team && modelstore serve --registry ./team
      modelstore serve --registry /srv/models --host 0.0.0.0 --workers 4 --tls-cert cert.pem --tls-key key.pem
    """
    from modelstore import config
    from modelstore.server import Settings
    from modelstore.server.running import serve as work

    uri = session_of(context).uri
    settings = Settings(config.registry_uri() if uri is None else uri, max_body=max_body << 20, **options)

    def ready(address: str, who: str) -> None:
        print_lines([f"serving {plain(settings.registry)} at {address} ({who})"])
        sys.stdout.flush()
        if settings.tls_cert is None and not address.startswith(("http://127.", "http://[::1]")):
            note("there is no TLS: tokens can be read on the way, unless a proxy in front has it")

    work(settings, ready)


@click.group(short_help="Make and revoke tokens for a server.")
def token() -> None:
    """Make and revoke the tokens that a server of this registry takes."""


@token.command("create", short_help="Make a token.")
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(["read", "write", "admin"]),
    required=True,
    help="read: fetch; write: also bring what NAME has made; admin: also pass on what others have made.",
)
@click.option(
    "--actor", "actors", multiple=True, metavar="PATTERN", help="Also write as such actors: 'train-*'. May be repeated."
)
@json_option
@registry_option
@click.pass_context
def token_create(context: click.Context, name: str, role: Any, actors: tuple[str, ...], as_json: bool) -> None:
    r"""Make a token and print it, once: only its hash is kept. A running server takes it from now on.

    A token of role write brings changes whose actor is NAME, NAME@ and anything, or matches a pattern.

    \b
    Examples:
      modelstore token create ann --role write
      modelstore token create cluster --role write --actor 'train@node-*'
    """
    secret = _tokens(context).create(name, role, actors)
    if as_json:
        print_json({"name": name, "role": role, "actors": list(actors), "token": secret})
    else:
        print_lines([secret])


@token.command("ls", short_help="List the tokens.")
@json_option
@registry_option
@click.pass_context
def token_ls(context: click.Context, as_json: bool) -> None:
    """List the tokens, without their secrets."""
    found = _tokens(context).all()
    if as_json:
        print_json_list(
            {"name": one.name, "role": one.role, "actors": list(one.actors), "created": iso(one.created_at)}
            for one in found
        )
        return
    columns = (Column("NAME", least=6), Column("ROLE"), Column("ACTORS", least=8), Column("CREATED"))
    print_table(
        columns,
        ((one.name, one.role, ", ".join(one.actors), iso(one.created_at) or "") for one in found),
        none="no tokens",
    )


@token.command("revoke", short_help="Let a token open nothing any more.")
@click.argument("name")
@registry_option
@click.pass_context
def token_revoke(context: click.Context, name: str) -> None:
    """Let a token open nothing any more; running servers know at once. What it brought stays."""
    _tokens(context).revoke(name)


def _tokens(context: click.Context) -> Tokens:
    from modelstore.server import Tokens
    from modelstore.server.running import open_served

    return Tokens(context.with_resource(open_served(session_of(context).uri)))

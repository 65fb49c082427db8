"""Commands about other registries: `sync`, `push`, `pull`, `remote`, `conflicts`, `resolve`."""

from __future__ import annotations

import json
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from modelstore.cli.output import plain, print_json, print_json_list, print_lines, size, value_text
from modelstore.cli.session import json_option, registry_option, session_of
from modelstore.cli.tables import Column, print_table

if TYPE_CHECKING:
    from modelstore.registry.conflicts import OpenConflict
    from modelstore.sync import SyncResult

__all__ = ["conflicts", "pull", "push", "remote", "resolve", "sync"]

F = TypeVar("F", bound=Callable[..., Any])

_WHICH = click.Choice(["all", "published", "none", "wanted"])


def _exchange_options(command: F) -> F:
    options: tuple[Callable[[Any], Any], ...] = (
        click.argument("other", metavar="REMOTE"),
        click.option(
            "--with-objects",
            type=_WHICH,
            default="all",
            show_default=True,
            help="Which bytes go along; wanted: of models that the receiver has made or changed.",
        ),
        click.option("--project", metavar="NAME", help="Only models of this project (its full name)."),
        click.option("--name", metavar="NAME", help="Only models of exactly this name."),
        click.option("--tags", metavar="TAGS", help="Only models that this tag query finds, comma separated."),
        click.option("--where", metavar="CONDITION", help="Only models for which this holds, as in `ls`."),
        click.option("--only-published", is_flag=True, help="Only published models."),
        click.option("--dry-run", is_flag=True, help="Only say what would be moved."),
        json_option,
        registry_option,
        click.pass_context,
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command(short_help="Exchange changes and weights with another registry.")
@_exchange_options
def sync(context: click.Context, /, **options: Any) -> None:
    r"""Exchange changes and weights with another registry, both ways, so that each has what the other had.

    REMOTE is a name given by `remote add`, a folder, or any URI of a registry. Cut off anywhere, the next run goes on
    where this one ended; a second run moves nothing. Edits that did not know of each other are listed: the latest of
    each stands until somebody decides with `resolve`.

    \b
    Examples:
      modelstore sync /mnt/team/registry
      modelstore sync team --with-objects published
      modelstore sync team --project vision/ocr --dry-run
    """
    _exchange(context, "both", **options)


@click.command(short_help="Send changes and weights to another registry.")
@_exchange_options
def push(context: click.Context, /, **options: Any) -> None:
    """Send what another registry lacks; what it has and this one lacks stays there. See `sync`."""
    _exchange(context, "push", **options)


@click.command(short_help="Fetch changes and weights from another registry.")
@_exchange_options
def pull(context: click.Context, /, **options: Any) -> None:
    """Fetch what another registry has and this one lacks; nothing is changed there. See `sync`."""
    _exchange(context, "pull", **options)


def _exchange(
    context: click.Context,
    direction: Any,
    *,
    other: str,
    with_objects: Any,
    tags: str | None,
    dry_run: bool,
    as_json: bool,
    **filters: Any,
) -> None:
    only = {key: value for key, value in filters.items() if value}
    if tags:
        only["tags"] = [tag.strip() for tag in tags.split(",")]
    registry = session_of(context).open(context, create=direction != "push")
    result = registry.sync(other, direction=direction, with_objects=with_objects, only=only or None, dry_run=dry_run)
    if as_json:
        print_json(_as_record(result))
        return
    would = "would be " if dry_run else ""
    for moved, what in ((result.received, "received"), (result.sent, "sent")):
        files = f", {moved.objects} {'file' if moved.objects == 1 else 'files'} ({size(moved.bytes)})"
        changes = f"{moved.operations:,} {'change' if moved.operations == 1 else 'changes'}"
        print_lines([f"{would}{what}: {changes}{'' if dry_run else files}"])
        if moved.left:
            print_lines(_left(moved.left, registry.actor))
        if moved.unavailable:
            print_lines([f"  the bytes of {len(moved.unavailable)} are nowhere on the side that sends them"])
    if result.conflicts:
        print_lines(["", "Edits that did not know of each other; the value marked * stands:"])
        _print_conflicts(result.conflicts)


def _left(left: Counter[str], me: str) -> Iterator[str]:
    """Say which changes the server does not take from this token, and what would help."""
    own = left.get(me, 0)
    if own:
        yield f"  {own:,} of yours stay here: you are {plain(me)}, and the token is for somebody else"
        yield f"  ask for one that may: `modelstore token create NAME --role write --actor {shlex.quote(me)}`;"
        yield "  and set MODELSTORE_ACTOR to the token's name for what you will change"
    others = Counter({actor: count for actor, count in left.items() if actor != me})
    if others:
        names = ", ".join(plain(actor or "nobody") for actor, _ in others.most_common(3))
        yield f"  {others.total():,} of others ({names}) stay here: they, or an admin, can push them"


def _as_record(result: SyncResult) -> dict[str, Any]:
    sides = {
        name: {
            "operations": moved.operations,
            "entities": len(moved.entities),
            "objects": moved.objects,
            "bytes": moved.bytes,
            "unavailable": moved.unavailable,
            "left": dict(moved.left),
        }
        for name, moved in (("sent", result.sent), ("received", result.received))
    }
    found = [_conflict_record(conflict) for conflict in result.conflicts]
    return {"remote": result.remote, "dry_run": result.dry_run, **sides, "conflicts": found}


# -- remotes -----------------------------------------------------------------------------------------------------------


@click.group(short_help="Name other registries.")
def remote() -> None:
    """Name other registries, so that `sync` need not be told where they are."""


@remote.command("add", short_help="Name a registry.")
@click.argument("name")
@click.argument("uri")
@registry_option
@click.pass_context
def remote_add(context: click.Context, name: str, uri: str) -> None:
    """Name the registry at URI; an existing name is moved there. Nothing is contacted."""
    added = session_of(context).open(context, create=True).remotes.add(name, uri)
    print_lines([f"{added.name} is {plain(added.uri)}"])


@remote.command("ls", short_help="List the named registries.")
@json_option
@registry_option
@click.pass_context
def remote_ls(context: click.Context, as_json: bool) -> None:
    """List the named registries, and when both sides last had the same."""
    found = session_of(context).open(context).remotes.all()
    rows = [(one.name, one.uri, None if one.synced is None else one.synced.isoformat()) for one in found]
    if as_json:
        print_json_list({"name": name, "uri": uri, "synced": synced} for name, uri, synced in rows)
        return
    columns = (Column("NAME", least=6), Column("URI", least=12), Column("SYNCED"))
    print_table(columns, ((name, uri, synced or "never") for name, uri, synced in rows), none="no registries are named")


@remote.command("rm", short_help="Forget a name.")
@click.argument("name")
@registry_option
@click.pass_context
def remote_rm(context: click.Context, name: str) -> None:
    """Forget a name; the registry there is not touched."""
    session_of(context).open(context).remotes.remove(name)


@remote.command("login", short_help="Keep the token for a server.")
@click.argument("other", metavar="NAME|URL")
@registry_option
@click.pass_context
def remote_login(context: click.Context, other: str) -> None:
    """Keep the token for a server in a file that only this user can read; it is read from standard input.

    `modelstore token create` on the server's machine prints it. The variable MODELSTORE_TOKEN is stronger.
    """
    from modelstore.sync.credentials import save_token

    url = _server_of(context, other)
    asked = sys.stdin.isatty()
    token: str = click.prompt(f"Token for {url}", hide_input=True, err=True) if asked else sys.stdin.readline()
    print_lines([f"kept in {plain(str(save_token(url, token.strip())))}"])


@remote.command("logout", short_help="Forget the token for a server.")
@click.argument("other", metavar="NAME|URL")
@registry_option
@click.pass_context
def remote_logout(context: click.Context, other: str) -> None:
    """Forget the token that `login` kept for a server; on the server it stays good until it is revoked."""
    from modelstore.sync.credentials import forget_token

    url = _server_of(context, other)
    print_lines([f"forgotten: {plain(url)}" if forget_token(url) else f"there was none for {plain(url)}"])


def _server_of(context: click.Context, other: str) -> str:
    url = other if "://" in other else session_of(context).open(context).remotes.resolve(other)
    if not url.startswith(("http://", "https://")):
        raise click.UsageError(f"{url} is no server: only https:// and http:// have tokens")
    return url


# -- conflicts ---------------------------------------------------------------------------------------------------------


@click.command(short_help="List edits that did not know of each other.")
@json_option
@registry_option
@click.pass_context
def conflicts(context: click.Context, as_json: bool) -> None:
    """List edits that did not know of each other and that nobody has settled; the value marked * stands."""
    found = session_of(context).open(context).conflicts.open()
    if as_json:
        print_json_list(map(_conflict_record, found))
    elif not found:
        print_lines(["No conflicts"])
    else:
        _print_conflicts(found)


@click.command(short_help="Settle a conflict.")
@click.argument("conflict", metavar="CONFLICT")
@click.option("--ours", "side", flag_value="ours", help="Let the value stand that was given in this registry.")
@click.option("--theirs", "side", flag_value="theirs", help="Let the value stand that came from elsewhere.")
@click.option("--take", type=click.IntRange(min=1), metavar="N", help="Let the N-th value of the list stand.")
@click.option("--value", metavar="VALUE", help="Let another value stand: JSON, or text as it is.")
@registry_option
@click.pass_context
def resolve(context: click.Context, /, conflict: str, side: str | None, take: int | None, value: str | None) -> None:
    r"""Settle a conflict, here and, from the next `sync` on, everywhere.

    CONFLICT is its id in `conflicts`; as much of it as is unambiguous. Without an option, what stands now stays.

    \b
    Examples:
      modelstore resolve 3f2a/name --ours
      modelstore resolve 3f2a/meta:accuracy --value 0.93
    """
    if sum(one is not None for one in (side, take, value)) > 1:
        raise click.UsageError("--ours, --theirs, --take and --value exclude each other")
    work = session_of(context).open(context).conflicts
    found = work.get(conflict)
    number = None if take is None else take - 1
    if side is not None:
        numbers = [n for n, branch in enumerate(found.branches) if branch.ours == (side == "ours")]
        if len(numbers) != 1:
            raise click.UsageError(f"{len(numbers)} of its values are {side}; choose one with --take")
        number = numbers[0]
    if value is not None:
        work.resolve(found.id, value=_value(value))
    else:
        work.resolve(found.id, take=number)
    print_lines([f"settled: {found.key} of {found.name or found.entity}"])


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _conflict_record(conflict: OpenConflict) -> dict[str, Any]:
    branches = [
        {
            "value": branch.value,
            "actor": branch.actor,
            "at": branch.at.isoformat(),
            "ours": branch.ours,
            "stands": branch.stands,
            "operations": list(branch.stamps),
        }
        for branch in conflict.branches
    ]
    return {
        "id": conflict.id,
        "kind": conflict.kind,
        "entity": conflict.entity,
        "name": conflict.name,
        "key": conflict.key,
        "before": conflict.before,
        "fixed": conflict.fixed,
        "branches": branches,
    }


def _print_conflicts(found: list[OpenConflict]) -> None:
    lines = []
    for conflict in found:
        lines.append(f"{conflict.id}  {conflict.kind} {plain(conflict.name or '')}: {plain(conflict.key)}")
        lines.append(f"     before: {value_text(conflict.before)}")
        for number, branch in enumerate(conflict.branches, 1):
            mark = "*" if branch.stands else " "
            when = branch.at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
            whose = ", here" if branch.ours else ""
            lines.append(f"  {number}{mark} {value_text(branch.value)}  ({plain(branch.actor)}, {when}{whose})")
    print_lines(lines)

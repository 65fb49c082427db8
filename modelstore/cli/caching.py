"""`modelstore cache`: the folder of local copies of remote weights."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from modelstore.cli import records
from modelstore.cli.failures import DAMAGED
from modelstore.cli.finding import shown_time
from modelstore.cli.output import print_json, print_json_list, print_lines, size, styled
from modelstore.cli.params import BYTES
from modelstore.cli.session import json_option
from modelstore.cli.tables import Column, print_table

if TYPE_CHECKING:
    from modelstore.cache import Cache, CacheEntry, Removal

__all__ = ["cache"]


def _open(context: click.Context) -> Cache:
    from modelstore import config
    from modelstore.cache import Cache

    opened = Cache(config.cache_folder(), max_bytes=config.cache_max_bytes())
    context.call_on_close(opened.close)
    return opened


@click.group(short_help="See, check and free the cache of local copies.")
def cache() -> None:
    """See what the cache of local copies holds, check it, and free it.

    The cache belongs to the user (or to a group), not to one registry. Whatever is removed from it is fetched again
    when it is wanted; what live processes hold, and what is pinned, always stays.
    """


@cache.command(short_help="Show its size and bounds.")
@json_option
@click.pass_context
def info(context: click.Context, as_json: bool) -> None:
    """Show where the cache is, how large it is, and how large it may become."""
    found = _open(context).info()
    if as_json:
        print_json(asdict(found) | {"folder": str(found.folder)})
        return
    facts = {
        "folder": str(found.folder),
        "holds": f"{size(found.bytes)} in {found.objects:,} files and {found.trees:,} unpacked archives",
        "may hold": f"{size(found.limit_bytes)}, with {size(found.free_bytes)} free on the disk",
        "unfinished": size(found.partial_bytes),
        "quarantine": size(found.quarantine_bytes),
        "in use": f"{found.in_use:,} by live processes, {found.pinned:,} pinned",
    }
    print_lines(f"{styled(f'{key:<12}', 'dim')} {value}" for key, value in facts.items())


@cache.command("ls", short_help="List what it holds, the last used first.")
@json_option
@click.pass_context
def ls(context: click.Context, as_json: bool) -> None:
    """List what the cache holds, the last used first."""
    found = _open(context).ls()
    if as_json:
        print_json_list(_entry(one) for one in found)
        return
    columns = (
        Column("DIGEST", least=19),
        Column("KIND", rank=3),
        Column("NAME", least=10),
        Column("SIZE", right=True),
        Column("USED", rank=1),
        Column("HELD", rank=4),
        Column("FROM", least=12, rank=2),
    )
    print_table(columns, map(_row, found), none="the cache is empty")


def _entry(one: CacheEntry) -> dict[str, Any]:
    times = {"created_at": records.iso(one.created_at), "last_used_at": records.iso(one.last_used_at)}
    return asdict(one) | {"names": list(one.names), "uris": list(one.uris)} | times


def _row(one: CacheEntry) -> tuple[str, ...]:
    held = " ".join(word for word, true in (("in use", one.in_use), ("pinned", one.pinned)) if true)
    used = shown_time(one.last_used_at)
    return (one.digest, one.kind, ", ".join(one.names), size(one.size), used, held, ", ".join(one.uris))


@cache.command(short_help="Read everything, and take away what has changed.")
@json_option
@click.pass_context
def verify(context: click.Context, as_json: bool) -> None:
    """Read everything in the cache, and quarantine what has changed; it will be fetched again.

    Exits with 4 when something had changed.
    """
    report = _open(context).verify()
    if as_json:
        print_json({key: list(v) if isinstance(v, tuple) else v for key, v in asdict(report).items()})
    else:
        print_lines([f"{report.checked:,} checked, {len(report.corrupt):,} wrong and taken away"])
        print_lines(f"  wrong    {digest}" for digest in report.corrupt)
        print_lines(f"  missing  {digest}" for digest in report.missing)
        print_lines(f"  found    {digest}" for digest in report.found)
    if report.corrupt:
        context.exit(DAMAGED)


@cache.command(short_help="Bring it within its bound.")
@click.option("--max-bytes", type=BYTES, help="What may stay, such as 20GB.  [default: the cache's own bound]")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@json_option
@click.pass_context
def prune(context: click.Context, max_bytes: int | None, dry_run: bool, as_json: bool) -> None:
    """Remove what was used longest ago until the cache is within its bound, and what killed processes left."""
    _print_removal(_open(context).prune(max_bytes, dry_run=dry_run), as_json)


@cache.command(short_help="Remove everything that nobody holds.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@json_option
@click.pass_context
def clear(context: click.Context, dry_run: bool, as_json: bool) -> None:
    """Remove everything that nobody holds."""
    _print_removal(_open(context).clear(dry_run=dry_run), as_json)


def _print_removal(removal: Removal, as_json: bool) -> None:
    if as_json:
        print_json(asdict(removal) | {"objects": list(removal.objects), "trees": list(removal.trees)})
        return
    remove, free = ("would remove", "would free") if removal.dry_run else ("removed", "freed")
    kept = f"; {removal.in_use:,} are in use or pinned and stay" if removal.in_use else ""
    print_lines(f"{remove} {digest}" for digest in removal.objects)
    print_lines(f"{remove} {digest} (unpacked)" for digest in removal.trees)
    print_lines([f"{free} {size(removal.freed_bytes)}{kept}"])

"""Commands about what was: `history`, `undo`, `diff`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from modelstore.cli import records
from modelstore.cli.output import plain, print_json_list, print_lines, styled, value_text, when
from modelstore.cli.params import MODEL
from modelstore.cli.session import json_option, registry_option, session_of
from modelstore.cli.tables import Column, print_table

if TYPE_CHECKING:
    from modelstore.records.entities import Change

__all__ = ["diff", "history", "undo"]

_COLOURS = {"added": "green", "removed": "red", "changed": "yellow"}


@click.command(short_help="Show who changed what, and when.")
@click.argument("model", type=MODEL, required=False)
@click.option("--task", metavar="ID", help="Of this task.")
@click.option("--project", metavar="NAME", help="Of this project (its full name), with all that is or was in it.")
@click.option(
    "--since", metavar="TIME", help="Only from then on: 2026-03-01 (its beginning), 2026-03-01T12:00, a stamp."
)
@click.option("--until", metavar="TIME", help="Only until then: 2026-03-01 (its end), a time, a stamp.")
@click.option("--key", metavar="KEY", help="Only of this value: name, tag:prod; or of all of a kind: tag, meta.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N changes.  [default: all]")
@json_option
@registry_option
@click.pass_context
def history(context: click.Context, /, model: str | None, as_json: bool, **asked: Any) -> None:
    r"""Show when, by whom, what was changed, from what, to what; the latest first.

    Of one model, or with --task or --project of these, else of everything in the registry. What was removed has a
    history too.

    \b
    Examples:
      modelstore history digits
      modelstore history --since 2026-03-01 --key tag
      modelstore history --project vision/ocr --limit 20
    """
    from modelstore.registry.lookup import find_model

    if sum(one is not None for one in (model, asked["task"], asked["project"])) > 1:
        raise click.UsageError("Name a model, or --task, or --project.")
    registry = session_of(context).open(context)
    found = registry.history(model=None if model is None else find_model(registry, model, which="any").id, **asked)
    if as_json:
        print_json_list(map(records.change, found))
        return
    whose = [] if model is not None or asked["task"] is not None else [Column("OF", least=12)]
    columns = (
        Column("WHEN"),
        Column("WHO", least=8, rank=1),
        *whose,
        Column("ACTION"),
        Column("WHAT", least=10),
        Column("BEFORE", least=8, rank=2),
        Column("AFTER", least=8),
    )
    print_table(columns, (_history_row(one, named=bool(whose)) for one in found), none="no such changes")


def _history_row(entry: Change, *, named: bool) -> tuple[str, ...]:
    values = [
        "" if value is None else value if isinstance(value, str) else repr(value) for value in (entry.old, entry.new)
    ]
    whose = (f"{entry.kind} {entry.name or entry.entity}",) if named else ()
    return (when(entry.at), entry.actor, *whose, entry.action, entry.key, *values)


@click.command(short_help="Bring back what a change replaced.")
@click.argument("stamp", required=False)
@click.option("--last", is_flag=True, help="The last change made on this host.")
@click.option("--force", is_flag=True, help="Leave what was changed since, and bring back the rest.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@json_option
@registry_option
@click.pass_context
def undo(context: click.Context, stamp: str | None, last: bool, force: bool, dry_run: bool, as_json: bool) -> None:
    r"""Bring back what a change, with its whole transaction, replaced. STAMP is the one that `history --json` shows.

    It is a new change: history stays, and it can be undone like any other. What was changed again since is left alone,
    and nothing is done then, unless --force says so. A publication cannot be taken back.

    \b
    Examples:
      modelstore undo --last --dry-run
      modelstore undo 019d2c4b7a1e0000a3f1c2d4e5b60718
    """
    if last == (stamp is not None):
        raise click.UsageError("Name a stamp, or say --last")
    found = session_of(context).open(context).undo(stamp, dry_run=dry_run, force=force)
    if as_json:
        keys = ("kind", "entity", "key", "now", "back", "later")
        print_json_list({key: _readable(getattr(one, key)) for key in keys} for one in found)
        return
    would = "would be " if dry_run else ""
    for one in found:
        name = f"{one.kind} {one.entity[:8]} {plain(one.key)}"
        if one.later is not None:
            print_lines([f"left: {name}, changed since by {one.later}"])
        else:
            print_lines([f"{would}back: {name}: {value_text(one.now)} -> {value_text(one.back)}"])


@click.command(short_help="Show what changed between two times.")
@click.argument("first", metavar="TIME")
@click.argument("second", metavar="[TIME]", required=False)
@click.option("--project", metavar="NAME", help="Only models that are or were in this project (its full name).")
@json_option
@registry_option
@click.pass_context
def diff(context: click.Context, first: str, second: str | None, project: str | None, as_json: bool) -> None:
    r"""Show which models were added, removed or changed between two times, value by value; the second is now.

    A time is 2026-03-01 (its end), 2026-03-01T12:00, seconds since 1970, or a stamp of `history --json`.

    \b
    Examples:
      modelstore diff 2026-03-01
      modelstore diff 2026-03-01 2026-03-08 --project vision/ocr
    """
    found = session_of(context).open(context).changes_between(first, second, project=project)
    if as_json:
        print_json_list(
            {
                "id": one.id,
                "name": one.name,
                "what": one.what,
                "values": {key: [_readable(value) for value in pair] for key, pair in one.values.items()},
            }
            for one in found
        )
        return
    for one in found:
        print_lines([f"{styled(one.what, _COLOURS[one.what])}: {plain(one.name or '')}  {one.id}"])
        if one.what == "changed":
            print_lines(
                f"  {plain(key)}: {value_text(old)} -> {value_text(new)}" for key, (old, new) in one.values.items()
            )


def _readable(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))

"""`modelstore relocate`: weights that were moved elsewhere."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from modelstore.cli.output import note, plain, print_json, print_lines
from modelstore.cli.session import json_option, registry_option, session_of

if TYPE_CHECKING:
    from modelstore.registry.relocation import Move

__all__ = ["relocate"]


@click.command(short_help="Rewrite addresses after weights were moved.")
@click.argument("old")
@click.argument("new")
@click.option("--check", is_flag=True, help="First see that all weights are at the new place, in their right size.")
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@json_option
@registry_option
@click.pass_context
def relocate(context: click.Context, old: str, new: str, *, check: bool, dry_run: bool, as_json: bool) -> None:
    r"""Write NEW in place of OLD at the beginning of every address, in one transaction. No bytes are moved.

    Models, and the destinations of tasks, projects and unfinished uploads. A published model's address never changes;
    its weights are read from the new place all the same. Digests stay, so other bytes at the new place are refused.

    \b
    Examples:
      modelstore relocate s3://old-bucket/models s3://new-bucket/models --dry-run
      modelstore relocate /mnt/old/weights s3://bucket/weights --check
    """
    from modelstore.registry.relocation import relocate as rewrite

    done = rewrite(session_of(context).open(context), old, new, check=check, dry_run=dry_run)
    if as_json:
        print_json(asdict(done) | {"moves": [asdict(move) for move in done.moves], "under_way": list(done.under_way)})
        return
    print_lines(map(_line, done.moves))
    word = "would be rewritten" if dry_run else "rewritten"
    print_lines([f"{len(done.moves):,} {'address' if len(done.moves) == 1 else 'addresses'} {word}"])
    for number in done.under_way:
        note(f"upload {number} is under way to the old place; run this again when it is done")


def _line(move: Move) -> str:
    from modelstore.storage.uris import redact

    name = f"  {plain(move.name)}" if move.name else ""
    return f"{move.kind} {move.id}{name}\n  {plain(redact(move.old))}\n  {plain(redact(move.new))}"

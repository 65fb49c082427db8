"""Commands that keep a registry in order: `fsck`, `gc`, `prune`, `backup`, `recover`, `export`, `import`, `move`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelstore.cli import records
from modelstore.cli.changing import print_removal, removal_values
from modelstore.cli.failures import DAMAGED
from modelstore.cli.keeping import print_finding
from modelstore.cli.output import note, plain, print_json, print_lines, size
from modelstore.cli.params import DURATION, MODEL
from modelstore.cli.session import json_option, registry_option, session_of

if TYPE_CHECKING:
    from modelstore.registry.backup import Backup
    from modelstore.registry.gc import Collection

__all__ = ["backup", "export", "fsck", "gc", "import_", "move", "prune", "recover"]


@click.command(short_help="Check everything, and repair what can be.")
@click.option("--deep", is_flag=True, help="Read every stored byte as well.")
@click.option("--repair", is_flag=True, help="Repair the index, and bring missing and damaged objects back.")
@json_option
@registry_option
@click.pass_context
def fsck(context: click.Context, deep: bool, repair: bool, as_json: bool) -> None:
    """Check the database, every operation of the journal, the index against the journal, and the stored objects.

    --repair makes the index anew where it is wrong. Objects that are missing or damaged are brought back from
    unfinished uploads, the cache, other addresses of the same bytes, and remotes. Damaged bytes are moved to the
    registry's quarantine folder; nothing is deleted. What could not be repaired is listed.

    Exits with 4 when something is, or stays, damaged or lost.
    """
    registry = session_of(context).open(context)
    checkup = registry.fsck(deep=deep, repair=repair)
    if as_json:
        print_json(
            {
                "operations": checkup.operations,
                "objects": checkup.objects,
                "repaired": checkup.repaired,
                "findings": [records.finding(one) for one in checkup.findings],
            }
        )
    else:
        print_lines(f"repaired: {plain(one)}" for one in checkup.repaired)
        for finding in checkup.findings:
            print_finding(finding)
        verdict = "something is damaged or lost" if checkup.damaged else "nothing is damaged"
        print_lines([f"{checkup.operations:,} operations and {checkup.objects:,} objects checked: {verdict}"])
    if checkup.damaged:
        context.exit(DAMAGED)


@click.command(short_help="Delete stored bytes that nothing refers to.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--grace", type=DURATION, default="24h", show_default=True, help="Spare what was stored so recently.")
@click.option(
    "--keep-former",
    type=DURATION,
    default="30d",
    show_default=True,
    help="Spare bytes of removed models, and bytes that newer ones replaced, so long after that.",
)
@json_option
@registry_option
@click.pass_context
def gc(context: click.Context, dry_run: bool, grace: float, keep_former: float, as_json: bool) -> None:
    r"""Delete stored bytes that no model and no plot refers to, and what killed processes left unfinished.

    Others may go on using the registry: what was stored or touched within --grace is left alone. Within --keep-former,
    `restore` brings removed models back whole. Files and objects outside the registry are never deleted.

    \b
    Example:
      modelstore gc --keep-former 0 --dry-run
    """
    registry = session_of(context).open(context)
    found = registry.gc(grace_s=grace, keep_former_s=keep_former, dry_run=dry_run)
    print_json(_collection(found)) if as_json else _print_collection(found)


def _collection(found: Collection) -> dict[str, Any]:
    return asdict(found) | {"garbage": [asdict(one) for one in found.garbage]}


def _print_collection(found: Collection) -> None:
    delete, free = ("would delete", "would free") if found.dry_run else ("deleted", "freed")
    print_lines(f"{delete} {plain(one.what)}  {size(one.size)}  ({one.why})" for one in found.garbage)
    both = ((found.kept_young, "stored lately"), (found.kept_former, "of removed models or former weights"))
    kept = [
        f"{kept.objects:,} {'object' if kept.objects == 1 else 'objects'} ({size(kept.bytes)}) {why}"
        for kept, why in both
        if kept.objects
    ]
    print_lines([f"{free} {size(found.freed_bytes)}" + (f"; kept {' and '.join(kept)}" if kept else "")])


@click.command(short_help="Remove the models that no rule keeps.")
@click.option("--project", metavar="NAME", help="Only models of this project.")
@click.option("--where", metavar="CONDITION", help="Only models that match, as of `ls`.")
@click.option("--keep-best", type=int, metavar="N", help="Keep the N first in the order --by.")
@click.option("--by", metavar="ORDER", help="The order in which the best come first, as --order-by of `ls`.")
@click.option("--keep-last", type=int, metavar="N", help="Keep the N registered last.")
@click.option("--keep-tagged", multiple=True, metavar="TAG", help="Keep those with this tag; may be repeated.")
@click.option("--older-than", type=DURATION, help="Keep those changed more recently, such as 30d.")
@click.option("--keep-weights", is_flag=True, help="Leave the bytes, so that `restore` brings the models back whole.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@json_option
@registry_option
@click.pass_context
def prune(context: click.Context, /, older_than: float | None, as_json: bool, **rules: Any) -> None:
    r"""Remove the models that no rule keeps, and free the bytes that only they used.

    They are removed a few hundred at a time, so that others can write in between; what is changed meanwhile stays.
    Never removed are models that are published, used by a task, made by a published task, or still being uploaded.

    \b
    Examples:
      modelstore prune --project vision/ocr --keep-best 3 --by -metadata.accuracy --keep-tagged prod --dry-run
      modelstore prune --project vision/ocr --keep-best 1 --by metrics.val.loss --keep-last 5 --older-than 30d
    """
    done = session_of(context).open(context).retain(older_than_s=older_than, **rules)
    if as_json:
        print_json(removal_values(done.removal) | {"kept": done.kept})
        return
    print_removal(done.removal)
    kept = ", ".join(f"{number:,} {reason}" for reason, number in sorted(done.kept.items()))
    word = "would be removed" if done.removal.dry_run else "removed"
    print_lines(
        [f"{len(done.removal.models):,} {word}, {sum(done.kept.values()):,} kept{f' ({kept})' if kept else ''}"]
    )


@click.command(short_help="Write the registry into one file.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--no-objects", is_flag=True, help="Leave the stored bytes out.")
@click.option("--overwrite", is_flag=True, help="Replace a file of that name.")
@json_option
@registry_option
@click.pass_context
def backup(context: click.Context, file: Path, no_objects: bool, overwrite: bool, as_json: bool) -> None:
    """Write the registry into one file: as it is at one moment, with every stored object that it refers to then.

    Others may go on using it. `recover` makes a registry of the file. Weights that lie elsewhere are not in it.
    """
    done = session_of(context).open(context).backup(file, with_objects=not no_objects, overwrite=overwrite)
    _print_backup(done, "wrote", as_json)


@click.command(short_help="Make a registry of a backup.")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@json_option
def recover(file: Path, folder: Path, as_json: bool) -> None:
    """Make a registry of a backup, in a folder that is missing or empty.

    Every byte is checked first; the folder appears whole or not at all.
    """
    from modelstore.registry.backup import recover

    _print_backup(recover(file, folder), "recovered", as_json)


def _print_backup(done: Backup, word: str, as_json: bool) -> None:
    if as_json:
        print_json(asdict(done) | {"path": str(done.path)})
    else:
        counts = f"{done.operations:,} operations, {done.objects:,} objects, {size(done.size)}"
        print_lines([f"{word} {plain(str(done.path))}: {counts}"])
    for what, digests in (("missing", done.missing), ("damaged", done.damaged)):
        if digests:
            note(f"{len(digests)} objects were {what} before the backup, the first {digests[0]}; see `modelstore fsck`")


@click.command(short_help="Write models into one file.")
@click.argument("models", type=MODEL, nargs=-1, required=True)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace a file of that name.")
@json_option
@registry_option
@click.pass_context
def export(context: click.Context, models: tuple[str, ...], file: Path, overwrite: bool, as_json: bool) -> None:
    r"""Write models into one file, with their bytes, history, reports, tasks and projects.

    `import` takes it into any registry.

    \b
    Example:
      modelstore export digits yolo-small models.bundle
    """
    from modelstore.registry.lookup import find_model

    registry = session_of(context).open(context)
    done = registry.export_models([find_model(registry, name).id for name in models], file, overwrite=overwrite)
    if as_json:
        print_json(asdict(done) | {"path": str(done.path)})
    else:
        counts = f"{done.models:,} models, {done.operations:,} operations, {done.objects:,} objects, {size(done.size)}"
        print_lines([f"wrote {plain(str(done.path))}: {counts}"])
    if done.elsewhere:
        note(f"weights of {len(done.elsewhere)} models are not in the registry, and stay where they are")
    if done.missing:
        note(f"{len(done.missing)} objects are missing, the first {done.missing[0]}; see `modelstore fsck`")


@click.command("import", short_help="Take in models from a file.")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
@registry_option
@click.pass_context
def import_(context: click.Context, file: Path, as_json: bool) -> None:
    """Take in models from a file that `export` wrote. The registry is made where there is none.

    All of it is checked before anything is changed. Doing it again changes nothing; where models are here already, both
    histories become one.
    """
    taken = session_of(context).open(context, create=True).import_models(file)
    if as_json:
        print_json(asdict(taken))
    else:
        counts = f"{taken.operations:,} operations and {taken.objects:,} objects were new"
        print_lines([f"{len(taken.models):,} models: {counts}", *(f"  {plain(one)}" for one in taken.models)])
    if taken.missing:
        note(f"{len(taken.missing)} objects are not in the file, the first {taken.missing[0]}")


@click.command(short_help="Move the registry to another folder.")
@click.argument("folder", type=click.Path(path_type=Path))
@json_option
@registry_option
@click.pass_context
def move(context: click.Context, folder: Path, as_json: bool) -> None:
    """Move the registry to a folder that is missing or empty, also on another filesystem. Nobody may have it open.

    Everything in it still resolves. A kill leaves it whole at one of the two places; where it had to be copied, perhaps
    at both: then the old one can be deleted.
    """
    from modelstore.registry.moving import move

    moved = move(session_of(context).uri, folder)
    print_json({"folder": str(moved)}) if as_json else print_lines([f"moved to {plain(str(moved))}"])
    note("let MODELSTORE_REGISTRY, or --registry, name the new place")

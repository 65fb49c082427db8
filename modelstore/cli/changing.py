"""Commands that change models: `register`, `tag`, `meta`, `publish`, `archive`, `unarchive`, `rm`, `restore`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from modelstore.cli import records
from modelstore.cli.output import note, plain, print_json, print_lines, size
from modelstore.cli.params import MODEL, pairs, typed
from modelstore.cli.session import json_option, registry_option, session_of
from modelstore.cli.tables import Column, print_table

if TYPE_CHECKING:
    from modelstore.records.entities import ModelRecord
    from modelstore.registry import Registry
    from modelstore.registry.removal import Removal

__all__ = [
    "archive",
    "meta",
    "print_removal",
    "publish",
    "register",
    "removal_values",
    "restore",
    "rm",
    "tag",
    "unarchive",
]


@click.command(short_help="Register a file, a folder or a URI.")
@click.argument("source", metavar="PATH_OR_URI")
@click.option("--name", metavar="NAME", help="Name of the model.  [default: the file's, without its ending]")
@click.option("--project", metavar="NAME", help="Full name of its project, such as vision/ocr.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="A tag; may be repeated.")
@click.option("--framework", metavar="NAME", help="What the weights are for.  [default: guessed from the file's name]")
@click.option("--label", "labels", multiple=True, metavar="NAME=NUMBER", help="A label's number; may be repeated.")
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Metadata, typed as by `meta`; may be repeated.")
@click.option("--comment", metavar="TEXT", help="Free text about it.")
@click.option("--iteration", type=int, metavar="N", help="Training iteration that the weights were saved at.")
@click.option("--destination", metavar="URI", help="Store the file there, and not in the registry.")
@click.option("--package", is_flag=True, help="What is at the URI is an archive of several files.")
@click.option("--publish", is_flag=True, help="Publish it at once.")
@json_option
@registry_option
@click.pass_context
def register(
    context: click.Context,
    /,
    source: str,
    *,
    name: str | None,
    labels: tuple[str, ...],
    metadata: tuple[str, ...],
    destination: str | None,
    package: bool,
    as_json: bool,
    **fields: Any,
) -> None:
    r"""Register a model, and print its id.

    A file is stored in the registry, a folder as a package of all its files. A URI (file:// too) is only written down:
    nothing is read or copied. Registering a URI again gives the model that has it already.

    \b
    Examples:
      modelstore register net.pt --name yolo-small --project vision/ocr --tag candidate --metadata accuracy=0.93
      modelstore register s3://bucket/models/net.onnx --label cat=0 --label dog=1 --publish
    """
    from modelstore.registry.registration import register_files, register_uri
    from modelstore.sdk.framework import guess_framework
    from modelstore.storage import uris

    remote = _is_uri(source, destination, package=package)
    registry = session_of(context).open(context, create=True)
    values = typed(pairs(metadata, "--metadata"))
    fields["labels"] = _numbers(pairs(labels, "--label"))
    fields["framework"] = fields["framework"] or guess_framework(source)
    filename = uris.basename(source if remote else uris.normalise(source))
    common = {"name": name or _stem(filename), "metadata": values, **fields}
    if remote:
        record, new = register_uri(registry, source, package=package, **common)
        if not new:
            note(f"this URI is registered already; the model {record.name!r} is used as it is")
    else:
        record = register_files(registry, source, destination=destination, **common)
    print_json(records.model(registry, record)) if as_json else print_lines([record.id])


def _is_uri(source: str, destination: str | None, *, package: bool) -> bool:
    """Tell a URI from a path, and see that the options fit."""
    remote = "://" in source or source.lower().startswith("file:/")
    if remote and destination is not None:
        raise click.UsageError("--destination is for files; what is at a URI stays there")
    if package and not remote:
        raise click.UsageError("--package is for URIs; a folder is a package anyhow, and a file none")
    return remote


def _stem(filename: str) -> str:
    return filename.rsplit(".", 1)[0] or filename or "model"


def _numbers(words: dict[str, str]) -> dict[str, int] | None:
    try:
        return {name: int(word) for name, word in words.items()} or None
    except ValueError:
        raise click.UsageError("--label is written NAME=NUMBER, with a whole number") from None


@click.command(context_settings={"ignore_unknown_options": True}, short_help="Add, remove and list tags.")
@click.argument("model", type=MODEL)
@click.argument("changes", nargs=-1, type=click.UNPROCESSED, metavar="[+TAG|-TAG]...")
@json_option
@registry_option
@click.pass_context
def tag(context: click.Context, model: str, changes: tuple[str, ...], as_json: bool) -> None:
    r"""Add tags (+TAG, or TAG) and remove tags (-TAG), all at once, and print the tags; without changes only print.

    Tags that others add or remove at the same time stay so. A tag that begins with a dash or a plus is written with
    one more; write -- first when a tag looks like an option of this command.

    \b
    Example:
      modelstore tag digits +prod -candidate
    """
    from modelstore.registry.lookup import find_model

    registry = session_of(context).open(context)
    record = find_model(registry, model)
    add = [word.removeprefix("+") for word in changes if not word.startswith("-")]
    remove = [word.removeprefix("-") for word in changes if word.startswith("-")]
    both = sorted(set(add) & set(remove))
    if both:
        raise click.UsageError(f"The tag {both[0]!r} is both to be added and to be removed")
    if changes:
        record = registry.models.tag(record.id, add=add, remove=remove)
    if as_json:
        print_json(records.model(registry, record))
    else:
        print_lines(plain(one) for one in record.tags)


@click.command(short_help="Set, remove and list metadata.")
@click.argument("model", type=MODEL)
@click.argument("values", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--delete", multiple=True, metavar="KEY", help="Remove this key; may be repeated.")
@click.option(
    "--type",
    "kind",
    type=click.Choice(["float", "int", "bool", "str", "list", "tuple", "dict"]),
    help="Type of all values given.  [default: what they look like]",
)
@json_option
@registry_option
@click.pass_context
def meta(
    context: click.Context,
    model: str,
    values: tuple[str, ...],
    delete: tuple[str, ...],
    kind: str | None,
    as_json: bool,
) -> None:
    r"""Set and remove metadata, all at once, and print what there is; without changes only print.

    A value that is JSON is taken as such: 0.9 is a number, true a truth value, [1, 2] a list. Anything else is text,
    and so is everything with --type str.

    \b
    Examples:
      modelstore meta digits accuracy=0.93 dataset=mnist reviewed=true
      modelstore meta digits version=1.10 --type str
      modelstore meta digits --delete reviewed
    """
    from modelstore.registry.lookup import find_model

    registry = session_of(context).open(context)
    record = find_model(registry, model)
    words = pairs(values, "Metadata")
    given = {key: (kind, value) for key, value in (words if kind else typed(words)).items()}
    if given or delete:
        with registry.transaction():
            registry.models.delete_metadata(record.id, delete)
            record = registry.models.set_metadata(record.id, given)
    if as_json:
        print_json(records.model(registry, record)["metadata"])
        return
    columns = (Column("KEY", least=8), Column("TYPE"), Column("VALUE", least=8))
    print_table(columns, ((key, i.type, i.text) for key, i in sorted(record.metadata.items())), none="no metadata")


def _changed(
    context: click.Context,
    names: Sequence[str],
    change: Callable[[Registry, str], ModelRecord],
    word: str,
    as_json: bool,
    *,
    which: Any = "present",
) -> list[ModelRecord]:
    """Change several models as one, and say so."""
    from modelstore.registry.lookup import find_model

    registry = session_of(context).open(context)
    found = [find_model(registry, name, which=which) for name in names]
    with registry.transaction():
        changed = [change(registry, record.id) for record in {record.id: record for record in found}.values()]
    if as_json:
        print_json([records.model(registry, record) for record in changed])
    else:
        print_lines(f"{word} {record.id}  {plain(record.name or '')}" for record in changed)
    return changed


@click.command(short_help="Fix the content of models for good.")
@click.argument("models", type=MODEL, nargs=-1, required=True)
@click.option("--allow-empty", is_flag=True, help="Also models without weights.")
@json_option
@registry_option
@click.pass_context
def publish(context: click.Context, models: tuple[str, ...], allow_empty: bool, as_json: bool) -> None:
    """Fix the content of models for good: weights, labels, configuration, framework. All of them, or none.

    Name, project, comment, tags and metadata can still be edited. It cannot be undone. Publishing again does nothing.
    """

    def change(registry: Registry, model_id: str) -> ModelRecord:
        return registry.models.publish(model_id, require_weights=not allow_empty)

    _changed(context, models, change, "published", as_json)


@click.command(short_help="Hide models from lists.")
@click.argument("models", type=MODEL, nargs=-1, required=True)
@json_option
@registry_option
@click.pass_context
def archive(context: click.Context, models: tuple[str, ...], as_json: bool) -> None:
    """Hide models from lists and queries that do not ask for archived ones. All of them, or none."""
    _changed(context, models, lambda registry, one: registry.models.archive(one), "archived", as_json)


@click.command(short_help="Show archived models again.")
@click.argument("models", type=MODEL, nargs=-1, required=True)
@json_option
@registry_option
@click.pass_context
def unarchive(context: click.Context, models: tuple[str, ...], as_json: bool) -> None:
    """Show archived models again. All of them, or none."""

    def change(registry: Registry, model_id: str) -> ModelRecord:
        return registry.models.archive(model_id, archived=False)

    _changed(context, models, change, "unarchived", as_json)


@click.command(short_help="Remove models, and free their bytes.")
@click.argument("models", type=MODEL, nargs=-1, required=True)
@click.option("--keep-weights", is_flag=True, help="Leave the bytes, so that `restore` brings the models back whole.")
@click.option("--force", is_flag=True, help="Also models that a task uses, or whose task is published.")
@click.option("--dry-run", is_flag=True, help="Only say what would happen.")
@json_option
@registry_option
@click.pass_context
def rm(
    context: click.Context, models: tuple[str, ...], keep_weights: bool, force: bool, dry_run: bool, as_json: bool
) -> None:
    """Remove models, all of them or none, and free the bytes that the registry held for them alone.

    What the registry did not store itself is never deleted. The history of a model stays; `restore` brings the model
    back, with its weights only where they were kept. Those of a shared registry stay for 30 days: another host may be
    storing the same ones. Then `gc` frees them.
    """
    from modelstore.registry.lookup import find_model
    from modelstore.registry.removal import remove_models

    registry = session_of(context).open(context)
    ids = [find_model(registry, name).id for name in models]
    removal = remove_models(registry, ids, keep_weights=keep_weights, force=force, dry_run=dry_run)
    print_json(removal_values(removal)) if as_json else print_removal(removal)


def print_removal(removal: Removal) -> None:
    """Print what was removed, or would be, and the bytes that this frees."""
    dry_run = removal.dry_run
    word = "would remove" if dry_run else "removed"
    print_lines(f"{word} {record.id}  {plain(record.name or '')}" for record in removal.models)
    print_lines(f"  no longer {plain(link.name)!r}, {link.direction} of task {link.task}" for link in removal.links)
    print_lines(f"  upload {number} is given up" for number in removal.uploads)
    if removal.freed_bytes:
        print_lines([f"{'would free' if dry_run else 'freed'} {size(removal.freed_bytes)}"])


def removal_values(removal: Removal) -> dict[str, Any]:
    """Return what was removed, for `--json`."""
    return {
        "models": [records.model_reference(record) for record in removal.models],
        "links": [{"task": one.task, "direction": one.direction, "name": one.name} for one in removal.links],
        "uploads": list(removal.uploads),
        "freed_bytes": removal.freed_bytes,
        "dry_run": removal.dry_run,
    }


@click.command(short_help="Bring removed models back.")
@click.argument("models", type=MODEL, nargs=-1, required=True)
@json_option
@registry_option
@click.pass_context
def restore(context: click.Context, models: tuple[str, ...], as_json: bool) -> None:
    """Bring removed models back as they were. All of them, or none."""
    restored: list[tuple[ModelRecord, bool]] = []

    def change(registry: Registry, model_id: str) -> ModelRecord:
        record = registry.models.restore(model_id)
        restored.append((record, registry.weights.confirm(record.uri)))
        return record

    _changed(context, models, change, "restored", as_json, which="removed")
    for record, whole in restored:
        if not whole:
            note(f"the weights of {record.name!r} ({record.id}) were freed, and are gone")

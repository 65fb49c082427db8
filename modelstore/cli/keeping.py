"""Commands about the registry itself, such as `demo`, `init`, `convert`, `where`, `doctor` and `uploads`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from modelstore.cli import records
from modelstore.cli.failures import DAMAGED
from modelstore.cli.output import plain, print_json, print_json_list, print_lines, size, styled
from modelstore.cli.session import json_option, registry_option, session_of
from modelstore.cli.tables import Column, print_table
from modelstore.errors import ModelStoreError, NotFoundError, RegistryNotFoundError

if TYPE_CHECKING:
    from modelstore.registry import Registry
    from modelstore.registry.doctor import Finding

__all__ = ["compact", "completion", "convert", "demo", "doctor", "init", "print_finding", "rebuild", "uploads", "where"]

_COLOURS: Final = {"error": "red", "warning": "yellow", "note": "dim"}


@click.command(short_help="Train, register, find and use a model.")
@registry_option
@click.pass_context
def demo(context: click.Context) -> None:
    """Train on real images, register the best model, and find and use it from a second process.

    It keeps its models in a registry of its own, ./modelstore-demo, unless --registry is given. Needs scikit-learn.
    """
    from modelstore import demo as demonstration

    uri = session_of(context).uri
    context.exit(demonstration.main([] if uri is None else ["--registry", uri]))


@click.command(short_help="Make a registry.")
@click.argument("place", required=False)
@click.option("--shared", is_flag=True, help="One that several hosts use at once through a shared folder.")
@click.option("--objects", metavar="URI", help="Where the files of a registry in a database go: a bucket or a folder.")
@json_option
@registry_option
@click.pass_context
def init(context: click.Context, place: str | None, shared: bool, objects: str | None, as_json: bool) -> None:
    r"""Make a registry at PLACE, a folder, an object store or a database; one that is there already is no error.

    Only a shared registry needs this: others are made when something is first registered.

    \b
    Examples:
      modelstore init --shared /mnt/team/models
      export MODELSTORE_REGISTRY=/mnt/team/models
      modelstore init s3://bucket/models
      modelstore init postgresql://host/database --objects s3://bucket/models
    """
    from modelstore.registry import open_registry

    uri = place if place is not None else session_of(context).uri
    registry = context.with_resource(open_registry(uri, shared=True if shared else None, objects=objects))
    if as_json:
        print_json({"registry": registry.place, "kind": registry.kind, "id": registry.id})
    else:
        print_lines([f"{registry.place} is a {registry.kind} registry"])


@click.command(short_help="Make a registry shared, or one of this machine.")
@click.argument("folder", metavar="[FOLDER]", required=False)
@click.option("--shared", "kind", flag_value="shared", help="Let several hosts use it at once.")
@click.option("--local", "kind", flag_value="local", help="Make it one of this machine alone.")
@registry_option
@click.pass_context
def convert(context: click.Context, folder: str | None, kind: Any) -> None:
    r"""Make the registry in FOLDER one that several hosts use at once, or one of this machine; its history stays.

    Nobody may be using it. A run that was cut off is finished by the next. What is not needed any more moves to
    backups/ in the folder.

    \b
    Examples:
      modelstore convert --shared /mnt/team/models
      modelstore convert --local ./copy-of-models
    """
    from modelstore.registry.converting import convert as work

    if kind is None:
        raise click.UsageError("Say --shared or --local")
    given = folder if folder is not None else session_of(context).uri
    done = work(given, kind)
    print_lines([f"It is a {kind} registry now" if done else f"It is a {kind} registry already"])


@click.command(short_help="Make a shared registry quick to join.")
@click.option("--all", "everything", is_flag=True, help="Pack also what writers wrote within the last hour.")
@json_option
@registry_option
@click.pass_context
def compact(context: click.Context, everything: bool, as_json: bool) -> None:
    """Make a checkpoint of a shared registry for hosts that join it, and pack what its former writers left.

    Closing a registry does this by itself when it is worth it. Others may go on using it meanwhile.
    """
    done = session_of(context).open(context).compact(quiet_ms=0 if everything else 3_600_000)
    if as_json:
        print_json({"checkpoint": done.checkpoint, "size": done.size, "packed": done.packed})
        return
    made = f"checkpoint of {size(done.size)}" if done.checkpoint else "the checkpoint is current"
    print_lines([f"{made}; {done.packed} {'stream' if done.packed == 1 else 'streams'} packed"])


@click.command(short_help="Show which registry, cache and settings are used.")
@json_option
@registry_option
@click.pass_context
def where(context: click.Context, as_json: bool) -> None:
    """Show which registry, cache and settings are used, and where each comes from. Nothing is created."""
    answer = _settings(context)
    if as_json:
        print_json(answer)
        return
    sources = answer["sources"]
    bound = answer["cache_max_bytes"]
    print_lines(
        f"{styled(f'{key:<12}', 'dim')} {plain(value)}{f'  ({source})' if source else ''}"
        for key, value, source in (
            ("registry", answer["registry"], sources["registry"]),
            ("", answer["problem"] or "", ""),
            ("database", answer["database"] or "", ""),
            ("schema", _schema(answer), ""),
            ("cache", answer["cache"], sources["cache"]),
            ("cache bound", size(bound) if bound is not None else "from the free space", sources["cache_max_bytes"]),
            ("output uri", answer["default_output_uri"] or "the registry", sources["default_output_uri"]),
            ("actor", answer["actor"], sources["actor"]),
            ("modelstore", f"{answer['version']}, Python {answer['python']}, SQLite {answer['sqlite']}", ""),
        )
        if value
    )


def _schema(answer: dict[str, Any]) -> str:
    if answer["schema_version"] is None:
        return ""
    return f"{answer['schema_version']}, and this version reads up to {answer['supported_schema_version']}"


def _settings(context: click.Context) -> dict[str, Any]:
    import platform

    from modelstore import __version__, config
    from modelstore.index.driver import sqlite3
    from modelstore.index.schema import SCHEMA_VERSION
    from modelstore.storage.uris import redact

    given = session_of(context).uri
    output = config.default_output_uri()
    answer: dict[str, Any] = {
        "registry": given if given is not None else config.registry_uri(),
        "exists": False,
        "problem": None,
        "id": None,
        "database": None,
        "schema_version": None,
        "supported_schema_version": SCHEMA_VERSION,
        "cache": str(config.cache_folder()),
        "cache_max_bytes": config.cache_max_bytes(),
        "default_output_uri": None if output is None else redact(output),
        "actor": config.actor(),
        "version": __version__,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "sources": config.sources() | ({"registry": "--registry"} if given is not None else {}),
    }
    try:
        opened = _opened(session_of(context).open(context))
        if opened["actor"] != answer["actor"]:
            answer["sources"] |= {"actor": "the server's token"}
        return answer | opened
    except RegistryNotFoundError:
        return answer | {"problem": "not there yet; registering a model makes it"}
    except ModelStoreError as error:
        return answer | {"exists": True, "problem": str(error)}


def _opened(registry: Registry) -> dict[str, Any]:
    row = registry.database.one("PRAGMA user_version")
    return {
        "registry": registry.place,
        "exists": True,
        "id": registry.id,
        "database": str(registry.database.path),
        "actor": registry.actor,
        "schema_version": None if row is None else row[0],
    }


@click.command(short_help="Look for what is wrong, and say what to do.")
@click.option("--deep", is_flag=True, help="Read every stored byte, and fold the whole journal for comparison.")
@json_option
@registry_option
@click.pass_context
def doctor(context: click.Context, deep: bool, as_json: bool) -> None:
    """Look for what is wrong with the registry, and say what it means and what to do. Nothing is changed.

    Exits with 4 when something is damaged or lost; warnings and notes alone are no failure.
    """
    registry = session_of(context).open(context)
    findings = registry.check(deep=deep)
    if as_json:
        print_json([records.finding(one) for one in findings])
    elif not findings:
        print_lines([f"Nothing is wrong with {registry.place}" + ("" if deep else "; --deep reads every byte as well")])
    else:
        for finding in findings:
            print_finding(finding)
    if any(finding.severity == "error" for finding in findings):
        context.exit(DAMAGED)


def print_finding(finding: Finding) -> None:
    """Print what is wrong, what it means and what to do."""
    severity = styled(finding.severity, _COLOURS[finding.severity])
    print_lines([f"{severity}: {plain(finding.what)}", f"  {plain(finding.means)}", f"  {plain(finding.todo)}"])


@click.command(short_help="Make the index anew from the journal.")
@json_option
@registry_option
@click.pass_context
def rebuild(context: click.Context, as_json: bool) -> None:
    """Make the index anew from the journal, in one transaction."""
    count = session_of(context).open(context).rebuild()
    print_json({"operations": count}) if as_json else print_lines([f"{count:,} operations folded"])


@click.command(short_help="List, send or give up unfinished uploads.")
@click.option("--resume", is_flag=True, help="Send what earlier processes, or earlier tries, did not.")
@click.option("--cancel", type=int, multiple=True, metavar="N", help="Give upload N up; its bytes are deleted.")
@json_option
@registry_option
@click.pass_context
def uploads(context: click.Context, resume: bool, cancel: tuple[int, ...], as_json: bool) -> None:
    """List uploads that have not finished, send them, or give them up.

    Their bytes are safe in the registry folder until then. Uploads of processes that are still alive are theirs.
    """
    if resume and cancel:
        raise click.UsageError("--resume and --cancel exclude each other")
    registry = session_of(context).open(context)
    work = registry.weights.uploads
    if resume:
        taken = work.resume()
        print_json({"sent": [one.id for one in taken]}) if as_json else print_lines([_counted(len(taken), "sent")])
    elif cancel:
        for number in cancel:
            if not work.cancel(number):
                raise NotFoundError(f"There is no unfinished upload {number}", "`modelstore uploads` lists them.")
        print_json({"cancelled": list(cancel)}) if as_json else print_lines([_counted(len(cancel), "cancelled")])
    elif as_json:
        print_json_list(map(records.upload, work.pending()))
    else:
        _print_uploads([records.upload(one) for one in work.pending()])


def _counted(number: int, word: str) -> str:
    return f"{number} {'upload' if number == 1 else 'uploads'} {word}"


def _print_uploads(pending: list[dict[str, Any]]) -> None:
    columns = (
        Column("N", right=True),
        Column("MODEL", least=12),
        Column("FILE", least=10, rank=2),
        Column("SIZE", right=True, rank=3),
        Column("TO", least=12),
        Column("STATUS"),
        Column("ERROR", least=10, rank=1),
    )
    print_table(
        columns,
        (
            (str(u["id"]), u["model"], u["filename"], size(u["size"]), u["destination"], u["status"], u["error"] or "")
            for u in pending
        ),
        none="no unfinished uploads",
    )


@click.command(short_help="Print a script for a shell's completion.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    r"""Print a script that teaches a shell to complete this program's commands, options and models.

    \b
    Examples:
      modelstore completion bash > ~/.local/share/bash-completion/completions/modelstore
      eval "$(modelstore completion zsh)"
    """
    from click.shell_completion import get_completion_class

    from modelstore.cli.app import cli

    script = get_completion_class(shell)
    if script is None:
        raise click.UsageError(f"No completion for {shell}")
    for program in ("modelstore", "mstore"):
        print_lines([script(cli, {}, program, f"_{program.upper()}_COMPLETE").source()])

"""`modelstore scan`: what loading weights would import."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelstore.cli.failures import SUSPECT
from modelstore.cli.output import plain, print_json_list, print_lines, styled
from modelstore.cli.params import MODEL
from modelstore.cli.session import json_option, registry_option, session_of

if TYPE_CHECKING:
    from modelstore.storage.scanning import ScanReport

__all__ = ["scan"]

_COLOURS = {"dangerous": "red", "unreadable": "red", "unknown": "yellow"}


@click.command(short_help="List what loading weights would import.")
@click.argument("models", type=MODEL, nargs=-1)
@click.option("--file", "files", metavar="PATH", multiple=True, help="Look into a file, a folder or a URI; repeatable.")
@click.option("--strict", is_flag=True, help="Also fail on imports that are not known to be harmless.")
@json_option
@registry_option
@click.pass_context
def scan(
    context: click.Context, models: tuple[str, ...], files: tuple[str, ...], *, strict: bool, as_json: bool
) -> None:
    r"""List what loading the weights of models would import. Nothing is imported, loaded or executed.

    Pickles, PyTorch and joblib files, NumPy arrays of objects, and archives with any of them. The verdict is dangerous
    (an import that can run anything), unreadable (something cannot be followed to its end), unknown (imports that are
    neither known as harmless nor as dangerous: do they look like what you expect?), harmless, or no pickle.

    Exits with 5 when something is dangerous or unreadable; with --strict also when it is unknown.

    \b
    Examples:
      modelstore scan digits
      modelstore scan --strict --file downloads/net.pt --file https://example.com/net.pt
    """
    if not models and not files:
        raise click.UsageError("name a model, or a --file")
    reports = [*_of_models(context, models), *_of_files(files)]
    if as_json:
        print_json_list(_report(*one) for one in reports)
    else:
        for label, report in reports:
            _print(label, report)
    failing = {"dangerous", "unreadable", "unknown"} if strict else {"dangerous", "unreadable"}
    if any(report.verdict in failing for _, report in reports):
        context.exit(SUSPECT)


def _of_models(context: click.Context, models: tuple[str, ...]) -> Iterator[tuple[str, ScanReport]]:
    if not models:
        return
    from modelstore.registry.lookup import find_model

    registry = session_of(context).open(context)
    for name in models:
        record = find_model(registry, name)
        yield record.name or record.id, registry.weights.scan(record)


def _of_files(files: tuple[str, ...]) -> Iterator[tuple[str, ScanReport]]:
    from modelstore.storage import uris
    from modelstore.storage.scanning import scan as look

    for place in files:
        with _here(place) as path:
            yield uris.redact(place), look(path)


@contextmanager
def _here(place: str) -> Iterator[Path]:
    from modelstore.storage import uris
    from modelstore.storage.progress import reporting
    from modelstore.storage.transfer import download

    path = uris.local_path(place)
    if path is not None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="modelstore-scan-") as folder:
        target = Path(folder, "weights" + Path(uris.basename(place)).suffix)
        with reporting(f"fetching {uris.basename(place)}") as progress:
            download(place, target, progress=progress)
        yield target


def _report(label: str, report: ScanReport) -> dict[str, Any]:
    return {
        "name": label,
        "verdict": report.verdict,
        "pickles": report.pickles,
        "imports": [{"where": i.where, "module": i.module, "name": i.name, "harm": i.harm} for i in report.imports],
        "problems": [{"where": problem.where, "reason": problem.reason} for problem in report.problems],
    }


def _print(label: str, report: ScanReport) -> None:
    verdict = report.verdict
    print_lines([f"{plain(label)}: {styled(verdict, _COLOURS[verdict]) if verdict in _COLOURS else verdict}"])
    for found in report.imports:
        where = f"  in {plain(found.where)}" if found.where else ""
        print_lines([f"  {found.harm:<10} {plain(found.module)}.{plain(found.name)}{where}"])
    for problem in report.problems:
        where = f"{plain(problem.where)}: " if problem.where else ""
        print_lines([f"  unreadable {where}{plain(problem.reason)}"])

"""Commands about one model: `show`, `get`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import click

from modelstore.cli import records
from modelstore.cli.finding import state_of
from modelstore.cli.inspecting import glance, summary
from modelstore.cli.output import ago, note, plain, print_json, print_lines, print_path, size, styled, when
from modelstore.cli.params import MODEL
from modelstore.cli.session import as_of_option, json_option, registry_option, session_of
from modelstore.cli.tables import Column, cells_width, print_table

if TYPE_CHECKING:
    from datetime import datetime

    from modelstore.records.entities import ModelRecord, UploadRecord
    from modelstore.records.reports import PlotRecord
    from modelstore.registry import Registry
    from modelstore.registry.lookup import Lineage

__all__ = ["get", "show"]

_MOST_SERIES: Final = 60
_MOST_PLOTS: Final = 40


@click.command(short_help="Show everything about one model.")
@click.argument("model", type=MODEL)
@click.option("--html", "page", metavar="FILE", help="Write a page with charts and plots, which needs no network.")
@click.option("--png", "pictures", metavar="TITLE FILE", nargs=2, multiple=True, help="Write one chart or plot as PNG.")
@as_of_option
@json_option
@registry_option
@click.pass_context
def show(
    context: click.Context, model: str, *, page: str | None, pictures: tuple[tuple[str, str], ...], as_json: bool
) -> None:
    r"""Show everything about one model.

    MODEL is an id, the beginning of one (4 digits or more), or a name. With --html or --png nothing is printed. Charts
    of scalars are drawn by modelstore itself, as PNG too; other plots as PNG need Chromium.

    \b
    Examples:
      modelstore show digits
      modelstore show digits --html digits.html
      modelstore show digits --png loss loss.png
    """
    from modelstore.registry.lookup import find_model, lineage
    from modelstore.storage.uris import redact

    registry = session_of(context).open(context)
    record = find_model(registry, model)
    _write_files(registry, record, page, pictures)
    if (page is not None or pictures) and not as_json:
        return
    around, pending = lineage(registry, record), registry.weights.uploads.pending(record.id)
    inside = glance(registry, record)
    if as_json:
        extra = {"lineage": records.lineage_of(around), "uploads": [records.upload(one) for one in pending]}
        print_json(records.model(registry, record) | extra | records.looks(registry, record, inside))
        return
    print_lines([f"{styled(plain(record.name or ''), 'bold')}  {record.id}"])
    address = registry.weights.address(record)
    uri = None if address is None else redact(address)
    _print_facts([*_facts(record, uri), *_waiting(pending)])
    _print_part("metadata", [(key, f"{plain(i.text)}  ({i.type})") for key, i in sorted(record.metadata.items())])
    _print_part("labels", [(name, str(number)) for name, number in record.labels.items()])
    _print_reports(registry, record)
    _print_plots(registry, record)
    if inside is not None:
        _print_part(f"inside the weights  ({inside.format})", list(summary(inside)))
    _print_part("lineage", list(_lineage(record, around)))
    _print_text("configuration", record)


def _write_files(
    registry: Registry, record: ModelRecord, page: str | None, pictures: tuple[tuple[str, str], ...]
) -> None:
    if page is None and not pictures:
        return
    from modelstore.pages import model_page, picture_of, write_page

    if page is not None:
        write_page(page, model_page(registry, record))
    for title, path in pictures:
        write_page(path, picture_of(registry, record, title))


def _print_reports(registry: Registry, record: ModelRecord) -> None:
    from modelstore.pages import scalar_rows, value_rows

    found = registry.reports.series(record.id)
    if not found:
        return
    _print_part("values", value_rows(found))
    rows = scalar_rows(registry, found[:_MOST_SERIES])
    if rows:
        print_lines(["", "scalars"])
        numbers = [Column(title, right=True, rank=rank) for title, rank in (("LAST", 0), ("LEAST", 2), ("GREATEST", 2))]
        print_table([Column("  SERIES", least=14), Column("", rank=1), *numbers], rows)
    if len(found) > _MOST_SERIES:
        print_lines([f"  and {len(found) - _MOST_SERIES} more series"])


def _print_plots(registry: Registry, record: ModelRecord) -> None:
    """Say which plots, pictures and files there are, each variant once."""
    variants: dict[str, list[PlotRecord]] = {}
    for plot in registry.reports.plots(record.id):
        variants.setdefault(" / ".join(filter(None, (plot.title, plot.series))), []).append(plot)
    _print_part("plots", [(name, _described(found)) for name, found in list(variants.items())[:_MOST_PLOTS]])
    if len(variants) > _MOST_PLOTS:
        print_lines([f"  and {len(variants) - _MOST_PLOTS} more"])


def _described(found: list[PlotRecord]) -> str:
    kinds = sorted({{"plotly": "plot", "media": "file"}.get(plot.kind, plot.kind) for plot in found})
    first, last = min(plot.iteration for plot in found), max(plot.iteration for plot in found)
    when_reported = f"iteration {last}" if first == last else f"iterations {first} to {last}"
    return f"{', '.join(kinds)}  {when_reported}{f'  ({len(found)})' if len(found) > 1 else ''}"


def _facts(record: ModelRecord, uri: str | None) -> Iterator[tuple[str, str]]:
    yield "state", state_of(record)
    yield "project", record.project or ""
    yield "framework", record.framework or ""
    yield "tags", ", ".join(record.tags)
    yield "weights", (uri or "none yet") + ("  (package)" if record.package else "")
    yield "size", "" if record.size is None else _exact_size(record.size)
    yield "digest", record.digest or ""
    yield "iteration", "" if record.iteration is None else str(record.iteration)
    yield "created", _moment(record.created_at)
    yield "updated", _moment(record.updated_at)
    comment = (record.comment or "").split("\n")
    yield "comment", comment[0]
    for line in comment[1:]:
        yield " ", line


def _exact_size(count: int) -> str:
    return size(count) if count < 1024 else f"{size(count)}  ({count:,} bytes)"


def _moment(moment: datetime) -> str:
    return f"{when(moment)}  ({ago(moment)})"


def _waiting(pending: list[UploadRecord]) -> Iterator[tuple[str, str]]:
    from modelstore.storage.uris import redact

    for one in pending:
        yield "upload", f"{one.id} to {redact(one.destination)} is {one.status}{f': {one.error}' if one.error else ''}"


def _lineage(record: ModelRecord, around: Lineage) -> Iterator[tuple[str, str]]:
    if record.task is not None:
        yield "made by task", _named(record.task, None if around.task is None else around.task.name)
    if record.parent is not None:
        yield "made from model", _named(record.parent, None if around.parent is None else around.parent.name)
    for child in around.children:
        yield "led to model", _named(child.id, child.name)
    for consumer in around.consumers:
        yield "used by task", _named(consumer.id, consumer.name)


def _named(identity: str, name: str | None) -> str:
    return f"{identity}  {plain(name or '(not in this registry)')}"


def _print_facts(facts: list[tuple[str, str]]) -> None:
    for key, value in facts:
        if value:
            print_lines([f"  {styled(f'{key:<10}', 'dim')} {plain(value)}"])


def _print_part(title: str, entries: list[tuple[str, str]]) -> None:
    if not entries:
        return
    width = max(cells_width(plain(key)) for key, _ in entries)
    print_lines(["", title])
    for key, value in entries:
        padding = " " * (width - cells_width(plain(key)))
        print_lines([f"  {styled(plain(key), 'dim')}{padding}  {value}"])


def _print_text(title: str, record: ModelRecord) -> None:
    from modelstore.registry.models import dump_config

    text = dump_config(record.config)
    if text:
        print_lines(["", title, *(f"  {plain(line)}" for line in text.split("\n"))])


@click.command(short_help="Get a local copy of a model's weights.")
@click.argument("model", type=MODEL)
@click.option("--to", "target", metavar="PATH", help="Copy them there: a new name, or a folder that exists.")
@click.option("--overwrite", is_flag=True, help="With --to: replace what is there.")
@click.option("--force", is_flag=True, help="Fetch remote weights again, although a copy is there.")
@click.option("--verify", is_flag=True, help="Read every byte and compare it with the digest.")
@click.option(
    "--extract/--no-extract", default=None, help="Unpack an archive, or leave it packed.  [default: unpack packages]"
)
@as_of_option
@json_option
@registry_option
@click.pass_context
def get(
    context: click.Context,
    model: str,
    *,
    target: str | None,
    overwrite: bool,
    force: bool,
    verify: bool,
    extract: bool | None,
    as_json: bool,
) -> None:
    r"""Make sure that a local copy of a model's weights is here, and print its path.

    The copy is complete, verified and read-only. Weights that the registry holds are not copied: the path is where
    they lie. With --to a copy of your own is made, which may be changed, and its path is printed.

    \b
    Examples:
      modelstore get digits
      modelstore get 3fa0c1 --to models/
      python predict.py --weights "$(modelstore get digits)"
    """
    from modelstore.registry.lookup import find_model

    registry = session_of(context).open(context)
    record = find_model(registry, model)
    path = registry.weights.local_copy(record, extract=extract, force=force, verify=verify)
    if target is not None:
        from modelstore.registry.export import copy_to

        path = copy_to(path, target, name=_folder_name(record), overwrite=overwrite)
    if record.digest is None and verify:
        note("no digest is recorded for these weights; there is nothing to compare them with")
    if as_json:
        print_json({"id": record.id, "path": str(path), "digest": record.digest})
    else:
        print_path(path)


def _folder_name(record: ModelRecord) -> str | None:
    """Return the name of an unpacked package: that of its archive, without the ending."""
    from modelstore.storage.uris import basename

    return (basename(record.uri).removesuffix(".zip") or None) if record.uri else None

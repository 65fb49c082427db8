"""Commands that look for models: `ls`, `explain`, `sql`, `projects`, `tasks`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import click

from modelstore.cli import records
from modelstore.cli.output import ago, note, print_json, print_json_list, print_lines, size, when
from modelstore.cli.params import pairs, tag_tokens
from modelstore.cli.session import as_of_option, json_option, registry_option, session_of
from modelstore.cli.tables import Column, print_table, terminal_width

if TYPE_CHECKING:
    from datetime import datetime

    from modelstore.records.entities import ModelRecord
    from modelstore.registry.search import ModelSearch

__all__ = ["explain", "ls", "projects", "sql", "tasks"]

SHORT_ID: Final = 12
_DIALECTS: Final = click.Choice(["page", "clearml-server"])

_MODELS: Final = (
    Column("ID"),
    Column("NAME", least=12),
    Column("PROJECT", least=8, rank=2),
    Column("FRAMEWORK", least=7, rank=5),
    Column("TAGS", least=10, rank=1),
    Column("SIZE", right=True, rank=3),
    Column("STATE", rank=4),
    Column("UPDATED", rank=2),
)


def short_id(model_id: str) -> str:
    """Return as much of an id as a terminal gets, and all of it where a program may be reading."""
    return model_id if terminal_width() is None else model_id[:SHORT_ID]


def shown_time(moment: datetime) -> str:
    """Return a time: how long ago on a terminal, else exactly."""
    return when(moment) if terminal_width() is None else ago(moment)


def state_of(record: ModelRecord) -> str:
    """Return a model's state in a word or two."""
    words = ["published" if record.published else "draft", *(["archived"] if record.archived else [])]
    return "removed" if record.deleted else ", ".join(words)


def _model_row(record: ModelRecord) -> tuple[str, ...]:
    return (
        short_id(record.id),
        record.name or "",
        record.project or "",
        record.framework or "",
        ", ".join(record.tags),
        size(record.size),
        state_of(record),
        shown_time(record.updated_at),
    )


@click.command(short_help="List models.")
@click.option("--project", metavar="NAME", help="Only of this project (its full name).")
@click.option("--name", metavar="NAME", help="Only with exactly this name.")
@click.option("--name-regex", metavar="REGEX", help="Only with a name in which this regular expression is found.")
@click.option(
    "--tags",
    "tags",
    multiple=True,
    metavar="TOKEN",
    help="Only matching this tag query: one --tags for each tag or operator, or one quoted list."
    " `explain` says how it is read.",
)
@click.option("--where", metavar="CONDITION", help="Only where this holds, such as \"accuracy > 0.9 and tag('prod')\".")
@click.option(
    "--search",
    metavar="WORDS",
    help="Only with these words in name, comment, tags or metadata; beginnings of words will do, and quotes within"
    " hold a phrase together.",
)
@click.option(
    "--metadata",
    multiple=True,
    metavar="KEY=VALUE",
    help="Only with this metadata, compared as text; may be repeated.",
)
@click.option("--task", metavar="ID", help="Only made by this task.")
@click.option("--published", is_flag=True, help="Only published models.")
@click.option("--archived", is_flag=True, help="Archived models too.")
@click.option(
    "--order-by",
    multiple=True,
    metavar="FIELD",
    help="Sort by a field, `metadata.KEY` or `metrics.TITLE.SERIES`; - in front for descending; may be repeated."
    "  [default: -updated]",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N models.  [default: all]")
@click.option("--count", is_flag=True, help="Only say how many there are, whatever the limit.")
@click.option("--dialect", type=_DIALECTS, default="page", show_default=True, help="How the tag query is read.")
@click.option("-q", "--quiet", is_flag=True, help="Only ids, one on each line.")
@as_of_option
@json_option
@registry_option
@click.pass_context
def ls(context: click.Context, /, count: bool, quiet: bool, as_json: bool, **filters: Any) -> None:
    r"""List models, the most recently changed first.

    \b
    Examples:
      modelstore ls --project vision/ocr --published
      modelstore ls --search "yolo small"
      modelstore ls --tags best --tags -broken
      modelstore ls --tags '["__$and", "prod", "eu"]' --limit 10
      modelstore ls --where "accuracy > 0.9 and created >= 2026-03-01" --order-by -metadata.accuracy
      modelstore ls -q --tags old | xargs -r modelstore archive
    """
    registry = session_of(context).open(context)
    search = _search(**filters)
    if count:
        total = search.count(registry)
        print_json({"count": total}) if as_json else print_lines([str(total)])
        return
    found = chain.from_iterable(search.pages(registry))
    if as_json:
        print_json_list(records.model(registry, record) for record in found)
    elif quiet:
        print_lines(record.id for record in found)
    else:
        print_table(_MODELS, map(_model_row, found), none="no models match")


def _search(*, tags: tuple[str, ...], metadata: tuple[str, ...], order_by: tuple[str, ...], **rest: Any) -> ModelSearch:
    from modelstore.registry.search import ModelSearch

    published, archived = rest.pop("published", False), rest.pop("archived", False)
    return ModelSearch(
        tags=_query(tags),
        metadata=pairs(metadata, "--metadata") or None,
        order_by=list(order_by) or None,
        only_published=published,
        include_archived=archived,
        **rest,
    )


def _query(words: tuple[str, ...]) -> list[str] | None:
    tokens = tag_tokens(words)
    if tokens and any(token == "__" for token in tokens):  # noqa: S105 - no password
        note("the tag '__' is what a shell makes of an operator such as __$and; put it into single quotes")
    return tokens


@click.command(context_settings={"ignore_unknown_options": True}, short_help="Show how a tag query is read.")
@click.argument("tags", nargs=-1, type=click.UNPROCESSED)
@click.option("--where", metavar="CONDITION", help="A condition that must hold as well.")
@click.option("--search", metavar="WORDS", help="Words that must be found as well.")
@click.option("--plan", is_flag=True, help="Also how the index of the registry answers it.")
@click.option("--dialect", type=_DIALECTS, default="page", show_default=True, help="How the tag query is read.")
@json_option
@registry_option
@click.pass_context
def explain(context: click.Context, /, tags: tuple[str, ...], plan: bool, as_json: bool, **asked: Any) -> None:
    r"""Show how a tag query, or a condition, is read, as a formula.

    TAGS are tags and operators, as for `ls --tags`. Operators go in single quotes, for the shell's sake.

    \b
    Examples:
      modelstore explain demo -TF
      modelstore explain '__$and' a '__$or' b c
      modelstore explain --where "accuracy > 0.9 or not tag('old')" --plan
    """
    search = _search(tags=tags, metadata=(), order_by=(), **asked)
    formula = search.formula()
    found = search.plan(session_of(context).open(context)) if plan else None
    if as_json:
        how = {"plan": None, "sql": None} if found is None else {"plan": list(found.steps), "sql": found.sql}
        print_json({"formula": formula, **how})
        return
    print_lines([formula])
    if found is not None:
        print_lines(["", "plan", *(f"  {step}" for step in found.steps), "", "statement", f"  {found.sql}"])


@click.command(short_help="Query the index with SQL; read-only.")
@click.argument("statement")
@json_option
@registry_option
@click.pass_context
def sql(context: click.Context, statement: str, as_json: bool) -> None:
    r"""Run an SQL query on the index; nothing can be changed by it.

    STATEMENT is one SELECT, or - to read it from standard input. The views v_models, v_tags, v_metadata, v_lineage,
    v_metrics, v_scalars, v_plots, v_tasks and v_history keep their names and columns; the tables behind them may
    change.

    \b
    Examples:
      modelstore sql "select framework, count(*), sum(size) from v_models group by framework"
      modelstore sql "select m.name, d.number from v_models m join v_metadata d on d.model = m.id where d.key = 'acc'"
    """
    text = sys.stdin.read() if statement == "-" else statement
    with session_of(context).open(context).select(text) as rows:
        if as_json:
            print_json_list(records.row(rows.columns, row) for row in rows)
        else:
            print_table([Column(name, least=8) for name in rows.columns], (tuple(map(_cell, row)) for row in rows))


def _cell(value: Any) -> str:
    if value is None:
        return "NULL"
    return f"x'{value.hex()}'" if isinstance(value, bytes) else str(value)


@click.command(short_help="List projects.")
@as_of_option
@json_option
@registry_option
@click.pass_context
def projects(context: click.Context, as_json: bool) -> None:
    """List projects, with how many models and tasks they have."""
    found = session_of(context).open(context).tasks.projects()
    if as_json:
        print_json_list(map(records.project, found))
        return
    columns = (
        Column("NAME", least=16),
        Column("MODELS", right=True),
        Column("TASKS", right=True),
        Column("DESCRIPTION", least=10, rank=1),
    )
    print_table(
        columns, ((p.name, f"{p.models:,}", f"{p.tasks:,}", p.description or "") for p in found), none="no projects"
    )


@click.command(short_help="List tasks.")
@click.option("--project", metavar="NAME", help="Only of this project (its full name).")
@click.option("--name", metavar="NAME", help="Only with exactly this name.")
@click.option("--name-regex", metavar="REGEX", help="Only with a name in which this regular expression is found.")
@click.option("--status", multiple=True, metavar="STATUS", help="Only in this status; may be repeated.")
@click.option("--tags", multiple=True, metavar="TOKEN", help="Only matching this tag query, as for `ls`.")
@click.option("--where", metavar="CONDITION", help="Only where this holds, such as \"meta('General/lr') < 0.01\".")
@click.option("--search", metavar="WORDS", help="Only with these words in name, comment or tags.")
@click.option(
    "--order-by",
    multiple=True,
    metavar="FIELD",
    help="Sort by a field; - in front for descending; may be repeated.  [default: -updated]",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N tasks.  [default: all]")
@click.option("--archived", is_flag=True, help="Archived tasks too.")
@as_of_option
@json_option
@registry_option
@click.pass_context
def tasks(context: click.Context, /, project: str | None, as_json: bool, **filters: Any) -> None:
    """List tasks, the most recently changed first."""
    registry = session_of(context).open(context)
    if project is not None:
        registry.tasks.project(project)  # an unknown one is an error, not an empty list
    found = registry.tasks.find(
        projects=None if project is None else [project],
        statuses=filters.pop("status") or None,
        tags=_query(filters.pop("tags")),
        **filters,
    )
    if as_json:
        print_json_list(map(records.task, found))
        return
    columns = (
        Column("ID"),
        Column("NAME", least=12),
        Column("PROJECT", least=8, rank=2),
        Column("TYPE", least=8, rank=3),
        Column("STATUS"),
        Column("UPDATED", rank=1),
    )
    print_table(columns, _task_rows(found), none="no tasks match")


def _task_rows(found: list[Any]) -> Iterator[tuple[str, ...]]:
    from modelstore.ids import clock_to_datetime

    for one in found:
        updated = shown_time(clock_to_datetime(one.updated))
        yield (short_id(one.id), one.name or "", one.project or "", one.type or "", one.status or "", updated)

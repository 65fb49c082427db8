"""Orders other than newest first: everything is found and sorted, or, with a limit, only what can be on the page.

An index on the values of the leading term is walked from the page's end, and each model is tested, until the page is
full. The value reached is the *cut*: every model of the page has it or one before it, so that only those are sorted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from modelstore.errors import InvalidRequestError
from modelstore.index.compile import COLUMNS, joined
from modelstore.index.statements import Branch, Statements
from modelstore.query.fields import FIELDS
from modelstore.query.order import Order
from modelstore.query.tree import AllOf, FieldTarget, MetaTarget, MetricTarget, Node

if TYPE_CHECKING:
    from modelstore.index.sources import Source, Sources

__all__ = ["bounded", "ordered"]

BUDGET: Final = 10_000
"""Models that are tested for the cut: some 20 ms, 50 where each is read from the disk."""


@dataclass(frozen=True, slots=True)
class _Ruler:
    """An index that has models in the order of a value.

    Attributes:
        tables: The FROM clause.
        where: What limits it; no value is NULL then.
        value: Expression of the value.
        model: Expression of the model's key.
        absent: Number of terms, before the value's own, that rank the absent.
        stamps: Whether the values are stamps, of which the order compares the clock reading only.
    """

    tables: str
    where: str
    value: str
    model: str
    absent: int = 1
    stamps: bool = False

    def least(self, value: Any) -> Any:
        """Return the least of the values that the order takes for the same."""
        return _clock_hex(value) if self.stamps else value

    def greatest(self, value: Any) -> Any:
        """Return the greatest of the values that the order takes for the same, or what is just above it."""
        return f"{_clock_hex(value)}g" if self.stamps else value


def ordered(statements: Statements, branch: Branch) -> str:
    """Return the statement of a branch's models in the order of the query."""
    query, bind = statements.query, statements.bind
    terms: list[tuple[str, bool]] = []
    joins = ""
    for number, order in enumerate(query.order_by):
        join, more = _terms(statements, order, f"o{number}")
        joins += join
        terms += more
    terms.append(("m.id", False))
    tables, where = statements.tested(branch.source, branch.rest, row=True)
    columns = [f"{expression} AS a{n}" for n, (expression, _) in enumerate(terms)]
    sql = f"SELECT m.key AS model, {', '.join(columns)} FROM {tables}{joins}"
    sql += f" WHERE {where} AND {statements.in_states(branch.source)}"
    ways = [descending for _, descending in terms]
    by = ", ".join([*(f"a{n} DESC" if down else f"a{n}" for n, down in enumerate(ways)), "model DESC"])
    if query.after is not None:
        sql = f"SELECT * FROM ({sql}) WHERE {_behind(statements, [*ways, True])}"
    until = "" if query.limit is None else f" LIMIT {bind(query.limit)}"
    return f"{sql} ORDER BY {by}{until}"


def bounded(statements: Statements, sources: Sources, node: Node) -> Source | None:
    """Return the models that can be on the page; None when that cannot be told with little effort."""
    order, limit, after = statements.query.order_by[0], statements.query.limit, statements.query.after
    ruler = _ruler(statements, order)
    if ruler is None or limit is None:
        return None
    conjuncts = node.children if isinstance(node, AllOf) else (node,)
    rows = min((source.rows for c in conjuncts if (source := sources.exact(c)) is not None), default=None)
    if rows is not None and rows * BUDGET < limit * statements.facts.size():
        return None  # too rare for the page to be full by then
    begun, reached = [ruler.where], [ruler.where]
    if after is not None:
        if not isinstance(after, tuple) or len(after) <= ruler.absent + 1 or any(after[: ruler.absent]):
            return None  # all that have a value were read
        place = after[ruler.absent]
        begun.append(_bound(statements, ruler, "<" if order.descending else ">", place))
        reached.append(_bound(statements, ruler, "<=" if order.descending else ">=", place))
    way = "DESC" if order.descending else "ASC"
    walk = f"SELECT {ruler.value} AS v, {ruler.model} AS model FROM {ruler.tables} WHERE {' AND '.join(begun)}"
    walk += f" ORDER BY {ruler.value} {way} LIMIT {BUDGET}"
    every = sources.chosen("", f"SELECT k.v, k.model FROM ({walk}) AS k", 0, None)
    tables, where = statements.tested(every, node, row=True)
    page = f"SELECT k.v AS v FROM {tables} WHERE {where} AND {statements.in_states(every)} LIMIT {limit}"
    last = "min" if order.descending else "max"
    cut = statements.value(f"SELECT CASE count(*) WHEN {limit} THEN {last}(v) END FROM ({page})")
    if cut is None:
        return None
    reached.append(_bound(statements, ruler, ">=" if order.descending else "<=", cut))
    select = f"SELECT {ruler.model} AS model FROM {ruler.tables} WHERE {' AND '.join(reached)}"
    return sources.chosen(f"models up to number {limit:,} in this order", select, limit, None)


def _bound(statements: Statements, ruler: _Ruler, op: str, value: Any) -> str:
    """Return a comparison of a ruler's value that takes together what the order takes for the same."""
    edge = ruler.least(value) if op in ("<", ">=") else ruler.greatest(value)
    return f"{ruler.value} {op} {statements.bind(edge)}"


def _ruler(statements: Statements, order: Order) -> _Ruler | None:
    bind = statements.bind
    match order.target:
        case MetaTarget(key):
            # Numbers come first in either direction.
            where = f"d.key = {bind(key)} AND d.number IS NOT NULL"
            return _Ruler("metadata AS d INDEXED BY metadata_number", where, "d.number", "d.model")
        case MetricTarget(title, series, stat):
            where = f"s.title = {bind(title)} AND s.series = {bind(series)} AND s.{stat} IS NOT NULL"
            return _Ruler(f"metrics AS s INDEXED BY metrics_{stat}", where, f"s.{stat}", "s.model")
        case FieldTarget("name"):
            return _Ruler("models AS r INDEXED BY models_name", "r.name IS NOT NULL", "r.name", "r.key")
        case FieldTarget("id"):
            return _Ruler("models AS r", "1", "r.id", "r.key")
        case FieldTarget("updated") if len(statements.states) == 1:
            where = f"r.state = {statements.states[0]}"
            return _Ruler("models AS r INDEXED BY models_recent", where, "r.updated", "r.key", absent=0)
        case FieldTarget("created"):
            # No index on models has this order, but the journal has.
            made = "(SELECT r.key FROM models AS r WHERE r.id = c.entity AND r.created_op = c.seq)"
            return _Ruler("ops AS c", "1", "c.stamp", made, absent=0, stamps=True)
    return None


def _behind(statements: Statements, ways: list[bool]) -> str:
    """Return the condition that a row comes after the cursor."""
    values = [statements.bind(value) for value in statements.cursor(len(ways))]
    names = [*(f"a{n}" for n in range(len(ways) - 1)), "model"]
    same: list[str] = []
    cases: list[str] = []
    for name, value, descending in zip(names, values, ways, strict=True):
        cases.append(joined([*same, f"{name} {'<' if descending else '>'} {value}"], "AND"))
        same.append(f"{name} = {value}")
    return joined(cases, "OR")


def _clock_hex(value: str | int) -> str:
    """Return a stamp's or a clock reading's beginning, as stamps are compared."""
    return value[:16] if isinstance(value, str) else f"{value:016x}"


def _terms(statements: Statements, order: Order, alias: str) -> tuple[str, list[tuple[str, bool]]]:
    """Return the join that an order needs, and what to sort by, never NULL: the absent are ranked last."""
    target, down, bind = order.target, order.descending, statements.bind
    match target:
        case FieldTarget("created" | "updated" as name):
            return "", [(f"m.{name}", down)]
        case FieldTarget(name):
            column, neutral = COLUMNS[name], "''" if FIELDS[name] == "text" else "0"
            return "", [(f"({column} IS NULL)", False), (f"coalesce({column}, {neutral})", down)]
        case MetricTarget(title, series, stat):
            on = f"{alias}.title = {bind(title)} AND {alias}.series = {bind(series)}"
            value = f"{alias}.{stat}"
            join = f" LEFT JOIN metrics AS {alias} ON {alias}.model = m.key AND {on}"
            return join, [(f"({value} IS NULL)", False), (f"coalesce({value}, 0.0)", down)]
        case MetaTarget(key):
            join = f" LEFT JOIN metadata AS {alias} ON {alias}.model = m.key AND {alias}.key = {bind(key)}"
            text = f"substr({alias}.json, 1, 1) = '\"'"
            rank = f"CASE WHEN {alias}.number IS NOT NULL THEN 0 WHEN {text} THEN 1 ELSE 2 END"
            return join, [
                (rank, False),
                (f"coalesce({alias}.number, 0.0)", down),
                (f"CASE WHEN {text} THEN {alias}.value ELSE '' END", down),
            ]
    raise InvalidRequestError(f"Results cannot be ordered by {target!r}")

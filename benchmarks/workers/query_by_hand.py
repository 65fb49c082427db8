"""Plain SQL as one would write it, on the very tables and indexes of the registry: the planner is SQLite's own."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from benchmarks import catalogue
from benchmarks.shapes import LIMIT, SHAPES
from benchmarks.workers.protocol import per_call, serve
from modelstore.query import AllOf, AnyOf, HasTag, Node, Not, parse_tags

NEWEST = f"ORDER BY m.updated DESC, m.key DESC LIMIT {LIMIT}"
TAGGED = (
    "EXISTS (SELECT 1 FROM model_tags AS mt JOIN tags AS t ON t.key = mt.tag WHERE mt.model = m.key AND t.name = ?)"
)
SELECTED = {
    "metadata": "EXISTS (SELECT 1 FROM metadata AS d WHERE d.model = m.key AND d.key = ? AND d.number > ?)",
    "metric": "EXISTS (SELECT 1 FROM metrics AS s WHERE s.model = m.key AND title = ? AND series = ? AND last > ?)",
    "text": "EXISTS (SELECT 1 FROM metadata AS d WHERE d.model = m.key AND d.key = ? AND d.value = ?)",
}


class State:
    db: sqlite3.Connection
    total: int
    turn = 0


def start(total: int, folder: str) -> None:
    State.db = sqlite3.connect(f"file:{folder}/registry.db?mode=ro", uri=True)
    State.total = total


def _condition(node: Node | None, values: list[str]) -> str:
    match node:
        case HasTag(name):
            values.append(name)
            return TAGGED
        case Not(child):
            return f"NOT {_condition(child, values)}"
        case AllOf(children) | AnyOf(children):
            word = " AND " if isinstance(node, AllOf) else " OR "
            return f"({word.join(_condition(child, values) for child in children)})" if children else "1"
    return "1"


def _query(shape: str) -> tuple[str, list[str]]:
    asked, values = SHAPES[shape], list[str]()
    where = _condition(parse_tags(asked.tags), values)
    if "project_name" in asked.options:
        where += " AND m.project = (SELECT key FROM projects WHERE name = ?)"
        values.append(asked.options["project_name"])
    return f"FROM models AS m WHERE m.state = 0 AND {where}", values


def newest(shape: str) -> float:
    sql, values = _query(shape)
    return per_call(lambda: State.db.execute(f"SELECT m.* {sql} {NEWEST}", values).fetchall())


def answer(shape: str) -> list[str]:
    sql, values = _query(shape)
    return [row[0] for row in State.db.execute(f"SELECT m.id {sql} {NEWEST}", values)]


def count(shape: str) -> float:
    return per_call(lambda: counted(shape))


def counted(shape: str) -> int:
    sql, values = _query(shape)
    found: int = State.db.execute(f"SELECT count(*) {sql}", values).fetchone()[0]
    return found


def selected(condition: str, values: list[Any]) -> float:
    return per_call(lambda: _selected(condition, values))


def _selected(condition: str, values: list[Any]) -> list[Any]:
    sql = f"SELECT m.* FROM models AS m WHERE m.state = 0 AND {SELECTED[condition]} {NEWEST}"
    return State.db.execute(sql, values).fetchall()


def chosen(condition: str, values: list[Any]) -> list[str]:
    return [row[1] for row in _selected(condition, values)]


def ordered(by: str) -> float:
    """Sort everything by an expression."""
    sql = f"SELECT m.* FROM models AS m WHERE m.state = 0 ORDER BY {by}, m.key DESC LIMIT {LIMIT}"
    return per_call(lambda: State.db.execute(sql).fetchall())


def get() -> float:
    return per_call(_getter("id", catalogue.model_id))


def get_by_url() -> float:
    return per_call(_getter("uri", catalogue.uri))


def _getter(column: str, value: Callable[[int], str]) -> Callable[[], Any]:
    def look_up() -> Any:
        State.turn += 1
        key = value(State.turn * 7919 % State.total)
        row = State.db.execute(f"SELECT * FROM models WHERE {column} = ?", (key,)).fetchone()
        metadata = State.db.execute("SELECT key, value FROM metadata WHERE model = ?", (row[0],)).fetchall()
        return row, metadata

    return look_up


if __name__ == "__main__":
    jobs = (start, newest, answer, count, counted, selected, chosen, ordered, get, get_by_url)
    serve({job.__name__: job for job in jobs})

"""What two registries compare when they meet: up to which stamp the operations of each writer are all here.

A writer's stamps only grow, so one stamp a writer says what a registry has: *every* operation of his up to it. An
operation that came by itself (in a bundle, say) moves no head: nobody knows what is missing before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from modelstore.index.driver import sqlite3
from modelstore.records.operations import Operation

__all__ = ["follow", "note_arrivals", "raise_heads", "raise_own", "read_heads", "read_strays"]

_GAP = "gap:"
_GAPS = "key >= 'gap:' AND key < 'gap;'"
_RAISE = "INSERT INTO heads VALUES (?,?) ON CONFLICT (writer) DO UPDATE SET stamp = max(stamp, excluded.stamp)"


def read_heads(connection: sqlite3.Connection) -> dict[str, str]:
    """Return the head of each writer of whom something is wholly known."""
    return dict(connection.execute("SELECT writer, stamp FROM heads").fetchall())


def _heads_of(connection: sqlite3.Connection, writers: Iterable[str]) -> dict[str, str]:
    # Thousands of short-lived writers are nothing to read through for every change of one of them.
    rows = connection.execute(
        "SELECT h.writer, h.stamp FROM json_each(?) AS w CROSS JOIN heads AS h ON h.writer = w.value",
        (json.dumps(sorted(writers)),),
    )
    return dict(rows.fetchall())


def raise_heads(connection: sqlite3.Connection, heads: Mapping[str, str]) -> None:
    """Note that all operations up to these stamps are here; part of the transaction that brought them."""
    connection.executemany(_RAISE, list(heads.items()))


def read_strays(connection: sqlite3.Connection) -> list[str]:
    """Return the stamps of operations beyond the head of their writer, ascending."""
    return [row[0] for row in connection.execute("SELECT stamp FROM strays ORDER BY stamp")]


def note_arrivals(connection: sqlite3.Connection, stamps: Iterable[str], heads: Mapping[str, str]) -> None:
    """Note what came from elsewhere; part of the transaction that brought it.

    Args:
        connection: Inside a write transaction.
        stamps: Of the operations that were new.
        heads: Up to where the operations of these writers are all here now.
    """
    if heads:
        raise_heads(connection, heads)
        connection.execute(
            "DELETE FROM strays WHERE stamp <= (SELECT h.stamp FROM heads AS h WHERE h.writer = substr(strays.stamp,"
            " 17))"
        )
    arrived = list(stamps)
    known = _heads_of(connection, {stamp[16:] for stamp in arrived})
    connection.executemany(
        "INSERT OR IGNORE INTO strays VALUES (?)", [(s,) for s in arrived if s > known.get(s[16:], "")]
    )


def follow(connection: sqlite3.Connection, runs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return up to where all of some writers is here, now that something of theirs arrives; part of a transaction.

    What follows on something that has not arrived yet is noted, and counts when that has.

    Args:
        connection: Inside a write transaction.
        runs: Operations of one writer between which he has made none: the stamp of the one before them ("" for none),
            and that of the last.
    """
    waiting = connection.execute(f"SELECT value, substr(key, {len(_GAP) + 1}) FROM registry_info WHERE {_GAPS}")
    pairs = sorted({*map(tuple, waiting.fetchall()), *runs}, key=lambda run: run[1])
    known = _heads_of(connection, {last[16:] for _, last in pairs})
    heads: dict[str, str] = {}
    gaps = []
    for before, last in pairs:
        writer = last[16:]
        if before <= max(known.get(writer, ""), heads.get(writer, "")):
            heads[writer] = max(last, heads.get(writer, ""))
        else:
            gaps.append((_GAP + last, before))
    connection.execute(f"DELETE FROM registry_info WHERE {_GAPS}")
    connection.executemany("INSERT INTO registry_info VALUES (?,?)", gaps)
    return heads


def raise_own(connection: sqlite3.Connection, operations: Sequence[Operation]) -> None:
    """Note that this registry's own writer has gone on; part of the transaction that wrote the operations."""
    if operations:
        stamp = operations[-1].stamp
        connection.execute(_RAISE, (stamp[16:], stamp))

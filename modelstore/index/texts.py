"""Full-text search: the words of every model, in an index that follows the journal (decision note 009).

Writing a model costs it nothing. `search_state.taken` says up to which operation of the journal `search_words` is; the
models that later operations are about are *pending*, and searched by their rows. Who searches brings the index up to
date, when enough has come together and nobody else is writing.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Final

from modelstore.errors import StorageFullError
from modelstore.index.schema import SEARCH_TABLE
from modelstore.query.words import Phrase, document, mentions, phrases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from modelstore.index.compile import Binder
    from modelstore.index.database import Database
    from modelstore.index.driver import sqlite3

__all__ = ["behind", "catch_up", "check", "forget", "mentioned", "mentioned_in", "mentioning", "take_in", "words_of"]

logger = logging.getLogger("modelstore")

LAG: Final = 200
"""Operations that may be pending: reading their models takes some 4 ms, as long as writing them into the index."""

BATCH: Final = 20_000
"""Operations of one transaction, which holds the write lock for half a second."""

_MANY: Final = 100_000


def _texts(row: str) -> str:
    """Return what is searched of a row of `models`, as `words_of` and `mentioned` take it."""
    metadata = (
        f"SELECT group_concat(d.key || char(31) || d.value, char(31)) FROM metadata AS d WHERE d.model = {row}.key"
    )
    return f"{row}.name, {row}.comment, {row}.tags, ({metadata})"


_PENDING: Final = (
    "SELECT e.key FROM ops AS o CROSS JOIN models AS e ON e.id = o.entity"
    " WHERE o.seq > (SELECT taken FROM search_state) AND o.entity_kind = 'model' AND o.action <> 'report'"
)


def _fields(name: str | None, comment: str | None, tags: str, metadata: str | None) -> Iterator[str]:
    yield name or ""
    yield comment or ""
    yield from json.loads(tags)
    yield metadata or ""


def words_of(name: str | None, comment: str | None, tags: str, metadata: str | None) -> str:
    """Return the words of a model as `search_words` holds them; connections register it as an SQL function.

    Args:
        name: Column of `models`, as are ``comment`` and ``tags``.
        comment: See ``name``.
        tags: See ``name``.
        metadata: Keys and values with `modelstore.query.words.BREAK` between them.
    """
    return " ".join(document(_fields(name, comment, tags, metadata)))


def mentioned(text: str, name: str | None, comment: str | None, tags: str, metadata: str | None) -> bool:
    """Tell whether a search finds a model; connections register it as an SQL function. See `words_of`."""
    return mentions(text, _fields(name, comment, tags, metadata))


def mentioned_in(row: str, text: str, bind: Binder) -> str:
    """Return the condition that a search finds what it asks for in a row of `models`."""
    return f"mentioned({bind(text)}, {_texts(row)})"


def mentioning(text: str, bind: Binder) -> str:
    """Return the statement of the keys, as ``model``, of all models in which a search finds what it asks for."""
    return (
        f"SELECT f.rowid AS model FROM search_words AS f WHERE f.words MATCH {bind(_expression(phrases(text)))}"
        f" AND f.rowid NOT IN ({_PENDING})"
        f" UNION ALL SELECT p.key FROM models AS p WHERE p.key IN ({_PENDING}) AND {mentioned_in('p', text, bind)}"
    )


def _expression(asked: tuple[Phrase, ...]) -> str:
    # Words have no quotes in them, and within quotes nothing means anything to FTS5.
    return " AND ".join(f'"{" ".join(phrase.words)}"{"" if phrase.whole else " *"}' for phrase in asked)


def behind(connection: sqlite3.Connection) -> int:
    """Return how many operations the index has not seen."""
    row = connection.execute("SELECT (SELECT coalesce(max(seq), 0) FROM ops) - taken FROM search_state").fetchone()
    return int(row[0])


def take_in(connection: sqlite3.Connection) -> None:
    """Bring the index further by at most `BATCH` operations; part of the caller's transaction."""
    (last,) = connection.execute(
        "SELECT max(seq) FROM (SELECT seq FROM ops WHERE seq > (SELECT taken FROM search_state) ORDER BY seq LIMIT ?)",
        (BATCH,),
    ).fetchone()
    if last is None:
        return
    connection.execute(
        f"INSERT OR REPLACE INTO search_words (rowid, words) SELECT p.key, words_of({_texts('p')}) FROM models AS p"
        f" WHERE p.key IN ({_PENDING} AND o.seq <= ?)",
        (last,),
    )
    connection.execute("UPDATE search_state SET taken = ?", (last,))


def catch_up(database: Database) -> None:
    """Bring the index up to date, if it is far behind and can be written now; a search is right either way."""
    missing = behind(database.connection)
    if missing > _MANY:
        logger.info("taking %d operations into the full-text index, which takes a while this once", missing)
    while missing > LAG:
        try:
            with database.write_if_free() as connection:
                if connection is None:
                    return
                take_in(connection)
        except StorageFullError as error:
            logger.warning("The full-text index was not brought up to date, so searching is slow: %s", error)
            return
        missing = behind(database.connection)


def forget(connection: sqlite3.Connection) -> None:
    """Empty the index; part of the caller's transaction. Dropping is at once, deleting would go word by word."""
    connection.execute("DROP TABLE search_words")
    connection.execute(SEARCH_TABLE)
    connection.execute("UPDATE search_state SET taken = 0")


def check(connection: sqlite3.Connection) -> list[sqlite3.Row]:
    """Return rows with the keys of models that the index has other words of than their rows, with nothing pending."""
    return connection.execute(
        "SELECT p.key FROM models AS p LEFT JOIN search_words AS f ON f.rowid = p.key WHERE p.created_op IS NOT NULL"
        f" AND p.key NOT IN ({_PENDING}) AND f.words IS NOT words_of({_texts('p')}) LIMIT 10"
    ).fetchall()

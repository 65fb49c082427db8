"""Copies of an index for others: what belongs to one host is taken out."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from modelstore.index.driver import connect

if TYPE_CHECKING:
    from modelstore.index.database import Database

__all__ = ["forget_host", "last_stamp", "user_version"]

_OF_ONE_HOST = ("writers", "uploads", "verified", "remotes")


def forget_host(path: Path, *, positions: bool = True) -> None:
    """Take out of a copied index what belongs to the host that it was copied from.

    Args:
        path: The file, which nobody else has open.
        positions: Keep how far the streams were taken in.
    """
    with closing(connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        for table in (*_OF_ONE_HOST, *(() if positions else ("streams",))):
            connection.execute(f"DELETE FROM {table}")
        connection.execute("DELETE FROM registry_info WHERE key LIKE 'synced:%'")
        connection.execute("PRAGMA journal_mode = WAL")


def last_stamp(source: Path | Database) -> str | None:
    """Return the greatest stamp of an index, open or a file; None when it has no operations."""
    if isinstance(source, Path):
        with closing(connect(source, isolation_level=None)) as connection:
            row = connection.execute("SELECT max(stamp) FROM ops").fetchone()
    else:
        row = source.one("SELECT max(stamp) FROM ops")
    return None if row is None else row[0]


def user_version(path: Path) -> int:
    """Return the schema version of an index."""
    with closing(connect(path, isolation_level=None)) as connection:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        return version

"""Copies of an index for others: what belongs to one host is taken out."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from modelstore.index.driver import connect
from modelstore.index.ops import last_stamp

__all__ = ["forget_host", "stamp_of_copy", "user_version"]

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
        if not positions:
            connection.execute("DELETE FROM registry_info WHERE key LIKE 'gap:%'")  # of streams that are no more
        connection.execute("PRAGMA journal_mode = WAL")


def stamp_of_copy(path: Path) -> str | None:
    """Return the greatest stamp of a copied index; None when it has no operations."""
    with closing(connect(path, isolation_level=None)) as connection:
        return last_stamp(connection)


def user_version(path: Path) -> int:
    """Return the schema version of an index."""
    with closing(connect(path, isolation_level=None)) as connection:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        return version

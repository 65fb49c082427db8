"""The one place that decides which SQLite is used.

`pysqlite3`, when installed, brings a newer SQLite than Python's own; sqlite-utils prefers it too, and its exception
classes are not those of the standard module. So nothing else imports `sqlite3`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
else:
    try:
        from pysqlite3 import dbapi2 as sqlite3
    except ImportError:
        import sqlite3

__all__ = ["MINIMUM_VERSION", "sqlite3"]

MINIMUM_VERSION = (3, 37, 0)
"""STRICT tables came with this version of SQLite."""

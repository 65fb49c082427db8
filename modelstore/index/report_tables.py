"""The tables of reports, which came with format 3; see `modelstore.index.schema` for the conventions."""

from __future__ import annotations

from typing import Final

__all__ = ["REPORT_TABLES"]

REPORT_TABLES: Final = (
    # One row a scalar series of a model or task, and what is known of all its points together.
    """
    CREATE TABLE scalar_series (
        key INTEGER PRIMARY KEY,
        entity TEXT NOT NULL,            -- id of the model or task
        title TEXT NOT NULL,
        series TEXT NOT NULL,
        points INTEGER NOT NULL,
        finite INTEGER NOT NULL,         -- points that are neither NaN nor infinite
        last REAL,                       -- of the greatest iteration; of several points there, the one reported last
        last_iteration INTEGER NOT NULL,
        last_stamp TEXT NOT NULL,        -- of the operation that brought it
        min REAL,                        -- NaN apart
        max REAL,
        mean REAL,
        total TEXT NOT NULL,             -- JSON: exact sum of the finite values (modelstore.records.points.exact_sum)
        UNIQUE (entity, title, series)
    ) STRICT
    """,
    # The points that one operation brought to one series: columns of eight bytes a number, little-endian.
    """
    CREATE TABLE scalar_blocks (
        key INTEGER PRIMARY KEY,
        series INTEGER NOT NULL,
        op INTEGER NOT NULL,
        iterations BLOB NOT NULL,
        times BLOB NOT NULL,             -- milliseconds since 1970
        numbers BLOB NOT NULL
    ) STRICT
    """,
    "CREATE UNIQUE INDEX scalar_blocks_series ON scalar_blocks (series, op)",
    # Plots and other files that were reported. Small figures stay in the operation, bytes are objects (by digest).
    """
    CREATE TABLE plots (
        key INTEGER PRIMARY KEY,
        entity TEXT NOT NULL,
        op INTEGER NOT NULL UNIQUE,
        kind TEXT NOT NULL,              -- plotly, image, media
        title TEXT NOT NULL,
        series TEXT NOT NULL,
        iteration INTEGER NOT NULL,
        time INTEGER NOT NULL,
        digest TEXT,
        size INTEGER,
        name TEXT,
        url TEXT
    ) STRICT
    """,
    "CREATE INDEX plots_entity ON plots (entity, title, series, iteration)",
    "CREATE INDEX plots_digest ON plots (digest) WHERE digest IS NOT NULL",
    "ALTER TABLE metrics ADD COLUMN mean REAL",
    "ALTER TABLE metrics ADD COLUMN points INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX metrics_mean ON metrics (title, series, mean, model)",
)

"""The tables of the index, and how a file of any earlier version becomes one of this version.

The database holds two things: the journal of this registry (`ops`, append-only) and everything else, which is the
fold of it. `writers`, `uploads`, `verified`, `streams`, `heads`, `strays` and `remotes` belong to this machine alone
and are no part of the fold.

Conventions: `key` is a small integer of this file only, `id` the 32 hex digits that are the same everywhere; `op` and
`*_op` columns hold `ops.seq`, the operation whose value stands there; values that may be anything are JSON.

Times named `created` and `updated` on folded rows are *clock readings*: milliseconds since 1970 shifted left by 16
bits, plus the counter of the hybrid clock (`modelstore.ids.clock_of`). So within one registry no two changes ever tie,
and "newest first" is exact inside a millisecond too. `started`, `completed` and the times of machine-local tables are
plain milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from modelstore.index.report_tables import REPORT_TABLES

if TYPE_CHECKING:
    from sqlite_utils import Migrations

__all__ = ["APPLICATION_ID", "FOLDED_TABLES", "SCHEMA_VERSION", "SEARCH_TABLE", "TRIGGERS", "VIEWS", "migrations"]

APPLICATION_ID: Final = 0x6D647374
"""Written into the SQLite header ("mdst"), so that `file` and we can tell whose database it is."""

SCHEMA_VERSION: Final = 4
"""`PRAGMA user_version` of a database with every migration below applied."""

# States of a model or task row.
VISIBLE: Final = 0
ARCHIVED: Final = 1
DELETED: Final = 2
INCOMPLETE: Final = 3
"""Operations on it have arrived, the one that creates it has not."""

_V1: Final = (
    """
    CREATE TABLE registry_info (
        key TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE writers (
        id TEXT PRIMARY KEY,             -- 16 hex digits
        fingerprint TEXT NOT NULL,       -- of the file it writes: a copied registry gets a writer of its own
        host TEXT NOT NULL,
        created INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE ops (
        seq INTEGER PRIMARY KEY,         -- order of arrival here
        stamp TEXT NOT NULL UNIQUE,      -- hybrid clock and writer; the operation's id
        entity_kind TEXT NOT NULL,       -- model, task, project
        entity TEXT NOT NULL,
        action TEXT NOT NULL,            -- create, edit, publish, delete, restore
        changes TEXT NOT NULL,           -- JSON object: key -> new value
        parents TEXT,                    -- JSON object: key -> stamp of the operation whose value is replaced
        actor TEXT NOT NULL,
        batch TEXT,                      -- stamp of the first operation of a transaction of several
        batch_size INTEGER NOT NULL DEFAULT 1
    ) STRICT
    """,
    "CREATE INDEX ops_entity ON ops (entity, seq)",
    """
    CREATE TABLE projects (
        key INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        name TEXT UNIQUE,
        description TEXT,
        output_uri TEXT,
        stamps TEXT                      -- JSON: field -> stamp
    ) STRICT
    """,
    """
    CREATE TABLE models (
        key INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        state INTEGER NOT NULL,          -- 0 visible, 1 archived, 2 deleted, 3 incomplete
        deleted INTEGER NOT NULL DEFAULT 0,
        name TEXT,
        project INTEGER REFERENCES projects (key),
        task TEXT,                       -- id of the task that made it
        parent TEXT,                     -- id of the model it was made from
        comment TEXT,
        framework TEXT,
        uri TEXT,
        digest TEXT,                     -- sha256:hex of the bytes behind uri, when known
        size INTEGER,                    -- bytes
        package INTEGER NOT NULL DEFAULT 0,
        iteration INTEGER,
        created_op INTEGER,
        published_op INTEGER,
        created INTEGER NOT NULL DEFAULT 0,
        updated INTEGER NOT NULL DEFAULT 0,
        -- What can be long comes last: reading a column means walking over those before it.
        labels TEXT,                     -- JSON: name -> integer
        config TEXT,                     -- JSON: {"text": ...} or {"dict": ...}
        tags TEXT NOT NULL DEFAULT '[]',         -- JSON, sorted: a copy of model_tags for reading rows whole
        system_tags TEXT NOT NULL DEFAULT '[]',  -- JSON, sorted
        stamps TEXT                      -- JSON: field -> stamp, for fields set after creation
    ) STRICT
    """,
    "CREATE INDEX models_recent ON models (state, updated, key)",
    "CREATE INDEX models_project ON models (project, state, updated, key)",
    "CREATE INDEX models_name ON models (name, state, updated, key)",
    "CREATE INDEX models_uri ON models (uri, created, key) WHERE uri IS NOT NULL",
    "CREATE INDEX models_digest ON models (digest) WHERE digest IS NOT NULL",
    "CREATE INDEX models_task ON models (task) WHERE task IS NOT NULL",
    "CREATE INDEX models_parent ON models (parent) WHERE parent IS NOT NULL",
    """
    CREATE TABLE tags (
        key INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        visible INTEGER NOT NULL DEFAULT 0,   -- models in state 0 that carry it
        archived INTEGER NOT NULL DEFAULT 0   -- models in state 1 that carry it
    ) STRICT
    """,
    """
    CREATE TABLE model_tags (
        tag INTEGER NOT NULL,
        model INTEGER NOT NULL,
        op INTEGER NOT NULL,
        PRIMARY KEY (tag, model)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX model_tags_model ON model_tags (model, tag)",
    # One entry per model in state 0 or 1 and tag, in the order in which pages are read.
    """
    CREATE TABLE tag_walk (
        tag INTEGER NOT NULL,
        state INTEGER NOT NULL,
        updated INTEGER NOT NULL,
        model INTEGER NOT NULL,
        PRIMARY KEY (tag, state, updated, model)
    ) STRICT, WITHOUT ROWID
    """,
    # Sets of models, 64 keys to a block (modelstore.index.bitmaps): by state, tag, project, publication.
    """
    CREATE TABLE bitmaps (
        facet INTEGER NOT NULL,
        value INTEGER NOT NULL,
        block INTEGER NOT NULL,          -- models.key >> 6
        bits INTEGER NOT NULL,           -- 1 << (models.key & 63) for each member; never 0
        PRIMARY KEY (facet, value, block)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE metadata (
        model INTEGER NOT NULL,
        key TEXT NOT NULL,
        type TEXT NOT NULL,              -- int, float, bool, str, list, tuple, dict, None
        value TEXT NOT NULL,             -- as text, which is what plain equality compares
        number REAL,                     -- for int, float and bool; NULL otherwise and for NaN
        json TEXT NOT NULL,
        op INTEGER NOT NULL,
        PRIMARY KEY (model, key)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX metadata_value ON metadata (key, value, model)",
    "CREATE INDEX metadata_number ON metadata (key, number, model) WHERE number IS NOT NULL",
    # Of each scalar series of a model, what queries compare and sort by: a copy of scalar_series. NULL stands for NaN.
    """
    CREATE TABLE metrics (
        model INTEGER NOT NULL,
        title TEXT NOT NULL,
        series TEXT NOT NULL,
        last REAL,
        min REAL,
        max REAL,
        PRIMARY KEY (model, title, series)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX metrics_last ON metrics (title, series, last, model)",
    "CREATE INDEX metrics_min ON metrics (title, series, min, model)",
    "CREATE INDEX metrics_max ON metrics (title, series, max, model)",
    """
    CREATE TABLE tasks (
        key INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        state INTEGER NOT NULL,
        deleted INTEGER NOT NULL DEFAULT 0,
        name TEXT,
        project INTEGER REFERENCES projects (key),
        type TEXT,
        status TEXT,
        status_reason TEXT,
        status_message TEXT,
        comment TEXT,
        parent TEXT,
        output_uri TEXT,
        labels TEXT,                     -- JSON: name -> integer
        script TEXT,                     -- JSON: how it was started
        runtime TEXT,                    -- JSON: host, process, versions
        last_iteration INTEGER,
        started INTEGER,
        completed INTEGER,
        tags TEXT NOT NULL DEFAULT '[]',
        system_tags TEXT NOT NULL DEFAULT '[]',
        created_op INTEGER,
        published_op INTEGER,
        created INTEGER NOT NULL DEFAULT 0,
        updated INTEGER NOT NULL DEFAULT 0,
        stamps TEXT
    ) STRICT
    """,
    "CREATE INDEX tasks_recent ON tasks (state, updated, key)",
    "CREATE INDEX tasks_project ON tasks (project, name, state, updated, key)",
    """
    CREATE TABLE task_tags (
        tag INTEGER NOT NULL,
        task INTEGER NOT NULL,
        op INTEGER NOT NULL,
        PRIMARY KEY (tag, task)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX task_tags_task ON task_tags (task, tag)",
    """
    CREATE TABLE links (
        task TEXT NOT NULL,
        direction TEXT NOT NULL,         -- input, output
        name TEXT NOT NULL,
        model TEXT NOT NULL,
        op INTEGER NOT NULL,
        PRIMARY KEY (task, direction, name)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX links_model ON links (model, direction)",
    # The remaining keyed values (hyper-parameters, configuration objects, system tags) and, with a NULL value,
    # what was removed: the removal must go on winning over an older addition that arrives later.
    """
    CREATE TABLE items (
        entity TEXT NOT NULL,
        key TEXT NOT NULL,
        value TEXT,
        op INTEGER NOT NULL,
        PRIMARY KEY (entity, key)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE conflicts (
        entity TEXT NOT NULL,
        key TEXT NOT NULL,
        fork TEXT NOT NULL,              -- stamp of the last common operation on that key; '' for none
        branches TEXT NOT NULL,          -- JSON: stamps of the operations that each replaced it
        agree INTEGER NOT NULL,          -- 1 when the branches lead to the same value
        PRIMARY KEY (entity, key, fork)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE uploads (
        id INTEGER PRIMARY KEY,
        model TEXT NOT NULL,
        snapshot TEXT NOT NULL,          -- path inside the registry folder
        destination TEXT NOT NULL,
        changes TEXT NOT NULL,           -- JSON: what the model's row gets once the bytes are there
        status TEXT NOT NULL,            -- pending, failed
        attempts INTEGER NOT NULL DEFAULT 0,
        error TEXT,
        host TEXT NOT NULL,
        pid INTEGER NOT NULL,
        actor TEXT NOT NULL,
        created INTEGER NOT NULL
    ) STRICT
    """,
    "CREATE INDEX uploads_model ON uploads (model)",
    # Files that were found to hold their digest, and how they looked: what has not changed is not read again.
    """
    CREATE TABLE verified (
        path TEXT PRIMARY KEY,           -- relative to the registry folder where it lies in it
        digest TEXT NOT NULL,
        size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,
        inode INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
)

SEARCH_TABLE: Final = "CREATE VIRTUAL TABLE search_words USING fts5(words, tokenize='ascii', columnsize=0)"
"""Full-text index: `rowid` is `models.key`, `words` what `modelstore.query.words` makes of the model's texts."""

_V2: Final = (
    SEARCH_TABLE,
    # One row: up to which operation of the journal search_words is; it is brought further when somebody searches.
    "CREATE TABLE search_state (taken INTEGER NOT NULL) STRICT",
    "INSERT INTO search_state VALUES (0)",
)

_V4: Final = (
    # How far the streams of a shared journal have been taken in; nothing in a one-machine registry.
    """
    CREATE TABLE streams (
        name TEXT PRIMARY KEY,
        position INTEGER NOT NULL        -- bytes from the beginning
    ) STRICT, WITHOUT ROWID
    """,
    # "Every operation of this writer up to this stamp is here": what two registries compare when they meet.
    """
    CREATE TABLE heads (
        writer TEXT PRIMARY KEY,         -- 16 hex digits
        stamp TEXT NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    """
    INSERT INTO heads
    SELECT substr(stamp, 17), max(stamp) FROM ops WHERE substr(stamp, 17) IN (SELECT id FROM writers) GROUP BY 1
    """,
    # Operations beyond the head of their writer, which came by themselves.
    "CREATE TABLE strays (stamp TEXT PRIMARY KEY) STRICT, WITHOUT ROWID",
    """
    CREATE TABLE remotes (
        name TEXT PRIMARY KEY,
        uri TEXT NOT NULL,               -- never with credentials
        synced INTEGER                   -- when both sides last had the same, milliseconds
    ) STRICT, WITHOUT ROWID
    """,
)

TRIGGERS: Final = {
    # What was published stays: not through another object, not through raw SQL. The one lawful change is the arrival
    # of an earlier publication from elsewhere, which moves published_op back.
    "models_published_frozen": """
        CREATE TRIGGER models_published_frozen
        BEFORE UPDATE OF uri, digest, size, package, labels, config, framework, iteration ON models
        WHEN old.published_op IS NOT NULL AND new.published_op = old.published_op AND (
            new.uri IS NOT old.uri OR new.digest IS NOT old.digest OR new.size IS NOT old.size
            OR new.package IS NOT old.package OR new.labels IS NOT old.labels OR new.config IS NOT old.config
            OR new.framework IS NOT old.framework OR new.iteration IS NOT old.iteration)
        BEGIN SELECT raise(ABORT, 'the model is published and its content cannot change'); END
    """,
    "models_published_once": """
        CREATE TRIGGER models_published_once
        BEFORE UPDATE OF published_op ON models
        WHEN old.published_op IS NOT NULL AND new.published_op IS NOT old.published_op AND NOT EXISTS (
            SELECT 1 FROM ops AS earlier, ops AS current
            WHERE earlier.seq = new.published_op AND current.seq = old.published_op
              AND earlier.action = 'publish' AND earlier.entity = old.id AND earlier.stamp < current.stamp)
        BEGIN SELECT raise(ABORT, 'the model is published and cannot be unpublished'); END
    """,
    "models_published_kept": """
        CREATE TRIGGER models_published_kept BEFORE DELETE ON models WHEN old.published_op IS NOT NULL
        BEGIN SELECT raise(ABORT, 'the model is published; its row can only be marked as deleted'); END
    """,
    "ops_append_only": """
        CREATE TRIGGER ops_append_only BEFORE UPDATE ON ops
        WHEN NOT (old.batch_size = 0 AND new.batch_size > 0  -- a transaction ends and knows its size
            AND new.seq = old.seq AND new.stamp = old.stamp AND new.entity_kind = old.entity_kind
            AND new.entity = old.entity AND new.action = old.action AND new.changes = old.changes
            AND new.parents IS old.parents AND new.actor = old.actor AND new.batch IS old.batch)
        BEGIN SELECT raise(ABORT, 'operations are never changed'); END
    """,
    "ops_kept": """
        CREATE TRIGGER ops_kept BEFORE DELETE ON ops
        BEGIN SELECT raise(ABORT, 'operations are never deleted'); END
    """,
}

_TIME: Final = "strftime('%Y-%m-%dT%H:%M:%fZ', ({} >> 16) / 1000.0, 'unixepoch')"
# SQLite reads no hexadecimal from text.
_STAMP_MS: Final = " + ".join(
    f"(instr('0123456789abcdef', substr(stamp, {i + 1}, 1)) - 1) * {16 ** (11 - i)}" for i in range(12)
)

VIEWS: Final = {
    "v_models": f"""
        CREATE VIEW v_models AS
        SELECT m.id, m.name, p.name AS project, m.framework, m.uri, m.digest, m.size, m.package, m.iteration, m.task,
            m.parent, m.comment, m.published_op IS NOT NULL AS published, m.state = 1 AS archived, m.tags, m.labels,
            m.config, {_TIME.format("m.created")} AS created, {_TIME.format("m.updated")} AS last_update
        FROM models AS m LEFT JOIN projects AS p ON p.key = m.project WHERE m.state < 2
    """,
    "v_tags": """
        CREATE VIEW v_tags AS
        SELECT t.name AS tag, m.id AS model, m.name AS name
        FROM model_tags AS mt JOIN tags AS t ON t.key = mt.tag JOIN models AS m ON m.key = mt.model WHERE m.state < 2
    """,
    "v_metadata": """
        CREATE VIEW v_metadata AS
        SELECT m.id AS model, m.name AS name, d.key, d.type, d.value, d.number
        FROM metadata AS d JOIN models AS m ON m.key = d.model WHERE m.state < 2
    """,
    "v_lineage": """
        CREATE VIEW v_lineage AS
        SELECT l.task, t.name AS task_name, l.direction, l.name AS link, l.model, m.name AS model_name
        FROM links AS l LEFT JOIN tasks AS t ON t.id = l.task LEFT JOIN models AS m ON m.id = l.model
    """,
    "v_metrics": """
        CREATE VIEW v_metrics AS
        SELECT m.id AS model, m.name AS name, s.title, s.series, s.last, s.min, s.max, s.mean, s.points
        FROM metrics AS s JOIN models AS m ON m.key = s.model WHERE m.state < 2
    """,
    "v_scalars": """
        CREATE VIEW v_scalars AS
        SELECT s.entity AS id, s.title, s.series, json_extract(p.value, '$[0]') AS iteration,
            strftime('%Y-%m-%dT%H:%M:%fZ', json_extract(p.value, '$[1]') / 1000.0, 'unixepoch') AS at,
            CAST(json_extract(p.value, '$[2]') AS REAL) AS value
        FROM scalar_series AS s CROSS JOIN scalar_blocks AS b ON b.series = s.key
            CROSS JOIN json_each(points_json(b.iterations, b.times, b.numbers)) AS p
    """,
    "v_plots": """
        CREATE VIEW v_plots AS
        SELECT p.entity AS id, p.title, p.series, p.iteration,
            strftime('%Y-%m-%dT%H:%M:%fZ', p.time / 1000.0, 'unixepoch') AS at, p.kind,
            json_extract(o.changes, '$.plot.figure') AS figure, p.digest, p.size, p.name, p.url
        FROM plots AS p JOIN ops AS o ON o.seq = p.op
    """,
    "v_tasks": f"""
        CREATE VIEW v_tasks AS
        SELECT t.id, t.name, p.name AS project, t.type, t.status, t.comment, t.output_uri, t.last_iteration, t.tags,
            t.state = 1 AS archived, {_TIME.format("t.created")} AS created, {_TIME.format("t.updated")} AS last_update
        FROM tasks AS t LEFT JOIN projects AS p ON p.key = t.project WHERE t.state < 2
    """,
    "v_history": f"""
        CREATE VIEW v_history AS
        SELECT strftime('%Y-%m-%dT%H:%M:%fZ', ({_STAMP_MS}) / 1000.0, 'unixepoch') AS at, actor, entity_kind,
            entity, action, CASE action WHEN 'report' THEN '{{}}' ELSE changes END AS changes, stamp, seq
        FROM ops
    """,
}
"""For people with SQL: stable names over tables that may change. Read them; writing goes through the library."""

FOLDED_TABLES: Final = (
    "metrics",
    "scalar_blocks",
    "scalar_series",
    "plots",
    "models",
    "tags",
    "model_tags",
    "tag_walk",
    "bitmaps",
    "metadata",
    "tasks",
    "task_tags",
    "links",
    "items",
    "conflicts",
    "projects",
)
"""What `rebuild` empties and makes again from `ops`; what refers to others comes before them."""


def migrations() -> Migrations:
    """Return the migrations, oldest first; each takes the file from one schema version to the next."""
    from sqlite_utils import Migrations

    steps = Migrations("modelstore")

    @steps()
    def m001_first_release(db: object) -> None:
        from sqlite_utils import Database

        assert isinstance(db, Database)  # noqa: S101 - narrows the type that sqlite-utils hands over
        for statement in (*_V1, *TRIGGERS.values(), *VIEWS.values()):
            db.execute(statement)

    @steps()
    def m002_full_text_search(db: object) -> None:
        from sqlite_utils import Database

        assert isinstance(db, Database)  # noqa: S101 - as above
        for statement in _V2:
            db.execute(statement)

    @steps()
    def m003_reports(db: object) -> None:
        from sqlite_utils import Database

        assert isinstance(db, Database)  # noqa: S101 - as above
        for statement in REPORT_TABLES:
            db.execute(statement)
        for view, statement in VIEWS.items():
            db.execute(f"DROP VIEW IF EXISTS {view}")
            db.execute(statement)

    @steps()
    def m004_exchange(db: object) -> None:
        from sqlite_utils import Database

        assert isinstance(db, Database)  # noqa: S101 - as above
        for statement in _V4:
            db.execute(statement)

    return steps

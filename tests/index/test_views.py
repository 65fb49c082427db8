"""The database is open to people with SQL and to other tools."""

from __future__ import annotations

import re
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlite_utils

from modelstore import InputModel, OutputModel, Task
from modelstore import open as open_registry
from modelstore.index.schema import VIEWS

DOCUMENTED = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_documentation_lists_every_view_with_all_its_columns(tmp_path: Path) -> None:
    """Whoever writes SQL looks there."""
    with open_registry(tmp_path / "r") as registry:
        for view in VIEWS:
            columns = [row[1] for row in registry.database.all(f"PRAGMA table_info({view})")]
            (line,) = [line for line in DOCUMENTED.read_text().splitlines() if line.startswith(f"| `{view}` |")]

            assert re.findall(r"`(\w+)`", line) == [view, *columns]


def test_every_view_answers_and_the_documented_columns_hold(tmp_path: Path) -> None:
    """Tables may change from version to version; the views are the promise."""
    weights = tmp_path / "w.bin"
    weights.write_bytes(b"x")
    with open_registry(tmp_path / "r"):
        task = Task.create(project_name="vision", task_name="train")
        model = OutputModel(task, name="net", tags=["a", "b"], framework="ONNX")
        model.update_weights(weights, iteration=3)
        model.set_metadata("accuracy", 0.9)
        Task.create(task_name="use").connect(InputModel(str(model.id)))
    connection = sqlite3.connect(tmp_path / "r" / "registry.db")
    rows = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in VIEWS if name != "v_scalars"}
    one = connection.execute("SELECT name, project, framework, size, published, last_update FROM v_models").fetchone()
    history = connection.execute("SELECT at, action FROM v_history ORDER BY seq").fetchall()
    connection.close()

    assert one[:5] == ("net", "vision", "ONNX", 1, 0)
    assert abs(datetime.fromisoformat(one[5]) - datetime.now(UTC)) < timedelta(minutes=5)
    assert abs(datetime.fromisoformat(history[0][0]) - datetime.now(UTC)) < timedelta(minutes=5)
    assert sorted(tag for tag, *_ in rows["v_tags"]) == ["a", "b"]
    assert [row[2:] for row in rows["v_metadata"]] == [("accuracy", "float", "0.9", 0.9)]
    assert sorted(row[2] for row in rows["v_lineage"]) == ["input", "output"]
    assert len(rows["v_tasks"]) == 2


def test_sqlite_utils_and_datasette_can_read_it(tmp_path: Path) -> None:
    """They open the file read-only and look at tables, views and rows."""
    with open_registry(tmp_path / "r") as registry:
        registry.models.create(name="net", tags=["a"])
    database = sqlite_utils.Database(sqlite3.connect(f"file:{tmp_path / 'r' / 'registry.db'}?mode=ro", uri=True))

    assert set(VIEWS) <= set(database.view_names())
    assert [row["name"] for row in database["v_models"].rows] == ["net"]
    assert "models" in database.table_names()
    database.close()

"""Projects are found by name, and counted only when somebody wants to see the numbers."""

from __future__ import annotations

from pathlib import Path

from modelstore import OutputModel, Task
from modelstore.registry import Registry
from modelstore.sdk._context import open_registry


def statements(registry: Registry, path: Path, name: str) -> list[str]:
    """The SQL of one more registration in a project."""
    seen: list[str] = []
    task = Task.init(project_name="vision/ocr", task_name="train")
    registry.database.connection.set_trace_callback(seen.append)
    OutputModel(task, name=name).update_weights(path)
    registry.database.connection.set_trace_callback(None)
    task.close()
    return seen


def test_registering_a_model_counts_nothing(tmp_path: Path) -> None:
    """Counting the models of a project takes as long as it has models: the thousandth would wait for the others."""
    (tmp_path / "w.pt").write_bytes(b"weights")
    with open_registry(tmp_path / "registry") as registry:
        seen = statements(registry, tmp_path / "w.pt", "first")

        assert not [sql for sql in seen if "count(" in sql.lower()]
        assert registry.tasks.project("vision/ocr").models is None
        assert [(p.name, p.models, p.tasks) for p in registry.tasks.projects()] == [("vision/ocr", 1, 1)]

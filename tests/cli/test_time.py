"""`--as-of`, `diff`, `undo`."""

from __future__ import annotations

from pathlib import Path

from modelstore.registry import Registry
from tests.cli.conftest import Json, Run


def test_as_of_diff_and_undo(run: Run, run_json: Json, tmp_path: Path) -> None:
    """The stamp comes from the history."""
    weights = tmp_path / "w.pt"
    weights.write_bytes(b"x")
    run("register", weights, "--name", "one", "--tag", "a")
    (model,) = run_json("ls")
    stamp = run_json("history", model["id"])[0]["stamp"]
    run("tag", model["id"], "prod")

    assert run_json("ls", "--as-of", stamp)[0]["tags"] == ["a"]
    assert run_json("show", "one", "--as-of", stamp)["tags"] == ["a"]
    assert Path(run("get", "one", "--as-of", stamp).stdout.strip()).read_bytes() == b"x"
    (change,) = run_json("diff", stamp)
    assert (change["what"], change["values"]) == ("changed", {"tag:prod": [None, True]})
    assert "tag:prod: nothing -> true" in run("diff", stamp).stdout
    assert "would be back" in run("undo", "--last", "--dry-run").stdout
    run("undo", "--last")
    assert run("diff", stamp).stdout == ""
    assert run_json("ls")[0]["tags"] == ["a"]


def test_wrong_times_and_stamps_are_told(run: Run, tmp_path: Path) -> None:
    """Before anything is done."""
    weights = tmp_path / "w.pt"
    weights.write_bytes(b"x")
    run("register", weights)
    assert "no moment" in run("ls", "--as-of", "yesterday", code=2).stderr
    assert "no moment" in run("diff", "soon", code=2).stderr
    assert "no operation" in run("undo", "0" * 32, code=3).stderr
    assert "--last" in run("undo", code=2).stderr


def test_history_is_of_a_model_a_task_a_project_or_everything(run: Run, run_json: Json, registry: Registry) -> None:
    """The latest first; a table names what was changed where that can be several things."""
    task = registry.tasks.create(name="train", project="vision").id
    model = registry.models.create(name="one", project="vision", task=task, tags=["a"]).id
    other = registry.models.create(name="other").id
    registry.models.tag(other, add=["b"])

    assert {entry["entity"] for entry in run_json("history", "one")} == {model}
    assert {entry["entity"] for entry in run_json("history", "--task", task)} == {task}
    assert {entry["entity"] for entry in run_json("history", "--project", "vision")} == {task, model}
    (last,) = run_json("history", "--limit", "1")
    assert (last["kind"], last["name"], last["key"], last["old"], last["new"]) == (
        "model",
        "other",
        "tag:b",
        None,
        True,
    )
    assert [entry["key"] for entry in run_json("history", "--key", "tag")] == ["tag:b", "tag:a"]
    assert run_json("history", "--until", "2020-01-01") == run_json("history", "--since", "2200-01-01") == []
    assert "model other" in run("history").stdout
    assert "model other" not in run("history", "other").stdout
    assert "Name a model, or --task" in run("history", "one", "--task", task, code=2).stderr
    assert "no task" in run("history", "--task", "f" * 32, code=3).stderr
    assert "vison" in run("history", "--project", "vison", code=3).stderr
    assert "no moment" in run("history", "--since", "soon", code=2).stderr


def test_tasks_and_projects_of_a_moment(run_json: Json, registry: Registry) -> None:
    """As the models."""
    registry.tasks.create(name="train", project="vision")
    then = run_json("history")[0]["stamp"]
    registry.tasks.create(name="later", project="speech")

    assert [one["name"] for one in run_json("tasks", "--as-of", then)] == ["train"]
    assert [one["name"] for one in run_json("projects", "--as-of", then)] == ["vision"]

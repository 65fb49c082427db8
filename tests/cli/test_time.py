"""`--as-of`, `diff`, `undo`."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Json, Run


def test_as_of_diff_and_undo(run: Run, run_json: Json, tmp_path: Path) -> None:
    """The stamp comes from the history."""
    weights = tmp_path / "w.pt"
    weights.write_bytes(b"x")
    run("register", weights, "--name", "one", "--tag", "a")
    (model,) = run_json("ls")
    stamp = run_json("history", model["id"])[-1]["stamp"]
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

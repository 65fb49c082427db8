"""`sync`, `push`, `pull`, `remote`, `conflicts`, `resolve`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run


@pytest.fixture
def team(tmp_path: Path, run: Run) -> str:
    """Another registry with one model in it."""
    uri = str(tmp_path / "team")
    weights = tmp_path / "theirs.pt"
    weights.write_bytes(b"theirs")
    run("register", str(weights), "--name", "theirs", "--registry", uri)
    return uri


def test_what_both_have_is_exchanged_and_the_second_time_nothing(run: Run, team: str, tmp_path: Path) -> None:
    """By a name given once."""
    weights = tmp_path / "ours.pt"
    weights.write_bytes(b"ours")
    run("register", str(weights), "--name", "ours")
    run("remote", "add", "team", team)

    first = json.loads(run("sync", "team", "--json").stdout)
    second = run("sync", "team").stdout

    assert (first["sent"]["objects"], first["received"]["objects"], first["conflicts"]) == (1, 1, [])
    assert second.splitlines() == ["received: 0 changes, 0 files (0 B)", "sent: 0 changes, 0 files (0 B)"]
    names = {model["name"] for model in json.loads(run("ls", "--json", "--registry", team).stdout)}
    assert names == {"ours", "theirs"}
    assert json.loads(run("remote", "ls", "--json").stdout)[0]["synced"]


def test_a_clone_begins_with_a_pull(run: Run, team: str) -> None:
    """There is no registry here yet."""
    assert "received: 1 change" in run("pull", team, "--with-objects", "none").stdout
    assert [model["name"] for model in json.loads(run("ls", "--json").stdout)] == ["theirs"]


def test_a_conflict_is_shown_and_settled(run: Run, team: str) -> None:
    """Both sides renamed the model: who, when, what stands, and then somebody decides."""
    run("pull", team)
    model = json.loads(run("ls", "--json").stdout)[0]["id"]
    run("meta", model, "accuracy=0.5")
    run("meta", model, "accuracy=0.25", "--registry", team)

    shown = run("sync", team).stdout
    (conflict,) = json.loads(run("conflicts", "--json").stdout)

    assert "did not know of each other" in shown
    assert "* 0.25" in shown
    assert (conflict["key"], [b["value"] for b in conflict["branches"]]) == ("meta:accuracy", [0.5, 0.25])
    run("resolve", f"{model[:8]}/meta", "--ours")
    assert run("conflicts").stdout == "No conflicts\n"
    run("push", team)
    assert run("conflicts", "--registry", team).stdout == "No conflicts\n"
    assert json.loads(run("show", model, "--json", "--registry", team).stdout)["metadata"]["accuracy"]["value"] == "0.5"


def test_a_wrong_name_and_a_wrong_folder_are_told(run: Run, tmp_path: Path) -> None:
    """Neither makes a registry, nor looks like an empty one."""
    run("remote", "add", "team", str(tmp_path / "nowhere"))

    assert "remote ls" in run("sync", "tem", code=3).stderr
    assert "There is no registry" in run("sync", "team", code=3).stderr
    assert "There is no remote" in run("remote", "rm", "other", code=3).stderr
    assert "credentials" in run("remote", "add", "x", "https://ann:secret@host/", code=2).stderr.lower()

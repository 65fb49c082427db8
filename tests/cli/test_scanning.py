"""`modelstore scan`."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelstore import Model
from modelstore.testing.httpserver import http_server
from tests.cli.conftest import Json, Run


class Evil:
    """Runs a command when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(Evil()))
    return path


def test_the_verdict_is_the_exit_code(run: Run, register: Callable[..., str], evil: Path, tmp_path: Path) -> None:
    """5 for what runs code; what is only unknown passes unless asked to be strict."""
    fine, unknown = tmp_path / "fine.pkl", tmp_path / "unknown.pkl"
    fine.write_bytes(pickle.dumps({"w": 1}))
    unknown.write_bytes(b"csklearn.svm\nSVC\n.")
    for path in (evil, fine, unknown):
        register(path)

    assert run("scan", "fine").stdout == "fine: harmless\n"
    assert run("scan", "fine", "evil", code=5).stdout.endswith("evil: dangerous\n  dangerous  posix.system\n")
    assert "unknown    sklearn.svm.SVC" in run("scan", "unknown").stdout
    run("scan", "unknown", "--strict", code=5)
    run("scan", code=2)
    run("scan", "missing", code=3)
    run("scan", "--file", tmp_path / "missing", code=3)


def test_json_has_every_finding(run_json: Json, evil: Path) -> None:
    """For a pipeline that decides itself."""
    (answer,) = run_json("scan", "--file", evil, code=5)

    assert answer == {
        "name": str(evil),
        "verdict": "dangerous",
        "pickles": 1,
        "imports": [{"where": "", "module": "posix", "name": "system", "harm": "dangerous"}],
        "problems": [],
    }


def test_remote_weights_are_looked_into_as_they_would_be_handed_out(
    run: Run, register: Callable[..., str], evil: Path
) -> None:
    """By URI, and as a model's: then from the cache, with one download for both."""
    with http_server() as server:
        uri = server.serve("/net.pt", evil.read_bytes())
        run("scan", "--file", uri, code=5)
        before = server.requests.total()
        model = register(uri)
        run("scan", model, code=5)
        assert run("get", model).stdout.strip().endswith("net.pt")

        assert server.requests.total() == before + 1
    assert Model(model).scan().verdict == "dangerous"

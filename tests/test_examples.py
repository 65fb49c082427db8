"""The examples run as they stand, as programs of their own."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent
_EXAMPLES = sorted((_ROOT / "examples").glob("*.py"))

# What a run must have printed, to be known for more than having raised nothing.
_PRINTS = {
    "fine_tune.py": ("made from: dry road", "is used by: ['wet road']"),
    "packages.py": ("the same bytes: True", "files: settings.json, tables/pairs.db, vocabulary.txt"),
    "querying.py": (
        '"prod" AND NOT "broken": lion-large\n',
        "best first: wolf-large, lion-large, wolf-small, lion-small",
    ),
    "train_and_register.py": ("published ",),
    "two_registries.py": ("the best is attempt 1", "same bytes: True", "last change by the reviewer"),
}


def _run(example: Path, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(example)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def _needs(example: Path) -> set[str]:
    tree = ast.parse(example.read_text())
    imports = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imports += [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
    return {name.partition(".")[0] for name in imports}


@pytest.mark.parametrize("example", _EXAMPLES, ids=lambda path: path.name)
def test_the_example_runs_and_prints_what_it_shows(example: Path, tmp_path: Path) -> None:
    """An example is copied before it is read; it must work, twice, and write nothing into the working folder."""
    missing = [name for name in _needs(example) if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")
    work = tmp_path / "work"
    work.mkdir()

    for _ in range(2):
        printed = _run(example, work)

        for expected in _PRINTS[example.name]:
            assert expected in printed
    assert not list(work.iterdir())


def test_every_example_says_what_it_is_for_and_how_to_run_it() -> None:
    """Whoever opens one wants these two things first."""
    assert len(_EXAMPLES) >= 5
    for example in _EXAMPLES:
        docstring = ast.get_docstring(ast.parse(example.read_text())) or ""
        assert f"python examples/{example.name}" in docstring, example.name


@pytest.mark.parametrize("name", ["train_and_register.py", "fine_tune.py"])
def test_the_clearml_style_examples_use_nothing_that_clearml_has_not(name: str) -> None:
    """They claim that the import is the only difference; these are the names ClearML exports."""
    tree = ast.parse((_ROOT / "examples" / name).read_text())
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "modelstore"
        for alias in node.names
    }

    assert imported <= {"Task", "Model", "InputModel", "OutputModel", "Logger", "StorageManager", "TaskTypes"}

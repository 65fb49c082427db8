"""The command line from inside (quick) and as the program that people run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from modelstore.cli.app import cli
from modelstore.registry import Registry, open_registry

_ROOT = Path(__file__).parent.parent.parent

Run = Callable[..., Result]
Json = Callable[..., Any]
Program = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def no_default_registry_left() -> Iterator[None]:
    """Close what the SDK classes opened in this process."""
    from modelstore.sdk._context import forget_default

    yield
    forget_default()


@pytest.fixture
def run() -> Run:
    """Run a command line in this process."""

    def call(*words: str | Path, code: int = 0, text: str | None = None) -> Result:
        result = CliRunner().invoke(cli, [str(word) for word in words], prog_name="modelstore", input=text)
        assert result.exit_code == code, f"{words}: {result.exit_code}\n{result.stdout}\n{result.stderr}"
        return result

    return call


@pytest.fixture
def run_json(run: Run) -> Json:
    """Run a command line with --json in this process, and read what it wrote to standard output, all of it."""

    def call(*words: str | Path, code: int = 0) -> Any:
        return json.loads(run(*words, "--json", code=code).stdout)

    return call


@pytest.fixture
def program() -> Program:
    """Run the real program."""

    def call(*words: str | Path, module: str = "modelstore", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, *map(str, words)],
            env=os.environ | {"PYTHONPATH": str(_ROOT)} | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=250,
        )

    return call


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file to register."""
    path = tmp_path / "net.pt"
    path.write_bytes(b"weights of a small net")
    return path


@pytest.fixture
def register(run: Run) -> Callable[..., str]:
    """Register something and return the model's id."""
    return lambda *words: run("register", *words).stdout.strip()


@pytest.fixture
def registry() -> Iterator[Registry]:
    """The registry that the commands use, opened next to them."""
    with open_registry() as opened:
        yield opened

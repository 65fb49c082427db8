"""A cache and an origin of its own for every test, and children that use them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import modelstore
from modelstore.cache import Cache
from modelstore.cache.process import forget_processes
from modelstore.testing import faults
from modelstore.testing.cache_origin import FolderOrigin

Spawn = Callable[..., "subprocess.Popen[str]"]

_PRELUDE = """
import sys, time
from pathlib import Path
from modelstore.cache import Cache
from modelstore.testing import faults
from modelstore.testing.cache_origin import FolderOrigin, check_bytes, extract_copy
faults.install()
root = Path(sys.argv[1])
arguments = sys.argv[2:]
origin = FolderOrigin(root / "origin", block_bytes=4096)
cache = Cache(root / "cache", max_bytes=1 << 30, min_free_bytes=0)
"""


@pytest.fixture
def origin(tmp_path: Path) -> FolderOrigin:
    return FolderOrigin(tmp_path / "origin", block_bytes=4096)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    yield Cache(tmp_path / "cache", max_bytes=1 << 30, min_free_bytes=0)
    forget_processes()


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Spawn]:
    """Start Python children that have `cache`, `origin` and `arguments`; none outlives the test."""
    children: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: str, plan: str = "") -> subprocess.Popen[str]:
        here = str(Path(modelstore.__file__).parents[1])
        child = subprocess.Popen(
            [sys.executable, "-c", _PRELUDE + code, str(tmp_path), *arguments],
            env=os.environ | {"PYTHONPATH": here, faults.VARIABLE: plan},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()

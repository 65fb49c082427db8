"""A process as it is when it starts, for every test; and eyes for what a refused call left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from modelstore import Registry, Task
from modelstore.errors import UploadError
from modelstore.sdk import _context
from modelstore.sdk.output_model import OutputModel


@pytest.fixture(autouse=True)
def fresh_process(own_surroundings: None) -> Iterator[None]:
    """Forget, after each test, what there is one of in a process."""
    yield
    for task in [*_context.state.main_tasks, *_context.state.owned]:
        _context.state.forget(task.id)
    _context.state.blocks.clear()
    OutputModel.set_default_upload_uri(None)
    with suppress(UploadError):
        _context.forget_default()


@pytest.fixture
def registry() -> Registry:
    """The registry that the SDK classes use."""
    return _context.current_registry()


@pytest.fixture
def task() -> Task:
    """The current task."""
    return Task.init(project_name="vision/ocr", task_name="train")


@pytest.fixture
def make_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a file and return its path."""

    def write(name: str = "best.pt", content: bytes = b"weights") -> Path:
        path = tmp_path / "work" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return write


def look(registry: Registry) -> dict[str, Any]:
    """Return what a refused call must leave as it was: journal, uploads, and every file but the database's."""
    files = {
        str(path.relative_to(registry.folder)): path.stat().st_size
        for path in registry.folder.rglob("*")
        if path.is_file() and not path.name.startswith("registry.db")
    }
    count = registry.database.one("SELECT count(*), max(seq) FROM ops")
    return {
        "operations": None if count is None else tuple(count),
        "uploads": [upload.id for upload in registry.weights.uploads.pending()],
        "files": files,
    }


@pytest.fixture
def unchanged(registry: Registry) -> Callable[..., AbstractContextManager[None]]:
    """Assert that a block changes neither the registry nor the files that are named."""

    @contextmanager
    def watching(*paths: Path) -> Iterator[None]:
        before = look(registry), [path.read_bytes() for path in paths]
        yield
        assert (look(registry), [path.read_bytes() for path in paths]) == before

    return watching

"""A registry moves as a whole, also to another filesystem, and never while somebody uses it."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelstore.errors import (
    InvalidRequestError,
    ModelStoreError,
    RegistryBusyError,
    RegistryNotFoundError,
    StorageError,
    StorageFullError,
)
from modelstore.index.contents import read_index
from modelstore.registry import open_registry
from modelstore.registry.moving import move
from modelstore.testing import faults
from modelstore.testing.reference import fold
from tests.registry.keeping import killed_at, register

_SHM = Path("/dev/shm")  # noqa: S108 - a filesystem of its own on every Linux


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A registry, closed."""
    with open_registry(tmp_path / "registry", shared=False) as registry:
        register(registry, b"first", "one", publish=True)
        register(registry, b"first", "same bytes under another name")
        register(registry, b"second", "two")
    return tmp_path / "registry"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another filesystem."""
    if not _SHM.is_dir() or _SHM.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second filesystem to write to")
    target = _SHM / f"modelstore-test-{os.getpid()}-{os.urandom(4).hex()}"
    target.mkdir()
    yield target
    shutil.rmtree(target)


def _content(folder: Path) -> Any:
    with open_registry(folder, create=False) as registry:
        assert not registry.fsck(deep=True).damaged
        for name in ("one", "two"):
            (row,) = registry.database.all("SELECT id FROM models WHERE name = ?", (name,))
            assert registry.weights.local_copy(registry.models.get(row[0])).is_relative_to(folder)
        return read_index(registry.database.connection)


def test_it_is_renamed_on_one_filesystem(folder: Path, tmp_path: Path) -> None:
    """Everything resolves there, the target's parents are made, and nothing is left."""
    before = _content(folder)

    assert move(folder, tmp_path / "a" / "b" / "new") == tmp_path / "a" / "b" / "new"
    assert _content(tmp_path / "a" / "b" / "new") == before
    assert not folder.exists()


def test_it_is_copied_to_another_filesystem(folder: Path, elsewhere: Path) -> None:
    """Modes and hard links included; nothing half remains on either side."""
    before = _content(folder)
    (folder / "objects" / "tmp" / "half").write_bytes(b"left by a killed process")
    move(folder, elsewhere / "new")

    assert _content(elsewhere / "new") == before
    assert not folder.exists()
    assert [p.name for p in elsewhere.iterdir()] == ["new"]
    assert not [p for p in folder.parent.iterdir() if p.name.endswith(".moved")]
    stored = [p for p in (elsewhere / "new" / "objects" / "sha256").rglob("*") if p.is_file()]
    assert len(stored) == 3
    assert len({p.stat().st_ino for p in stored}) == 2
    assert not any(p.stat().st_mode & 0o222 for p in stored)


def test_a_registry_in_use_stays_where_it_is(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By another process, or by another object of this one."""
    monkeypatch.setattr("modelstore.index.exclusive._PATIENCE_S", 0.1)
    code = (
        "import sys, modelstore.registry as r; kept = r.open_registry(sys.argv[1]); print('open', flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(RegistryBusyError):
            move(folder, tmp_path / "new")
    finally:
        other.communicate("\n")
    with open_registry(folder), pytest.raises(RegistryBusyError):
        move(folder, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    move(folder, tmp_path / "new")


def test_who_opens_it_meanwhile_writes_nothing_into_the_void(folder: Path, tmp_path: Path) -> None:
    """Ten processes keep registering where it was: each registration is in the one that moved, or failed."""
    context = multiprocessing.get_context("fork")
    begin, results = context.Event(), context.Queue()
    workers = [context.Process(target=_register, args=(begin, results, folder, number)) for number in range(10)]
    for worker in workers:
        worker.start()
    with faults.inject("moving.move.1", begin.set):
        move(folder, tmp_path / "new")
    succeeded = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)
    before = {"one", "two", "same bytes under another name"}
    with open_registry(tmp_path / "new") as moved:
        there = {row[0] for row in moved.database.all("SELECT name FROM models")}
        assert not moved.fsck(deep=True).damaged
    assert there == before | {name for name in succeeded if name}
    assert not folder.exists()


def _register(begin: Any, results: Any, folder: Path, number: int) -> None:
    begin.wait(60)
    try:
        with open_registry(folder, create=False) as registry:
            register(registry, f"late {number}".encode(), f"late{number}")
    except ModelStoreError:
        results.put("")
    else:
        results.put(f"late{number}")


def _retry(folder: Path, target: Path, before: Any) -> None:
    """After a kill it is whole at one place or both; moving again, or removing the old one, ends it."""
    if (target / "registry.db").exists():
        assert _content(target) == before
        if folder.exists():
            assert _content(folder) == before
            with pytest.raises(InvalidRequestError):
                move(folder, target)
        return
    assert _content(folder) == before
    move(folder, target)
    assert _content(target) == before


@pytest.mark.parametrize("step", ["moving.move.1", "moving.move.2"])
def test_a_killed_rename_leaves_it_at_one_place(folder: Path, tmp_path: Path, step: str) -> None:
    """Whole, and it can be moved then."""
    before = _content(folder)

    assert killed_at(step, lambda: move(folder, tmp_path / "new"))
    _retry(folder, tmp_path / "new", before)


@pytest.mark.parametrize("step", [f"moving.move.{n}" for n in (3, 4, 5)])
def test_a_killed_copy_leaves_it_whole(folder: Path, elsewhere: Path, step: str) -> None:
    """At the old place, or at both."""
    before = _content(folder)

    assert killed_at(step, lambda: move(folder, elsewhere / "new"))
    _retry(folder, elsewhere / "new", before)


@pytest.mark.parametrize("step", ["moving.move.3", "moving.move.4"])
def test_a_full_disk_moves_nothing(folder: Path, elsewhere: Path, step: str) -> None:
    """And leaves nothing at the target."""
    before = _content(folder)
    full = OSError(errno.ENOSPC, "No space left on device")
    with faults.inject(step, full), pytest.raises(StorageFullError):
        move(folder, elsewhere / "new")

    assert list(elsewhere.iterdir()) == []
    assert _content(folder) == before


def test_targets_that_make_no_sense_are_refused(folder: Path, tmp_path: Path) -> None:
    """Itself, inside itself, around itself, a file, a folder with something in it; and no registry to move."""
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_bytes(b"x")
    for target in (folder, folder / "in", tmp_path, tmp_path / "file", tmp_path / "full"):
        with pytest.raises(InvalidRequestError):
            move(folder, target)
    with pytest.raises(RegistryNotFoundError):
        move(tmp_path / "nothing", tmp_path / "new")
    (tmp_path / "empty").mkdir()
    move(folder, tmp_path / "empty")
    _content(tmp_path / "empty")


def test_a_link_to_a_registry_is_followed(folder: Path, tmp_path: Path) -> None:
    """The registry moves, not the link."""
    (tmp_path / "link").symlink_to(folder)
    move(tmp_path / "link", tmp_path / "new")
    _content(tmp_path / "new")

    assert not folder.exists()


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shared registry, closed."""
    monkeypatch.setenv("MODELSTORE_INDEX", str(tmp_path / "indexes"))
    with open_registry(tmp_path / "team", shared=True) as registry:
        register(registry, b"first", "one", publish=True)
        register(registry, b"second", "two")
    return tmp_path / "team"


def test_a_shared_one_is_renamed_while_others_have_it_open(
    team: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they were acknowledged is at the new place; from then on they are told that it is gone."""
    monkeypatch.setenv("MODELSTORE_INDEX", str(tmp_path / "another host"))
    with open_registry(team) as other:
        other.models.create(name="acknowledged")
        assert move(team, tmp_path / "new place") == tmp_path / "new place"
        with pytest.raises(StorageError, match="cannot be listed"):
            other.models.create(name="lost")
        with pytest.raises(StorageError, match="cannot be listed"):
            list(other.operations())
    assert not team.exists()

    with open_registry(tmp_path / "new place", create=False) as registry:
        registry.refresh()
        assert registry.kind == "shared"
        found = {row[0]: row[1] for row in registry.database.all("SELECT name, id FROM models")}
        assert found.keys() == {"one", "two", "acknowledged"}
        assert registry.weights.local_copy(registry.models.get(found["one"])).read_bytes() == b"first"
        assert not registry.fsck(deep=True).damaged
        assert read_index(registry.database.connection) == fold(o for _, o in registry.operations())


def test_a_shared_one_is_not_copied_and_waits_for_its_uploads(team: Path, elsewhere: Path, tmp_path: Path) -> None:
    """Nobody can know who writes meanwhile; and only the host that began an upload knows of it."""
    before = sorted(str(path) for path in team.rglob("*"))
    with pytest.raises(InvalidRequestError, match=r"another filesystem.*cp -a"):
        move(team, elsewhere / "new")
    assert not (elsewhere / "new").exists()
    waiting = team / "uploads" / "some host" / "bytes"
    waiting.parent.mkdir(parents=True)
    waiting.write_bytes(b"x")
    with pytest.raises(InvalidRequestError, match="1 uploads are not finished"):
        move(team, tmp_path / "new")
    shutil.rmtree(team / "uploads")

    assert sorted(str(path) for path in team.rglob("*")) == before


@pytest.mark.parametrize("step", ["moving.move.1", "moving.move.2"])
def test_a_killed_move_leaves_a_shared_one_where_it_was(team: Path, tmp_path: Path, step: str) -> None:
    """And the next one does it."""
    assert killed_at(step, lambda: move(team, tmp_path / "new"))
    move(team, tmp_path / "new")

    with open_registry(tmp_path / "new", create=False) as registry:
        registry.refresh()
        assert len(registry.database.all("SELECT 1 FROM models")) == 2

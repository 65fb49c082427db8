"""A registry in one file and back, whatever happens meanwhile."""

from __future__ import annotations

import json
import multiprocessing
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelstore.errors import (
    IntegrityError,
    InvalidRequestError,
    ModelStoreError,
    NewerRegistryError,
    StorageFullError,
    UnsafeArchiveError,
)
from modelstore.index.contents import read_index
from modelstore.registry import Registry, open_registry
from modelstore.registry.backup import recover
from modelstore.registry.removal import remove_models
from modelstore.registry.reports import Place
from modelstore.testing import faults
from tests.registry.keeping import killed_at, object_files, register


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """A registry with a bit of everything."""
    with open_registry(tmp_path / "registry") as opened:
        model = register(opened, b"first", "one", tags=["a"], metadata={"iou": 0.5})
        register(opened, b"first", "same bytes under another name")
        register(opened, b"second", "two", publish=True)
        opened.reports.file(Place("model", model.id, "t", "s", 0), "image", b"picture", "x.png")
        opened.reports.scalar("model", model.id, "t", "s", 1.0, 1)
        opened.models.delete(register(opened, b"removed", "removed").id)
        yield opened


def _same(registry: Registry, folder: Path) -> None:
    with open_registry(folder, create=False) as other:
        assert read_index(other.database.connection) == read_index(registry.database.connection)
        assert not other.fsck(deep=True).damaged
        assert other.id == registry.id


def test_what_is_recovered_is_what_was_backed_up(registry: Registry, tmp_path: Path) -> None:
    """Models, removed ones, reports, journal and objects; and both go on with stamps of their own."""
    written = registry.backup(tmp_path / "b.modelstore")
    done = recover(written.path, tmp_path / "again")

    assert (written.operations, written.objects) == (done.operations, done.objects)
    assert written.objects == 3
    assert written.size == written.path.stat().st_size
    _same(registry, tmp_path / "again")
    with open_registry(tmp_path / "again") as again:
        register(again, b"new", "new")
        register(registry, b"new too", "new too")
        assert again._writer_id() != registry._writer_id()
        registry.sync(tmp_path / "again")
        assert not registry.fsck(deep=True).findings


def test_objects_can_be_left_out(registry: Registry, tmp_path: Path) -> None:
    """They come back from a remote, if there is one."""
    registry.backup(tmp_path / "b", with_objects=False)
    recover(tmp_path / "b", tmp_path / "again")
    with open_registry(tmp_path / "again") as again:
        assert again.fsck().damaged
        again.remotes.add("origin", str(registry.folder))
        assert not again.fsck(repair=True).damaged


def test_it_is_consistent_while_others_write_and_remove(registry: Registry, tmp_path: Path) -> None:
    """What is removed at any step of a backup is either whole in it or not at all."""
    with faults.trace() as counts:
        registry.backup(tmp_path / "probe")
    steps = [(s, n + 1) for s, c in sorted(counts.items()) if s.startswith("b") for n in range(min(c, 2))]
    for number, (step, occurrence) in enumerate(steps):
        model = register(registry, f"short life {number}".encode(), f"short{number}")

        def interfere(doomed: str = model.id, number: int = number) -> None:
            remove_models(registry, [doomed])
            register(registry, f"newer {number}".encode(), f"newer{number}")

        with faults.inject(step, interfere, occurrence):
            written = registry.backup(tmp_path / f"b{number}")
        assert not written.missing
        recover(written.path, tmp_path / f"again{number}")
        with open_registry(tmp_path / f"again{number}", create=False) as again:
            assert not again.fsck(deep=True).damaged, step


def test_ten_processes_may_write_meanwhile(registry: Registry, tmp_path: Path) -> None:
    """Every backup in between can be recovered and is whole."""
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_work, args=(registry.folder, number)) for number in range(10)]
    for worker in workers:
        worker.start()
    for number in range(3):
        registry.backup(tmp_path / f"b{number}")
    for worker in workers:
        worker.join(100)
    assert [worker.exitcode for worker in workers] == [0] * 10
    for number in range(3):
        recover(tmp_path / f"b{number}", tmp_path / f"again{number}")
        with open_registry(tmp_path / f"again{number}", create=False) as again:
            assert not again.fsck(deep=True).damaged


def _work(folder: Path, number: int) -> None:
    with open_registry(folder) as registry:
        for turn in range(5):
            model = register(registry, f"{number} {turn}".encode(), f"m{number}")
            if turn % 2:
                remove_models(registry, [model.id])


@pytest.mark.parametrize("step", ["backup.copy.1", "backup.copy.2", *(f"bundles.write.{n}" for n in range(1, 5))])
def test_a_kill_leaves_no_half_backup(registry: Registry, tmp_path: Path, step: str) -> None:
    """A whole one or none."""

    def work() -> None:
        with open_registry(registry.folder) as opened:
            opened.backup(tmp_path / "b")

    assert killed_at(step, work)
    if (tmp_path / "b").exists():
        recover(tmp_path / "b", tmp_path / "again")
        _same(registry, tmp_path / "again")
    else:
        assert step != "bundles.write.4"


@pytest.mark.parametrize("step", [f"backup.recover.{n}" for n in range(1, 4)])
def test_a_kill_leaves_no_half_registry(registry: Registry, tmp_path: Path, step: str) -> None:
    """A whole one or none, and the same command can be given again."""
    registry.backup(tmp_path / "b")

    assert killed_at(step, lambda: recover(tmp_path / "b", tmp_path / "again"))
    if not (tmp_path / "again").exists():
        recover(tmp_path / "b", tmp_path / "again")
    _same(registry, tmp_path / "again")


def test_a_full_disk_leaves_nothing(registry: Registry, tmp_path: Path) -> None:
    """Neither of a backup nor of a recovery."""
    full = OSError(28, "No space left on device")
    before = sorted(tmp_path.iterdir())
    with faults.inject("bundles.write.2", full), pytest.raises(StorageFullError):
        registry.backup(tmp_path / "b")
    assert sorted(tmp_path.iterdir()) == before
    registry.backup(tmp_path / "b")
    before = sorted(tmp_path.iterdir())
    with faults.inject("backup.recover.1", full), pytest.raises(StorageFullError):
        recover(tmp_path / "b", tmp_path / "again")
    assert sorted(tmp_path.iterdir()) == before


def test_nothing_is_overwritten_unasked(registry: Registry, tmp_path: Path) -> None:
    """Neither a file nor a folder with something in it."""
    registry.backup(tmp_path / "b")
    with pytest.raises(InvalidRequestError):
        registry.backup(tmp_path / "b")
    with pytest.raises(InvalidRequestError):
        recover(tmp_path / "b", registry.folder)
    registry.backup(tmp_path / "b", overwrite=True)
    (tmp_path / "empty").mkdir()
    recover(tmp_path / "b", tmp_path / "empty")
    _same(registry, tmp_path / "empty")


def test_what_is_missing_or_damaged_already_is_told_and_does_not_prevent_a_backup(
    registry: Registry, tmp_path: Path
) -> None:
    """A backup is most wanted then. Damaged bytes are not taken for good ones later."""
    one, two = object_files(registry.folder)[:2]
    one.unlink()
    for other in one.parent.iterdir():
        other.unlink()
    two.chmod(0o644)
    two.write_bytes(b"?")
    done = recover(registry.backup(tmp_path / "b").path, tmp_path / "again")

    assert len(done.missing) + len(done.damaged) >= 1
    for digest in done.damaged:
        with open_registry(tmp_path / "again") as again:
            assert again.weights.objects.find(digest) is None
        assert any((tmp_path / "again" / "quarantine").iterdir())


def test_a_file_that_was_cut_or_changed_is_refused(registry: Registry, tmp_path: Path) -> None:
    """At any place; and no folder is left."""
    whole = registry.backup(tmp_path / "b").path.read_bytes()
    for number, content in enumerate(
        (b"", whole[:100], whole[:-1], whole[: len(whole) // 2], whole.replace(b"second", b"sEcond"), os.urandom(1000))
    ):
        path = tmp_path / f"bad{number}"
        path.write_bytes(content)
        with pytest.raises(IntegrityError):
            recover(path, tmp_path / "again")
        assert not (tmp_path / "again").exists()
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".recovering")]


def _forged(tmp_path: Path, held: list[tuple[str, bytes]], **changes: Any) -> Path:
    path = tmp_path / "forged"
    with zipfile.ZipFile(path, "w", changes.pop("compression", zipfile.ZIP_STORED)) as archive:
        for name, content in held:
            archive.writestr(name, content)
        listed = [[name, len(content), "0" * 64] for name, content in held]
        manifest = {"format": 1, "kind": "backup", "members": listed, "registry": "0" * 32} | changes
        archive.writestr("manifest.json", json.dumps(manifest))
    return path


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "/etc/passwd",
        "objects/../../x",
        f"objects/{'a' * 64}/..",
        f"objects/{'a' * 64}/a\\b",
        "modelstore.json",
    ],
)
def test_names_that_no_backup_has_are_refused(tmp_path: Path, name: str) -> None:
    """Before a byte is written."""
    with pytest.raises((UnsafeArchiveError, IntegrityError)):
        recover(_forged(tmp_path, [("registry.db", b"x"), (name, b"x")]), tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_compressed_members_and_lists_that_lie_are_refused(tmp_path: Path) -> None:
    """A few bytes that would fill the disk, another format, another kind, nonsense."""
    bomb = _forged(tmp_path, [("registry.db", b"\0" * 1_000_000)], compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UnsafeArchiveError):
        recover(bomb, tmp_path / "again")
    for changes, error in (
        ({"format": 2}, NewerRegistryError),
        ({"kind": "models"}, InvalidRequestError),
        ({"members": []}, IntegrityError),
        ({"members": [["registry.db", 1]]}, IntegrityError),
        ({"format": None}, IntegrityError),
        ({"registry": "../x"}, IntegrityError),
        ({}, IntegrityError),
    ):
        with pytest.raises(error):
            recover(_forged(tmp_path, [("registry.db", b"x")], **changes), tmp_path / "again")
    with pytest.raises(ModelStoreError):
        recover(tmp_path / "no such file", tmp_path / "again")
    assert not (tmp_path / "again").exists()

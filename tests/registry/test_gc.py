"""Garbage goes, and what somebody refers to or is about to refer to stays."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelstore.errors import InvalidRequestError, ReadOnlyRegistryError
from modelstore.registry import Registry, open_registry
from modelstore.registry.registration import register_files
from modelstore.registry.removal import remove_models
from modelstore.registry.reports import Place
from modelstore.testing import faults
from tests.kinds import one_machine
from tests.registry.keeping import age, digest_of, killed_at, object_files, register


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """An empty registry."""
    with open_registry(tmp_path / "registry") as opened:
        yield opened


def _orphan(registry: Registry, content: bytes) -> str:
    """Leave bytes as a process does that is killed before it writes the row."""
    path = registry.folder.parent / "orphan.pt"
    path.write_bytes(content)
    snapshot, fingerprint = registry.weights.objects.snapshot(path)
    registry.weights.objects.put(snapshot, fingerprint, "net.pt")
    return fingerprint.digest


def test_orphans_go_after_the_grace_period(registry: Registry) -> None:
    """Before, a process may be about to refer to them."""
    digest = _orphan(registry, b"nobody's")
    young = registry.gc()
    age(registry)
    old = registry.gc()

    assert (young.garbage, young.kept_young.objects, young.kept_young.bytes) == ((), 1, 8)
    assert [(one.what, one.size, one.why) for one in old.garbage] == [(digest, 8, "orphan")]
    assert object_files(registry.folder) == []


def test_a_dry_run_says_exactly_what_would_go(registry: Registry) -> None:
    """And touches nothing."""
    _orphan(registry, b"nobody's")
    (registry.folder / "objects" / "tmp" / "half").write_bytes(b"123")
    age(registry)
    told = registry.gc(dry_run=True)
    assert len(object_files(registry.folder)) == 1
    done = registry.gc()

    assert told.garbage == done.garbage
    assert told.freed_bytes == done.freed_bytes == 11
    assert not (registry.folder / "objects" / "tmp" / "half").exists()


def test_what_is_in_use_stays(registry: Registry, tmp_path: Path) -> None:
    """Weights, packages, published, archived, a second name of the same bytes, pictures of models and tasks."""
    model = register(registry, b"weights")
    register(registry, b"weights", "again")
    registry.models.archive(register(registry, b"archived", "archived").id)
    registry.models.publish(register(registry, b"published", "published").id)
    package = tmp_path / "package"
    package.mkdir()
    (package / "a").write_bytes(b"a")
    register_files(registry, package, name="package")
    registry.reports.file(Place("model", model.id, "t", "s", 0), "image", b"picture", "x.png")
    age(registry)
    before = object_files(registry.folder)

    assert registry.gc(grace_s=0, keep_former_s=0).garbage == ()
    assert object_files(registry.folder) == before
    assert registry.fsck(deep=True).findings == []


def test_bytes_of_unfinished_uploads_stay(registry: Registry, tmp_path: Path) -> None:
    """They are on their way; a file in that folder that no upload knows is what a killed process left."""
    folder = registry.weights.uploads.folder
    folder.mkdir(parents=True)
    known, unknown = folder / "known", folder / "unknown"
    for path in (known, unknown):
        path.write_bytes(b"bytes")
        os.utime(path, (1, 1))
    with registry.database.write() as connection:
        connection.execute(
            "INSERT INTO uploads (model, snapshot, destination, changes, status, host, pid, actor, created)"
            " VALUES ('m', ?, 's3://b', '{}', 'failed', 'h', 1, 'a', 1)",
            (str(known.relative_to(registry.folder)),),
        )
    found = registry.gc()

    assert [one.what for one in found.garbage] == [str(unknown.relative_to(registry.folder))]
    assert (known.exists(), unknown.exists()) == (True, False)


def test_removed_models_can_be_restored_whole_for_a_while(registry: Registry) -> None:
    """Kept with their bytes; after that time the bytes go, with the pictures that were reported to them."""
    model = register(registry, b"weights")
    registry.reports.file(Place("model", model.id, "t", "s", 0), "image", b"picture", "x.png")
    registry.flush_reports()
    remove_models(registry, [model.id], keep_weights=True)
    age(registry)
    kept = registry.gc()
    registry.models.restore(model.id)
    assert registry.fsck(deep=True).findings == []
    remove_models(registry, [model.id], keep_weights=True)
    age(registry)
    gone = registry.gc(keep_former_s=0)

    assert (kept.garbage, kept.kept_former.objects) == ((), 2)
    assert sorted(one.why for one in gone.garbage) == ["former", "former"]
    assert not registry.weights.confirm(registry.models.restore(model.id).uri)


def test_weights_that_newer_ones_replaced_go_later(registry: Registry) -> None:
    """The history, and a look into the past, can have them for a while."""
    record = register(registry, b"epoch 1")
    newer = _orphan(registry, b"epoch 2")
    registry.models.edit(record.id, uri=f"modelstore://{newer.replace(':', '/')}/net.pt")
    age(registry)
    kept = registry.gc()
    gone = registry.gc(keep_former_s=0)

    assert (kept.garbage, kept.kept_former.objects) == ((), 1)
    assert [one.what for one in gone.garbage] == [digest_of(b"epoch 1")]


def _child(folder: Path, work: Callable[[Registry], object]) -> None:
    """Let another process do something, from beginning to end."""

    def run() -> None:
        with open_registry(folder) as opened:
            work(opened)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(60)
    assert process.exitcode == 0


def _steps(work: Callable[[], object]) -> list[tuple[str, int]]:
    with faults.trace() as counts:
        work()
    return [(step, number + 1) for step, count in sorted(counts.items()) for number in range(count)]


@pytest.mark.parametrize(
    "grace_s", [86_400.0, pytest.param(0.0, marks=one_machine("between hosts only the grace period protects"))]
)
def test_no_registration_loses_its_bytes_to_a_collection_at_any_of_its_steps(
    registry: Registry, grace_s: float
) -> None:
    """Old garbage of the same bytes lies there: the registration finds it while it is being collected.

    Without any grace period too: then only the transactions protect.
    """
    # Those of a shared journal are inside a transaction, for whose end the collection would wait.
    steps = [
        one for one in _steps(lambda: register(registry, b"probe")) if not one[0].startswith(("shared", "journal"))
    ]
    assert any(step.startswith("objects.put") for step, _ in steps)
    for number, (step, occurrence) in enumerate(steps):
        content = f"bytes {number}".encode()
        _orphan(registry, content)
        age(registry)

        def collect() -> None:
            _child(registry.folder, lambda other: other.gc(grace_s=grace_s, keep_former_s=0))

        with faults.inject(step, collect, occurrence):
            record = register(registry, content, f"net{number}")
        assert registry.weights.local_copy(record).read_bytes() == content, step
    assert not registry.fsck(deep=True).damaged


@pytest.mark.parametrize("step", ["gc.collect.1", "gc.collect.2", "gc.collect.3"])
def test_no_collection_takes_what_is_registered_at_any_of_its_steps(registry: Registry, step: str) -> None:
    """The reverse; where the collection holds the lock, the registration waits for it and stores anew."""
    digest = _orphan(registry, b"wanted again")
    age(registry)
    begin = multiprocessing.Event()  # made before: a child of a process inside a transaction could not write
    other = multiprocessing.get_context("fork").Process(target=_register_when, args=(begin, registry.folder))
    other.start()

    def interfere() -> None:
        begin.set()
        if step == "gc.collect.1":
            other.join(60)

    with faults.inject(step, interfere):
        registry.gc(grace_s=0, keep_former_s=0)
    assert begin.is_set()
    other.join(60)
    assert other.exitcode == 0
    assert registry.weights.objects.verify(digest).digest == digest
    assert not registry.fsck(deep=True).damaged


def _register_when(begin: Any, folder: Path) -> None:
    begin.wait(60)
    with open_registry(folder) as opened:
        register(opened, b"wanted again", f"child{os.getpid()}")


def test_a_picture_that_is_being_reported_is_not_taken(registry: Registry) -> None:
    """Its row comes a second later; touching old garbage of the same bytes is what protects it."""
    model = registry.models.create(name="net")
    steps = _steps(lambda: registry.reports.file(Place("model", model.id, "t", "s", 0), "image", b"probe", "x.png"))
    for number, (step, occurrence) in enumerate(steps):
        content = f"picture {number}".encode()
        _orphan(registry, content)
        age(registry)

        def collect() -> None:
            _child(registry.folder, lambda other: other.gc(keep_former_s=0))

        with faults.inject(step, collect, occurrence):
            registry.reports.file(Place("model", model.id, "t", f"s{number}", 0), "image", content, "x.png")
        collect()
        registry.flush_reports()
        assert registry.weights.objects.find(digest_of(content)) is not None, step


@pytest.mark.parametrize("step", ["gc.collect.1", "gc.collect.2", "gc.collect.3"])
def test_a_collection_that_is_killed_has_taken_nothing_but_garbage(registry: Registry, step: str) -> None:
    """And the next one takes the rest."""
    register(registry, b"in use")
    for content in (b"1", b"2", b"3"):
        _orphan(registry, content)
    age(registry)

    def work() -> None:
        with open_registry(registry.folder) as opened:
            opened.gc()

    assert killed_at(step, work)
    assert not registry.fsck(deep=True).damaged
    registry.gc()
    assert len(object_files(registry.folder)) == 1


def test_many_processes_store_remove_and_collect_at_once(registry: Registry) -> None:
    """The same few contents over and over, without any grace period; at the end everything that is listed is whole."""
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_storm, args=(registry.folder, number)) for number in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(100)
    assert [worker.exitcode for worker in workers] == [0] * 6
    assert not registry.fsck(deep=True).damaged


def _storm(folder: Path, number: int) -> None:
    with open_registry(folder) as registry:
        for turn in range(12):
            if number >= 4:
                registry.gc(grace_s=0, keep_former_s=0)
                continue
            path = folder.parent / f"{number}.pt"
            path.write_bytes(f"content {turn % 3}".encode())
            record = register_files(registry, path, name=f"m{number}")
            assert registry.weights.local_copy(record).read_bytes() == path.read_bytes()
            if turn % 2:
                remove_models(registry, [record.id])


def test_nothing_that_makes_no_sense_is_accepted(registry: Registry) -> None:
    """Times, and registries that cannot be written; a dry run needs only to read."""
    for wrong in (-1, float("nan"), "1d"):
        with pytest.raises(InvalidRequestError):
            registry.gc(grace_s=wrong)  # type: ignore[arg-type]
    with registry.transaction(), pytest.raises(InvalidRequestError):
        registry.gc()
    registry.database.read_only = True
    registry.gc(dry_run=True)
    with pytest.raises(ReadOnlyRegistryError):
        registry.gc()

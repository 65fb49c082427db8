"""A registry of one machine becomes a shared one, and back; killed anywhere, the next run finishes it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from modelstore.errors import InvalidRequestError, RegistryBusyError, RegistryNotFoundError, StorageError
from modelstore.index.heads import read_heads, read_strays
from modelstore.records.operations import Operation
from modelstore.registry import Registry
from modelstore.registry.converting import convert
from modelstore.testing import faults
from modelstore.testing.reference import fold, read_index
from tests.registry.keeping import killed_at


@pytest.fixture(autouse=True)
def own_indexes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSTORE_INDEX", str(tmp_path / "indexes"))


def filled(folder: Path, *, shared: bool = False) -> dict[str, Operation]:
    """A registry with a bit of everything; returns its operations."""
    with Registry(folder, shared=shared) as registry:
        file = folder.parent / "weights.pt"
        file.write_bytes(b"weights")
        objects = registry.weights.objects
        uri = objects.put(*objects.snapshot(file), "weights.pt")
        model = registry.models.create(name="one", project="vision", tags=["prod"], uri=uri).id
        registry.models.publish(model)
        with registry.transaction():
            registry.models.create(name="two")
            registry.models.tag(model, add=["later"])
        return {operation.stamp: operation for _, operation in registry.operations()}


def check(folder: Path, kind: str, expected: dict[str, Operation]) -> None:
    """It is of that kind, whole, and goes on."""
    with Registry(folder) as registry:
        registry.refresh()
        assert registry.kind == kind
        assert {operation.stamp: operation for _, operation in registry.operations()} == expected
        assert read_index(registry.database.connection) == fold(expected.values())
        (model,) = [row[0] for row in registry.database.all("SELECT id FROM models WHERE name = 'one'")]
        assert registry.weights.local_copy(registry.models.get(model)).read_bytes() == b"weights"
        registry.models.create(name="after")
        assert [f for f in registry.check(deep=True) if f.severity == "error"] == []


def test_there_and_back(tmp_path: Path) -> None:
    """The same operations, weights and state each time."""
    expected = filled(tmp_path / "registry")
    assert convert(tmp_path / "registry", "shared")
    assert not convert(tmp_path / "registry", "shared")
    check(tmp_path / "registry", "shared", expected)
    with Registry(tmp_path / "registry") as registry:
        registry.refresh()
        expected = {operation.stamp: operation for _, operation in registry.operations()}
    assert convert(tmp_path / "registry", "local")
    assert not convert(tmp_path / "registry", "local")
    check(tmp_path / "registry", "local", expected)


def test_what_is_known_of_each_writer_stays_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On every host, there and back: a sync compares heads, and what came by itself goes on counting as such."""
    folder = tmp_path / "registry"
    with (
        Registry(tmp_path / "laptop") as laptop,
        Registry(tmp_path / "other") as other,
        Registry(folder, shared=False) as registry,
    ):
        laptop.models.create(name="laptop's", project="vision")
        other.models.create(name="not wanted", project="speech")
        other.models.create(name="wanted", project="vision")
        registry.models.create(name="own")
        registry.sync(tmp_path / "other", only={"project": "vision"})
        registry.sync(tmp_path / "laptop")
        before = read_heads(registry.database.connection), read_strays(registry.database.connection)
        assert len(before[1]) == 1

    for number, kind in enumerate(("shared", "local", "shared")):
        assert convert(folder, kind)  # type: ignore[arg-type]
        monkeypatch.setenv("MODELSTORE_INDEX", str(tmp_path / f"host-{number}"))
        with Registry(folder) as registry, Registry(tmp_path / "laptop") as laptop:
            registry.refresh()
            assert (read_heads(registry.database.connection), read_strays(registry.database.connection)) == before
            assert laptop.sync(folder, dry_run=True).received.operations == 0
            assert laptop.sync(folder, dry_run=True).sent.operations == 0

    with Registry(folder) as registry:
        registry.models.create(name="afterwards")
        result = registry.sync(tmp_path / "other")
    assert (result.received.operations, result.sent.operations) == (1, 3)


def test_nobody_may_have_it_open(tmp_path: Path) -> None:
    """What he wrote meanwhile would be lost."""
    filled(tmp_path / "registry")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with Registry(tmp_path / "registry") as registry:
            registry.models.create(name="busy")
            os.write(write, b"x")
            signal.pause()
        os._exit(0)
    os.read(read, 1)
    try:
        with pytest.raises(RegistryBusyError):
            convert(tmp_path / "registry", "shared")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with Registry(tmp_path / "registry") as registry:
        assert registry.kind == "local"


def test_whoever_still_writes_to_a_shared_one_is_told(tmp_path: Path) -> None:
    """His journal is gone; what he had written before is there."""
    filled(tmp_path / "registry", shared=True)
    with Registry(tmp_path / "registry") as late:
        late.models.create(name="in time")
        convert(tmp_path / "registry", "local")
        with pytest.raises(StorageError):
            late.models.create(name="too late")
    with Registry(tmp_path / "registry") as registry:
        names = {row[0] for row in registry.database.all("SELECT name FROM models")}
    assert names == {"one", "two", "in time"}


@pytest.mark.parametrize("step", ["shared.2", "shared.3", "shared.4"])
def test_killed_on_the_way_to_shared(tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run finishes it."""
    expected = filled(tmp_path / "registry")
    _kill(tmp_path / "registry", "shared", step, monkeypatch)
    convert(tmp_path / "registry", "shared")
    check(tmp_path / "registry", "shared", expected)


@pytest.mark.parametrize("step", ["local.1", "local.2", "local.3", "local.4", "local.5"])
@pytest.mark.parametrize("known", [True, False])
def test_killed_on_the_way_to_local(tmp_path: Path, step: str, known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, also on a host that has no index of it."""
    expected = filled(tmp_path / "registry", shared=True)
    if not known:
        monkeypatch.setenv("MODELSTORE_INDEX", str(tmp_path / "others"))
    _kill(tmp_path / "registry", "local", step, monkeypatch)
    convert(tmp_path / "registry", "local")
    check(tmp_path / "registry", "local", expected)


def _kill(folder: Path, kind: str, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    child = os.fork()
    if child == 0:
        monkeypatch.setenv("MODELSTORE_FAULTS", f"converting.{step}=kill")
        faults.install()
        convert(folder, kind)  # type: ignore[arg-type]
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"{step} was not reached"


def test_bad_folders_are_refused(tmp_path: Path) -> None:
    """Nothing is made."""
    with pytest.raises(RegistryNotFoundError):
        convert(tmp_path / "nothing", "shared")
    assert not (tmp_path / "nothing").exists()


def test_a_registry_of_one_machine_has_nothing_to_compact(tmp_path: Path) -> None:
    """And says what frees space there."""
    with Registry(tmp_path / "registry", shared=False) as registry, pytest.raises(InvalidRequestError, match="gc"):
        registry.compact()


def test_nobody_makes_a_new_journal_while_the_old_one_is_taken_in(tmp_path: Path) -> None:
    """What he wrote there would be forgotten."""
    expected = filled(tmp_path / "registry", shared=True)
    assert killed_at("converting.local.2", lambda: convert(tmp_path / "registry", "local"))
    with pytest.raises(StorageError, match="being made one of a single machine"):
        Registry(tmp_path / "registry")
    assert convert(tmp_path / "registry", "local")
    check(tmp_path / "registry", "local", expected)

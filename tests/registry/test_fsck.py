"""Everything that can be wrong with a registry is found, and what can be repaired is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelstore.errors import ReadOnlyRegistryError
from modelstore.index.database import Database
from modelstore.registry import Registry, open_registry
from modelstore.registry.references import Reference, references
from modelstore.registry.removal import remove_models
from modelstore.testing import faults
from tests.permissions import obeying_permissions
from tests.registry.keeping import killed_at, object_files, register


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """A registry with two models of two contents."""
    with open_registry(tmp_path / "registry") as opened:
        register(opened, b"first", "one")
        register(opened, b"second", "two")
        yield opened


def _spoil(path: Path, content: bytes = b"FIRST") -> None:
    path.chmod(0o644)
    path.write_bytes(content)


def test_a_healthy_registry_passes(registry: Registry) -> None:
    """And what was looked at is counted."""
    checkup = registry.fsck(deep=True, repair=True)

    assert (checkup.findings, checkup.repaired, checkup.operations, checkup.objects) == ([], [], 2, 2)


def test_bytes_of_another_size_are_found_at_once_and_others_when_every_byte_is_read(registry: Registry) -> None:
    """Both are errors that name the model."""
    one = registry.weights.objects.path(*_own(registry, "one"))
    _spoil(one)
    assert not registry.fsck().damaged
    (deep,) = registry.fsck(deep=True).findings
    _spoil(one, b"longer than it was")
    (shallow,) = registry.fsck().findings

    assert "'one'" in deep.what
    assert "damaged" in deep.what
    assert "18 bytes instead of 5" in shallow.what


def test_what_is_no_file_any_more_is_put_aside(registry: Registry) -> None:
    """Whatever somebody put there: a check goes on to the end."""
    path = registry.weights.objects.path(*_own(registry, "one"))
    path.unlink()
    path.mkdir()
    checkup = registry.fsck(deep=True, repair=True)

    assert any("put" in text for text in checkup.repaired)
    assert not path.exists()
    assert any("'one'" in finding.what for finding in checkup.findings)


def test_what_this_user_may_not_read_is_told(registry: Registry) -> None:
    """One folder with wrong permissions is no reason to hear of nothing else."""
    folder = registry.weights.objects.path(*_own(registry, "one")).parent
    folder.chmod(0)
    try:

        def look() -> None:
            found = [finding.what for finding in registry.check()]
            assert any("Permission denied" in text and "'one'" in text for text in found), found

        obeying_permissions(look)
    finally:
        folder.chmod(0o755)


def _own(registry: Registry, name: str) -> tuple[str, str]:
    from modelstore.registry.lookup import find_model
    from modelstore.storage.objects import parse_object_uri

    uri = find_model(registry, name).uri
    assert uri is not None
    parsed = parse_object_uri(uri)
    assert parsed is not None
    return parsed


def test_damaged_bytes_without_another_copy_are_put_aside_and_not_deleted(registry: Registry) -> None:
    """Storing the same file again then stores it, where it would have reused the damaged one of the same size."""
    _spoil(registry.weights.objects.path(*_own(registry, "one")))
    checkup = registry.fsck(deep=True, repair=True)

    assert checkup.damaged
    assert [p.read_bytes() for p in (registry.folder / "quarantine").iterdir()] == [b"FIRST"]
    register(registry, b"first", "one")
    assert not registry.fsck(deep=True).damaged


@pytest.mark.parametrize("where", ["remote", "address", "cache"])
def test_lost_bytes_come_back_from_any_other_copy(registry: Registry, tmp_path: Path, where: str) -> None:
    """A remote, another model's address of the same bytes, the cache."""
    digest, name = _own(registry, "one")
    path = registry.weights.objects.path(digest, name)
    if where == "remote":
        shutil.copytree(registry.folder, tmp_path / "other")
        registry.remotes.add("other", str(tmp_path / "other"))
        registry.remotes.add("gone", str(tmp_path / "nowhere"))
    elif where == "address":
        register(registry, b"first", "elsewhere", destination=tmp_path / "share")
    else:
        registry.weights.cache.adopt(path, "s3://bucket/somewhere")
    path.unlink()

    checkup = registry.fsck(repair=True)

    assert not checkup.damaged
    assert path.read_bytes() == b"first"
    assert any("brought" in line for line in checkup.repaired)


def test_what_is_removed_during_a_check_is_not_taken_for_lost(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the question who needs what and the look at the objects."""

    def asked(database: Database) -> list[Reference]:
        found = references(database)
        remove_models(registry, [one.entity for one in found if "'one'" in one.what])
        return found

    monkeypatch.setattr("modelstore.registry.checks.references", asked)

    assert registry.fsck().findings == []


def test_a_copy_that_is_none_is_not_taken(registry: Registry, tmp_path: Path) -> None:
    """Its address says so; its bytes do not."""
    digest, name = _own(registry, "one")
    register(registry, b"first", "elsewhere", destination=tmp_path / "share")
    (copy,) = (p for p in (tmp_path / "share").rglob("*") if p.is_file())
    _spoil(copy)
    registry.weights.objects.path(digest, name).unlink()

    assert registry.fsck(repair=True).damaged
    assert registry.weights.objects.find(digest) is None


def test_damaged_garbage_is_put_aside_too(registry: Registry) -> None:
    """Else whoever stores those bytes anew would be served with it."""
    one = registry.weights.objects.path(*_own(registry, "one"))
    registry.models.delete(next(iter(registry.database.all("SELECT id FROM models WHERE name = 'one'")))[0])
    _spoil(one)
    (warning,) = (f for f in registry.fsck(deep=True).findings if f.severity == "warning")
    registry.fsck(deep=True, repair=True)

    assert "nothing refers to" in warning.what
    assert not one.exists()


def test_an_index_that_differs_from_the_journal_is_made_anew(registry: Registry) -> None:
    """Whatever became of it: a value, or rows that are gone."""
    with registry.database.write() as connection:
        connection.execute("UPDATE models SET name = 'changed by nobody' WHERE name = 'one'")
    assert registry.fsck().damaged
    checkup = registry.fsck(repair=True)

    assert not checkup.damaged
    assert checkup.repaired == ["made the index anew from 2 operations"]
    assert _own(registry, "one")


def test_operations_that_cannot_be_read_are_named(registry: Registry) -> None:
    """The index is then not compared with them, and stays as it is."""
    with registry.database.write() as connection:
        connection.execute("DROP TRIGGER ops_append_only")
        connection.execute("UPDATE ops SET changes = 'no JSON' WHERE seq = 1")
        connection.execute("UPDATE ops SET action = 'explode' WHERE seq = 2")
    checkup = registry.fsck(repair=True)

    assert [f.part for f in checkup.findings] == ["journal", "journal"]
    assert "number 1" in checkup.findings[0].what
    assert checkup.repaired == []
    assert registry.models.by_uri is not None


def test_half_a_transaction_is_found(registry: Registry) -> None:
    """Its other half is not in the journal."""
    with registry.transaction():
        registry.models.create(name="three")
        registry.models.create(name="four")
    with registry.database.write() as connection:
        connection.execute("DROP TRIGGER ops_kept")
        connection.execute("DELETE FROM ops WHERE seq = (SELECT max(seq) FROM ops)")

    assert any("not whole" in finding.what for finding in registry.fsck().findings)


def test_a_repair_that_is_killed_is_done_by_the_next(registry: Registry, tmp_path: Path) -> None:
    """At every step; nothing is worse than before."""
    shutil.copytree(registry.folder, tmp_path / "other")
    registry.remotes.add("other", str(tmp_path / "other"))
    digest, name = _own(registry, "one")
    for step in ("fsck.repair.2", "fsck.repair.3", "transfer.object.2", "objects.put.3"):
        _spoil(registry.weights.objects.path(digest, name))

        def work() -> None:
            with open_registry(registry.folder) as opened:
                opened.fsck(deep=True, repair=True)

        assert killed_at(step, work), step
        assert not registry.fsck(deep=True, repair=True).damaged, step
        assert registry.weights.objects.path(digest, name).read_bytes() == b"first"


def test_a_full_disk_stops_a_repair_and_leaves_nothing_half(registry: Registry, tmp_path: Path) -> None:
    """What could not be brought back is told."""
    shutil.copytree(registry.folder, tmp_path / "other")
    registry.remotes.add("other", str(tmp_path / "other"))
    registry.weights.objects.path(*_own(registry, "one")).unlink()
    with faults.inject("objects.put.3", OSError(28, "No space left on device")):
        assert registry.fsck(repair=True).damaged

    assert len(object_files(registry.folder)) == 1
    assert list((registry.folder / "objects" / "tmp").iterdir()) == []


def test_what_cannot_be_written_is_checked_and_not_repaired(registry: Registry) -> None:
    """Reading is enough for a check."""
    registry.database.read_only = True

    assert registry.fsck().findings == []
    with pytest.raises(ReadOnlyRegistryError):
        registry.fsck(repair=True)


def test_a_check_waits_for_nobody_and_holds_up_nobody(registry: Registry) -> None:
    """It reads copies: another's transaction is open all the while, and is committed afterwards."""
    with open_registry(registry.folder) as other, other.transaction():
        other.models.create(name="three")
        assert registry.fsck(deep=True).findings == []
        assert registry.check(deep=True) == []
    assert registry.fsck().operations == 3

"""Checkpoints of shared registries, and streams that are packed while others write."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelstore.index.schema import SCHEMA_VERSION
from modelstore.journal import folder as folder_module
from modelstore.registry import Registry, compacting
from modelstore.testing.reference import fold, read_index
from tests.permissions import obeying_permissions
from tests.registry.hosts import Hosts


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts[Path]]:
    with Hosts(tmp_path / "team", tmp_path, monkeypatch, shared=True) as hosts:
        yield hosts


def names(registry: Registry) -> list[str]:
    registry.refresh()
    return sorted(row[0] for row in registry.database.all("SELECT name FROM models"))


def test_a_new_host_begins_with_the_checkpoint_and_reads_the_rest(host: Hosts[Path]) -> None:
    """Without reading what is in the checkpoint, and as a writer of its own."""
    ann = host("ann")
    ann.models.create(name="one", tags=["a"])
    made = ann.compact()
    ann.models.create(name="two")
    for path in (host.place / "journal").glob("*.ops"):
        position = ann.database.one("SELECT position FROM streams")
        assert position is not None
        data = path.read_bytes()
        first = data.index(b"\n") + 1
        path.write_bytes(b"#" * (first - 1) + data[first - 1 :])  # would be reported if it were read

    bob = host("bob")

    assert made.checkpoint is not None
    assert names(bob) == ["one", "two"]
    assert bob.home is not None
    assert bob.home.damaged == set()  # type: ignore[attr-defined]
    bob.models.create(name="three")
    assert names(ann) == ["one", "three", "two"]
    assert read_index(ann.database.connection) == read_index(bob.database.connection)
    assert read_index(bob.database.connection) == fold(o for _, o in bob.operations())


def test_nothing_of_the_host_is_in_it(host: Hosts[Path]) -> None:
    """Writers, remotes and unfinished uploads are nobody else's."""
    ann = host("ann")
    ann.models.create(name="one")
    ann.remotes.add("team", "/somewhere")
    ann.compact()
    bob = host("bob")

    assert bob.remotes.all() == []
    assert bob.database.all("SELECT id FROM writers") == []
    bob.models.create(name="two")
    stamps = {operation.stamp[16:] for _, operation in bob.operations()}
    assert len(stamps) == 2


def test_only_the_last_two_stay_and_nothing_new_makes_none(host: Hosts[Path]) -> None:
    """A host may be copying the one before."""
    ann = host("ann")
    for number in range(4):
        ann.models.create(name=f"m{number}")
        assert ann.compact().checkpoint
    assert ann.compact().checkpoint is None
    assert ann.home is not None
    assert len(ann.home.checkpoints()) == 2


@pytest.mark.parametrize("damage", ["cut", "newer", "empty"])
def test_a_checkpoint_that_cannot_be_used_is_passed_over(
    host: Hosts[Path], damage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The streams have everything."""
    ann = host("ann")
    ann.models.create(name="one")
    ann.compact()
    (path,) = (host.place / "checkpoints").iterdir()
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        monkeypatch.setattr(compacting, "SCHEMA_VERSION", SCHEMA_VERSION - 1)

    assert names(host("bob")) == ["one"]


def test_a_live_writer_whose_stream_was_packed_goes_on_in_another(
    host: Hosts[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost or doubled, whoever packs."""
    monkeypatch.setattr(folder_module, "_GRACE_S", -1.0)
    ann, bob = host("ann"), host("bob")
    for number in range(4):
        ann.models.create(name=f"a{number}")
        bob.models.create(name=f"b{number}")
        assert bob.compact(quiet_ms=0).packed >= 1
        bob.compact(quiet_ms=0)

    expected = sorted(f"{who}{number}" for who in "ab" for number in range(4))
    assert names(ann) == names(bob) == names(host("cid")) == expected


def test_closing_compacts_when_it_is_worth_it(host: Hosts[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever leaves does it for those who come."""
    ann = host("ann")
    ann.models.create(name="one")
    ann.close()
    assert os.listdir(host.place / "checkpoints") == []
    monkeypatch.setattr(compacting, "_MANY_OPERATIONS", 1)
    ann = host("ann")
    ann.models.create(name="two")
    ann.close()
    assert len(os.listdir(host.place / "checkpoints")) == 1


def test_who_only_reads_leaves_compacting_to_others(
    host: Hosts[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """He may have no right to it, and would be told so at each close."""
    ann = host("ann")
    ann.models.create(name="one")
    monkeypatch.setattr(compacting, "_MANY_OPERATIONS", 1)

    def read() -> None:
        reader = host("reader")
        assert names(reader) == ["one"]
        reader.close()
        assert caplog.records == []

    (host.place / "checkpoints").chmod(0o555)
    (host.place / "journal").chmod(0o555)
    try:
        obeying_permissions(read)
    finally:
        (host.place / "checkpoints").chmod(0o755)
        (host.place / "journal").chmod(0o755)
    assert os.listdir(host.place / "checkpoints") == []


def test_what_a_killed_process_had_of_a_checkpoint_is_removed_by_the_next(host: Hosts[Path]) -> None:
    """It is as large as the index; what is young may be somebody's work."""
    ann = host("ann")
    ann.models.create(name="one")
    for name, age_s in (("old", 2 * 86_400), ("young", 60)):
        folder = ann.private / f".checkpoint-{name}"
        folder.mkdir()
        (folder / "registry.db").write_bytes(b"x" * 100)
        os.utime(folder, (time.time() - age_s,) * 2)
    ann.compact()

    assert [path.name for path in ann.private.glob(".checkpoint-*")] == [".checkpoint-young"]

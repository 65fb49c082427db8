"""Keeping a shared registry in order while hosts die in the middle of it: the other host has all of a change or none.

The trials of the other modules about checking, freeing, backing up and bundles run on shared registries too, with
`make test-shared`; here is what takes two hosts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelstore.errors import StorageError
from modelstore.registry import Registry, open_registry
from modelstore.registry.backup import recover
from modelstore.registry.removal import remove_models
from modelstore.registry.search import ModelSearch
from modelstore.testing import faults
from modelstore.testing.reference import fold, read_index
from tests.registry.hosts import Hosts
from tests.registry.keeping import age, killed_at, object_files, register

APPEND = [f"shared.write.{n}" for n in (1, 2, 3)] + [f"journal.append.{n}" for n in (2, 3, 4)]
"""Where a change goes from this host to all; from journal.append.4 on they have it."""
WRITTEN = {"shared.write.2", "shared.write.3", "journal.append.4"}


class MortalHosts(Hosts[Path]):
    """And lets some of them die."""

    def dies(self, step: str, work: Callable[[Registry], object]) -> bool:
        """Let a host of its own do something until it is killed at a step; tells whether it came to that."""
        self.be("mortal")

        def live() -> None:
            with open_registry(self.place, shared=True, actor="mortal") as registry:
                work(registry)

        return killed_at(step, live)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MortalHosts]:
    with MortalHosts(tmp_path / "team", tmp_path, monkeypatch, shared=True) as hosts:
        yield hosts


def names(registry: Registry) -> list[str]:
    return sorted(str(model.name) for model in ModelSearch().run(registry))


def check(*registries: Registry) -> None:
    """All hosts have the same journal and state, every byte that is referred to is there, and nothing is wrong."""
    states: list[Any] = []
    for registry in registries:
        operations = {operation.stamp: operation for _, operation in registry.operations()}
        states.append((operations, read_index(registry.database.connection)))
        assert states[-1][1] == fold(operations.values())
        assert not registry.fsck(deep=True).damaged
    assert all(state == states[0] for state in states)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Two models with bytes and history, from elsewhere."""
    with open_registry(tmp_path / "elsewhere", shared=False) as registry:
        models = [register(registry, name.encode(), name, tags=["imported"]).id for name in ("x", "y")]
        registry.models.publish(models[0])
        registry.export_models(models, tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.mark.parametrize("step", [*APPEND, "bundling.import.2", "objects.put.3"])
def test_a_host_that_dies_importing_leaves_all_of_it_or_none(host: MortalHosts, bundle: Path, step: str) -> None:
    """And whoever repeats it finishes it."""
    ann, bob = host("ann"), host("bob")
    register(ann, b"own", "own")

    assert host.dies(step, lambda mortal: mortal.import_models(bundle))
    assert names(bob) == (["own", "x", "y"] if step in WRITTEN else ["own"])
    check(ann, bob)
    bob.import_models(bundle)
    assert names(ann) == ["own", "x", "y"]
    check(ann, bob, host("cid"))


@pytest.mark.parametrize("step", APPEND)
def test_a_host_that_dies_pruning_has_removed_all_of_a_batch_or_none(host: MortalHosts, step: str) -> None:
    """The bytes stay until they are collected, so that the removal can be taken back."""
    ann, bob = host("ann"), host("bob")
    for number in range(4):
        register(ann, f"{number}".encode(), f"m{number}")

    assert host.dies(step, lambda mortal: mortal.retain(keep_last=1))
    assert names(bob) == (["m3"] if step in WRITTEN else ["m0", "m1", "m2", "m3"])
    assert len(object_files(bob.folder)) == 4
    bob.retain(keep_last=1)
    assert names(ann) == ["m3"]
    check(ann, bob)


@pytest.mark.parametrize("step", ["gc.collect.1", "gc.collect.2", "gc.collect.3"])
def test_a_host_that_dies_collecting_has_taken_only_garbage(host: MortalHosts, step: str) -> None:
    """What the other host refers to stays, also what he registered a moment ago and the dead one had not seen."""
    ann, bob = host("ann"), host("bob")
    gone = [register(ann, f"{number}".encode(), f"m{number}").id for number in range(3)]
    for model in gone:
        ann.models.delete(model)
    age(ann)
    register(bob, b"bob's", "bob's")

    assert host.dies(step, lambda mortal: mortal.gc(keep_former_s=0))
    check(ann, bob)
    bob.gc(keep_former_s=0)
    assert len(object_files(ann.folder)) == 1
    assert names(ann) == ["bob's"]
    check(ann, bob)


def test_a_host_that_dies_repairing_leaves_the_rest_to_the_next(host: MortalHosts) -> None:
    """Damaged bytes come back from the cache of a host that had fetched them."""
    ann, bob = host("ann"), host("bob")
    model = register(ann, b"precious", "one")
    assert bob.weights.local_copy(bob.models.get(model.id)).read_bytes() == b"precious"
    (stored,) = object_files(ann.folder)
    stored.chmod(0o644)
    stored.write_bytes(b"damaged!")

    assert host.dies("fsck.repair.2", lambda mortal: mortal.fsck(deep=True, repair=True))
    assert not bob.fsck(deep=True, repair=True).damaged
    assert [path.read_bytes() for path in object_files(ann.folder)] == [b"precious"]
    check(ann, bob)


@pytest.mark.parametrize("step", ["backup.copy.1", "backup.copy.2", "bundles.write.3"])
def test_a_backup_has_what_every_host_wrote(host: MortalHosts, tmp_path: Path, step: str) -> None:
    """Also after a host died making one; recovered, it is a registry of one machine with all of it."""
    ann, bob = host("ann"), host("bob")
    register(ann, b"ann's", "ann's")
    assert host.dies(step, lambda mortal: mortal.backup(tmp_path / "backup"))
    assert not (tmp_path / "backup").exists()
    register(bob, b"bob's", "bob's")
    ann.backup(tmp_path / "backup")
    recover(tmp_path / "backup", tmp_path / "again")

    with open_registry(tmp_path / "again", create=False) as again:
        assert names(again) == ["ann's", "bob's"]
        assert not again.fsck(deep=True).damaged
        assert read_index(again.database.connection) == read_index(bob.database.connection)


def test_what_keeps_order_begins_with_what_others_have_written(host: MortalHosts, tmp_path: Path) -> None:
    """On a host that has read nothing yet, a check, a backup or an export of what it knows would be one of nothing."""
    ann = host("ann")
    kept = register(ann, b"kept", "kept").id
    gone = register(ann, b"gone", "gone").id
    ann.models.delete(gone)
    age(ann)
    count = len(list(ann.operations()))

    assert host("b").fsck().operations == count
    assert any("belong to no model" in finding.what for finding in host("c").check())
    assert host("d").backup(tmp_path / "backup").operations == count
    assert host("e").export_models([kept], tmp_path / "bundle").models == 1
    assert [one.why for one in host("f").gc(keep_former_s=0, dry_run=True).garbage] == ["former"]
    assert [model.id for model in remove_models(host("g"), [kept], dry_run=True).models] == [kept]
    other = host("h")
    with open_registry(tmp_path / "elsewhere", shared=False) as elsewhere:
        elsewhere.sync(tmp_path / "team")
        elsewhere.models.edit(kept, name="theirs")
        ann.models.edit(kept, name="ours")
        ann.sync(tmp_path / "elsewhere")
    assert len(other.conflicts.open()) == 1


def test_a_share_that_fails_changes_nothing(host: MortalHosts, bundle: Path) -> None:
    """A full share while importing, an unreachable one while pruning: told, and nothing was made."""
    ann, bob = host("ann"), host("bob")
    for number in range(2):
        register(ann, f"{number}".encode(), f"m{number}")
    for step, work in (
        ("journal.append.2", lambda: ann.import_models(bundle)),
        ("journal.append.3", lambda: ann.retain(keep_last=1)),
    ):
        with faults.inject(step, OSError(28, "No space left on device")), pytest.raises((StorageError, OSError)):
            work()
        assert names(bob) == names(ann) == ["m0", "m1"]
    ann.import_models(bundle)
    assert names(bob) == ["m0", "m1", "x", "y"]
    check(ann, bob)

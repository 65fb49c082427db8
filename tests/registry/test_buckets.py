"""A registry in a bucket: several private indexes, which stand for hosts, on one object store."""

from __future__ import annotations

import hashlib
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelstore.errors import (
    BlobNotFoundError,
    InvalidRequestError,
    NotFoundError,
    PublishedModelError,
    RegistryNotFoundError,
    StorageError,
    StorageUnavailableError,
)
from modelstore.journal import bucket as bucket_module
from modelstore.registry import Registry
from modelstore.registry.backup import recover
from modelstore.registry.converting import convert
from modelstore.registry.moving import move
from modelstore.registry.registration import register_files
from modelstore.registry.search import ModelSearch
from modelstore.storage.bucket_objects import BucketObjects
from modelstore.storage.buckets import Bucket
from modelstore.storage.retries import Patience
from modelstore.testing import faults
from modelstore.testing.journals import SinfulBucket
from modelstore.testing.proxy import FaultyProxy, faulty_proxy
from tests.registry.hosts import Hosts, contents
from tests.registry.team import team_behind_a_bad_network


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "best é.pt"
    path.write_bytes(b"weights" * 1000)
    return path


def test_what_one_host_has_written_the_next_question_on_another_sees(host: Hosts[str]) -> None:
    a, b = host("a"), host("b")
    assert a.kind == "shared"
    assert a.id == b.id
    model = a.models.create(name="one", uri="s3://bucket/x.pt", tags=["x"], metadata={"iou": 0.5})
    assert b.models.get(model.id).name == "one"
    b.models.tag(model.id, add=["y"])
    assert [m.id for m in ModelSearch(tags=["__$and", "x", "y"]).run(a)] == [model.id]
    b.models.publish(model.id)
    with pytest.raises(PublishedModelError):
        a.models.edit(model.id, uri="s3://bucket/y.pt")
    assert contents(a) == contents(b)


def test_a_transaction_is_one_object_and_others_see_all_of_it(host: Hosts[str], place: str) -> None:
    a, b = host("a"), host("b")
    with a.transaction():
        for name in "xyz":
            a.models.create(name=name)
        assert ModelSearch().count(b) == 0
    assert ModelSearch().count(b) == 3
    assert len(Bucket(place).entries("journal")) == 1
    with pytest.raises(ZeroDivisionError), a.transaction():
        a.models.create(name="never")
        raise ZeroDivisionError
    assert ModelSearch().count(a) == ModelSearch().count(b) == 3


def test_one_process_goes_on_in_one_stream(host: Hosts[str], place: str) -> None:
    a = host("a")
    for number in range(5):
        a.models.create(name=f"{number}")
    assert len({entry.name.split(".")[0] for entry in Bucket(place).entries("journal")}) == 1


def test_weights_lie_in_the_bucket_and_each_host_reads_them_once(host: Hosts[str], place: str, weights: Path) -> None:
    a, b = host("a"), host("b")
    model = register_files(a, weights, name="one")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    key = f"objects/sha256/{digest[:2]}/{digest}/best é.pt"
    assert Bucket(place).size(key) == 7000
    copy = b.weights.local_copy(b.models.get(model.id))
    assert copy.read_bytes() == weights.read_bytes()
    assert copy.is_relative_to(b.cache_folder)
    with b.weights.open(b.models.get(model.id)) as file:
        assert file.read(7) == b"weights"
    assert list((a.private / "objects").rglob("*.pt")) == []
    Bucket(place).remove([key])
    assert b.weights.local_copy(b.models.get(model.id)) == copy


def test_objects_that_are_damaged_are_found_and_brought_back(host: Hosts[str], place: str, weights: Path) -> None:
    a = host("a")
    model = register_files(a, weights, name="one")
    a.weights.local_copy(model)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    key = f"objects/sha256/{digest[:2]}/{digest}/best é.pt"
    for wrong in (b"rotten" * 1000, b"x" * 7000):
        Bucket(place).write(key, wrong)
        assert [f.digest for f in a.check(deep=True) if f.severity == "error"] == [f"sha256:{digest}"]
        a.fsck(deep=True, repair=True)
        assert Bucket(place).read(key) == weights.read_bytes()
        assert a.check(deep=True) == []
    assert len(list((a.private / "quarantine").iterdir())) == 2


def test_objects_that_are_gone_are_missed_by_name_and_by_what_copies_them(
    host: Hosts[str], place: str, weights: Path, tmp_path: Path
) -> None:
    a = host("a")
    model = register_files(a, weights, name="one")
    Bucket(place).remove([f"objects/sha256/{path}" for path in Bucket(place).tree("objects/sha256")])
    with pytest.raises(BlobNotFoundError, match=f"{model.digest} are missing from {place}") as caught:
        host("b").weights.local_copy(model)
    assert "remote add" in str(caught.value.hint)
    assert a.backup(tmp_path / "backup").missing == (model.digest,)


def test_garbage_goes_when_it_has_rested(
    host: Hosts[str], place: str, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = host("a")
    model = register_files(a, weights, name="one")
    a.models.delete(model.id)
    assert a.gc().freed_bytes == 0
    later = time.time() + 40 * 86_400
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: later)
        assert a.gc().freed_bytes == 0  # only this host's clock says so
    monkeypatch.setattr(BucketObjects, "now", lambda _: later)
    with (
        monkeypatch.context() as patch,
        faults.inject("gc.collect.2", lambda: patch.setattr(time, "time", lambda: later)),
    ):
        assert a.gc().freed_bytes == 0  # the lid was closed between the look and the deed
    assert a.gc().freed_bytes == 7000
    assert Bucket(place).tree("objects") == {}


def test_old_garbage_that_is_stored_again_is_sent_again(
    host: Hosts[str], place: str, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a collection at the same moment finds it young."""
    a = host("a")
    a.models.delete(register_files(a, weights, name="one").id)
    [first] = Bucket(place).tree("objects").values()
    later = time.time() + 40 * 86_400
    monkeypatch.setattr(BucketObjects, "now", lambda _: later)
    register_files(a, weights, name="two")
    [second] = Bucket(place).tree("objects").values()
    assert second.changed_at > first.changed_at
    register_files(a, weights, name="three")  # referred to: nobody collects it
    [third] = Bucket(place).tree("objects").values()
    assert third == second


def test_a_backup_of_a_bucket_becomes_a_folder(host: Hosts[str], weights: Path, tmp_path: Path) -> None:
    a = host("a")
    model = register_files(a, weights, name="one")
    a.backup(tmp_path / "backup")
    recover(tmp_path / "backup", tmp_path / "folder")
    with Registry(tmp_path / "folder", create=False) as registry:
        assert registry.weights.local_copy(registry.models.get(model.id)).read_bytes() == weights.read_bytes()


def test_a_laptop_syncs_with_a_bucket(host: Hosts[str], weights: Path, tmp_path: Path) -> None:
    """Both ways, bytes too; the second time nothing moves."""
    team = host("team")
    theirs = register_files(team, weights, name="theirs")
    with Registry(tmp_path / "laptop", cache=tmp_path / "laptop-cache") as laptop:
        mine = tmp_path / "mine.pt"
        mine.write_bytes(b"mine")
        own = register_files(laptop, mine, name="mine")
        laptop.remotes.add("team", host.place)
        done = laptop.sync("team")
        assert (done.sent.objects, done.received.objects) == (1, 1)
        assert laptop.sync("team").nothing
        assert laptop.weights.local_copy(laptop.models.get(theirs.id)).read_bytes() == weights.read_bytes()
        assert team.weights.local_copy(team.models.get(own.id)).read_bytes() == b"mine"
        assert contents(laptop) == contents(team)


def test_bytes_that_a_sync_left_behind_come_from_the_bucket(host: Hosts[str], weights: Path, tmp_path: Path) -> None:
    theirs = register_files(host("team"), weights, name="theirs")
    with Registry(tmp_path / "laptop", cache=tmp_path / "laptop-cache") as laptop:
        laptop.remotes.add("team", host.place)
        laptop.sync("team", with_objects="none")
        assert laptop.weights.local_copy(laptop.models.get(theirs.id)).read_bytes() == weights.read_bytes()


def test_a_new_host_begins_with_the_checkpoint(host: Hosts[str], place: str) -> None:
    a = host("a")
    for number in range(20):
        a.models.create(name=f"{number}")
    assert a.compact().packed == 1
    a.models.create(name="later")
    assert ModelSearch().count(host("b")) == 21
    assert contents(a) == contents(host("b"))


def test_closing_packs_what_many_short_lived_processes_wrote(
    host: Hosts[str], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelstore.registry import compacting

    monkeypatch.setattr(compacting, "_MANY_STREAMS", 5)
    for number in range(6):
        registry = host("a")
        registry.models.create(name=f"{number}")
        registry.close()
    assert any(entry.name.endswith(".pack") for entry in Bucket(place).entries("journal"))
    assert ModelSearch().count(host("b")) == 6


def test_offline_a_host_reads_what_it_knows(host: Hosts[str], weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a = host("a")
    model = register_files(a, weights, name="one")
    a.weights.local_copy(model)
    a.close()

    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionRefusedError(111, "no network")

    monkeypatch.setattr(Bucket, "_driver", unreachable)
    again = host("a", offline=True)
    assert [m.id for m in ModelSearch().run(again)] == [model.id]
    assert again.weights.local_copy(model).read_bytes() == weights.read_bytes()
    with pytest.raises(StorageUnavailableError, match="OFFLINE"):
        again.models.create(name="two")
    with pytest.raises(RegistryNotFoundError, match="knows nothing"):
        host("b", offline=True)

    monkeypatch.setattr(Patience, "after", lambda *_: False)
    with pytest.raises(StorageUnavailableError, match="MODELSTORE_OFFLINE=1 reads"):
        host("a")
    with pytest.raises(StorageUnavailableError) as caught:
        host("b")
    assert "OFFLINE" not in str(caught.value)  # it would find nothing


def test_the_past_can_be_looked_at(host: Hosts[str]) -> None:
    a = host("a")
    model = a.models.create(name="one", comment="before")
    moment = datetime.now(UTC)
    time.sleep(0.01)
    a.models.edit(model.id, comment="after")
    b = host("b")
    assert b.models.get(model.id).comment == "after"
    with b.at(moment) as past:
        assert past.models.get(model.id).comment == "before"
    assert b.models.get(model.id).comment == "after"


def test_places_that_no_registry_can_have_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("memory://", "ftp://host/x", "zip://x::s3://y/z", "gopher://x/y"):
        with pytest.raises((InvalidRequestError, ValueError)):
            Registry(wrong)
    with pytest.raises(InvalidRequestError, match="always shared"):
        Registry(f"memory://{uuid.uuid4().hex}/x", shared=False)
    with pytest.raises(RegistryNotFoundError):
        Registry(f"memory://{uuid.uuid4().hex}/x", create=False)


def test_what_only_a_folder_can_have_is_refused(host: Hosts[str], tmp_path: Path) -> None:
    """Before anything is touched, with what to do instead."""
    host("a").models.create(name="one")
    refused: list[Callable[[], object]] = [
        lambda: convert(host.place, "local"),
        lambda: move(host.place, tmp_path / "elsewhere"),
        lambda: recover(tmp_path / "backup", host.place),
    ]
    for action in refused:
        with pytest.raises(InvalidRequestError, match=re.escape(host.place)) as caught:
            action()
        assert caught.value.hint
    assert ModelSearch().count(host("b")) == 1


def test_an_answer_that_is_lost_and_comes_true_late_is_missed_by_nobody(
    host: Hosts[str], place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not by somebody who synced in between, with one who knew of the changes after it."""
    a, b = host("a"), host("b")
    a.models.create(name="before")
    late: list[tuple[Any, ...]] = []

    def held(self: Bucket, name: str, data: bytes) -> None:
        late.append((self, name, data))
        raise StorageUnavailableError("no answer") from TimeoutError()

    write = Bucket.write
    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "write", held)
        with pytest.raises(StorageError, match="Nobody knows"):
            a.models.create(name="late")
    a.models.create(name="after")
    with Registry(tmp_path / "laptop", cache=tmp_path / "laptop-cache") as laptop:
        assert b.sync(str(tmp_path / "laptop")).sent.operations == 2
        write(*late[0])
        assert b.sync(str(tmp_path / "laptop")).sent.operations == 1
        assert {m.name for m in ModelSearch().run(laptop)} == {"before", "late", "after"}
        assert contents(a) == contents(b) == contents(laptop)


def test_an_index_that_is_lost_is_made_again_with_a_writer_of_its_own(host: Hosts[str]) -> None:
    a = host("a")
    a.models.create(name="one")
    before = contents(a)
    writers = {row[0] for row in a.database.all("SELECT id FROM writers")}
    a.close()
    a.database.path.unlink()
    again = host("a")
    assert contents(again) == before
    again.models.create(name="two")
    assert {row[0] for row in again.database.all("SELECT id FROM writers")}.isdisjoint(writers)


class _Team:
    """Three hosts on a bad day, and what they were told."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.place = f"memory://bucket-{uuid.uuid4().hex}/x"
        self.hosts: list[Registry] = []
        self.sinners: list[SinfulBucket] = []
        for number in range(3):
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("MODELSTORE_INDEX", str(folder / f"{number}"))
                registry = Registry(self.place, cache=folder / f"{number}-cache")
            sinner = SinfulBucket(self.place, seed + number, 0.1)
            registry.bucket = sinner
            registry.home._bucket = sinner  # type: ignore[union-attr]
            self.hosts.append(registry)
            self.sinners.append(sinner)
        self.models: dict[str, set[str]] = {}
        self.doubtful: set[str] = set()
        self.number = 0

    def act(self, host: int, what: str) -> None:
        registry = self.hosts[host]
        self.number += 1
        name = f"{self.number}"
        known = sorted(self.models)
        model = known[self.number % len(known)] if known else None
        try:
            if what == "create":
                self.models[registry.models.create(name=name).id] = set()
            elif what == "together":
                with registry.transaction():
                    made = [registry.models.create(name=name).id for _ in range(2)]
                self.models |= {one: set() for one in made}
            elif what == "compact":
                registry.compact()
            elif model is not None and what == "tag":
                registry.models.tag(model, add=[name])
                self.models[model].add(name)
            elif what == "look":
                registry.refresh()
        except NotFoundError:
            pass  # a listing of yesterday: this host has not heard of the model
        except StorageError:
            self.doubtful.add(name)

    def end(self) -> None:
        for sinner in self.sinners:
            sinner.rate = 0.0
        states = [contents(registry) for registry in self.hosts]
        assert states[0] == states[1] == states[2]
        with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as fresh:
            patch.setenv("MODELSTORE_INDEX", fresh)
            with Registry(self.place, cache=Path(fresh, "cache")) as new:
                assert contents(new) == states[0]
                assert [f.what for f in new.check() if f.severity == "error"] == []
        found = {m.id: m for m in ModelSearch().run(self.hosts[0])}
        assert self.models.keys() <= found.keys()
        for model, tags in self.models.items():
            assert tags <= set(found[model].tags) <= tags | self.doubtful
        for model in found.keys() - self.models.keys():
            assert found[model].name in self.doubtful
        names = [m.name for m in found.values()]
        assert all(names.count(name) in {1, 2} for name in names)
        for registry in self.hosts:
            registry.close()


@settings(max_examples=settings().max_examples // 4)
@given(
    seed=st.integers(0, 2**32),
    plan=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["create", "together", "tag", "tag", "compact", "look"])),
        min_size=5,
        max_size=25,
    ),
)
def test_nothing_acknowledged_is_lost_and_all_hosts_end_with_the_same(seed: int, plan: list[tuple[int, str]]) -> None:
    """Errors before and after the deed, listings of a while ago; a change that was refused is there or not."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bucket, "settled_after_s", -1.0)
        patch.setattr(bucket_module, "_MANY_LOOSE", 8)
        team = _Team(seed, Path(folder))
        for host, what in plan:
            team.act(host, what)
        team.end()


# -- real stores, real processes, a bad network ------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_two_hosts_use_s3(
    on_s3: tuple[str, FaultyProxy], tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real driver, over a network that fails now and then."""
    hosts = Hosts(on_s3[0], tmp_path, monkeypatch)
    a, b = hosts("a"), hosts("b")
    on_s3[1].rate = 0.1
    model = register_files(a, weights, name="one")
    a.compact()
    on_s3[1].rate = 0.0
    assert b.weights.local_copy(b.models.get(model.id)).read_bytes() == weights.read_bytes()
    assert contents(b) == contents(a) == contents(hosts("c"))
    for registry in hosts.opened:
        registry.close()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "step",
    [
        "journal.append.2",
        "journal.append.3",
        pytest.param("shared.write.2", marks=pytest.mark.long),
        pytest.param("shared.write.3", marks=pytest.mark.long),
    ],
)
def test_a_writer_killed_anywhere_leaves_the_whole_change_or_none(
    on_s3: tuple[str, FaultyProxy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    hosts = Hosts(on_s3[0], tmp_path, monkeypatch)
    hosts("a").models.create(name="before")
    hosts.opened[0].close()
    monkeypatch.setenv("MODELSTORE_FAULTS", f"{step}=kill")
    done = subprocess.run([sys.executable, "-c", _KILLED, on_s3[0]], check=False)
    monkeypatch.delenv("MODELSTORE_FAULTS")
    assert done.returncode == -signal.SIGKILL
    a, b = hosts("a"), hosts("b")
    a.models.create(name="after")
    assert ModelSearch().count(b) == ModelSearch().count(a) == 2 + 2 * (step != "journal.append.2")
    assert contents(a) == contents(b)
    for registry in hosts.opened:
        registry.close()


_KILLED = """
import sys
from modelstore.registry import Registry
from modelstore.testing import faults
registry = Registry(sys.argv[1])
faults.install()
with registry.transaction():
    registry.models.create(name="one")
    registry.models.create(name="two")
"""


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore")
def test_a_team_works_on_s3_behind_a_bad_network(on_s3: tuple[str, FaultyProxy], tmp_path: Path) -> None:
    with Registry(on_s3[0], cache=tmp_path / "cache"):
        pass
    team_behind_a_bad_network(on_s3[0], tmp_path, on_s3[1], 120)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore")
def test_a_team_works_on_google_storage_behind_a_bad_network(
    gs_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelstore.storage.filesystems import open_filesystem

    with faulty_proxy(gs_server) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        bucket = f"bucket-{uuid.uuid4().hex}"
        fs, _ = open_filesystem(f"gs://{bucket}", {"token": "anon", "project": "p"})
        fs.mkdir(bucket)
        with Registry(f"gs://{bucket}/team", cache=tmp_path / "cache"):
            pass
        team_behind_a_bad_network(f"gs://{bucket}/team", tmp_path, proxy, 25)

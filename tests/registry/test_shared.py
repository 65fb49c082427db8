"""A shared registry: several private indexes, which stand for hosts, on one folder."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelstore import ids
from modelstore.errors import (
    InvalidRequestError,
    NetworkFilesystemError,
    NewerRegistryError,
    PublishedModelError,
    ReadOnlyRegistryError,
    RegistryError,
    StorageError,
    StorageUnavailableError,
)
from modelstore.index.contents import read_index
from modelstore.journal.files import Files
from modelstore.journal.folder import FolderHome
from modelstore.registry import Registry, mounts, places
from modelstore.registry.search import ModelSearch
from tests.kinds import SHARED
from tests.registry.hosts import Hosts, contents


@pytest.fixture
def team(tmp_path: Path) -> Path:
    return tmp_path / "team"


@pytest.fixture
def host(team: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts[Path]]:
    with Hosts(team, tmp_path, monkeypatch, shared=True) as hosts:
        yield hosts


def test_no_database_lies_in_the_shared_folder(host: Hosts[Path], team: Path) -> None:
    host("a").models.create(name="one")
    assert json.loads((team / "modelstore.json").read_text())["kind"] == "shared"
    assert not list(team.rglob("*.db*"))
    assert sorted(path.suffix for path in (team / "journal").iterdir()) == [".ops", ".tip"]


def test_what_one_host_has_written_the_next_question_on_another_sees(host: Hosts[Path]) -> None:
    a, b = host("a"), host("b")
    model = a.models.create(name="one", tags=["x"], metadata={"iou": 0.5})
    assert b.models.get(model.id).name == "one"
    b.models.tag(model.id, add=["y"])
    assert [m.id for m in ModelSearch(tags=["__$and", "x", "y"]).run(a)] == [model.id]
    a.models.edit(model.id, comment="c")
    assert b.models.get(model.id).comment == "c"
    assert contents(a) == contents(b)
    assert a.database.all("SELECT 1 FROM conflicts") == []


def test_a_write_knows_what_another_host_has_published(host: Hosts[Path]) -> None:
    a, b = host("a"), host("b")
    model = a.models.create(name="one", uri="s3://bucket/x.pt")
    b.models.publish(model.id)
    with pytest.raises(PublishedModelError):
        a.models.edit(model.id, uri="s3://bucket/y.pt")


def test_a_transaction_is_one_append_and_others_see_all_of_it(host: Hosts[Path], team: Path) -> None:
    a, b = host("a"), host("b")
    with a.transaction():
        for name in "xyz":
            a.models.create(name=name)
        assert ModelSearch().count(b) == 0
    assert ModelSearch().count(b) == 3
    assert {o.batch_size for _, o in b.operations()} == {3}
    with pytest.raises(ZeroDivisionError), a.transaction():
        a.models.create(name="never")
        raise ZeroDivisionError
    assert ModelSearch().count(a) == ModelSearch().count(b) == 3


def test_many_models_and_reports_go_to_the_journal_too(host: Hosts[Path]) -> None:
    a, b = host("a"), host("b")
    a.models.create_many({"name": f"m{n}", "tags": ["many"]} for n in range(300))
    model = ModelSearch(limit=1).run(b)[0]
    b.reports.scalar("model", model.id, "loss", "train", 0.25, 1)
    b.flush_reports()
    assert [series.last for series in a.reports.series(model.id)] == [0.25]
    assert contents(a) == contents(b)


def test_weights_are_read_from_the_share_once_by_each_host(host: Hosts[Path], team: Path, tmp_path: Path) -> None:
    a, b = host("a"), host("b")
    file = tmp_path / "best.pt"
    file.write_bytes(b"weights" * 1000)
    from modelstore.registry.sources import Source

    with a.weights.snapshot(Source.file(file, None)) as snapshot:
        stored = a.weights.store(snapshot, None)
    model = a.models.create(name="one", **stored.fields())
    copy = b.weights.local_copy(b.models.get(model.id))
    assert copy.read_bytes() == file.read_bytes()
    assert copy.is_relative_to(b.cache_folder)
    for path in (team / "objects").rglob("best.pt"):
        path.unlink()
    assert b.weights.local_copy(b.models.get(model.id)) == copy


def test_an_index_that_is_lost_is_made_again_with_a_writer_of_its_own(host: Hosts[Path]) -> None:
    a = host("a")
    model = a.models.create(name="one")
    before, private = contents(a), a.private
    a.close()
    for path in private.glob("registry.db*"):
        path.unlink()
    again = host("a")
    assert contents(again) == before
    again.models.edit(model.id, comment="more")
    assert len({o.stamp[16:] for _, o in again.operations()}) == 2


def test_a_closed_stream_is_gone_on_with_in_a_new_one(host: Hosts[Path], team: Path) -> None:
    a, b = host("a"), host("b")
    a.models.create(name="one")
    home = FolderHome(team)
    assert home.pack(home.tips()) == 1
    a.models.create(name="two")
    assert ModelSearch().count(b) == 2
    assert contents(a) == contents(b)


def test_a_copy_of_an_index_never_continues_a_stream_that_went_on_without_it(
    host: Hosts[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    a = host("a")
    a.models.create(name="one")
    copy = host("copy")
    copy.close()
    a.database.copy_to(copy.private / "copy.db")
    for path in copy.private.glob("registry.db*"):
        path.unlink()
    (copy.private / "copy.db").rename(copy.private / "registry.db")
    monkeypatch.setattr(os, "stat", _with_inode_of(os.stat, a.database.path, copy.private / "registry.db"))
    copy = host("copy")
    a.models.create(name="two")
    copy.models.create(name="three")
    a.models.create(name="four")
    assert ModelSearch().count(a) == ModelSearch().count(copy) == 4
    assert contents(a) == contents(copy)
    assert len({o.stamp[16:] for _, o in a.operations()}) > 1


def _with_inode_of(stat: Any, original: Path, copy: Path) -> Any:
    def lying(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        found: os.stat_result = stat(path, *arguments, **options)
        if path == copy:
            return os.stat_result((found[0], stat(original).st_ino, *found[2:]))
        return found

    return lying


def test_clocks_that_differ_by_minutes_and_jump_change_nothing(
    host: Hosts[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = host("a"), host("b")
    model = a.models.create(name="one")
    for number, (registry, shift) in enumerate([(a, 600), (b, -600), (a, -6000), (b, 0), (a, 60), (b, -1)]):
        now = time.time_ns() // 1_000_000 + shift * 1000
        monkeypatch.setattr(ids, "now_ms", lambda now=now: now)
        registry.models.edit(model.id, comment=f"edit {number}")
        assert {r.models.get(model.id).comment for r in (a, b)} == {f"edit {number}"}
    assert a.database.all("SELECT 1 FROM conflicts") == []


def test_a_journal_that_cannot_be_read_is_an_error_and_offline_goes_on_with_what_is_known(
    host: Hosts[Path], team: Path
) -> None:
    a = host("a")
    model = a.models.create(name="one")
    (team / "journal").rename(team / "away")
    with pytest.raises(StorageError, match="MODELSTORE_OFFLINE"):
        a.models.get(model.id)
    with pytest.raises(StorageError):
        a.models.create(name="two")
    offline = host("a", offline=True)
    assert offline.models.get(model.id).name == "one"
    with pytest.raises(StorageUnavailableError):
        offline.models.edit(model.id, comment="never")
    (team / "away").rename(team / "journal")
    assert ModelSearch().count(a) == 1
    a.models.edit(model.id, comment="now")


def test_a_folder_that_is_not_mounted_is_no_place_for_a_new_registry(host: Hosts[Path], team: Path) -> None:
    """What would be written there is lost to the team as soon as the folder is mounted again; offline reads go on."""
    model = host("a").models.create(name="one")
    team.rename(team.with_name("away"))
    team.mkdir()  # a mount point
    for create in (True, False):
        with pytest.raises(StorageUnavailableError, match="MODELSTORE_OFFLINE"):
            host("a", shared=None, create=create)
    assert host("a", shared=None, offline=True).models.get(model.id).name == "one"
    assert host("a", offline=True).models.get(model.id).name == "one"
    assert list(team.iterdir()) == []

    assert host("stranger", shared=None).kind == ("shared" if SHARED else "local")


def test_a_shared_registry_that_was_deleted_is_made_anew_when_it_is_asked_for(host: Hosts[Path], team: Path) -> None:
    """Whoever says `shared=True` says that there may be none."""
    host("a").models.create(name="one")
    shutil.rmtree(team)
    again = host("a")
    again.models.create(name="two")
    assert ModelSearch().count(host("b")) == 1


def test_a_write_that_cannot_reach_the_journal_leaves_nothing(
    host: Hosts[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    a = host("a")
    a.models.create(name="one")

    def failing(*_: object) -> int:
        raise StorageError("no")

    with monkeypatch.context() as patch:
        patch.setattr(FolderHome, "append", failing)
        with pytest.raises(StorageError, match="no"):
            a.models.create(name="two")
    assert ModelSearch().count(a) == 1


def test_a_folder_that_this_user_may_not_write_can_be_read(host: Hosts[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    a = host("a")
    model = a.models.create(name="one")

    def forbidden(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Files, "rename", forbidden)
    with pytest.raises(ReadOnlyRegistryError):
        a.models.edit(model.id, comment="never")
    assert a.models.get(model.id).comment is None


def test_the_format_file_decides_what_a_registry_is(team: Path, tmp_path: Path) -> None:
    Registry(team, shared=True).close()
    with Registry(team) as registry:
        assert registry.kind == "shared"
    with pytest.raises(InvalidRequestError, match="'shared'"):
        Registry(team, shared=False)
    (team / "modelstore.json").write_text('{"format": 1, "kind": "other", "id": "x"}')
    with pytest.raises(NewerRegistryError):
        Registry(team)


def test_where_network_filesystems_are_mounted_is_read_whatever_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spaces, other scripts, and bytes that are no text; what is mounted later covers what was there."""
    table = tmp_path / "mountinfo"
    monkeypatch.setattr(mounts, "_TABLE", str(table))
    names = [b"/mnt/donn\xc3\xa9es", b"/mnt/a b", b"/mnt/\xff\xfe", b"/mnt/back\\slash"]
    kinds = [b"nfs4", b"cifs", b"fuse.sshfs", b"lustre"]
    lines = [b"1 0 0:1 / / rw - ext4 /dev/sda rw"]
    for name, kind in zip(names, kinds, strict=True):
        escaped = name.replace(b"\\", b"\\134").replace(b" ", b"\\040")
        lines.append(b"2 1 0:2 / %b rw,relatime shared:1 - %b server:/x rw" % (escaped, kind))
    table.write_bytes(b"\n".join(lines) + b"\n")

    for name, kind in zip(names, kinds, strict=True):
        assert mounts.network_filesystem(Path(os.fsdecode(name), "registry")) == kind.decode()
    assert mounts.network_filesystem(Path("/mnt/other")) is None
    table.write_bytes(table.read_bytes() + b"3 2 0:3 / /mnt/a\\040b rw - tmpfs none rw\n")
    assert mounts.network_filesystem(Path("/mnt/a b/registry")) is None
    assert mounts.keeps_names(Path(os.fsdecode(names[0])))


def test_on_a_network_filesystem_new_registries_are_shared_and_local_ones_refused(
    team: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = tmp_path / "nfs" / "local"
    Registry(local, shared=False).close()
    monkeypatch.setattr(
        mounts, "network_filesystem", lambda folder: "nfs4" if (tmp_path / "nfs") in folder.parents else None
    )
    with pytest.raises(NetworkFilesystemError, match="convert --shared"):
        Registry(local)
    with Registry(tmp_path / "nfs" / "new") as registry:
        assert registry.kind == "shared"
        assert mounts.network_filesystem(registry.private) is None


def test_an_index_never_lies_on_a_network_filesystem(
    team: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "network_filesystem", lambda folder: "nfs4")
    monkeypatch.setenv("MODELSTORE_INDEX", str(tmp_path / "index"))
    with pytest.raises(NetworkFilesystemError, match="MODELSTORE_INDEX"):
        places.private_folder(team, "0" * 32)


_KILLED = """
import os, sys
from modelstore.registry import Registry
registry = Registry(sys.argv[1])
def step(event, arguments):
    if event == "modelstore.step" and arguments[0] == sys.argv[2]:
        os.kill(os.getpid(), 9)
sys.addaudithook(step)
registry.models.create(name="killed")
"""


@pytest.mark.parametrize(
    ("step", "there"),
    [
        ("shared.write.1", False),
        ("journal.append.2", False),
        ("journal.append.3", False),
        ("journal.append.4", True),
        ("shared.write.2", True),
        ("shared.write.3", True),
    ],
)
def test_a_writer_killed_anywhere_leaves_the_whole_change_or_none(host: Hosts[Path], step: str, there: bool) -> None:
    a = host("a")
    a.models.create(name="before")
    done = subprocess.run([sys.executable, "-c", _KILLED, str(host.place), step], check=False)
    assert done.returncode == -signal.SIGKILL
    b = host("b")
    for already, registry in enumerate((a, b)):
        assert ModelSearch().count(registry) == 1 + there + already
        registry.models.create(name="after")
    assert contents(a) == contents(b)
    assert ModelSearch().count(a) == 3 + there


_WORKER = """
import sys
from modelstore.registry import Registry
with Registry(sys.argv[1]) as registry:
    for number in range(10):
        registry.models.create(name=f"{sys.argv[2]}-{number}", tags=["t"])
"""


def test_processes_of_several_hosts_write_at_once(host: Hosts[Path], tmp_path: Path) -> None:
    a = host("a")
    children = [
        subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(host.place), str(number)],
            env=os.environ | {"MODELSTORE_INDEX": str(tmp_path / f"host{number % 3}")},
        )
        for number in range(6)
    ]
    assert [child.wait(100) for child in children] == [0] * 6
    assert ModelSearch(tags=["t"]).count(a) == 60
    assert contents(host("b")) == contents(a)


def test_an_index_that_cannot_note_a_change_says_that_it_is_made(host: Hosts[Path]) -> None:
    """The journal has it, so a second try would make it twice; everybody sees it, and this host goes on."""
    ann, bob = host("ann"), host("bob")
    ann.models.create(name="before")
    transaction, allowed, denied = 22, 0, 1  # sqlite3.h: SQLITE_TRANSACTION, SQLITE_OK, SQLITE_DENY

    def refuse(action: int, what: str | None, *_: object) -> int:
        return denied if action == transaction and what == "COMMIT" else allowed

    connection = ann.database.connection
    connection.set_authorizer(refuse)
    with pytest.raises(RegistryError, match="Do not repeat it"):
        ann.models.create(name="noted nowhere here")
    connection.set_authorizer(None)

    for registry in (ann, bob):
        registry.refresh()
        names = sorted(model.name or "" for model in ModelSearch().run(registry))
        assert names == ["before", "noted nowhere here"]
    ann.models.create(name="after")
    bob.refresh()
    assert read_index(ann.database.connection) == read_index(bob.database.connection)


def test_what_a_killed_process_of_this_host_left_is_collected(host: Hosts[Path]) -> None:
    """Each host cleans up after its own; what others are sending is theirs."""
    ann, bob = host("ann"), host("bob")
    left = [registry.weights.uploads.folder / "0123.bin" for registry in (ann, bob)]
    for path in left:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"half")
        os.utime(path, (0, 0))

    garbage = ann.gc().garbage

    assert [one.why for one in garbage] == ["unfinished"]
    assert [path.exists() for path in left] == [False, True]

"""A registry behind a server, used through an index on this host: every call works, offline too."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")

from modelstore.errors import (
    AccessDeniedError,
    InvalidRequestError,
    PublishedModelError,
    RegistryNotFoundError,
    StorageUnavailableError,
)
from modelstore.registry import Registry
from modelstore.registry.registration import register_files
from modelstore.registry.search import ModelSearch
from modelstore.server import Settings, Tokens
from modelstore.storage.retries import Patience
from modelstore.sync.http import HttpPartner
from modelstore.sync.replica import ServerJournal
from modelstore.testing.servers import server_thread
from tests.registry.hosts import Hosts, contents


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Registry]:
    """The registry behind the server."""
    with Registry(tmp_path / "team", actor="server@host", cache=tmp_path / "team-cache") as registry:
        yield registry


@pytest.fixture
def host(team: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts[str]]:
    with server_thread(Settings(str(team.folder), port=0)) as url, Hosts(url, tmp_path, monkeypatch) as hosts:
        yield hosts


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "best é.pt"
    path.write_bytes(b"weights" * 1000)
    return path


def test_what_one_host_has_written_the_next_question_on_another_sees(host: Hosts[str], team: Registry) -> None:
    a, b = host("a"), host("b")
    assert a.id == team.id
    model = a.models.create(name="one", uri="s3://bucket/x.pt", tags=["x"])
    assert team.models.get(model.id).name == "one"
    b.models.tag(model.id, add=["y"])
    assert [m.id for m in ModelSearch(tags=["__$and", "x", "y"]).run(a)] == [model.id]
    b.models.publish(model.id)
    with pytest.raises(PublishedModelError):
        a.models.edit(model.id, uri="s3://bucket/y.pt")
    assert contents(a) == contents(b) == contents(team)


def test_a_transaction_arrives_as_one(host: Hosts[str], team: Registry) -> None:
    a = host("a")
    with a.transaction():
        for name in "xyz":
            a.models.create(name=name)
        assert ModelSearch().count(team) == 0
    assert ModelSearch().count(team) == 3
    assert {o.batch_size for _, o in team.operations()} == {3}
    with pytest.raises(ZeroDivisionError), a.transaction():
        a.models.create(name="never")
        raise ZeroDivisionError
    assert ModelSearch().count(a) == ModelSearch().count(team) == 3


def test_weights_go_to_the_server_and_each_host_reads_them_once(
    host: Hosts[str], team: Registry, weights: Path
) -> None:
    a, b = host("a"), host("b")
    model = register_files(a, weights, name="one")
    digest = f"sha256:{hashlib.sha256(weights.read_bytes()).hexdigest()}"
    assert team.weights.objects.size(digest, "best é.pt") == 7000
    assert list((a.private / "objects").rglob("*.pt")) == []
    with b.weights.open(b.models.get(model.id)) as file:
        assert file.read(7) == b"weights"
    copy = b.weights.local_copy(b.models.get(model.id))
    assert copy.read_bytes() == weights.read_bytes()
    assert copy.is_relative_to(b.cache_folder)
    team.weights.objects.remove(digest)
    assert b.weights.local_copy(b.models.get(model.id)) == copy


def test_bytes_that_the_server_has_not_are_missed(host: Hosts[str], team: Registry, weights: Path) -> None:
    a = host("a")
    model = register_files(a, weights, name="one")
    team.weights.objects.remove(str(model.digest))
    with pytest.raises(Exception, match="nothing at|missing|There is"):
        host("b").weights.local_copy(model)


def test_what_was_made_offline_is_sent_with_the_next_question(host: Hosts[str], team: Registry, weights: Path) -> None:
    """Bytes first; meanwhile everything works here."""
    host("a").models.create(name="online")
    offline = host("a", offline=True)
    model = register_files(offline, weights, name="offline", tags=["train"])
    assert ModelSearch().count(offline) == 2
    assert offline.weights.local_copy(model).read_bytes() == weights.read_bytes()
    offline.models.publish(model.id)
    assert ModelSearch().count(team) == 1
    offline.close()
    team.models.create(name="meanwhile")

    again = host("a")
    assert ModelSearch().count(again) == ModelSearch().count(team) == 3
    assert team.models.get(model.id).published
    assert team.weights.local_copy(team.models.get(model.id)).read_bytes() == weights.read_bytes()
    assert list((again.private / "objects").rglob("*.pt")) == []
    assert again.weights.local_copy(model).read_bytes() == weights.read_bytes()
    assert contents(again) == contents(team)


def test_what_is_written_offline_beside_a_process_that_is_online_is_not_passed_over(
    host: Hosts[str], team: Registry, monkeypatch: pytest.MonkeyPatch, weights: Path
) -> None:
    """Both are one writer; between the look for news and the change of the one, the other writes."""
    online = host("a")
    online.models.create(name="before")
    offline = host("a", offline=True)
    look = ServerJournal.take_in
    models: list[str] = []

    def interrupted(self: ServerJournal) -> None:
        look(self)
        if self is online.database.journal and not models:
            models.append("")
            models[0] = register_files(offline, weights, name="offline").id

    monkeypatch.setattr(ServerJournal, "take_in", interrupted)
    online.models.create(name="online")
    assert team.models.get(models[0]).name == "offline"
    assert team.weights.local_copy(team.models.get(models[0])).read_bytes() == weights.read_bytes()
    assert contents(online) == contents(team)


def test_a_host_that_was_never_there_knows_nothing_offline(host: Hosts[str]) -> None:
    with pytest.raises(RegistryNotFoundError, match="knows nothing"):
        host("a", offline=True)


def test_a_server_that_is_away_is_an_error_with_what_to_do(
    team: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Patience, "after", lambda *_: False)
    with server_thread(Settings(str(team.folder), port=0)) as url:
        monkeypatch.setenv("MODELSTORE_INDEX", str(tmp_path / "index"))
        registry = Registry(url, cache=tmp_path / "cache")
        model = registry.models.create(name="one")
    with registry:
        with pytest.raises(StorageUnavailableError, match="OFFLINE"):
            registry.models.get(model.id)
        with pytest.raises(StorageUnavailableError):
            registry.models.create(name="two")
    with Registry(url, cache=tmp_path / "cache", offline=True) as offline:
        assert offline.models.get(model.id).name == "one"


def test_what_the_server_refuses_of_what_was_made_offline_waits_for_somebody_who_may(
    team: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told with every question, since nobody can see the team's state and his own as one; nothing is lost."""
    tokens = Tokens(team)
    secrets = {role: tokens.create(role, role) for role in ("write", "admin")}
    monkeypatch.setenv("MODELSTORE_TOKEN", secrets["write"])
    with server_thread(Settings(str(team.folder), port=0)) as url, Hosts(url, tmp_path, monkeypatch) as hosts:
        hosts("w").models.create(name="one")
        hosts("w", offline=True, actor="ann@laptop").models.create(name="two")
        with pytest.raises(AccessDeniedError, match="made here offline.*MODELSTORE_OFFLINE=1"):
            ModelSearch().count(hosts("w"))
        assert ModelSearch().count(hosts("w", offline=True)) == 2
        monkeypatch.setenv("MODELSTORE_TOKEN", secrets["admin"])
        assert ModelSearch().count(hosts("w")) == 2
        monkeypatch.setenv("MODELSTORE_TOKEN", secrets["write"])
        hosts("w").models.create(name="three")
    assert {model.name for model in ModelSearch().run(team)} == {"one", "two", "three"}


def test_changes_are_made_as_the_token_says(
    team: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Path
) -> None:
    tokens = Tokens(team)
    secrets = {role: tokens.create(role, role) for role in ("read", "write", "admin")}
    with server_thread(Settings(str(team.folder), port=0)) as url:
        hosts = Hosts(url, tmp_path, monkeypatch)
        with pytest.raises(AccessDeniedError):
            hosts("nobody")
        monkeypatch.setenv("MODELSTORE_TOKEN", secrets["write"])
        writer = hosts("w")
        model = register_files(writer, weights, name="one")
        assert {o.actor for _, o in team.operations()} == {f"write@{os.uname().nodename}"}
        assert hosts("w", offline=True).actor == writer.actor
        with pytest.raises(AccessDeniedError, match="may not bring"):
            hosts("w", actor="ann@laptop").models.create(name="two")
        assert writer.models.create(name="three").name == "three"
        monkeypatch.setenv("MODELSTORE_TOKEN", secrets["read"])
        reader = hosts("r")
        assert reader.weights.local_copy(reader.models.get(model.id)).read_bytes() == weights.read_bytes()
        with pytest.raises(AccessDeniedError):
            reader.models.create(name="never")
        assert ModelSearch().count(reader) == 2
        for registry in hosts.opened:
            registry.close()
        assert secrets["write"].encode() not in b"".join(p.read_bytes() for p in writer.private.rglob("*.db*"))


def test_an_answer_that_is_lost_is_not_built_upon(
    host: Hosts[str], team: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change is there, though its maker was told that nobody knows; his next is by another writer."""
    a = host("a")
    a.models.create(name="before")
    send = HttpPartner.take_in

    def lost(self: HttpPartner, parcel: Any) -> Any:
        send(self, parcel)
        raise StorageUnavailableError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(HttpPartner, "take_in", lost)
        with pytest.raises(StorageUnavailableError, match="Nobody knows"):
            a.models.create(name="lost")
    a.models.create(name="after")
    assert {m.name for m in ModelSearch().run(a)} == {"before", "lost", "after"}
    assert len({o.stamp[16:] for _, o in team.operations()}) == 2
    assert contents(a) == contents(team) == contents(host("b"))


def test_an_answer_that_comes_true_after_the_next_change_is_taken_in(
    host: Hosts[str], team: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request was still on its way when the connection broke."""
    a = host("a")
    a.models.create(name="before")
    late: list[tuple[HttpPartner, Any]] = []

    def held(self: HttpPartner, parcel: Any) -> Any:
        late.append((self, parcel))
        raise StorageUnavailableError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(HttpPartner, "take_in", held)
        with pytest.raises(StorageUnavailableError):
            a.models.create(name="late")
    a.models.create(name="after")
    late[0][0].take_in(late[0][1])
    assert {m.name for m in ModelSearch().run(a)} == {"before", "late", "after"}
    assert contents(a) == contents(team)


_KILLED = """
import sys
from modelstore.registry import Registry
from modelstore.testing import faults
registry = Registry(sys.argv[1], offline=len(sys.argv) > 2)
faults.install()
if len(sys.argv) > 2:
    registry.models.create(name="one")
else:
    with registry.transaction():
        registry.models.create(name="one")
        registry.models.create(name="two")
"""


@pytest.mark.parametrize(("step", "there"), [("replica.write.3", False), ("replica.write.4", True)])
def test_a_writer_killed_anywhere_leaves_the_whole_change_or_none(
    host: Hosts[str], team: Registry, monkeypatch: pytest.MonkeyPatch, step: str, there: bool
) -> None:
    host("a").models.create(name="before")
    host.opened[0].close()
    monkeypatch.setenv("MODELSTORE_FAULTS", f"{step}=kill")
    done = subprocess.run([sys.executable, "-c", _KILLED, host.place], check=False)
    monkeypatch.delenv("MODELSTORE_FAULTS")
    assert done.returncode == -signal.SIGKILL
    a = host("a")
    a.models.create(name="after")
    assert ModelSearch().count(a) == ModelSearch().count(team) == 2 + 2 * there
    assert contents(a) == contents(team)


@pytest.mark.parametrize("step", ["replica.waiting.1", "replica.waiting.2"])
def test_a_process_killed_while_it_sends_what_was_waiting_is_followed_by_one_that_does(
    host: Hosts[str], team: Registry, monkeypatch: pytest.MonkeyPatch, step: str, weights: Path
) -> None:
    host("a").close()
    offline = host("a", offline=True)
    model = register_files(offline, weights, name="offline")
    offline.close()
    monkeypatch.setenv("MODELSTORE_FAULTS", f"{step}=kill")
    done = subprocess.run([sys.executable, "-c", _KILLED, host.place], check=False)
    monkeypatch.delenv("MODELSTORE_FAULTS")
    assert done.returncode == -signal.SIGKILL
    assert ModelSearch().count(host("a")) == ModelSearch().count(team) == 1
    assert team.weights.local_copy(team.models.get(model.id)).read_bytes() == weights.read_bytes()


def test_a_forked_child_asks_by_itself(host: Hosts[str], team: Registry) -> None:
    a = host("a")
    a.models.create(name="parent")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            a.models.create(name="child")
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    a.models.create(name="parent again")
    assert ModelSearch().count(a) == ModelSearch().count(team) == 3


def test_what_only_the_servers_own_host_can_do_is_refused(host: Hosts[str], tmp_path: Path) -> None:
    from modelstore.registry.converting import convert
    from modelstore.registry.moving import move

    a = host("a")
    a.models.create(name="one")
    for action in (lambda: convert(host.place, "local"), lambda: move(host.place, tmp_path / "x"), a.compact):
        with pytest.raises(InvalidRequestError):
            action()
    with pytest.raises(InvalidRequestError):
        Registry(host.place, shared=False)
    assert a.gc().garbage == ()
    assert [f for f in a.check() if f.severity == "error"] == []


def test_what_is_taken_in_from_others_arrives_whoever_made_it(
    host: Hosts[str], team: Registry, weights: Path, tmp_path: Path
) -> None:
    """A bundle, or a sync with a laptop: changes of many writers, of whom the server may lack those before."""
    ann, bob = (Registry(tmp_path / name, cache=tmp_path / f"{name}-cache") for name in ("ann", "bob"))
    with ann, bob:
        first = bob.models.create(name="bob's first")
        second = bob.models.create(name="bob's second")
        model = register_files(ann, weights, name="ann's")
        ann.sync(bob.folder)
        ann.export_models([second.id, model.id], tmp_path / "bundle")
        a = host("a")
        a.models.create(name="a's")
        a.import_models(tmp_path / "bundle")
        assert {m.name for m in ModelSearch().run(team)} == {"a's", "ann's", "bob's second"}
        assert contents(a) == contents(team) == contents(host("b"))
        assert team.weights.local_copy(team.models.get(model.id)).read_bytes() == weights.read_bytes()
        a.sync(str(bob.folder))
        assert {m.id for m in ModelSearch().run(team)} > {first.id, second.id, model.id}
        assert contents(a) == contents(team) == contents(bob)
        assert not team.fsck(deep=True).damaged


def test_offline_what_others_made_is_not_taken_in(host: Hosts[str], team: Registry, tmp_path: Path) -> None:
    """Only what this host made waits for the server."""
    with Registry(tmp_path / "ann", cache=tmp_path / "ann-cache") as ann:
        ann.export_models([ann.models.create(name="ann's").id], tmp_path / "bundle")
    host("a").close()
    offline = host("a", offline=True)
    offline.models.create(name="waits")
    with pytest.raises(StorageUnavailableError, match="Changes of others"):
        offline.import_models(tmp_path / "bundle")
    again = host("a")
    again.import_models(tmp_path / "bundle")
    assert {m.name for m in ModelSearch().run(again)} == {m.name for m in ModelSearch().run(team)} == {"waits", "ann's"}

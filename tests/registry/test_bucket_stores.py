"""A registry in a bucket, with the driver of a store that does not answer, refuses, or has strange names in it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelstore.errors import (
    InvalidRequestError,
    ReadOnlyRegistryError,
    ReadOnlyStorageError,
    StorageUnavailableError,
)
from modelstore.registry import Registry
from modelstore.registry.registration import register_files
from modelstore.registry.search import ModelSearch
from modelstore.storage import buckets
from modelstore.storage.buckets import Bucket
from modelstore.storage.retries import Patience
from modelstore.testing.proxy import FaultyProxy
from tests.registry.hosts import Hosts, contents

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody answers at the store's address."""
    pytest.importorskip("s3fs")
    with socket.create_server(("127.0.0.1", 0), backlog=50) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setattr(buckets, "_ANSWER_S", 0.2)
        yield


@pytest.mark.usefixtures("silent")
def test_a_store_that_does_not_answer_is_given_up() -> None:
    """Its driver would go on for minutes."""
    bucket = Bucket("s3://silent/x", Patience(attempts=3, first_pause_s=0.01))
    with pytest.raises(StorageUnavailableError) as caught:
        bucket.entries("journal")
    assert caught.value.hint
    actions: list[Callable[[], object]] = [
        lambda: bucket.write("x", b"1"),
        lambda: bucket.remove(["x", "y"]),
        lambda: bucket.size("x"),
    ]
    for action in actions:
        with pytest.raises(StorageUnavailableError):
            action()


def test_names_that_look_like_patterns_remove_nothing_else(on_s3: tuple[str, FaultyProxy]) -> None:
    bucket = Bucket(on_s3[0])
    for name in ("best*.pt", "best1.pt", "best[1].pt", "a b", "é?"):
        bucket.write(f"objects/x/{name}", b"1")
    bucket.remove([f"objects/x/{name}" for name in ("best*.pt", "best[1].pt", "é?", "gone")])
    assert sorted(bucket.tree("objects")) == ["x/a b", "x/best1.pt"]
    assert [[one.name for one in found] for found in bucket.entries_of_many(["objects/x", "none"])] == [
        ["a b", "best1.pt"], []
    ]  # fmt: skip
    on_s3[1].refused = frozenset({"DELETE", "POST"})
    with pytest.raises(ReadOnlyStorageError):
        bucket.remove(["objects/x/a b", "objects/x/best1.pt"])


def test_who_may_only_read_reads_and_is_told_so_when_he_writes(
    on_s3: tuple[str, FaultyProxy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, proxy = on_s3
    hosts = Hosts(place, tmp_path, monkeypatch)
    a = hosts("a")
    (tmp_path / "x.pt").write_bytes(b"weights")
    model = register_files(a, tmp_path / "x.pt", name="one")
    a.compact()
    proxy.refused = frozenset({"PUT", "POST", "DELETE"})
    b = hosts("b")
    assert [m.name for m in ModelSearch().run(b)] == ["one"]
    assert b.weights.local_copy(b.models.get(model.id)).read_bytes() == b"weights"
    assert b.check(deep=True) == []
    assert not b.fsck(deep=True).damaged
    assert b.gc(dry_run=True).garbage == ()
    assert b.backup(tmp_path / "backup").objects == 1
    for action in (
        lambda: b.models.create(name="two"),
        b.gc,
        b.compact,
        lambda: register_files(b, tmp_path / "backup", name="three"),
    ):
        with pytest.raises((ReadOnlyRegistryError, ReadOnlyStorageError)) as caught:
            action()
        assert getattr(caught.value, "hint", "")
    proxy.refused = frozenset()
    b.models.create(name="later")
    assert contents(a) == contents(b)
    for registry in hosts.opened:
        registry.close()


def test_a_bucket_that_cannot_be_reached_says_how_to_do_without(
    on_s3: tuple[str, FaultyProxy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only to a host that knows the registry: another would find nothing."""
    hosts = Hosts(on_s3[0], tmp_path, monkeypatch)
    hosts("a").close()
    on_s3[1].refused = frozenset({"GET", "HEAD"})
    with pytest.raises(StorageUnavailableError, match="MODELSTORE_OFFLINE=1"):
        hosts("a")
    with pytest.raises(StorageUnavailableError) as caught:
        hosts("b")
    assert "OFFLINE" not in str(caught.value)
    with hosts("a", offline=True) as registry:
        assert ModelSearch().count(registry) == 0
    with pytest.raises(InvalidRequestError, match="no bucket"):
        on_s3[1].refused = frozenset()
        Registry("s3://nowhere/x")

"""What of a writer is known, when his streams in a bucket arrive late or out of order."""

from __future__ import annotations

import errno
import gzip
import tempfile
from pathlib import Path
from typing import Any

import pytest

from modelstore.errors import StorageError, StorageFullError, StorageUnavailableError
from modelstore.registry import Registry, compacting
from modelstore.registry.search import ModelSearch
from modelstore.storage.buckets import Bucket, Entry
from tests.registry.hosts import Hosts, contents


def names(registry: Registry) -> set[str | None]:
    return {model.name for model in ModelSearch().run(registry)}


def test_an_answer_that_is_lost_is_not_forgotten_over_the_failure_of_the_next_change(
    host: Hosts[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many changes fail, no later one claims that the first is known: it may still arrive."""
    a, b = host("a"), host("b")
    a.models.create(name="before")
    with Registry(tmp_path / "other", cache=tmp_path / "other-cache") as other:
        other.models.create(name="theirs")
        theirs = [operation for _, operation in other.operations()]
    late: list[tuple[Any, ...]] = []

    def held(self: Bucket, name: str, data: bytes) -> None:
        late.append((self, name, data))
        raise StorageUnavailableError("no answer") from TimeoutError()

    write = Bucket.write
    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "write", held)
        for number in range(2):
            with pytest.raises(StorageError, match="Nobody knows"), a.transaction():
                a.models.create(name=f"late {number}")
                a.ingest(theirs)  # what comes last in the transaction is another writer's
    a.models.create(name="after")
    with Registry(tmp_path / "laptop", cache=tmp_path / "laptop-cache") as laptop:
        assert b.sync(str(tmp_path / "laptop")).sent.operations == 2
        for one, count in zip(late, (2, 1), strict=True):
            write(*one)
            assert b.sync(str(tmp_path / "laptop")).sent.operations == count
        assert names(laptop) == {"before", "late 0", "late 1", "theirs", "after"}
        assert contents(a) == contents(b) == contents(laptop)


def test_streams_that_are_listed_in_the_wrong_order_hide_no_change_from_a_later_sync(
    host: Hosts[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes of one host write in turn; a listing (of several pages, say) shows one of them late."""
    first = host("a")
    first.models.create(name="one")
    second = host("a")
    for registry, name in ((first, "two"), (second, "three"), (first, "four"), (second, "five")):
        registry.models.create(name=name)
    b = host("b")
    hidden = {row[0] for row in first.database.all("SELECT name FROM streams")}
    entries = Bucket.entries

    def partly(self: Bucket, folder: str) -> list[Entry]:
        return [one for one in entries(self, folder) if one.name.split(".")[0] not in hidden]

    monkeypatch.setattr(Bucket, "entries", partly)
    assert names(b) == set()
    hidden.pop()
    with Registry(tmp_path / "laptop", cache=tmp_path / "laptop-cache") as laptop:
        b.sync(str(tmp_path / "laptop"))
        assert len(names(laptop)) in {2, 3}
        hidden.clear()
        b.sync(str(tmp_path / "laptop"))
        assert names(laptop) == {"one", "two", "three", "four", "five"}
        assert contents(b) == contents(laptop) == contents(first)
        assert [*b.database.all("SELECT * FROM strays"), *laptop.database.all("SELECT * FROM strays")] == []
        assert b.database.all("SELECT * FROM registry_info WHERE key LIKE 'gap:%'") == []
        assert b.sync(str(tmp_path / "laptop")).nothing


def test_a_full_disk_of_this_host_is_told_as_that(host: Hosts[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is changed when what is sent cannot be noted; and closing does not fail for want of room to pack."""
    full = OSError(errno.ENOSPC, "No space left on device")

    def refuse(*_: Any, **__: Any) -> None:
        raise full

    a = host("a")
    with monkeypatch.context() as patch, pytest.raises(StorageFullError):
        patch.setattr(Path, "write_text", refuse)
        a.models.create(name="never")
    monkeypatch.setattr(compacting, "_MANY_STREAMS", 1)
    for number, (owner, what) in enumerate(((tempfile, "mkdtemp"), (gzip, "open"))):
        a = host("a")
        a.models.create(name=f"{number}")
        with monkeypatch.context() as patch:
            patch.setattr(owner, what, refuse)
            a.close()
    assert names(host("b")) == {"0", "1"}

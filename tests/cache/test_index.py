"""The index may be damaged, deleted or made by ten processes at once: it is made again from the folder."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from modelstore.cache import Cache
from modelstore.cache.process import forget_processes
from modelstore.errors import CacheBusyError, ReadOnlyStorageError, StorageError
from modelstore.testing.cache_origin import FolderOrigin, check_bytes, check_folder, damage
from tests.permissions import obeying_permissions

URI = "s3://bucket/net.pt"


@pytest.mark.parametrize("harm", ["delete", "garbage", "truncate", "page", "with its log"])
@pytest.mark.parametrize("running", [True, False])
def test_a_lost_index_is_made_again_from_the_folder(
    cache: Cache, origin: FolderOrigin, harm: str, running: bool
) -> None:
    """The bytes are still there, and with the digest they are found without the origin."""
    contents = [b"%d" % n * 500 for n in range(40)]
    digests = [origin.put(f"{URI}{n}", content) for n, content in enumerate(contents)]
    for n in range(40):
        cache.fetch(f"{URI}{n}", origin)
    if not running:
        forget_processes()
    database = cache.folder / "cache.db"
    match harm:
        case "delete":
            database.unlink()
        case "garbage":
            cache.close()
            database.write_bytes(os.urandom(9000))
        case "truncate":
            cache.close()
            os.truncate(database, 5000)
        case "page":
            cache.close()
            with database.open("r+b") as stream:
                stream.seek(4096)
                stream.write(b"\xff" * (database.stat().st_size - 4096))
        case "with its log":
            for path in cache.folder.glob("cache.db*"):
                path.unlink()
    reads = origin.reads()
    other = Cache(cache.folder, max_bytes=1 << 30, min_free_bytes=0)
    for n in range(40):
        file = other.fetch(f"https://mirror/{n}", origin, expected=digests[n], offline=True)
        check_bytes(file, contents[n])

    assert origin.reads() == reads
    assert other.info().objects == 40
    check_folder(cache.folder)


def test_a_rebuilt_index_believes_no_file_before_it_is_hashed(cache: Cache, origin: FolderOrigin) -> None:
    """While nobody looked, anything may have happened to the files."""
    digest = origin.put(URI, b"weights")
    file = cache.fetch(URI, origin)
    before = file.path.stat()
    damage(file.path)
    os.utime(file.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    forget_processes()
    (cache.folder / "cache.db").unlink()

    check_bytes(Cache(cache.folder).fetch(URI, origin, expected=digest), b"weights")


def test_a_full_check_takes_in_what_the_index_does_not_know(cache: Cache, origin: FolderOrigin) -> None:
    """Somebody copied another cache's objects into this one; the wrong ones are set aside."""
    import hashlib

    origin.put(URI, b"weights")
    cache.fetch(URI, origin)
    good, bad = (hashlib.sha256(name).hexdigest() for name in (b"good", b"bad"))
    for digest, content in ((good, b"good"), (bad, b"not what it says")):
        folder = cache.folder / "objects" / "sha256" / digest[:2] / digest
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(content)
    (cache.folder / "objects" / "sha256" / "stray").mkdir()
    report = cache.verify()

    assert report.found == (f"sha256:{good}",)
    assert report.corrupt == (f"sha256:{bad}",)
    assert report.checked == 3
    assert cache.fetch("any://uri", origin, expected=f"sha256:{good}").path.read_bytes() == b"good"


def test_a_full_check_forgets_what_is_gone(cache: Cache, origin: FolderOrigin) -> None:
    """So that the totals are right again."""
    origin.put(URI, b"weights")
    origin.put(URI + "2", b"others")
    file, other = cache.fetch(URI, origin), cache.fetch(URI + "2", origin)
    file.path.unlink()
    shutil.rmtree(other.path.parent)
    report = cache.verify()

    assert sorted(report.missing) == sorted([file.digest, other.digest])
    assert cache.info().bytes == 0
    check_folder(cache.folder)


def test_an_index_of_a_newer_version_is_refused(cache: Cache, origin: FolderOrigin) -> None:
    """Rebuilding it would make two versions fight over one folder."""
    origin.put(URI, b"weights")
    cache.fetch(URI, origin)
    cache.close()
    db = sqlite3.connect(cache.folder / "cache.db")
    db.execute("PRAGMA user_version = 99")
    db.close()
    forget_processes()

    with pytest.raises(StorageError, match="version 99"):
        Cache(cache.folder).fetch(URI, origin)


def test_the_index_can_lie_elsewhere(tmp_path: Path, origin: FolderOrigin) -> None:
    """On a network filesystem SQLite loses writes; the files may still lie there."""
    origin.put(URI, b"weights")
    (tmp_path / "local").mkdir()
    one = Cache(tmp_path / "cache", index=tmp_path / "local" / "one.db")
    other = Cache(tmp_path / "cache", index=tmp_path / "local" / "other.db")
    file = one.fetch(URI, origin)

    assert not (tmp_path / "cache" / "cache.db").exists()
    assert other.fetch(URI, origin, expected=file.digest, offline=True).path == file.path
    # Neither evicts what the other handed out: leases lie with the files.
    other.clear()
    check_bytes(file, b"weights")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to anything")
def test_an_index_that_cannot_be_written_is_a_clear_error(cache: Cache, origin: FolderOrigin) -> None:
    """Somebody else's cache, without the group's umask."""
    origin.put(URI, b"weights")
    cache.fetch(URI, origin)
    cache.close()
    (cache.folder / "cache.db").chmod(0o444)
    forget_processes()

    with pytest.raises(ReadOnlyStorageError):
        Cache(cache.folder).fetch(URI, origin)


def test_a_folder_that_is_no_good_is_told_with_what_chooses_another(tmp_path: Path, origin: FolderOrigin) -> None:
    """Homes on clusters are often not to be written."""
    origin.put(URI, b"weights")
    (tmp_path / "home").mkdir(mode=0o555)
    (tmp_path / "secret").mkdir(mode=0)

    def fetch() -> None:
        for folder in (tmp_path / "home" / "cache", tmp_path / "secret"):
            with pytest.raises(ReadOnlyStorageError, match="MODELSTORE_CACHE"):
                Cache(folder).fetch(URI, origin)

    obeying_permissions(fetch)


def test_every_write_begins_by_excluding_other_writers(cache: Cache, origin: FolderOrigin) -> None:
    """A transaction that reads first and writes later fails under two writers, whatever the timeout."""
    origin.put(URI, b"weights")
    cache.fetch(URI, origin)
    statements: list[str] = []

    def watch(db: sqlite3.Connection) -> None:
        db.set_trace_callback(statements.append)

    cache._index.read(watch)
    cache.fetch(URI, origin, force_download=True)
    cache.release(cache.fetch(URI, origin).digest)
    cache.clear()

    begins = [statement for statement in statements if statement.startswith("BEGIN")]
    assert set(begins) == {"BEGIN IMMEDIATE"}
    writes = ("INSERT", "UPDATE", "DELETE")
    inside = False
    for statement in statements:
        inside = (inside or statement.startswith("BEGIN")) and not statement.startswith("COMMIT")
        assert inside or not statement.startswith(writes), statement


def test_an_index_that_stays_locked_is_a_clear_error(
    cache: Cache, origin: FolderOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process stopped in a debugger in the middle of a write holds everybody up; they are told."""
    origin.put(URI, b"weights")
    cache.fetch(URI, origin)
    cache.close()
    monkeypatch.setattr("modelstore.cache.index._WAIT_S", 0.1)
    db = sqlite3.connect(cache.folder / "cache.db", isolation_level=None)
    db.execute("BEGIN EXCLUSIVE")
    with pytest.raises(CacheBusyError, match="stayed locked"):
        cache.clear()
    db.execute("ROLLBACK")
    db.close()

    assert cache.clear().in_use == 1


def test_a_hit_does_not_fail_because_its_time_of_use_cannot_be_written(
    cache: Cache, origin: FolderOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written with the next ones."""
    origin.put(URI, b"weights")
    file = cache.fetch(URI, origin)
    cache.close()
    monkeypatch.setattr("modelstore.cache.index._WAIT_S", 0.05)
    monkeypatch.setattr(cache._process, "next_flush", 0.0)
    db = sqlite3.connect(cache.folder / "cache.db", isolation_level=None)
    db.execute("BEGIN EXCLUSIVE")
    cache.fetch(URI, origin)
    monkeypatch.setattr(cache._process, "next_flush", 0.0)
    assert cache.fetch(URI, origin).path == file.path
    db.execute("ROLLBACK")
    db.close()

    assert cache._process.touched
    cache.close()
    assert not cache._process.touched


def test_a_database_without_its_tables_is_made_again(cache: Cache, origin: FolderOrigin) -> None:
    """Deleted under its writers, it can end up with another one's log."""
    digest = origin.put(URI, b"weights")
    cache.fetch(URI, origin)
    cache.close()
    db = sqlite3.connect(cache.folder / "cache.db")
    db.execute("DROP TABLE entries")
    db.close()

    assert cache.fetch("any://uri", origin, expected=digest, offline=True).size == 7
    check_folder(cache.folder)
    assert len(list((cache.folder / "quarantine").iterdir())) == 1

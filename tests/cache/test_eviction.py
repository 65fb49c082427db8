"""The cache keeps its bounds, and never takes away what somebody uses."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelstore.cache import Cache
from modelstore.cache.owners import Owner, is_alive, parse_owner, this_process
from modelstore.cache.process import forget_processes
from modelstore.testing.cache_origin import FolderOrigin, check_bytes, check_folder, extract_copy

Spawn = object


def _fill(cache: Cache, origin: FolderOrigin, count: int, size: int = 1000) -> list[str]:
    """Fetch so many objects and let go of them; return their digests in the order of use."""
    digests = []
    for n in range(count):
        origin.put(f"s3://b/{n}.pt", bytes([n]) * size)
        file = cache.fetch(f"s3://b/{n}.pt", origin)
        digests.append(file.digest)
        cache.release(file.digest)
    return digests


def test_what_was_used_longest_ago_goes_first(cache: Cache, origin: FolderOrigin) -> None:
    """And what was used again since stays."""
    digests = _fill(cache, origin, 5)
    cache.release(cache.fetch("s3://b/0.pt", origin).digest)
    removal = cache.prune(2500)

    assert removal.objects == tuple(digests[1:4])
    assert removal.freed_bytes == 3000
    assert {entry.digest for entry in cache.ls()} == {digests[0], digests[4]}
    check_folder(cache.folder)


def test_a_hit_counts_as_use_though_it_writes_nothing(cache: Cache, origin: FolderOrigin) -> None:
    """Times of use are gathered, and written once a minute and before anything is removed."""
    digests = _fill(cache, origin, 2)
    cache.fetch("s3://b/0.pt", origin)
    cache.fetch("s3://b/0.pt", origin)
    cache.release(digests[0])

    assert [entry.digest for entry in cache.ls()] == [digests[0], digests[1]]


def test_times_of_use_are_written_without_being_asked(
    cache: Cache, origin: FolderOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that runs for a week is not to look idle."""
    digests = _fill(cache, origin, 2)
    cache.fetch("s3://b/0.pt", origin)
    monkeypatch.setattr(cache._process, "next_flush", 0.0)
    cache.fetch("s3://b/0.pt", origin)

    db = sqlite3.connect(cache.folder / "cache.db")
    latest = db.execute("SELECT entry FROM entries ORDER BY used_us DESC").fetchone()[0]
    db.close()
    assert latest.endswith(digests[0][-64:])


def test_a_dry_run_tells_and_touches_nothing(cache: Cache, origin: FolderOrigin) -> None:
    """People look before they delete."""
    digests = _fill(cache, origin, 3)
    planned = cache.prune(1000, dry_run=True)

    assert planned.dry_run
    assert planned.objects == tuple(digests[:2])
    assert cache.info().bytes == 3000
    assert cache.prune(1000).objects == planned.objects


def test_the_bound_holds_by_itself(tmp_path: Path, origin: FolderOrigin) -> None:
    """Nobody runs a clean-up by hand."""
    cache = Cache(tmp_path / "cache", max_bytes=2500, min_free_bytes=0)
    digests = _fill(cache, origin, 6)
    forget_processes()

    # What is downloaded is held until it is let go, so the bound holds up to the object in hand.
    assert cache.info().bytes <= 3500
    assert digests[5] in {entry.digest for entry in cache.ls()}


def test_room_is_made_before_a_download_whose_size_is_known(tmp_path: Path, origin: FolderOrigin) -> None:
    """Old and new side by side may be what the disk has no room for."""
    cache = Cache(tmp_path / "cache", max_bytes=5000, min_free_bytes=0)
    _fill(cache, origin, 4)
    origin.put("s3://b/large.pt", b"l" * 4000)
    held: list[int] = []
    cache.fetch("s3://b/large.pt", origin, progress=lambda _done, _total: held.append(cache.info().bytes))

    assert max(held) <= 1000


def test_what_this_process_was_handed_stays(cache: Cache, origin: FolderOrigin) -> None:
    """A path returned is a promise."""
    origin.put("s3://b/a.pt", b"weights")
    file = cache.fetch("s3://b/a.pt", origin)
    removal = cache.clear()

    assert (removal.objects, removal.in_use) == ((), 1)
    check_bytes(file, b"weights")
    cache.release(file.digest)
    assert cache.clear().objects == (file.digest,)
    assert not file.path.exists()


def test_what_was_handed_out_before_the_cache_was_closed_stays(cache: Cache, origin: FolderOrigin) -> None:
    """Closing is about the index; the file is still in use."""
    origin.put("s3://b/a.pt", b"weights")
    file = cache.fetch("s3://b/a.pt", origin)
    cache.close()
    forget_processes()
    Cache(cache.folder).clear()

    check_bytes(file, b"weights")


def test_leases_outlive_the_index(cache: Cache, origin: FolderOrigin) -> None:
    """Deleting the index must not make files in use fair game."""
    origin.put("s3://b/a.pt", b"weights")
    file = cache.fetch("s3://b/a.pt", origin)
    (cache.folder / "cache.db").unlink()
    forget_processes()
    Cache(cache.folder).clear()

    check_bytes(file, b"weights")


def test_what_is_pinned_stays(cache: Cache, origin: FolderOrigin) -> None:
    """Also when it is pinned before it is there, and when the index is lost."""
    digest = origin.put("s3://b/a.pt", b"weights")
    cache.pin(digest)
    cache.release(cache.fetch("s3://b/a.pt", origin).digest)
    (cache.folder / "cache.db").unlink()

    assert cache.clear().in_use == 1
    assert [entry.pinned for entry in cache.ls()] == [True]
    cache.unpin(digest)
    cache.unpin(digest)
    assert cache.clear().objects == (digest,)


def test_clearing_takes_empty_files_too(cache: Cache, origin: FolderOrigin) -> None:
    """They free nothing, and are asked to go all the same."""
    origin.put("s3://b/empty.pt", b"")
    cache.release(cache.fetch("s3://b/empty.pt", origin).digest)

    assert len(cache.clear().objects) == 1
    assert list(cache.folder.glob("objects/sha256/*/*")) == []


def test_pruning_removes_what_killed_processes_left(cache: Cache, origin: FolderOrigin) -> None:
    """And nothing that somebody is still writing."""
    origin.put("s3://b/a.pt", b"weights")
    cache.fetch("s3://b/a.pt", origin)
    partial = cache.folder / "partial"
    me = this_process()
    dead = Owner(me.host, me.boot, me.namespace, 4_194_300, 1).token
    left = [f"k.{dead}.1", f"k.{dead}.1.json", "k.free.2", "k.free.2.json", f"tree.{dead}.3", f"gone.{dead}.4.json"]
    kept = [f"k.{me.token}.5", f"k.{me.token}.5.json", f"tree.{me.token}.6"]
    for name in left + kept:
        if name.startswith("tree"):
            (partial / name / "content").mkdir(parents=True)
            (partial / name / "content" / "file").write_bytes(b"12345")
        else:
            (partial / name).write_bytes(b"12345")
    (cache.folder / "trash" / "old").mkdir()
    (cache.folder / "quarantine" / "bad").write_bytes(b"bad")
    removal = cache.prune()

    assert sorted(path.name for path in partial.iterdir()) == sorted(kept)
    assert list((cache.folder / "trash").iterdir()) == []
    assert list((cache.folder / "quarantine").iterdir()) == []
    assert removal.freed_bytes >= 18


def test_left_overs_of_other_hosts_are_given_a_day(cache: Cache, origin: FolderOrigin) -> None:
    """Whether their process lives cannot be seen from here."""
    origin.put("s3://b/a.pt", b"weights")
    cache.fetch("s3://b/a.pt", origin)
    fresh, stale = (cache.folder / "partial" / f"k.0ther000-0boot000-0ns00000-7-{n}.x" for n in (1, 2))
    for path in (fresh, stale):
        path.write_bytes(b"some")
    os.utime(stale, (time.time() - 2 * 86400,) * 2)
    cache.prune()

    assert fresh.exists()
    assert not stale.exists()


def test_a_lease_of_another_host_is_respected_for_a_week(cache: Cache, origin: FolderOrigin) -> None:
    """A cache on a shared disk must not pull files from under the neighbours."""
    digests = _fill(cache, origin, 2)
    entries = [next(cache.folder.glob(f"objects/sha256/*/{digest[-64:]}")) for digest in digests]
    fresh, stale = (cache.folder / "leases" / f"0ther000-0boot000-0ns00000-7-{n}" for n in (1, 2))
    for path, entry in zip((fresh, stale), entries, strict=True):
        path.write_text(f"+{entry.relative_to(cache.folder)}\n")
    os.utime(stale, (time.time() - 8 * 86400,) * 2)

    assert cache.clear().objects == (digests[1],)
    assert not stale.exists()


def test_a_dead_process_holds_nothing(cache: Cache, origin: FolderOrigin) -> None:
    """Not even when its pid is used again: the start time differs."""
    (digest,) = _fill(cache, origin, 1)
    entry = next(cache.folder.glob("objects/sha256/*/*")).relative_to(cache.folder)
    me = this_process()
    for owner in (
        Owner(me.host, me.boot, me.namespace, 4_194_300, 1),
        Owner(me.host, me.boot, me.namespace, me.pid, me.started + 1),
        Owner(me.host, "00000000", me.namespace, me.pid, me.started),
    ):
        (cache.folder / "leases" / owner.token).write_text(f"+{entry}\n")

    assert cache.clear().objects == (digest,)
    assert not any(path.name != me.token for path in (cache.folder / "leases").iterdir())


def test_owners_are_told_apart() -> None:
    """By host, boot, pid namespace, pid and start."""
    me = this_process()

    assert is_alive(me) is True
    assert is_alive(Owner("0ther000", "0boot000", me.namespace, me.pid, me.started)) is None
    assert is_alive(Owner(me.host, me.boot, "0ns00000", me.pid, me.started)) is None
    assert is_alive(Owner(me.host, me.boot, me.namespace, os.getppid(), 0)) is True
    assert is_alive(Owner(me.host, me.boot, me.namespace, 1, 0)) is True
    assert parse_owner(me.token) == me
    assert parse_owner("free") is None
    assert parse_owner("a-b-c-d-e") is None


def _counted(call: Callable[..., Any], looks: list[object]) -> Callable[..., Any]:
    def counted(*arguments: Any, **options: Any) -> Any:
        looks.append(arguments)
        return call(*arguments, **options)

    return counted


def test_pruning_plans_from_the_index(cache: Cache, origin: FolderOrigin, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 100,000 entries a walk over the folder takes minutes on some disks; the plan takes no look at them."""
    _fill(cache, origin, 1)
    db = sqlite3.connect(cache.folder / "cache.db")
    with db:
        db.executemany(
            "INSERT INTO entries VALUES(?, 'objects', 1000, 1000, 0, ?)",
            ((f"objects/sha256/00/{n:064x}", n) for n in range(20_000)),
        )
    db.close()
    looks: list[object] = []
    with monkeypatch.context() as patch:
        for name in ("stat", "lstat", "scandir", "listdir"):
            patch.setattr(os, name, _counted(getattr(os, name), looks))
        planned = cache.prune(1000, dry_run=True)

    assert len(planned.objects) == 20_000
    assert len(looks) < 1000


def test_the_default_bound_follows_the_free_space(tmp_path: Path, origin: FolderOrigin) -> None:
    """Half of what would be free without the cache, and a fiftieth of the disk stays free, at most 2 GiB."""
    import shutil

    cache = Cache(tmp_path / "cache")
    origin.put("s3://b/a.pt", b"weights")
    cache.fetch("s3://b/a.pt", origin)
    disk = shutil.disk_usage(tmp_path)
    info = cache.info()

    wanted = min((disk.free + info.bytes) // 2, disk.free + info.bytes - min(disk.total // 50, 2 << 30))
    assert abs(info.limit_bytes - wanted) < 1 << 28


def test_the_totals_are_those_of_the_folder(cache: Cache, origin: FolderOrigin) -> None:
    """`info` adds nothing up, so what it tells must be kept right."""
    origin.put("s3://b/a.pt", b"weights" * 100)
    file = cache.fetch("s3://b/a.pt", origin)
    cache.extracted(file.digest, file.path, extract_copy)
    cache.pin(file.digest)
    info = cache.info()

    assert (info.objects, info.trees, info.bytes, info.in_use, info.pinned) == (1, 1, 1400, 2, 1)
    assert (info.partial_bytes, info.quarantine_bytes) == (0, 0)
    assert {(entry.kind, entry.size, entry.in_use) for entry in cache.ls()} == {
        ("object", 700, True),
        ("tree", 700, True),
    }

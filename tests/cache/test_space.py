"""A disk that is really full: a small filesystem in memory."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from io import RawIOBase
from pathlib import Path

import pytest

from modelstore.cache import Cache, Partial
from modelstore.cache.process import forget_processes
from modelstore.errors import StorageFullError
from modelstore.testing import faults
from modelstore.testing.cache_origin import FolderDownload, FolderOrigin, check_bytes, check_folder, extract_copy

URI = "s3://bucket/net.pt"
MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount 8 MiB; skips where that is not allowed."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    if mount is None or os.geteuid() or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small filesystem takes root")
    yield place
    forget_processes()
    subprocess.run(["umount", "-l", str(place)], check=True)


def _write_for_ever(file: RawIOBase) -> None:
    while True:
        file.write(b"0" * 4096)


def _fill(cache: Cache, origin: FolderOrigin, count: int) -> None:
    for n in range(count):
        origin.put(f"s3://b/{n}.pt", bytes([n]) * MIB)
        cache.release(cache.fetch(f"s3://b/{n}.pt", origin).digest)


@pytest.mark.parametrize("resumes", [True, False])
def test_a_full_disk_makes_room_by_evicting(small_disk: Path, origin: FolderOrigin, resumes: bool) -> None:
    """Whether the size was known beforehand or the disk said no in the middle."""
    cache = Cache(small_disk / "cache", max_bytes=1 << 40, min_free_bytes=0)
    origin = FolderOrigin(origin.folder, resumes=resumes)
    _fill(cache, origin, 6)
    origin.put(URI, b"w" * 4 * MIB)
    check_bytes(cache.fetch(URI, origin), b"w" * 4 * MIB)

    check_folder(cache.folder)
    # Of what was there, no more went than had to, where that was known.
    assert cache.info().objects == (4 if resumes else 1)


def test_when_eviction_does_not_help_it_fails_clearly_and_leaves_nothing_half(
    small_disk: Path, origin: FolderOrigin
) -> None:
    """Nothing is left of the attempt, and what was there and small enough is fetched afterwards."""
    cache = Cache(small_disk / "cache", max_bytes=1 << 40, min_free_bytes=0)
    origin.put(URI, b"w" * 12 * MIB)
    with pytest.raises(StorageFullError, match="No space is left"):
        cache.fetch(URI, origin)

    assert list((cache.folder / "partial").iterdir()) == []
    assert cache.info().bytes == 0
    check_folder(cache.folder)
    _fill(cache, origin, 2)


def test_what_is_in_use_stays_even_when_the_disk_is_full(small_disk: Path, origin: FolderOrigin) -> None:
    """Better an error than a file pulled from under somebody."""
    cache = Cache(small_disk / "cache", max_bytes=1 << 40, min_free_bytes=0)
    origin.put("s3://b/held.pt", b"h" * 5 * MIB)
    held = cache.fetch("s3://b/held.pt", origin)
    origin.put(URI, b"w" * 4 * MIB)
    with pytest.raises(StorageFullError):
        cache.fetch(URI, origin)

    check_bytes(held, b"h" * 5 * MIB)


def test_hits_still_work_on_a_disk_that_others_filled(small_disk: Path, origin: FolderOrigin) -> None:
    """The files are there; that nothing can be written is no reason not to hand them out."""
    cache = Cache(small_disk / "cache", max_bytes=1 << 40, min_free_bytes=0)
    origin.put(URI, b"weights")
    path = cache.fetch(URI, origin).path
    with (
        (small_disk / "filler").open("wb", buffering=0) as file,
        pytest.raises(OSError, match=os.strerror(errno.ENOSPC)),
    ):
        _write_for_ever(file)
    forget_processes()

    again = Cache(small_disk / "cache").fetch(URI, origin)
    assert again.path == path


def test_extraction_on_a_full_disk_evicts_too(small_disk: Path, origin: FolderOrigin) -> None:
    """The archive fits, its content only without the others."""
    cache = Cache(small_disk / "cache", max_bytes=1 << 40, min_free_bytes=0)
    _fill(cache, origin, 4)
    origin.put(URI, b"w" * 2 * MIB)
    file = cache.fetch(URI, origin)
    tree = cache.extracted(file.digest, file.path, extract_copy)

    assert (tree / "a" / "copy").stat().st_size == 2 * MIB
    origin.put(URI + "2", b"v" * 2 * MIB)
    other = cache.fetch(URI + "2", origin)
    with pytest.raises(StorageFullError):
        cache.extracted(other.digest, other.path, extract_copy)
    assert list((cache.folder / "partial").iterdir()) == []
    check_folder(cache.folder)


def test_min_free_bytes_are_left_free(small_disk: Path, origin: FolderOrigin) -> None:
    """For the rest of the machine."""
    cache = Cache(small_disk / "cache", max_bytes=1 << 40, min_free_bytes=4 * MIB)
    _fill(cache, origin, 6)
    cache.prune()

    assert shutil.disk_usage(small_disk).free >= 4 * MIB


def test_a_fetcher_that_says_the_disk_is_full_is_called_once_more(cache: Cache, origin: FolderOrigin) -> None:
    """Also where its error is ours: a second refusal is final."""
    calls = []

    def full(_uri: str, target: Path, /, *, partial: Partial, progress: object) -> FolderDownload:
        calls.append(target)
        target.write_bytes(b"some")
        raise StorageFullError("no space")

    with pytest.raises(StorageFullError):
        cache.fetch(URI, full)

    assert len(calls) == 2
    assert list((cache.folder / "partial").iterdir()) == []


def test_a_disk_that_is_full_for_a_moment_is_no_failure(cache: Cache, origin: FolderOrigin) -> None:
    """One retry, after evicting what nobody holds."""
    origin.put("s3://b/old.pt", b"old")
    cache.release(cache.fetch("s3://b/old.pt", origin).digest)
    origin.put(URI, b"w" * 40_000)
    with faults.inject("origin.block", OSError(errno.ENOSPC, "full"), occurrence=3):
        check_bytes(cache.fetch(URI, origin), b"w" * 40_000)

    assert [entry.size for entry in cache.ls()] == [40_000]

"""What `Cache.fetch` promises to one caller."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstore.cache import Cache, CachedFile, Partial
from modelstore.cache.layout import file_name
from modelstore.cache.process import forget_processes
from modelstore.errors import (
    CacheBusyError,
    IntegrityError,
    InvalidRequestError,
    ReadOnlyStorageError,
    StorageUnavailableError,
)
from modelstore.storage.fingerprints import Fingerprint
from modelstore.testing import faults
from modelstore.testing.cache_origin import FolderDownload, FolderOrigin, check_bytes, check_folder, damage

URI = "s3://bucket/models/net.pt"


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def test_the_second_call_returns_the_same_path_without_asking_the_origin(cache: Cache, origin: FolderOrigin) -> None:
    """This is what a cache is for."""
    origin.put(URI, b"weights")
    first = cache.fetch(URI, origin)
    second = cache.fetch(URI, origin)

    check_bytes(first, b"weights")
    assert (first.fetched, second.fetched) == (True, False)
    assert (second.path, second.digest, second.size, second.etag) == (
        first.path,
        _digest(b"weights"),
        7,
        first.etag,
    )
    assert origin.reads() == 1
    assert os.fspath(second) == str(second.path)


def test_a_new_process_finds_what_an_earlier_one_fetched(cache: Cache, origin: FolderOrigin) -> None:
    """Nothing but the folder carries the knowledge."""
    origin.put(URI, b"weights")
    first = cache.fetch(URI, origin)
    forget_processes()

    assert Cache(cache.folder).fetch(URI, origin, offline=True).path == first.path
    assert origin.reads() == 1


def test_the_file_keeps_the_name_it_had_at_its_origin(cache: Cache, origin: FolderOrigin) -> None:
    """Frameworks decide by the extension how to load a file."""
    origin.put(URI, b"weights")

    assert cache.fetch(URI, origin).path.name == "net.pt"
    assert cache.fetch(URI, origin, filename="other.onnx").path.name == "other.onnx"
    assert origin.reads() == 1


def test_the_same_bytes_behind_ten_uris_are_stored_once(cache: Cache, origin: FolderOrigin) -> None:
    """Ten models that share their weights take the space of one."""
    files = []
    for n in range(10):
        uri = f"s3://bucket/{n}/net-{n % 2}.pt"
        origin.put(uri, b"w" * 10_000)
        files.append(cache.fetch(uri, origin))

    assert len({file.path.stat().st_ino for file in files}) == 1
    assert {file.path.name for file in files} == {"net-0.pt", "net-1.pt"}
    assert cache.info().bytes == 10_000
    (entry,) = cache.ls()
    assert (len(entry.uris), entry.names) == (10, ("net-0.pt", "net-1.pt"))


def test_where_hard_links_are_refused_a_second_name_is_a_copy_and_counts(
    cache: Cache, origin: FolderOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels forbid links to other users' files, and some filesystems have none."""

    def refuse(*_: object) -> None:
        raise PermissionError("protected hard links")

    origin.put(URI, b"w" * 1000)
    monkeypatch.setattr(os, "link", refuse)
    cache.fetch(URI, origin)
    second = cache.fetch(URI, origin, filename="second.pt")

    check_bytes(second, b"w" * 1000)
    assert cache.info().bytes == 2000
    check_folder(cache.folder)


def test_an_empty_file_is_a_file_like_any_other(cache: Cache, origin: FolderOrigin) -> None:
    """Nothing in the world says that weights cannot be empty; refusing them means fetching them for ever."""
    origin.put(URI, b"")
    check_bytes(cache.fetch(URI, origin), b"")

    assert not cache.fetch(URI, origin).fetched
    assert origin.reads() == 1


def test_the_file_cannot_be_written_to(cache: Cache, origin: FolderOrigin) -> None:
    """A script that trains on into the file it loaded would change it for everybody."""
    origin.put(URI, b"weights")
    mode = cache.fetch(URI, origin).path.stat().st_mode

    assert mode & 0o777 == 0o444 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_modes_follow_the_umask(tmp_path: Path, umask: int) -> None:
    """A group shares one cache with umask 002; somebody private keeps it to themselves with 077."""
    code = """if True:
        import os, sys
        from pathlib import Path
        os.umask(int(sys.argv[2]))
        from modelstore.cache import Cache
        from modelstore.testing.cache_origin import FolderOrigin
        root = Path(sys.argv[1])
        origin = FolderOrigin(root / "origin")
        origin.put("s3://b/x.pt", b"abc")
        print(Cache(root / "cache").fetch("s3://b/x.pt", origin).path)
    """
    here = str(Path(__file__).parents[2])
    path = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(umask)],
        env=os.environ | {"PYTHONPATH": here}, check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip

    folder = tmp_path / "cache"
    assert Path(path).stat().st_mode & 0o777 == 0o444 & ~umask
    assert Path(path).parent.stat().st_mode & 0o777 == 0o777 & ~umask
    assert (folder / "cache.db").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (folder / "leases").stat().st_mode & 0o777 == 0o777 & ~umask


def test_forcing_brings_fresh_bytes_to_the_same_path_when_they_are_equal(cache: Cache, origin: FolderOrigin) -> None:
    """A path that another part of the program holds must stay good."""
    origin.put(URI, b"weights")
    first = cache.fetch(URI, origin)
    second = cache.fetch(URI, origin, force_download=True)

    assert second.fetched
    assert second.path == first.path
    assert origin.reads() == 2
    assert cache.info().objects == 1


def test_forcing_a_changed_origin_gives_a_new_file_and_keeps_the_old(cache: Cache, origin: FolderOrigin) -> None:
    """What was handed out before is not changed from under its user."""
    origin.put(URI, b"version 1")
    first = cache.fetch(URI, origin)
    origin.put(URI, b"version 2")
    stale = cache.fetch(URI, origin)
    second = cache.fetch(URI, origin, force_download=True)

    assert stale.path == first.path
    check_bytes(first, b"version 1")
    check_bytes(second, b"version 2")
    assert cache.fetch(URI, origin).path == second.path


def test_a_digest_that_is_expected_is_enough_to_find_the_bytes(cache: Cache, origin: FolderOrigin) -> None:
    """The registry knows the digest, so bytes that came by one URI need not come again by another."""
    digest = origin.put(URI, b"weights")
    cache.fetch(URI, origin)
    file = cache.fetch("gs://elsewhere/copy.pt", origin, expected=digest, offline=True)

    check_bytes(file, b"weights")
    assert file.path.name == "copy.pt"
    assert origin.reads() == 1


def test_bytes_other_than_expected_are_refused_and_leave_nothing(cache: Cache, origin: FolderOrigin) -> None:
    """Somebody overwrote the object: the caller must not get it, and the cache must not keep it."""
    before = origin.put(URI, b"version 1")
    origin.put(URI, b"version 2")
    with pytest.raises(IntegrityError, match="was expected"):
        cache.fetch(URI, origin, expected=before)

    assert cache.info().bytes == 0
    assert list((cache.folder / "partial").iterdir()) == []


def test_an_expectation_is_not_met_by_what_the_uri_led_to_before(cache: Cache, origin: FolderOrigin) -> None:
    """Neither from memory nor from the index."""
    origin.put(URI, b"version 1")
    cache.fetch(URI, origin)
    digest = origin.put(URI, b"version 2")

    check_bytes(cache.fetch(URI, origin, expected=digest), b"version 2")


def test_a_forced_fetch_of_unexpected_bytes_leaves_the_cache_as_it_was(cache: Cache, origin: FolderOrigin) -> None:
    """The good copy outlives the bad origin."""
    digest = origin.put(URI, b"good")
    good = cache.fetch(URI, origin)
    origin.put(URI, b"bad")
    with pytest.raises(IntegrityError):
        cache.fetch(URI, origin, expected=digest, force_download=True)

    check_bytes(good, b"good")
    assert cache.fetch(URI, origin, expected=digest).path == good.path


def test_a_fetcher_that_miscounts_is_found_out(cache: Cache) -> None:
    """A connection that ends early without an error would otherwise leave half a file."""

    def short(_uri: str, target: Path, /, *, partial: Partial, progress: object) -> FolderDownload:
        target.write_bytes(b"half")
        return FolderDownload(Fingerprint(8, "0" * 64, "0" * 32), None)

    with pytest.raises(IntegrityError, match="4 bytes where 8"):
        cache.fetch(URI, short)

    assert cache.info().objects == 0


def test_offline_a_hit_works_and_a_miss_says_so(cache: Cache, origin: FolderOrigin) -> None:
    """On a train, what is there is usable."""
    origin.put(URI, b"weights")
    with pytest.raises(StorageUnavailableError, match="not in the cache"):
        cache.fetch(URI, origin, offline=True)
    cache.fetch(URI, origin)

    assert not cache.fetch(URI, origin, offline=True).fetched
    assert origin.reads() == 1


@pytest.mark.parametrize(
    "options",
    [
        {"force_download": True, "offline": True},
        {"expected": "md5:0123"},
        {"expected": "sha256:" + "A" * 64},
        {"filename": "../up.pt"},
        {"filename": ""},
        {"filename": ".."},
        {"filename": "nul\0.pt"},
        {"filename": "\udc80"},
    ],
)
def test_requests_that_make_no_sense_are_refused_before_anything_is_touched(
    cache: Cache, origin: FolderOrigin, options: dict[str, object]
) -> None:
    """A wrong digest or name must not turn into a path."""
    with pytest.raises(InvalidRequestError):
        cache.fetch(URI, origin, **options)  # type: ignore[arg-type]

    assert not cache.folder.exists()


def test_a_flipped_byte_is_found_before_use(cache: Cache, origin: FolderOrigin) -> None:
    """A cached file is served only as what it was when it was verified."""
    origin.put(URI, b"weights")
    file = cache.fetch(URI, origin)
    damage(file.path)
    again = cache.fetch(URI, origin)

    check_bytes(again, b"weights")
    assert again.fetched
    assert len(list((cache.folder / "quarantine").iterdir())) == 1


def test_a_flipped_byte_that_leaves_no_trace_is_found_by_a_full_read(cache: Cache, origin: FolderOrigin) -> None:
    """A disk that rots changes neither size nor times: that takes `verify`."""
    origin.put(URI, b"weights")
    file = cache.fetch(URI, origin)
    before = file.path.stat()
    damage(file.path)
    os.utime(file.path, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert cache.fetch(URI, origin).path.read_bytes() != b"weights"
    check_bytes(cache.fetch(URI, origin, verify=True), b"weights")


def test_a_write_right_after_publication_is_noticed_however_coarse_the_clock(
    cache: Cache, origin: FolderOrigin
) -> None:
    """Filesystem clocks tick every few milliseconds; a change within the tick keeps the time unless we allow for it."""
    for n in range(20):
        origin.put(f"{URI}{n}", b"weights %d" % n)
        file = cache.fetch(f"{URI}{n}", origin)
        damage(file.path)
        check_bytes(cache.fetch(f"{URI}{n}", origin), b"weights %d" % n)


def test_a_touched_file_is_hashed_once_and_believed_again(cache: Cache, origin: FolderOrigin) -> None:
    """A restored backup or a copied cache has other inodes and times, and the right bytes."""
    origin.put(URI, b"weights")
    file = cache.fetch(URI, origin)
    os.utime(file.path)

    assert not cache.fetch(URI, origin).fetched
    assert origin.reads() == 1
    assert list((cache.folder / "quarantine").iterdir()) == []


def test_a_deleted_file_is_fetched_again(cache: Cache, origin: FolderOrigin) -> None:
    """People clean up by hand."""
    origin.put(URI, b"weights")
    file = cache.fetch(URI, origin)
    file.path.unlink()

    check_bytes(cache.fetch(URI, origin), b"weights")


def test_a_cache_deleted_under_a_running_process_is_made_again(cache: Cache, origin: FolderOrigin) -> None:
    """`rm -rf` of the cache folder is what people do first."""
    import shutil

    origin.put(URI, b"weights")
    cache.fetch(URI, origin)
    shutil.rmtree(cache.folder)

    check_bytes(cache.fetch(URI, origin), b"weights")
    check_folder(cache.folder)


def test_a_failing_fetcher_is_told_as_it_is_and_leaves_nothing_in_the_way(cache: Cache, origin: FolderOrigin) -> None:
    """Its error is the one that explains; the next call starts afresh."""

    def broken(_uri: str, target: Path, /, *, partial: Partial, progress: object) -> FolderDownload:
        target.write_bytes(b"some")
        raise ConnectionResetError("reset by peer")

    origin.put(URI, b"weights")
    with pytest.raises(ConnectionResetError):
        cache.fetch(URI, broken)

    assert list((cache.folder / "partial").iterdir()) == []
    check_bytes(cache.fetch(URI, origin), b"weights")


def test_an_interrupted_download_goes_on_where_it_stopped(cache: Cache, origin: FolderOrigin) -> None:
    """The tenth gigabyte of ten should not cost the other nine again."""
    origin.put(URI, bytes(range(256)) * 160)
    with (
        faults.inject("origin.block", ConnectionResetError("reset"), occurrence=7),
        pytest.raises(ConnectionResetError),
    ):
        cache.fetch(URI, origin)
    with (
        faults.inject("origin.block", ConnectionResetError("reset"), occurrence=2),
        pytest.raises(ConnectionResetError),
    ):
        cache.fetch(URI, origin)
    file = cache.fetch(URI, origin)

    check_bytes(file, bytes(range(256)) * 160)
    assert origin.bytes_read() == file.size
    assert list((cache.folder / "partial").iterdir()) == []


def test_a_description_that_another_process_tidied_away_is_written_again(cache: Cache, origin: FolderOrigin) -> None:
    """Where locks exclude nobody, it may be seen without the file that has just been claimed."""

    def tidied(uri: str, target: Path, /, *, partial: Partial, progress: Any) -> FolderDownload:
        for description in (cache.folder / "partial").glob("*.json"):
            description.unlink()
        return origin(uri, target, partial=partial, progress=progress)

    origin.put(URI, bytes(range(256)) * 160)
    for fetcher, occurrence in ((origin, 7), (tidied, 2)):
        with (
            faults.inject("origin.block", ConnectionResetError("reset"), occurrence=occurrence),
            pytest.raises(ConnectionResetError),
        ):
            cache.fetch(URI, fetcher)
    file = cache.fetch(URI, origin)

    check_bytes(file, bytes(range(256)) * 160)
    assert origin.bytes_read() == file.size


def test_what_changed_at_its_origin_meanwhile_is_not_continued(cache: Cache, origin: FolderOrigin) -> None:
    """Half of one version and half of another is neither."""
    origin.put(URI, b"1" * 40_000)
    with (
        faults.inject("origin.block", ConnectionResetError("reset"), occurrence=7),
        pytest.raises(ConnectionResetError),
    ):
        cache.fetch(URI, origin)
    origin.put(URI, b"2" * 40_000)

    check_bytes(cache.fetch(URI, origin), b"2" * 40_000)


def test_a_fetcher_that_cannot_resume_spoils_nothing_for_one_that_can(cache: Cache, origin: FolderOrigin) -> None:
    """It writes other bytes into the file that an earlier attempt left."""
    simple = FolderOrigin(origin.folder, block_bytes=4096, resumes=False)
    origin.put(URI, b"1" * 40_000)
    for fetcher in (origin, simple):
        with faults.inject("origin.block", OSError(104, "reset"), occurrence=5), pytest.raises(OSError, match="reset"):
            cache.fetch(URI, fetcher)

    check_bytes(cache.fetch(URI, origin), b"1" * 40_000)


def test_a_damaged_beginning_is_thrown_away_and_everything_fetched_once_more(
    cache: Cache, origin: FolderOrigin
) -> None:
    """The digest expected tells; giving up would leave the user to find the file to delete."""
    digest = origin.put(URI, b"1" * 40_000)
    with (
        faults.inject("origin.block", ConnectionResetError("reset"), occurrence=5),
        pytest.raises(ConnectionResetError),
    ):
        cache.fetch(URI, origin)
    (left,) = (path for path in (cache.folder / "partial").iterdir() if path.suffix != ".json")
    damage(left)

    check_bytes(cache.fetch(URI, origin, expected=digest), b"1" * 40_000)


def test_a_lock_that_is_not_free_in_time_is_an_error_that_says_so(cache: Cache, origin: FolderOrigin) -> None:
    """Waiting for ever for a stuck process helps nobody."""
    origin.put(URI, b"weights" * 1000)
    entered, leave = threading.Event(), threading.Event()

    def stall(uri: str, target: Path, /, *, partial: Partial, progress: object) -> FolderDownload:
        entered.set()
        leave.wait(30)
        return origin(uri, target, partial=partial, progress=None)

    with ThreadPoolExecutor() as pool:
        slow = pool.submit(cache.fetch, URI, stall)
        assert entered.wait(30)
        with pytest.raises(CacheBusyError, match=r"after 0\.1 s"):
            cache.fetch(URI, origin, lock_timeout_s=0.1)
        with pytest.raises(CacheBusyError):
            cache.fetch(URI, origin, lock_timeout_s=0)
        leave.set()
        check_bytes(slow.result(), b"weights" * 1000)


def test_of_many_threads_one_downloads_and_the_others_see_its_progress(cache: Cache) -> None:
    """Data loaders start with many threads at once."""
    origin = FolderOrigin(cache.folder.parent / "origin", block_bytes=4096, pause_s=0.02)
    origin.put(URI, b"w" * 50_000)
    seen: list[int] = []
    with ThreadPoolExecutor(8) as pool:
        files = list(pool.map(lambda _: cache.fetch(URI, origin, progress=lambda done, _: seen.append(done)), range(8)))

    assert origin.reads() == 1
    assert sum(file.fetched for file in files) == 1
    assert len({file.path for file in files}) == 1
    assert max(seen) == 50_000
    assert len(seen) > 13


def test_secrets_in_a_uri_do_not_reach_the_disk(cache: Cache, origin: FolderOrigin) -> None:
    """The cache may be shared, and its listing pasted into a bug report."""
    uri = "https://me:hunter2@host/net.pt?X-Amz-Signature=5ec4e7"
    origin.put(uri, b"weights")
    cache.fetch(uri, origin)

    assert "hunter2" not in str(cache.ls())
    cache.close()
    for path in cache.folder.rglob("*"):
        assert not path.is_file() or not {b"hunter2", b"5ec4e7"} & set(path.read_bytes().split(b"\0"))
        assert not path.is_file() or b"hunter2" not in path.read_bytes()


def test_errors_do_not_show_secrets_either(cache: Cache, origin: FolderOrigin) -> None:
    """Error messages end up in logs."""
    with pytest.raises(StorageUnavailableError) as caught:
        cache.fetch("https://me:hunter2@host/net.pt", origin, offline=True)

    assert "hunter2" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_a_clear_error(tmp_path: Path, origin: FolderOrigin) -> None:
    """Shared caches are sometimes mounted read-only."""
    (tmp_path / "closed").mkdir(mode=0o555)

    with pytest.raises(ReadOnlyStorageError):
        Cache(tmp_path / "closed" / "cache").fetch(URI, origin)


def test_a_file_in_place_of_the_folder_is_a_clear_error(tmp_path: Path, origin: FolderOrigin) -> None:
    """Whatever the operating system says, it is told in our own terms."""
    from modelstore.errors import StorageError

    (tmp_path / "file").write_text("")

    with pytest.raises(StorageError):
        Cache(tmp_path / "file").fetch(URI, origin)


def test_adopting_a_file_saves_its_download(cache: Cache, origin: FolderOrigin, tmp_path: Path) -> None:
    """What was just uploaded need not come back over the network."""
    (tmp_path / "mine.pt").write_bytes(b"weights")
    adopted = cache.adopt(tmp_path / "mine.pt", URI)

    check_bytes(adopted, b"weights")
    assert adopted.path.name == "net.pt"
    assert cache.fetch(URI, origin).path == adopted.path
    assert origin.reads() == 0
    assert (tmp_path / "mine.pt").stat().st_mode & 0o200


def test_a_file_can_be_moved_into_the_cache(cache: Cache, tmp_path: Path) -> None:
    """A snapshot made for an upload needs no second copy."""
    (tmp_path / "mine.pt").write_bytes(b"weights")
    inode = (tmp_path / "mine.pt").stat().st_ino
    adopted = cache.adopt(tmp_path / "mine.pt", URI, move=True)

    check_bytes(adopted, b"weights")
    assert adopted.path.stat().st_ino == inode
    assert not (tmp_path / "mine.pt").exists()


def test_adopting_something_else_than_expected_is_refused(cache: Cache, tmp_path: Path) -> None:
    """The file is left as it was, and so is the cache."""
    (tmp_path / "mine.pt").write_bytes(b"weights")
    with pytest.raises(IntegrityError):
        cache.adopt(tmp_path / "mine.pt", URI, expected=_digest(b"other"), move=True)

    assert (tmp_path / "mine.pt").read_bytes() == b"weights"
    assert cache.info().objects == 0


def test_a_hit_touches_neither_index_nor_locks(cache: Cache, origin: FolderOrigin) -> None:
    """One look at the file is all: that is what makes it cost microseconds."""
    origin.put(URI, b"weights")
    cache.fetch(URI, origin)
    cache.close()
    for path in cache.folder.glob("cache.db*"):
        path.unlink()
    for path in (cache.folder / "locks").iterdir():
        path.unlink()

    assert not cache.fetch(URI, origin).fetched
    assert not (cache.folder / "cache.db").exists()


def test_using_the_cache_loads_no_heavy_library_before_it_has_to() -> None:
    """A hit must not pay for the tools of a download."""
    code = (
        "import sys, modelstore.cache; print(*set(sys.modules) & {'filelock', 'fsspec', 'xxhash', 'numpy', 'asyncio'})"
    )
    here = str(Path(__file__).parents[2])
    loaded = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": here}, check=True, capture_output=True, text=True
    ).stdout.split()

    assert loaded == []


@given(uri=st.text(max_size=400))
def test_every_uri_gives_a_name_that_every_filesystem_takes(uri: str) -> None:
    """URIs hold slashes, queries, emoji and ten thousand letters."""
    name = file_name(uri, None)

    assert name not in {"", ".", ".."}
    assert not set(name) & set('/\\\0:*?"<>|\n')
    assert len(name.encode()) <= 255


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("s3://b/a/net.pt", "net.pt"),
        ("https://h/net.pt?version=3#x", "net.pt"),
        ("/plain/path/net.pt", "net.pt"),
        ("s3://b/folder/", "folder"),
        ("zip://a.pt::s3://b/c.zip", "a.pt"),
        ("https://h", "h"),
        ("", "data"),
        ("s3://b/..", "data"),
        ("s3://b/" + "x" * 1000 + ".safetensors", "x" * 188 + ".safetensors"),
        ("s3://b/" + "é" * 1000, "é" * 100),
        ("s3://b/100%: done?.pt", "100%_ done"),
    ],
)
def test_names_keep_what_matters_of_the_uri(uri: str, name: str) -> None:
    """Above all the extension."""
    assert file_name(uri, None) == name


def test_a_record_of_a_file_is_a_path(cache: Cache, origin: FolderOrigin) -> None:
    """It can be handed to `open` as it is."""
    origin.put(URI, b"weights")
    file: CachedFile = cache.fetch(URI, origin)

    with open(file, "rb") as stream:
        assert stream.read() == b"weights"

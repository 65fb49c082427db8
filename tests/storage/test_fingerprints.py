"""Copies are what was hashed, hashes are right, and neither costs memory."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from modelstore.errors import BlobNotFoundError, InvalidRequestError, StorageFullError, StorageUnavailableError
from modelstore.storage import fingerprints
from modelstore.storage.fingerprints import Fingerprint, Hasher, copy_hashed, hash_file

SIZES = [0, 1, 1024, fingerprints.SMALL - 1, fingerprints.SMALL, fingerprints.SMALL + 1, 5 * fingerprints.SMALL + 7]


def reference(data: bytes) -> Fingerprint:
    return Fingerprint(len(data), hashlib.sha256(data).hexdigest(), xxhash.xxh3_128(data).hexdigest())


@pytest.mark.parametrize("size", SIZES)
def test_copy_and_hash_agree_with_the_plain_way(tmp_path: Path, size: int) -> None:
    """One pass, threads, the kernel's copying: none of it may show."""
    data = os.urandom(size)
    (tmp_path / "a").write_bytes(data)

    copied = copy_hashed(tmp_path / "a", tmp_path / "b")

    assert copied == hash_file(tmp_path / "a") == reference(data)
    assert (tmp_path / "b").read_bytes() == data
    assert copied.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.mark.parametrize("failure", [OSError(errno.EXDEV, ""), OSError(errno.ENOSYS, ""), 0])
def test_copies_where_the_kernel_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: OSError | int
) -> None:
    """Across some filesystems copy_file_range fails, and on some it answers 0 bytes for ever."""

    def refuse(*_: object) -> int:
        if isinstance(failure, OSError):
            raise failure
        return failure

    monkeypatch.setattr(os, "copy_file_range", refuse)
    data = os.urandom(3 * fingerprints.SMALL + 11)
    (tmp_path / "a").write_bytes(data)

    assert copy_hashed(tmp_path / "a", tmp_path / "b") == reference(data)
    assert (tmp_path / "b").read_bytes() == data


@given(st.lists(st.binary(max_size=100)))
def test_hashing_in_blocks_is_hashing_the_whole(blocks: list[bytes]) -> None:
    """Downloads arrive in blocks of any size."""
    hasher = Hasher()
    for block in blocks:
        hasher.update(block)

    assert hasher.fingerprint() == reference(b"".join(blocks))


def test_the_fingerprint_is_of_the_copy_when_the_source_changes(tmp_path: Path) -> None:
    """A training loop that saves over the file meanwhile gives a mixture, but never a wrong digest."""
    source = tmp_path / "a"
    source.write_bytes(bytes(64 << 20))
    stop = threading.Event()

    def scribble() -> None:
        with source.open("r+b") as stream:
            while not stop.is_set():
                stream.seek(int.from_bytes(os.urandom(3), "big") * 3)
                stream.write(os.urandom(4096))

    writer = threading.Thread(target=scribble)
    writer.start()
    try:
        copied = [copy_hashed(source, tmp_path / f"b{n}") for n in range(3)]
    finally:
        stop.set()
        writer.join()

    for number, one in enumerate(copied):
        assert one == reference((tmp_path / f"b{number}").read_bytes())


def test_files_without_a_size_are_copied_whole(tmp_path: Path) -> None:
    """Everything below /proc says that it has 0 bytes."""
    copied = copy_hashed("/proc/version", tmp_path / "b")

    assert (tmp_path / "b").read_bytes() == Path("/proc/version").read_bytes()
    assert copied.size > 0


def test_progress_is_told_up_to_the_end(tmp_path: Path) -> None:
    """Bytes done never go back, and end at all of them."""
    (tmp_path / "a").write_bytes(bytes(10 << 20))
    seen: list[tuple[int, int | None]] = []

    copy_hashed(tmp_path / "a", tmp_path / "b", lambda done, total: seen.append((done, total)))

    assert seen[-1] == (10 << 20, 10 << 20)
    assert seen == sorted(seen)


def test_a_progress_that_raises_ends_the_copy_and_leaves_nothing(tmp_path: Path) -> None:
    """This is how a program cancels."""
    (tmp_path / "a").write_bytes(bytes(10 << 20))

    def cancel(_done: int, _total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_hashed(tmp_path / "a", tmp_path / "b", cancel)

    assert sorted(os.listdir(tmp_path)) == ["a"]


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """And a named pipe must not block for ever."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")

    for name in ("folder", "pipe"):
        with pytest.raises(InvalidRequestError):
            copy_hashed(tmp_path / name, tmp_path / "b")
        with pytest.raises(InvalidRequestError):
            hash_file(tmp_path / name)
    with pytest.raises(BlobNotFoundError):
        copy_hashed(tmp_path / "missing", tmp_path / "b")
    assert sorted(os.listdir(tmp_path)) == ["folder", "pipe"]


def test_an_existing_target_is_never_touched(tmp_path: Path) -> None:
    """The name was to be the caller's own; somebody else's file there stays."""
    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "b").write_bytes(b"old")

    with pytest.raises(StorageUnavailableError):
        copy_hashed(tmp_path / "a", tmp_path / "b")

    assert (tmp_path / "b").read_bytes() == b"old"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller may free space and try again; half a file must not stay."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "copy_file_range", full)
    (tmp_path / "a").write_bytes(bytes(2 << 20))

    with pytest.raises(StorageFullError) as caught:
        copy_hashed(tmp_path / "a", tmp_path / "b")

    assert isinstance(caught.value.__cause__, OSError)
    assert sorted(os.listdir(tmp_path)) == ["a"]


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Weights are larger than memory."""
    script = """if True:
        import os, resource, sys
        from modelstore.storage.fingerprints import copy_hashed, hash_file
        folder = sys.argv[1]
        os.truncate(os.open(f"{folder}/a", os.O_CREAT | os.O_WRONLY), 1 << 20)
        copy_hashed(f"{folder}/a", f"{folder}/b0")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        os.truncate(f"{folder}/a", 256 << 20)
        copy_hashed(f"{folder}/a", f"{folder}/b", durable=False)
        hash_file(f"{folder}/b")
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    grown = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], check=True, capture_output=True, text=True, cwd=Path.cwd()
    ).stdout

    assert int(grown) < 8 << 10  # KiB

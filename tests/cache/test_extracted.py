"""Extracted archives are whole or absent."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelstore.cache import Cache
from modelstore.cache.process import forget_processes
from modelstore.errors import InvalidRequestError, UnsafeArchiveError
from modelstore.testing.cache_origin import FolderOrigin, damage, extract_copy

URI = "s3://bucket/package.zip"


class Counting:
    """An extractor that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, archive: Path, into: Path) -> None:
        self.calls += 1
        extract_copy(archive, into)


def test_an_archive_is_extracted_once(cache: Cache, origin: FolderOrigin) -> None:
    """By this process and by the next."""
    origin.put(URI, b"package")
    file = cache.fetch(URI, origin)
    extract = Counting()
    first = cache.extracted(file.digest, file.path, extract)
    cache.extracted(file.digest, file.path, extract)
    forget_processes()
    again = Cache(cache.folder).extracted(file.digest, file.path, extract)

    assert again == first
    assert extract.calls == 1
    assert (first / "a" / "copy").read_bytes() == b"package"
    assert (first / "a" / "copy").stat().st_mode & 0o222 == 0


def test_the_archive_itself_and_its_folder_can_both_be_had(cache: Cache, origin: FolderOrigin) -> None:
    """In either order, in one process: one does not stand in for the other."""
    origin.put(URI, b"package")
    file = cache.fetch(URI, origin)
    folder = cache.extracted(file.digest, file.path, extract_copy)
    again = cache.fetch(URI, origin)

    assert folder.is_dir()
    assert again.path.is_file()


def test_a_changed_archive_is_another_folder(cache: Cache, origin: FolderOrigin) -> None:
    """Keyed by content, so the second version of a package is not the first one's folder."""
    origin.put(URI, b"version 1")
    one = cache.fetch(URI, origin)
    first = cache.extracted(one.digest, one.path, extract_copy)
    origin.put(URI, b"version 2")
    two = cache.fetch(URI, origin, force_download=True)
    second = cache.extracted(two.digest, two.path, extract_copy)

    assert (first / "a" / "copy").read_bytes() == b"version 1"
    assert (second / "a" / "copy").read_bytes() == b"version 2"


@pytest.mark.parametrize("harm", ["delete", "damage", "shorten", "manifest", "all"])
def test_a_folder_that_is_not_whole_any_more_is_made_again(cache: Cache, origin: FolderOrigin, harm: str) -> None:
    """Somebody cleaned up, or a disk failed."""
    origin.put(URI, b"package")
    file = cache.fetch(URI, origin)
    folder = cache.extracted(file.digest, file.path, extract_copy)
    inside = folder / "a" / "copy"
    match harm:
        case "delete":
            inside.unlink()
        case "damage":
            damage(inside)
        case "shorten":
            os.truncate(inside, 3)
        case "manifest":
            (folder.parent / "manifest.json").write_text("{")
        case "all":
            inside.unlink()
            inside.parent.rmdir()
            folder.rmdir()
    forget_processes()
    again = Cache(cache.folder).extracted(file.digest, file.path, extract_copy)

    assert (again / "a" / "copy").read_bytes() == b"package"


def test_damage_without_a_trace_is_found_by_a_full_read(cache: Cache, origin: FolderOrigin) -> None:
    """As with single files."""
    origin.put(URI, b"package")
    file = cache.fetch(URI, origin)
    inside = cache.extracted(file.digest, file.path, extract_copy) / "a" / "copy"
    before = inside.stat()
    damage(inside)
    os.utime(inside, ns=(before.st_atime_ns, before.st_mtime_ns))
    folder = cache.extracted(file.digest, file.path, extract_copy, verify=True)

    assert (folder / "a" / "copy").read_bytes() == b"package"


def test_files_that_somebody_adds_are_no_damage(cache: Cache, origin: FolderOrigin) -> None:
    """Frameworks leave compiled files beside the ones they load; the folder must not be pulled away for that."""
    origin.put(URI, b"package")
    file = cache.fetch(URI, origin)
    extract = Counting()
    folder = cache.extracted(file.digest, file.path, extract)
    (folder / "__pycache__").mkdir()
    cache.extracted(file.digest, file.path, extract)

    assert extract.calls == 1
    assert (folder / "__pycache__").is_dir()


def test_a_restored_folder_is_believed_after_a_look_at_its_bytes(cache: Cache, origin: FolderOrigin) -> None:
    """A copied cache has other times."""
    origin.put(URI, b"package")
    file = cache.fetch(URI, origin)
    extract = Counting()
    folder = cache.extracted(file.digest, file.path, extract)
    os.utime(folder / "a" / "copy")
    forget_processes()
    Cache(cache.folder).extracted(file.digest, file.path, extract)

    assert extract.calls == 1


def test_a_failing_extraction_leaves_nothing(cache: Cache, origin: FolderOrigin) -> None:
    """Half a folder must never be taken for one."""

    def broken(_archive: Path, into: Path) -> None:
        (into / "half").write_bytes(b"half")
        raise UnsafeArchiveError("a member would be written outside")

    origin.put(URI, b"package")
    file = cache.fetch(URI, origin)
    with pytest.raises(UnsafeArchiveError):
        cache.extracted(file.digest, file.path, broken)

    assert list(cache.folder.glob("trees/sha256/*/*")) == []
    assert list((cache.folder / "partial").iterdir()) == []


def test_links_in_an_archive_are_refused(cache: Cache, origin: FolderOrigin) -> None:
    """Whatever the extractor let through: a link may point out of the folder."""
    origin.put(URI, b"package")
    file = cache.fetch(URI, origin)
    with pytest.raises(UnsafeArchiveError, match="neither a file nor a folder"):
        cache.extracted(file.digest, file.path, lambda _archive, into: (into / "link").symlink_to("/etc/passwd"))

    assert cache.info().trees == 0


def test_an_archive_with_many_files_or_none_is_fine(cache: Cache, origin: FolderOrigin) -> None:
    """A model can be a thousand shards, and a package empty."""

    def many(_archive: Path, into: Path) -> None:
        for n in range(300):
            (into / f"{n}").write_bytes(b"%d" % n)

    origin.put(URI, b"package")
    file = cache.fetch(URI, origin)
    folder = cache.extracted(file.digest, file.path, many)
    other = "sha256:" + "0" * 64

    assert len(list(folder.iterdir())) == 300
    assert list(cache.extracted(other, file.path, lambda _archive, _into: None).iterdir()) == []


def test_threads_extract_once(cache: Cache, origin: FolderOrigin) -> None:
    """The others wait."""
    origin.put(URI, b"package")
    file = cache.fetch(URI, origin)
    extract = Counting()
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: cache.extracted(file.digest, file.path, extract), range(16)))

    assert len(folders) == 1
    assert extract.calls == 1


def test_a_digest_that_is_none_is_refused(cache: Cache, tmp_path: Path) -> None:
    """It would become a path."""
    with pytest.raises(InvalidRequestError):
        cache.extracted("../../etc", tmp_path, extract_copy)


def test_a_folder_in_use_is_not_evicted(cache: Cache, origin: FolderOrigin) -> None:
    """Neither is one without its archive lost."""
    origin.put(URI, b"package")
    file = cache.fetch(URI, origin)
    folder = cache.extracted(file.digest, file.path, extract_copy)
    cache.clear()
    assert (folder / "a" / "copy").exists()
    cache.release(file.digest)
    removal = cache.clear()

    assert (removal.objects, removal.trees) == ((file.digest,), (file.digest,))
    assert not folder.exists()


def test_a_full_check_removes_folders_that_are_not_whole(cache: Cache, origin: FolderOrigin) -> None:
    """And keeps those that are."""
    origin.put(URI, b"package")
    file = cache.fetch(URI, origin)
    folder = cache.extracted(file.digest, file.path, extract_copy)
    assert cache.verify().checked == 2
    damage(folder / "a" / "copy")
    report = cache.verify()

    assert report.corrupt == (file.digest,)
    assert not folder.exists()
    assert cache.verify().corrupt == ()

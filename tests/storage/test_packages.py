"""Packages: the same files give the same bytes, come back as they were, and nothing gets out of its folder."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import shutil
import signal
import socket
import stat
import struct
import subprocess
import tarfile
import tempfile
import unicodedata
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstore.errors import (
    BlobNotFoundError,
    IntegrityError,
    InvalidRequestError,
    MissingWeightsError,
    ModelStoreError,
    UnsafeArchiveError,
)
from modelstore.storage.packages import EXTRACTING, collect, collect_files, extract, pack

# Read at import: each test loses the variables that begin like this.
REFLINK = os.environ.get("MODELSTORE_TEST_REFLINK")

PART = st.one_of(
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8),
    st.sampled_from(["a", "b", ".hidden", "ü", "🤗", "a\\b", "50%"]),
).filter(lambda part: part not in {".", ".."} and ".." not in part.split("\\") and not part.startswith("\\"))
TREE = st.dictionaries(
    st.lists(PART, min_size=1, max_size=3).map("/".join), st.binary(max_size=200), min_size=1, max_size=8
)


def write_tree(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def read_tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@given(TREE)
def test_what_was_packed_comes_back(files: dict[str, bytes]) -> None:
    """Every name and byte; or packing says clearly that these names do not go together."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            write_tree(folder / "in", files)
        except OSError:
            return  # one is a folder and a file
        try:
            found = collect(folder / "in")
        except InvalidRequestError:
            folded = [unicodedata.normalize("NFC", name).casefold() for name in files]
            assert (
                len(set(folded)) < len(folded)
                or any(re.search(r"(^|/)[A-Za-z]:\\", name) for name in files)
                or (
                    len({part for name in folded for part in name.split("/")})
                    < len({part for name in files for part in name.split("/")})
                )
            )
            return
        fingerprint = pack(found, folder / "a.zip")
        again = pack(list(reversed(found)), folder / "b.zip")
        extract(folder / "a.zip", folder / "out")

        assert read_tree(folder / "out") == files
        assert fingerprint == again
        assert (folder / "a.zip").read_bytes() == (folder / "b.zip").read_bytes()
        assert fingerprint.sha256 == hashlib.sha256((folder / "a.zip").read_bytes()).hexdigest()


def test_times_modes_and_owners_do_not_show(tmp_path: Path) -> None:
    """The same model trained twice is stored once."""
    write_tree(tmp_path / "one", {"a": b"1", "d/b": b"2"})
    write_tree(tmp_path / "two", {"d/b": b"2", "a": b"1"})
    os.utime(tmp_path / "one/a", (0, 0))
    (tmp_path / "one/a").chmod(0o700)

    assert pack(collect(tmp_path / "one"), tmp_path / "1") == pack(collect(tmp_path / "two"), tmp_path / "2")


def test_the_bytes_of_a_package_are_fixed(tmp_path: Path) -> None:
    """Another digest here means that every package ever stored would be stored again."""
    write_tree(tmp_path / "in", {"config.json": b"{}", "ünïcode/w.bin": bytes(range(256)) * 300, "z": b""})
    (tmp_path / "in/empty").mkdir()

    assert pack(collect(tmp_path / "in"), tmp_path / "a.zip").digest == GOLDEN


def test_large_members_are_aligned_and_plain(tmp_path: Path) -> None:
    """They can be mapped into memory, or shared between files, where they lie."""
    data = os.urandom(1 << 17)
    write_tree(tmp_path / "in", {"a": b"x" * 10, "b": data, "c/é": data, "d": data})
    pack(collect(tmp_path / "in"), tmp_path / "a.zip")
    raw = (tmp_path / "a.zip").read_bytes()

    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.testzip() is None
        for member in archive.infolist():
            name_size, extra_size = struct.unpack_from("<HH", raw, member.header_offset + 26)
            begin = member.header_offset + 30 + name_size + extra_size
            assert raw[begin : begin + member.file_size] == (tmp_path / "in" / member.filename).read_bytes()
            assert member.file_size < 1 << 16 or begin % 4096 == 0


def test_hidden_files_and_empty_folders_are_kept(tmp_path: Path) -> None:
    """A checkpoint folder may mean something by either."""
    write_tree(tmp_path / "in", {".config": b"x", "a/.b/c": b"y"})
    (tmp_path / "in/empty/deep").mkdir(parents=True)
    pack(collect(tmp_path / "in"), tmp_path / "a.zip")
    extract(tmp_path / "a.zip", tmp_path / "out")

    assert read_tree(tmp_path / "out") == {".config": b"x", "a/.b/c": b"y"}
    assert (tmp_path / "out/empty/deep").is_dir()


def test_links_to_files_inside_are_followed(tmp_path: Path) -> None:
    """`latest.pt -> step-9.pt` is how trainers mark the last one."""
    write_tree(tmp_path / "in", {"step-9.pt": b"w"})
    (tmp_path / "in/latest.pt").symlink_to("step-9.pt")

    assert [name for name, _ in collect(tmp_path / "in")] == ["latest.pt", "step-9.pt"]


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def test_what_cannot_be_packed_is_refused(tmp_path: Path) -> None:
    """At once and by name: a package that silently lacks something is worse than none."""
    makers: list[Callable[[Path], object]] = [
        partial(Path.symlink_to, target="/etc/passwd"),
        partial(Path.symlink_to, target="."),
        partial(Path.symlink_to, target="missing"),
        os.mkfifo,
        make_socket,
    ]
    for number, make in enumerate(makers):
        folder = tmp_path / str(number)
        write_tree(folder, {"a": b"1"})
        make(folder / "odd")
        with pytest.raises(InvalidRequestError, match="odd"):
            collect(folder)


def test_names_that_cannot_live_together_are_refused_when_packing(tmp_path: Path) -> None:
    """A colleague's laptop may not tell A from a, and finding that out there is too late."""
    write_tree(tmp_path, {"x": b"1"})
    for names in (["A", "a"], ["a", "a"], ["a", "a/b"], ["D/x", "d/y"], ["/a"], ["../a"], ["a/../b"], [""], ["a\0b"],
                  ["\ud800"], ["C:\\x"], ["\u00e9", "e\u0301"]):  # fmt: skip
        with pytest.raises(InvalidRequestError):
            pack([(name, tmp_path / "x") for name in names], tmp_path / "a.zip")
    assert os.listdir(tmp_path) == ["x"]


def test_files_are_named_from_their_common_folder(tmp_path: Path) -> None:
    """One file by its name alone; several as they lie to each other."""
    write_tree(tmp_path, {"a/b/1": b"1", "a/c/2": b"2", "a/3": b"3"})

    assert [name for name, _ in collect_files([tmp_path / "a/b/1"])] == ["1"]
    assert [name for name, _ in collect_files([str(tmp_path / "a/b/1"), tmp_path / "a/c/2"])] == ["b/1", "c/2"]
    assert [name for name, _ in collect_files([tmp_path / "a/b/1", tmp_path / "a/3"])] == ["3", "b/1"]


def test_lists_that_make_no_package_are_refused(tmp_path: Path) -> None:
    """Empty, missing, doubled, or no files."""
    write_tree(tmp_path, {"a": b"1", "d/b": b"2"})
    (tmp_path / "empty/deep").mkdir(parents=True)

    cases: list[tuple[type[ModelStoreError], Callable[[], object]]] = [
        (MissingWeightsError, lambda: collect_files([])),
        (BlobNotFoundError, lambda: collect_files([tmp_path / "missing"])),
        (InvalidRequestError, lambda: collect_files([tmp_path / "d"])),
        (InvalidRequestError, lambda: collect_files([tmp_path / "a", str(tmp_path / "d/../a")])),
        (BlobNotFoundError, lambda: collect(tmp_path / "missing")),
        (InvalidRequestError, lambda: collect(tmp_path / "a")),
        (MissingWeightsError, lambda: collect(tmp_path / "empty")),
    ]
    for error, call in cases:
        with pytest.raises(error):
            call()


def test_a_package_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """The second file vanished meanwhile."""
    write_tree(tmp_path, {"a": b"1"})

    with pytest.raises(BlobNotFoundError, match="gone"):
        pack([("a", tmp_path / "a"), ("b", tmp_path / "gone")], tmp_path / "x.zip")

    assert os.listdir(tmp_path) == ["a"]


# -- archives from strangers -------------------------------------------------------------------------------------------


def zip_of(path: Path, *members: tuple[str, bytes, int]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data, mode in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = mode << 16
            archive.writestr(info, data)
    return path


def tar_of(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for info in members:
            archive.addfile(info, io.BytesIO(b"x" * info.size) if info.isreg() else None)
    return path


def tar_member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


REG = stat.S_IFREG | 0o644
UNSAFE_ZIPS = {
    "parent": [("../evil", b"x", REG)],
    "deep parent": [("a/b/../../../evil", b"x", REG)],
    "backslash parent": [("..\\evil", b"x", REG)],
    "absolute": [("/modelstore-evil", b"x", REG)],
    "drive": [("C:\\evil", b"x", REG)],
    "link": [("a", b"/etc/passwd", stat.S_IFLNK | 0o777)],
    "device": [("a", b"", stat.S_IFCHR | 0o666)],
    "pipe": [("a", b"", stat.S_IFIFO | 0o666)],
    "doubled": [("a", b"1", REG), ("./a", b"2", REG)],
    "case": [("a", b"1", REG), ("A", b"2", REG)],
    "folder case": [("d/a", b"1", REG), ("D/b", b"2", REG)],
    "file and folder": [("a", b"1", REG), ("a/b", b"2", REG)],
    "unicode forms": [("\u00e9", b"1", REG), ("e\u0301", b"2", REG)],
}
UNSAFE_TARS = {
    "parent": [tar_member("../evil", size=1)],
    "absolute": [tar_member("/modelstore-evil", size=1)],
    "link out": [tar_member("a", tarfile.SYMTYPE, "/etc"), tar_member("a/x", size=1)],
    "link in": [tar_member("b", size=1), tar_member("a", tarfile.SYMTYPE, "b")],
    "hard link": [tar_member("a", tarfile.LNKTYPE, "/etc/passwd")],
    "nested links": [tar_member("d", tarfile.DIRTYPE), tar_member("d/l", tarfile.SYMTYPE, "../" * 8),
                     tar_member("d/l/evil", size=1)],
    "pipe": [tar_member("a", tarfile.FIFOTYPE)],
    "device": [tar_member("a", tarfile.CHRTYPE)],
    "doubled": [tar_member("a", size=1), tar_member("a", size=2)],
    "sparse": [tar_member("a", tarfile.GNUTYPE_SPARSE)],
}  # fmt: skip


def assert_refused(archive: Path, folder: Path, error: type[ModelStoreError], **limits: int) -> None:
    folder.parent.mkdir(exist_ok=True)
    before = sorted(folder.parent.parent.rglob("*"))
    with pytest.raises(error):
        extract(archive, folder, **limits)

    assert sorted(folder.parent.parent.rglob("*")) == before
    assert not Path("/modelstore-evil").exists()


@pytest.mark.parametrize("name", UNSAFE_ZIPS)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_unsafe_zips_write_nothing(tmp_path: Path, name: str) -> None:
    """Neither outside nor inside: nothing of it is to be trusted."""
    assert_refused(zip_of(tmp_path / "a.zip", *UNSAFE_ZIPS[name]), tmp_path / "to/out", UnsafeArchiveError)


@pytest.mark.parametrize("name", UNSAFE_TARS)
def test_unsafe_tars_write_nothing(tmp_path: Path, name: str) -> None:
    """Python's own "data" filter lets some of these through."""
    assert_refused(tar_of(tmp_path / "a.tar.gz", *UNSAFE_TARS[name]), tmp_path / "to/out", UnsafeArchiveError)


def test_ordinary_tars_are_unpacked(tmp_path: Path) -> None:
    """Compressed or not, and whatever the file is called: the cache may have lost the suffix."""
    members = [tar_member("./", tarfile.DIRTYPE), tar_member("./d", tarfile.DIRTYPE), tar_member("./d/a", size=3),
               tar_member("b", size=70_000)]  # fmt: skip
    tar_of(tmp_path / "weights", *members)
    (tmp_path / "plain").write_bytes(gzip.decompress((tmp_path / "weights").read_bytes()))

    for name in ("weights", "plain"):
        extract(tmp_path / name, tmp_path / f"out-{name}")
        assert read_tree(tmp_path / f"out-{name}") == {"d/a": b"xxx", "b": b"x" * 70_000}


def test_bombs_are_refused_before_they_fill_the_disk(tmp_path: Path) -> None:
    """A few kilobytes may claim, or be, gigabytes."""
    zip_of(tmp_path / "a.zip", ("a", bytes(3 << 20), REG))
    tar_of(tmp_path / "a.tgz", tar_member("a", size=3 << 20))

    assert_refused(tmp_path / "a.zip", tmp_path / "to/out", UnsafeArchiveError, max_bytes=1 << 20)
    assert_refused(tmp_path / "a.tgz", tmp_path / "to/out", UnsafeArchiveError, max_bytes=1 << 20)
    assert extract(tmp_path / "a.zip", tmp_path / "out", max_bytes=3 << 20).is_dir()


def test_a_tar_header_cannot_ask_for_all_memory(tmp_path: Path) -> None:
    """An extended header is read at once, and its length is whatever it says."""
    header = tarfile.TarInfo("bomb")
    header.type, header.size = tarfile.XHDTYPE, 1 << 33
    with gzip.open(tmp_path / "a.tgz", "wb") as stream:
        stream.write(header.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20))

    assert_refused(tmp_path / "a.tgz", tmp_path / "to/out", UnsafeArchiveError)


@pytest.mark.parametrize(
    "data", [b"", b"PK\x03\x04 no zip", b"\x1f\x8b no gzip", b"plain text", gzip.compress(b"no tar" * 200, mtime=0)]
)
def test_what_is_no_archive_is_told(tmp_path: Path, data: bytes) -> None:
    """Not a traceback out of zlib."""
    (tmp_path / "a.zip").write_bytes(data)

    assert_refused(tmp_path / "a.zip", tmp_path / "to/out", IntegrityError)


@given(st.data())
def test_a_damaged_archive_never_gives_wrong_bytes(data: st.DataObject) -> None:
    """Cut or flipped anywhere: an error of ours, or what was packed (where the damage is in no content)."""
    files = {"a": b"x" * 500, "d/b": bytes(range(256)), "c": b""}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tree(folder / "in", files)
        pack(collect(folder / "in"), folder / "a.zip")
        raw = bytearray((folder / "a.zip").read_bytes())
        if data.draw(st.booleans()):
            del raw[data.draw(st.integers(0, len(raw) - 1)) :]
        else:
            raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        (folder / "a.zip").write_bytes(raw)
        try:
            extract(folder / "a.zip", folder / "out")
        except ModelStoreError:
            assert sorted(os.listdir(folder)) == ["a.zip", "in"]
        else:
            assert set(read_tree(folder / "out").values()) <= set(files.values())


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    """Only an empty one is filled."""
    zip_of(tmp_path / "a.zip", ("a", b"1", REG))
    (tmp_path / "empty").mkdir()
    write_tree(tmp_path / "full", {"mine": b"x"})

    assert read_tree(extract(tmp_path / "a.zip", tmp_path / "empty")) == {"a": b"1"}
    with pytest.raises(InvalidRequestError):
        extract(tmp_path / "a.zip", tmp_path / "full")
    assert read_tree(tmp_path / "full") == {"mine": b"x"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_extraction_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is there with everything in it or not at all; what is left is recognised by its name."""
    zip_of(tmp_path / "a.zip", *((str(number), b"1", REG) for number in range(5)))
    real = os.fsync
    for kill_at in range(1, 12):
        child = os.fork()
        if child == 0:
            left_to_live = [kill_at]

            def count(descriptor: int, left_to_live: list[int] = left_to_live) -> None:
                left_to_live[0] -= 1
                if not left_to_live[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                real(descriptor)

            monkeypatch.setattr(os, "fsync", count)
            extract(tmp_path / "a.zip", tmp_path / "out")
            os._exit(0)
        _, status = os.waitpid(child, 0)
        left = set(os.listdir(tmp_path)) - {"a.zip"}
        if status == 0:
            assert kill_at > 5
            break
        assert "out" not in left
        assert all(name.endswith(EXTRACTING) for name in left)

    assert set(read_tree(tmp_path / "out")) == {"0", "1", "2", "3", "4"}


GOLDEN = "sha256:10d1d9e0728f4d357ce4170bc1f95bb72bc9f9de73eeef3514d00c645c5c5198"


def _shares_blocks(folder: Path) -> bool:
    """Ask the filesystem itself."""
    (folder / "probe").write_bytes(bytes(4096))
    done = subprocess.run(
        ["cp", "--reflink=always", folder / "probe", folder / "probe2"], check=False, capture_output=True
    )
    return done.returncode == 0


@pytest.fixture
def sharing(tmp_path: Path) -> Path:
    """A folder on a filesystem whose files can share blocks: MODELSTORE_TEST_REFLINK names one."""
    folder = Path(REFLINK or tmp_path) / f"sharing-{os.urandom(4).hex()}"
    folder.mkdir()
    if not _shares_blocks(folder):
        shutil.rmtree(folder)
        pytest.skip("the filesystem cannot share blocks between files; MODELSTORE_TEST_REFLINK may name one that can")
    return folder


def test_an_unpacked_package_takes_no_second_place_on_the_disk(sharing: Path) -> None:
    """Where files can share blocks; what is small is copied."""
    size = 32 << 20
    files = {"big.bin": os.urandom(size + 5), "sub/other.bin": os.urandom(1 << 16), "small.txt": b"x"}
    write_tree(sharing / "in", files)
    pack(collect(sharing / "in"), sharing / "a.zip")
    os.sync()
    before = shutil.disk_usage(sharing).free
    extract(sharing / "a.zip", sharing / "out")
    os.sync()
    taken = before - shutil.disk_usage(sharing).free

    assert read_tree(sharing / "out") == files
    assert taken < size // 4
    shutil.rmtree(sharing)


def test_shared_blocks_are_compared_with_their_checksum(sharing: Path) -> None:
    """As copied ones are."""
    write_tree(sharing / "in", {"big.bin": bytes(1 << 20)})
    pack(collect(sharing / "in"), sharing / "a.zip")
    with (sharing / "a.zip").open("r+b") as archive:
        archive.seek(1 << 19)
        archive.write(b"wrong")
    with pytest.raises(IntegrityError):
        extract(sharing / "a.zip", sharing / "out")

    assert not (sharing / "out").exists()
    shutil.rmtree(sharing)

"""What every storage must do, whatever speaks to it: subclass, give a place, run.

    class TestMyStorage(StorageContract):
        @pytest.fixture
        def place(self, my_server):
            return f"my://{my_server.host}/folder"

The contract writes and looks around modelstore as well as through it (`raw_write`, `raw_read`, `raw_names`), by the
driver itself; a backend overrides these where it has a better way.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from modelstore.errors import BlobNotFoundError, IntegrityError, ModelStoreError
from modelstore.storage.blobs import delete, exists, open_file, stat
from modelstore.storage.filesystems import open_filesystem
from modelstore.storage.fingerprints import hash_file
from modelstore.storage.retries import Patience
from modelstore.storage.transfer import download, fetch
from modelstore.storage.uploads import send_object, upload
from modelstore.storage.uris import join

__all__ = ["HASTY", "Notes", "StorageContract"]

HASTY = Patience(attempts=3, deadline_s=60.0, first_pause_s=0.01, longest_pause_s=0.05)
"""For tests that want a failure soon."""

NAMES = ("model.pt", "a b.bin", "50%.bin", "ünï🤗.pt", "a+b&c=d.pt", "x,y;z(1).pt")
SIZES = (0, 1, 70_000, (9 << 20) + 3, 33 << 20)


@dataclass
class Notes:
    """A `Resumable` and a `Checkpoint` in memory."""

    etag: str | None = None
    total_bytes: int | None = None
    state: str | None = None
    begun: list[tuple[str | None, int | None]] = field(default_factory=list)

    def begin(self, etag: str | None, total_bytes: int | None) -> None:
        """Note it."""
        self.etag, self.total_bytes = etag, total_bytes
        self.begun.append((etag, total_bytes))

    def save(self, state: str) -> None:
        """Note it."""
        self.state = state


class StorageContract:
    """The laws. A backend gives `place`; what it cannot do it says in the attributes.

    Attributes:
        names: File names that the server understands.
        has_etags: Whether it tells what identifies a content.
        resumable: Whether reading can begin anywhere.
        etag_resolution_s: Two contents of one size need to be so many seconds apart to have two ETags.
    """

    names: tuple[str, ...] = NAMES
    has_etags = True
    resumable = True
    etag_resolution_s = 0.0

    @pytest.fixture
    def place(self) -> str:
        """Return the URI of an empty folder."""
        raise NotImplementedError

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        """Return the driver's parameters."""
        return {}

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        """Return a file of some size."""
        path = tmp_path / "source.pt"
        path.write_bytes(os.urandom(70_000))
        return path

    def raw_write(self, uri: str, data: bytes, options: dict[str, Any]) -> None:
        """Write around modelstore."""
        fs, path = open_filesystem(uri, options)
        if parent := path.rpartition("/")[0]:
            fs.makedirs(parent, exist_ok=True)
        fs.pipe_file(path, data)

    def raw_read(self, uri: str, options: dict[str, Any]) -> bytes:
        """Read around modelstore."""
        fs, path = open_filesystem(uri, options)
        fs.invalidate_cache()
        data: bytes = fs.cat_file(path)
        return data

    def raw_names(self, uri: str, options: dict[str, Any]) -> list[str]:
        """Return the names of all files below a folder, hidden ones too; empty if there is none."""
        fs, path = open_filesystem(uri, options)
        fs.invalidate_cache()
        try:
            return sorted(name.rstrip("/").rpartition("/")[2] for name in fs.find(path))
        except FileNotFoundError:
            return []

    @pytest.mark.parametrize("size", SIZES)
    def test_what_was_uploaded_is_downloaded(
        self, place: str, options: dict[str, Any], tmp_path: Path, size: int
    ) -> None:
        """Empty, small, several parts: the bytes, the size and the digests agree at every station."""
        data = os.urandom(size)
        (tmp_path / "a").write_bytes(data)
        uri = join(place, "folder", "model.pt")
        sent = upload(tmp_path / "a", uri, storage_options=options)
        came = download(uri, tmp_path / "b", storage_options=options)

        assert (sent.size, sent.sent_bytes) == (size, size)
        assert self.raw_read(uri, options) == data
        assert (tmp_path / "b").read_bytes() == data
        assert came.fingerprint == hash_file(tmp_path / "a")
        assert stat(uri, options).size == size
        if self.has_etags:
            assert came.etag == sent.etag == stat(uri, options).etag is not None

    def test_names_are_taken_as_they_are(self, place: str, options: dict[str, Any], tmp_path: Path) -> None:
        """No escaping twice, no pattern, no query."""
        for number, name in enumerate(self.names):
            (tmp_path / "a").write_bytes(b"%d" % number)
            upload(tmp_path / "a", join(place, "names", name), storage_options=options)

        assert self.raw_names(join(place, "names"), options) == sorted(self.names)
        for number, name in enumerate(self.names):
            download(join(place, "names", name), tmp_path / "b", storage_options=options)
            assert (tmp_path / "b").read_bytes() == b"%d" % number

    def test_an_upload_replaces_the_whole(self, place: str, options: dict[str, Any], source: Path) -> None:
        """And leaves nothing beside it."""
        uri = join(place, "model.pt")
        self.raw_write(uri, b"x" * 100_000, options)
        upload(source, uri, storage_options=options)

        assert self.raw_read(uri, options) == source.read_bytes()
        assert self.raw_names(place, options) == ["model.pt"]

    def test_the_same_content_is_sent_once(self, place: str, options: dict[str, Any], source: Path) -> None:
        """Its address holds its digest: what is there is it, and something shorter there is not."""
        fingerprint = hash_file(source)
        first = send_object(source, fingerprint, place, "model.pt", storage_options=options)
        again = send_object(source, fingerprint, place, "model.pt", etag=first.etag, storage_options=options)
        self.raw_write(first.uri, b"short", options)
        repaired = send_object(source, fingerprint, place, "model.pt", storage_options=options)

        assert fingerprint.sha256 in first.uri
        assert (first.sent_bytes, again.sent_bytes, repaired.sent_bytes) == (70_000, 0, 70_000)
        assert again.uri == first.uri
        assert self.raw_read(first.uri, options) == source.read_bytes()

    def test_what_is_missing_is_told_as_such(self, place: str, options: dict[str, Any], tmp_path: Path) -> None:
        """And leaves no file, nor half of one."""
        uri = join(place, "missing.pt")

        with pytest.raises(BlobNotFoundError, match=r"missing\.pt"):
            download(uri, tmp_path / "b", storage_options=options)
        with pytest.raises(BlobNotFoundError):
            stat(uri, options)
        with pytest.raises(BlobNotFoundError):
            open_file(uri, options).read()
        assert not exists(uri, options)
        assert not delete(uri, options)
        assert list(tmp_path.glob("*")) == list(tmp_path.glob("modelstore-home"))

    def test_a_folder_is_no_object(self, place: str, options: dict[str, Any], tmp_path: Path) -> None:
        """Neither to be downloaded nor to be there."""
        self.raw_write(join(place, "folder/a"), b"x", options)

        with pytest.raises(ModelStoreError):
            download(join(place, "folder"), tmp_path / "b", storage_options=options)
        assert not exists(join(place, "folder"), options)
        assert not (tmp_path / "b").exists()

    def test_deleting(self, place: str, options: dict[str, Any]) -> None:
        """Gone for everybody, and only that."""
        self.raw_write(join(place, "a"), b"x", options)
        self.raw_write(join(place, "b"), b"y", options)

        assert exists(join(place, "a"), options)
        assert delete(join(place, "a"), options)
        assert not exists(join(place, "a"), options)
        assert self.raw_names(place, options) == ["b"]

    def test_other_bytes_than_expected_are_refused(
        self, place: str, options: dict[str, Any], tmp_path: Path, source: Path
    ) -> None:
        """By size before they are fetched where possible, by digest always; the target stays as it was."""
        uri = join(place, "a")
        self.raw_write(uri, b"other", options)
        (tmp_path / "b").write_bytes(b"mine")

        with pytest.raises(IntegrityError):
            download(uri, tmp_path / "b", expected_size=6, storage_options=options)
        with pytest.raises(IntegrityError):
            download(uri, tmp_path / "b", expected_digest=hash_file(source).digest, storage_options=options)
        assert (tmp_path / "b").read_bytes() == b"mine"

    def test_an_object_can_be_read_in_place(self, place: str, options: dict[str, Any]) -> None:
        """Anywhere in it, without a local copy."""
        data = os.urandom(300_000)
        self.raw_write(join(place, "a"), data, options)
        with open_file(join(place, "a"), options) as stream:
            head = stream.read(10)
            stream.seek(200_000)
            middle = stream.read(10)
            stream.seek(-5, os.SEEK_END)
            tail = stream.read()

        assert (head, middle, tail) == (data[:10], data[200_000:200_010], data[-5:])

    def test_an_object_that_changes_while_it_is_read_in_place_is_an_error(
        self, place: str, options: dict[str, Any]
    ) -> None:
        """Two versions are never mixed, where the storage tells them apart."""
        if not self.has_etags:
            pytest.skip("it does not tell versions apart")
        data, uri = os.urandom(12 << 20), join(place, "a")
        self.raw_write(uri, data, options)
        with open_file(uri, options) as stream:
            assert stream.read(10) == data[:10]
            stream.seek(11 << 20)
            assert stream.read(10) == data[11 << 20 : (11 << 20) + 10]
            time.sleep(self.etag_resolution_s)
            self.raw_write(uri, data[::-1], options)
            stream.seek(0)
            with pytest.raises(IntegrityError, match="changed"):
                stream.read()

    def test_progress_ends_at_all(self, place: str, options: dict[str, Any], tmp_path: Path, source: Path) -> None:
        """Whatever the driver reports itself."""
        seen: list[tuple[int, int | None]] = []
        upload(source, join(place, "a"), storage_options=options)
        download(join(place, "a"), tmp_path / "b", storage_options=options,
                 progress=lambda done, total: seen.append((done, total)))  # fmt: skip

        assert seen == sorted(seen)
        assert all(total == 70_000 for _, total in seen)
        assert not seen or seen[-1][0] == 70_000

    def test_an_interrupted_download_is_continued(self, place: str, options: dict[str, Any], tmp_path: Path) -> None:
        """What is there is kept while the object has the same ETag; otherwise all comes anew."""
        data = os.urandom(12 << 20)
        uri = join(place, "a")
        self.raw_write(uri, data, options)
        target, notes = tmp_path / "b", Notes()
        whole = fetch(uri, target, partial=notes, storage_options=options)
        os.truncate(target, 11 << 20)
        rest = fetch(uri, target, partial=notes, storage_options=options)

        assert target.read_bytes() == data
        assert rest.fingerprint == whole.fingerprint == hash_file(target)
        if self.has_etags and self.resumable:
            assert rest.received_bytes == 1 << 20
            assert len(notes.begun) == 1
        time.sleep(self.etag_resolution_s)
        self.raw_write(uri, data[::-1], options)
        os.truncate(target, 11 << 20)
        changed = fetch(uri, target, partial=notes, storage_options=options)

        assert target.read_bytes() == data[::-1]
        assert changed.fingerprint == hash_file(target)

    def test_a_file_that_is_gone_stores_nothing(self, place: str, options: dict[str, Any], tmp_path: Path) -> None:
        """An error of ours, and no empty object."""
        with pytest.raises(BlobNotFoundError):
            upload(tmp_path / "gone", join(place, "a"), storage_options=options)

        assert self.raw_names(place, options) == []

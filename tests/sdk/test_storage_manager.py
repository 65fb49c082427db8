"""`StorageManager`: files at any URI, without a model."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from modelstore import StorageManager
from modelstore.errors import ModelStoreError

MakeFile = Callable[..., Path]


def test_a_file_is_sent_and_fetched(make_file: MakeFile) -> None:
    """Where it goes is what was said."""
    name = os.urandom(4).hex()
    url = f"memory://manager/{name}/w.bin"

    assert StorageManager.upload_file(make_file(content=b"one"), url) == url
    path = Path(str(StorageManager.get_local_copy(url)))
    assert (path.name, path.read_bytes()) == ("w.bin", b"one")
    StorageManager.upload_file(str(make_file(content=b"two")), url)
    assert Path(str(StorageManager.get_local_copy(url))).read_bytes() == b"one"
    assert Path(str(StorageManager.get_local_copy(url, force_download=True))).read_bytes() == b"two"


def test_a_local_file_is_handed_out_in_place(make_file: MakeFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ClearML does."""
    path = make_file()
    monkeypatch.chdir(path.parent)
    for spelling in (path, str(path), path.as_uri(), path.name):
        assert StorageManager.get_local_copy(spelling) == str(path)


def test_archives_are_unpacked_unless_told_otherwise(tmp_path: Path) -> None:
    """By their names."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("inner", "x")

    assert Path(str(StorageManager.get_local_copy(tmp_path / "a.zip")), "inner").read_text() == "x"
    assert StorageManager.get_local_copy(tmp_path / "a.zip", extract_archive=False) == str(tmp_path / "a.zip")


def test_what_cannot_be_had_is_none(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """As in ClearML; the reason is logged."""
    for url in (str(tmp_path / "nope"), "memory://nope/x", "nosuch://x/y", "", "a\0b", 5):
        assert StorageManager.get_local_copy(url) is None  # type: ignore[arg-type]
    assert len(caplog.records) >= 6


@pytest.mark.parametrize("source", ["nope", "", "a\0b", "/dev/null", 5])
def test_what_cannot_be_sent_is_an_error(source: str) -> None:
    """Nothing is there afterwards."""
    with pytest.raises(ModelStoreError):
        StorageManager.upload_file(source, "memory://manager/none")
    assert StorageManager.get_local_copy("memory://manager/none") is None


@pytest.mark.parametrize("url", ["http://example.com/x", "nosuch://x/y", "", "a\0b", None])
def test_where_nothing_can_be_sent_is_an_error(make_file: MakeFile, url: str) -> None:
    """Of our tree."""
    with pytest.raises(ModelStoreError):
        StorageManager.upload_file(make_file(), url)

"""Uploads to disks and into memory: what the servers of `test_backends` cannot show."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from modelstore.errors import IntegrityError, ReadOnlyStorageError
from modelstore.storage.fingerprints import Fingerprint, hash_file
from modelstore.storage.uploads import send_object, upload, upload_object
from modelstore.testing import faults


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.pt"
    path.write_bytes(b"new" * 10_000)
    return path


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("step", range(1, 4))
def test_a_killed_local_upload_leaves_the_old_or_the_new(tmp_path: Path, source: Path, step: int) -> None:
    """kill -9 at each numbered step: readers of the destination never see half a file."""
    target = tmp_path / "there" / "model.pt"
    target.parent.mkdir()
    target.write_bytes(b"old")
    child = os.fork()
    if child == 0:
        faults.install(f"uploads.place.{step}=kill")
        upload(source, target)
        os._exit(0)
    _, status = os.waitpid(child, 0)

    assert os.WTERMSIG(status) == signal.SIGKILL
    assert target.read_bytes() == (source.read_bytes() if step == 3 else b"old")
    upload(source, target)
    assert target.read_bytes() == source.read_bytes()


def test_a_snapshot_that_changed_is_not_stored(tmp_path: Path, source: Path) -> None:
    """Its address would promise other bytes."""
    wrong = Fingerprint(30_000, "0" * 64, "0" * 32)

    with pytest.raises(IntegrityError, match="changed"):
        upload(source, tmp_path / "there/model.pt", fingerprint=wrong)
    assert list((tmp_path / "there").iterdir()) == []


def test_damaged_bytes_at_the_destination_are_replaced(tmp_path: Path, source: Path) -> None:
    """Of the right size, but on a local disk we can look."""
    fingerprint = hash_file(source)
    sent = send_object(source, fingerprint, str(tmp_path / "there"), "model.pt")
    path = tmp_path / "there/sha256" / fingerprint.sha256[:2] / fingerprint.sha256 / "model.pt"
    path.write_bytes(b"bad" * 10_000)
    again = send_object(source, fingerprint, str(tmp_path / "there"), "model.pt")

    assert sent.uri == path.as_uri()
    assert again.sent_bytes == 30_000
    assert path.read_bytes() == source.read_bytes()


def test_many_uploads_of_one_content_do_not_disturb_each_other(tmp_path: Path, source: Path) -> None:
    """Eight threads, one address: one object, nothing beside it."""
    fingerprint = hash_file(source)
    uris: list[str] = []
    threads = [
        threading.Thread(
            target=lambda: uris.append(upload_object(source, fingerprint, str(tmp_path / "there"), "model.pt"))
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(uris) == 8
    assert len(set(uris)) == 1
    assert [path.name for path in (tmp_path / "there").rglob("*") if path.is_file()] == ["model.pt"]


@pytest.mark.parametrize("destination", ["http://127.0.0.1:9/a", "/proc/modelstore/a", "/sys/modelstore/a"])
def test_places_that_take_nothing_say_so(source: Path, destination: str) -> None:
    """Before anything is sent, or at the first refusal."""
    with pytest.raises((ReadOnlyStorageError, FileNotFoundError)):
        upload(source, destination)

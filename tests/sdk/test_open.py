"""Reading weights in place: `Model.open`."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelstore import InputModel, OutputModel, Task
from modelstore.errors import BlobNotFoundError, IntegrityError, StorageUnavailableError
from modelstore.storage import webfiles
from modelstore.storage.packages import collect, pack
from modelstore.testing.httpserver import HttpServer, http_server
from modelstore.testing.storage import HASTY
from tests.kinds import one_machine

MakeFile = Callable[..., Path]
DATA = os.urandom(24 << 20)


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with http_server() as running:
        yield running


def test_a_remote_file_is_read_where_it_is(server: HttpServer) -> None:
    """Anywhere in it, for the price of what is read."""
    model = InputModel.import_model(server.serve("/a.bin", DATA))
    with model.open() as stream:
        stream.seek(-100, os.SEEK_END)
        tail = stream.read()
        stream.seek(4 << 20)
        middle = stream.read(10)

    assert (tail, middle) == (DATA[-100:], DATA[4 << 20 : (4 << 20) + 10])
    assert server.sent_bytes < 6 << 20  # the ten bytes came with what follows them


def test_what_is_cached_is_not_asked_for_again(server: HttpServer) -> None:
    """And verified: a damaged copy is not read."""
    model = InputModel.import_model(server.serve("/a.bin", b"x" * 1000))
    path = Path(str(model.get_local_copy()))
    before = server.requests.total()
    with model.open() as stream:
        assert stream.read() == b"x" * 1000
    assert server.requests.total() == before
    path.chmod(0o600)
    path.write_bytes(b"y" * 1000)
    with model.open() as stream:
        assert stream.read() == b"x" * 1000
    assert server.requests.total() > before


@one_machine("a shared one opens the copy in the cache, which was verified")
def test_the_registrys_own_bytes_are_verified_first(task: Task, make_file: MakeFile) -> None:
    """As `get_local_copy` does."""
    model = OutputModel(task)
    model.update_weights(make_file(content=b"weights"))
    with model.open() as stream:
        assert stream.read(3) == b"wei"
    path = Path(str(model.get_local_copy()))
    path.chmod(0o600)
    path.write_bytes(b"WEIGHTS")

    with pytest.raises(IntegrityError):
        model.open()


def test_members_of_packages_are_opened_one_by_one(server: HttpServer, task: Task, make_file: MakeFile) -> None:
    """Here or remote; a remote one without the others."""
    make_file("folder/big.bin", DATA)
    folder = make_file("folder/sub/vocab.txt", b"a\nb\n").parent.parent
    model = OutputModel(task)
    model.update_weights_package(weights_path=str(folder))
    pack(collect(folder), folder.parent / "p.zip")
    remote = InputModel.import_model(
        server.serve("/p.zip", (folder.parent / "p.zip").read_bytes()), name="p", is_package=True
    )
    for one in (model, remote):
        with one.open("sub/vocab.txt") as stream:
            assert stream.read() == b"a\nb\n"
            stream.seek(2)
            assert stream.readline() == b"b\n"
        with pytest.raises(BlobNotFoundError, match="missing"):
            one.open("missing.txt")
    assert server.sent_bytes < 1 << 20


def test_a_damaged_member_is_found_when_it_is_read(server: HttpServer, tmp_path: Path) -> None:
    """By its checksum."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("w", b"weights")
    model = InputModel.import_model(server.serve("/a.zip", (tmp_path / "a.zip").read_bytes().replace(b"wei", b"WEI")))

    with model.open("w") as stream, pytest.raises(IntegrityError):
        stream.read()
    with pytest.raises(IntegrityError):
        InputModel.import_model(server.serve("/b.zip", b"no archive at all")).open("w")


def test_a_connection_that_fails_is_tried_again_and_then_told_as_what_it_is(
    server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive is not damaged because its server is gone."""
    monkeypatch.setattr(webfiles, "Patience", HASTY.fresh)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("w", b"weights")
    model = InputModel.import_model(server.serve("/a.zip", (tmp_path / "a.zip").read_bytes()))
    behaviour = server.resources["/a.zip"]
    behaviour.drop_after, behaviour.drops = 5, 5
    with model.open("w") as stream:
        assert stream.read() == b"weights"
    assert behaviour.drops == 0
    behaviour.drop_after, behaviour.drops = 0, None

    with pytest.raises(StorageUnavailableError):
        model.open("w")


def test_what_is_not_there_is_an_error(server: HttpServer, task: Task) -> None:
    """Not an empty file."""
    with pytest.raises(BlobNotFoundError):
        OutputModel(task, name="empty").open()
    with pytest.raises(BlobNotFoundError):
        InputModel.import_model(f"{server.url}/missing").open().read()
    with pytest.raises(StorageUnavailableError):
        InputModel.import_model("http://127.0.0.1:9/a").open().read()

"""A server as the other side of a sync: its tokens, what goes wrong on the way, and that nothing is lost by it."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")

from modelstore.errors import (
    AccessDeniedError,
    BlobNotFoundError,
    InvalidRequestError,
    InvalidUriError,
    RegistryNotFoundError,
    StorageUnavailableError,
)
from modelstore.index.heads import read_strays
from modelstore.registry import Registry
from modelstore.registry.references import Reference
from modelstore.server import Tokens
from modelstore.storage import retries, transfer
from modelstore.storage.fingerprints import hash_file
from modelstore.storage.transfer import Address
from modelstore.storage.webclient import WebClient
from modelstore.sync import Knowledge, RegistryPartner, http
from modelstore.sync.client import Client
from modelstore.sync.credentials import forget_token, save_token, token_for
from modelstore.sync.http import HttpPartner
from modelstore.testing.httpserver import http_server
from modelstore.testing.reference import read_index


@pytest.fixture
def ann(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path / "ann", actor="ann@laptop", cache=tmp_path / "ann-cache") as registry:
        yield registry


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries that do not wait."""
    monkeypatch.setattr(retries.Patience.after, "__defaults__", (lambda _: None,))


def stored(registry: Registry, folder: Path, data: bytes, name: str = "net.pt") -> str:
    file = folder / name
    file.write_bytes(data)
    objects = registry.weights.objects
    return registry.models.create(name=name, uri=objects.put(*objects.snapshot(file), name)).id


def state(registry: Registry) -> object:
    return read_index(registry.database.connection)


def test_the_token_comes_from_the_environment_or_a_file(
    team: Registry, ann: Registry, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And from nowhere else; the variable is stronger."""
    secret = Tokens(team).create("ann", "write")
    ann.models.create(name="m")
    with pytest.raises(AccessDeniedError, match="MODELSTORE_TOKEN"):
        ann.sync(url)
    path = save_token(url.upper() + "/", secret)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    assert ann.sync(url).sent.operations == 1
    monkeypatch.setenv("MODELSTORE_TOKEN", "mst_other")
    with pytest.raises(AccessDeniedError, match="not known"):
        ann.sync(url)
    monkeypatch.delenv("MODELSTORE_TOKEN")
    path.chmod(0o644)
    with pytest.raises(AccessDeniedError, match="chmod 600"):
        ann.sync(url)
    path.chmod(0o600)
    assert (forget_token(url), forget_token(url), token_for(url)) == (True, False, None)
    with pytest.raises(InvalidRequestError, match="no token"):
        save_token(url, "two words")


def test_a_token_is_in_no_address_no_database_and_no_message(team: Registry, ann: Registry, url: str) -> None:
    """Those are shown and copied."""
    secret = Tokens(team).create("ann", "read")
    save_token(url, secret)
    ann.models.create(name="m")
    with pytest.raises(InvalidUriError):
        ann.remotes.add("team", url.replace("://", f"://{secret}@"))
    ann.remotes.add("team", url)
    with pytest.raises(AccessDeniedError) as caught:
        ann.sync("team")
    with closing(HttpPartner(url)) as partner:
        assert secret not in repr(partner.uri)

    assert secret not in str(caught.value)
    assert secret.encode() not in (ann.folder / "registry.db").read_bytes()


def test_a_token_goes_to_other_machines_in_the_clear_only_when_that_was_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is asked before: who listens would have it."""
    monkeypatch.setenv("MODELSTORE_TOKEN", "mst_secret")
    for place in ("http://models.example.org", "http://localhost.example.org:8008", "http://10.0.0.1/x"):
        with pytest.raises(AccessDeniedError, match="MODELSTORE_PLAIN_HTTP") as caught:
            Client(place)
        assert "mst_secret" not in str(caught.value)
    for place in ("https://models.example.org", "http://localhost:1", "http://127.0.0.1:1", "http://[::1]:1"):
        Client(place)
    monkeypatch.setenv("MODELSTORE_PLAIN_HTTP", "1")
    Client("http://models.example.org")
    monkeypatch.delenv("MODELSTORE_PLAIN_HTTP")
    monkeypatch.delenv("MODELSTORE_TOKEN")
    Client("http://models.example.org")


def test_nothing_new_is_one_small_question(
    team: Registry, ann: Registry, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the connection that is there, and what was known is kept; what is new is told."""
    opened: list[object] = []
    connect = WebClient._connect

    def noted(self: WebClient, *arguments: Any) -> Any:
        opened.append(self)
        return connect(self, *arguments)

    monkeypatch.setattr(WebClient, "_connect", noted)
    team.models.create(name="m")
    with closing(HttpPartner(url)) as partner:
        first = partner.knowledge()
        assert partner.knowledge() is first
        assert partner.size_of(f"sha256:{'0' * 64}", "x") is None
        team.models.create(name="n")
        second = partner.knowledge()
        assert second != first
        assert partner.knowledge() is second
        file = team.folder / "x"
        file.write_bytes(b"x")
        need = Reference(hash_file(file).digest, "x", 1, "", "x")
        partner.store(need, Address(str(file)))
        assert partner.size_of(need.digest, "x") == 1
        assert partner.knowledge() is second
        here = RegistryPartner(ann)
        ann.models.create(name="ann's")
        for parcel in here.parcels(second, here.knowledge()):
            partner.take_in(parcel)
        assert partner.knowledge() == RegistryPartner(team).knowledge() != second
        team.models.create(name="o")
        assert partner.knowledge() == RegistryPartner(team).knowledge()
    assert len(opened) == 1


def test_a_refusal_of_what_may_have_arrived_before_is_none(
    team: Registry, ann: Registry, url: str, monkeypatch: pytest.MonkeyPatch, impatient: None
) -> None:
    """The answer was lost, and when it was asked for again the token had gone: nobody knows."""
    save_token(url, Tokens(team).create("ann", "write"))
    ann.models.create(name="m")
    request = Client.request

    def losing(self: Client, method: str, path: str, *arguments: Any, **options: Any) -> Any:
        answer = request(self, method, path, *arguments, **options)
        if path == "/v1/journal/push":
            answer.close()
            Tokens(team).revoke("ann")
            raise ConnectionResetError
        return answer

    with closing(HttpPartner(url)) as partner, monkeypatch.context() as patch:
        here = RegistryPartner(ann)
        (parcel,) = here.parcels(Knowledge(), here.knowledge())
        patch.setattr(Client, "request", losing)
        with pytest.raises(StorageUnavailableError, match="unanswered"):
            partner.take_in(parcel)
        patch.undo()
        assert len(list(team.operations())) == 1
        with pytest.raises(AccessDeniedError):
            partner.take_in(parcel)


def test_roles_of_a_sync(team: Registry, ann: Registry, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading needs no more than read; what others have made stays here, and is told, unless an admin brings it."""
    secrets = {role: Tokens(team).create(role, role) for role in ("read", "write", "admin")}
    theirs = team.models.create(name="theirs").id
    monkeypatch.setenv("MODELSTORE_TOKEN", secrets["read"])
    assert ann.sync(url, direction="pull").received.operations == 1
    ann.models.tag(theirs, add=["ann's"])
    with pytest.raises(AccessDeniedError, match="'write'"):
        ann.sync(url)

    monkeypatch.setenv("MODELSTORE_TOKEN", secrets["write"])
    ann.actor = "write@laptop"
    ann.models.tag(theirs, add=["mine"])
    for sent in (1, 0):
        moved = ann.sync(url).sent
        assert (moved.operations, moved.left) == (sent, {"ann@laptop": 1})
    assert list(team.models.get(theirs).tags) == ["mine"]
    monkeypatch.setenv("MODELSTORE_TOKEN", secrets["admin"])
    assert ann.sync(url).sent.operations == 1
    assert state(ann) == state(team)
    assert read_strays(team.database.connection) == []


def test_what_is_no_server_is_told(ann: Registry, tmp_path: Path) -> None:
    """A web page, a redirect, nothing at all."""
    with http_server() as web:
        web.serve("/v1/registry", b"<html>")
        web.serve("/other/v1/registry", b'{"id": 1}')
        web.serve("/moved/v1/registry", b"", redirect=f"{web.url}/v1/registry")
        for place in ("", "/other", "/moved", "/nothing"):
            with pytest.raises(RegistryNotFoundError, match="no modelstore server"):
                ann.sync(web.url + place)


def test_a_server_that_cannot_be_reached_is_told(ann: Registry, impatient: None) -> None:
    """After some patience."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(StorageUnavailableError, match="cannot be reached"):
            ann.sync(f"http://127.0.0.1:{taken.getsockname()[1]}")


@contextmanager
def cutting(url: str, after: Iterator[int | None]) -> Iterator[str]:
    """A line to a server that goes dead after so many bytes, connection by connection; then it stays whole."""
    port = int(url.rpartition(":")[2])
    listening = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def passing(line: socket.socket, left: int | None) -> None:
        with line, socket.create_connection(("127.0.0.1", port)) as server:
            back = threading.Thread(target=copy, args=(server, line, left))
            back.start()
            copy(line, server, left)
            back.join()

    def copy(one: socket.socket, other: socket.socket, left: int | None) -> None:
        try:
            while data := one.recv(65536):
                if left is not None and len(data) >= left:
                    break
                left = None if left is None else left - len(data)
                other.sendall(data)
        except OSError:
            pass
        for end in (one, other):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def accepting() -> None:
        while True:
            try:
                line, _ = listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=passing, args=(line, next(after, None)))
            threads.append(thread)
            thread.start()

    main = threading.Thread(target=accepting)
    main.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        main.join()
        for thread in threads:
            thread.join()


def test_a_line_that_goes_dead_again_and_again_costs_nothing_but_time(
    team: Registry, ann: Registry, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, impatient: None
) -> None:
    """Both ways, operations and bytes: in the end both sides are equal, and every object arrived in pieces."""
    monkeypatch.setattr(http, "_AT_ONCE_BYTES", 1000)
    monkeypatch.setattr("modelstore.sync.partners.PARCEL", 5)
    big = os.urandom(5_000_000)
    stored(ann, tmp_path, big, "big.pt")
    theirs = os.urandom(3_000_000)
    model = stored(team, tmp_path, theirs, "theirs.pt")
    for number in range(40):
        ann.models.create(name=f"a{number}")
        team.models.create(name=f"t{number}")

    with cutting(url, iter([400, 3000, 900, 20_000, 7_000, 2_000_000, 2_500_000, 700_000, 1_000_000])) as line:
        ann.sync(line)

    assert state(ann) == state(team)
    assert ann.weights.local_copy(ann.models.get(model)).read_bytes() == theirs
    assert {one.size for one in team.weights.objects.iterate()} == {len(big), len(theirs)}
    assert ann.sync(url).nothing


def test_an_upload_is_continued_by_another_process(
    team: Registry, ann: Registry, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has arrived is not sent again, even when whoever sent it remembers nothing."""
    data = os.urandom(6_000_000)
    stored(ann, tmp_path, data)
    with closing(HttpPartner(url)) as partner:
        digest = next(ann.weights.objects.iterate()).digest
        upload = partner._client.post("/v1/uploads", {"digest": digest, "name": "net.pt", "size": len(data)})
        headers = {"Upload-Offset": "0"}
        partner._client.request("PATCH", f"/v1/uploads/{upload['id']}", headers, data[:4_000_000]).close()

    sent: list[int] = []
    read = http._Rest.read

    def noted(self: http._Rest, count: int) -> bytes:
        block = read(self, count)
        sent.append(len(block))
        return block

    monkeypatch.setattr(http._Rest, "read", noted)
    ann.sync(url)
    assert sum(sent) == 2_000_000
    assert [one.size for one in team.weights.objects.iterate()] == [len(data)]


def test_an_upload_that_the_next_host_does_not_know_goes_in_one_piece(
    team: Registry, ann: Registry, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a balancer of requests, where each server keeps what it has begun to itself."""
    data = os.urandom(6_000_000)
    stored(ann, tmp_path, data)
    post = Client.post

    def elsewhere(self: Client, path: str, *arguments: Any, **options: Any) -> Any:
        answer = post(self, path, *arguments, **options)
        if path == "/v1/uploads":
            for file in (team.folder / "objects" / "tmp").iterdir():
                file.unlink()
        return answer

    monkeypatch.setattr(Client, "post", elsewhere)
    ann.sync(url)
    assert [one.size for one in team.weights.objects.iterate()] == [len(data)]


def test_a_download_is_continued_by_another_process(
    team: Registry, ann: Registry, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, impatient: None
) -> None:
    """What has arrived is not fetched again."""
    data = os.urandom(30_000_000)
    model = stored(team, tmp_path, data)
    ann.sync(url, with_objects="none")
    with cutting(url, chain([None], repeat(18_000_000, 1), repeat(0))) as line:
        ann.remotes.add("team", line)
        with pytest.raises(BlobNotFoundError):
            ann.weights.local_copy(ann.models.get(model))
    (left,) = (ann.folder / "objects" / "tmp").iterdir()
    arrived = left.stat().st_size
    assert 0 < arrived < 18_000_000  # how much depends on how many connections the machine found worth it

    received: list[int] = []
    fetch = transfer.fetch

    def noted(*args: Any, **options: Any) -> Any:
        received.append((done := fetch(*args, **options)).received_bytes)
        return done

    monkeypatch.setattr(transfer, "fetch", noted)
    ann.remotes.add("team", url)
    assert ann.weights.local_copy(ann.models.get(model)).read_bytes() == data
    assert received == [len(data) - arrived]
    assert list((ann.folder / "objects" / "tmp").iterdir()) == []


def test_bytes_are_fetched_with_the_token_when_they_are_asked_for(
    team: Registry, ann: Registry, url: str, tmp_path: Path
) -> None:
    """By ranges, from a remote that is a server."""
    model = stored(team, tmp_path, b"weights" * 1000)
    save_token(url, Tokens(team).create("ann", "read"))
    ann.remotes.add("team", url)
    ann.sync("team", direction="pull", with_objects="none")
    assert list(ann.weights.objects.iterate()) == []

    assert ann.weights.local_copy(ann.models.get(model)).read_bytes() == b"weights" * 1000


def test_a_large_parcel_goes_in_pieces_that_end_where_transactions_do(team: Registry, ann: Registry, url: str) -> None:
    """The server takes a mebibyte at once here; one transaction that is larger is refused in words."""
    for number in range(6):
        with ann.transaction():
            for part in range(3):
                ann.models.create(name=f"{number}/{part}", comment="x" * 100_000)

    assert ann.sync(url).sent.operations == 18
    assert state(ann) == state(team)
    with ann.transaction():
        for part in range(12):
            ann.models.create(name=f"p{part}", comment="x" * 100_000)
    with pytest.raises(InvalidRequestError, match="--max-body"):
        ann.sync(url)


def test_a_repair_takes_lost_bytes_from_a_server(team: Registry, ann: Registry, url: str, tmp_path: Path) -> None:
    """As from any remote."""
    model = stored(ann, tmp_path, b"precious")
    ann.remotes.add("team", url)
    ann.sync("team")
    ann.weights.local_copy(ann.models.get(model)).unlink()

    assert len(ann.fsck(repair=True).repaired) == 1
    assert ann.weights.local_copy(ann.models.get(model)).read_bytes() == b"precious"

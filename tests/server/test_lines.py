"""Connections that bring nothing or take nothing: hung up on, with everything that was held for them."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")

from modelstore.registry import Registry
from modelstore.server import Settings, Tokens
from modelstore.testing.servers import server_thread
from tests.server.conftest import Client

DATA = os.urandom(16_000_000)
PATH = f"/v1/objects/sha256:{hashlib.sha256(DATA).hexdigest()}/net.pt"
HEAD = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.fixture
def impatient(team: Registry) -> Iterator[Client]:
    """Somebody at a server that waits for a third of a second."""
    with server_thread(Settings(str(team.folder), port=0, silence_s=0.3)) as url:
        yield Client(url)


def line(client: Client, data: bytes) -> socket.socket:
    place = urlsplit(client.url)
    found = socket.create_connection((place.hostname, place.port or 0))
    found.settimeout(30)
    found.sendall(data)
    return found


def until_the_end(found: socket.socket) -> bytes:
    """Return what comes until the server hangs up; the socket's own patience is the test's."""
    data = b""
    try:
        while block := found.recv(1 << 16):
            data += block
    except ConnectionResetError:
        pass
    return data


def test_a_request_that_does_not_come_is_not_waited_for(impatient: Client) -> None:
    """Nobody can take all connections by opening them."""
    with line(impatient, HEAD + b"\r\n") as found:
        assert found.recv(1 << 16).startswith(b"HTTP/1.1 200")
        found.sendall(b"\r\n")  # lines in front of a request are none
        begun = [b"", b"GE", HEAD, HEAD + b"X: y\r\nZ", b"\r\n\r\n"]
        with ExitStack() as opened:
            waiting = [opened.enter_context(line(impatient, data)) for data in begun]
            assert [until_the_end(one) for one in (found, *waiting)] == [b""] * 6


def test_headers_have_an_end(impatient: Client) -> None:
    """They are kept in memory, and are read before anybody is asked for a token."""
    with line(impatient, HEAD + b"X: ") as found, pytest.raises(ConnectionError):
        for _ in range(10_000):
            found.sendall(b"x" * 4096)


def test_the_rest_of_a_refused_request_is_thrown_away_for_a_while(impatient: Client, team: Registry) -> None:
    """So that the client sees why; but not for ever."""
    Tokens(team).create("ann", "write")
    head = f"PUT {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000000\r\n\r\n".encode()
    with line(impatient, head + DATA[:300_000]) as found:
        assert until_the_end(found).startswith(b"HTTP/1.1 401")


def test_a_client_that_takes_nothing_holds_nothing(impatient: Client, team: Registry) -> None:
    """Neither a connection nor a file."""
    assert impatient("PUT", PATH, DATA).status == 201
    request = f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    place = urlsplit(impatient.url)
    with socket.socket() as found:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        found.connect((place.hostname, place.port))
        found.sendall(request)
        while not _opened(team):
            time.sleep(0.01)
        while _opened(team):
            time.sleep(0.01)
        assert len(until_the_end(found)) < len(DATA)


def _opened(team: Registry) -> int:
    """Count the files of objects that this process, which is the server too, has open."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            count += str(team.folder / "objects") in str(entry.readlink())
        except FileNotFoundError:
            continue
    return count


def test_a_slow_client_gets_everything(team: Registry) -> None:
    """Who takes a little now and then is not silent, however long that takes."""
    request = f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
    with server_thread(Settings(str(team.folder), port=0, silence_s=0.8)) as url, socket.socket() as found:
        assert Client(url)("PUT", PATH, DATA).status == 201
        found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        found.connect((urlsplit(url).hostname, urlsplit(url).port or 0))
        found.sendall(request)
        found.settimeout(30)
        for _ in range(12):
            time.sleep(0.1)
            assert found.recv(1 << 16)
        assert until_the_end(found).endswith(DATA[-100:])

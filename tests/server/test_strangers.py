"""What answers in place of a server: web pages, proxies, portals, halves. The client says so, in errors of our own."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final

import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")

from modelstore.errors import ModelStoreError, RegistryNotFoundError, StorageUnavailableError
from modelstore.registry import Registry
from modelstore.registry.references import Reference
from modelstore.server import Settings
from modelstore.storage import retries
from modelstore.storage.transfer import Address
from modelstore.sync import Knowledge, Parcel, http
from modelstore.sync.http import HttpPartner
from modelstore.testing.servers import server_thread
from tests.web import serving

DIGEST: Final = "sha256:" + "0" * 64
GREETING: Final = b'{"id":"1","you":{"name":"","role":"admin","actors":[]},"limits":{"body_bytes":1000000}}'
ANSWERS: Final[dict[str, tuple[int, bytes]]] = {
    "a page": (200, b"<html>"),
    "a portal's page": (511, b"<html>"),
    "a proxy's error": (502, b"<html>"),
    "a refusal": (403, b"<html>"),
    "too large for a proxy": (413, b"<html>"),
    "no method": (405, b""),
    "nothing": (200, b""),
    "no content": (204, b""),
    "not modified": (304, b""),
    "null": (200, b"null"),
    "a list": (200, b"[]"),
    "a text": (200, b'"x"'),
    "a number": (200, b"NaN"),
    "an empty object": (200, b"{}"),
    "a deep one": (200, b"[" * 100_000),
    "no Unicode": (200, b"\xff\xfe"),
    "a long number": (200, b'{"offset":' + b"9" * 5000 + b"}"),
    "other types": (200, b'{"heads":5,"strays":5,"new":"x","entities":5,"objects":5,"id":5,"offset":"x","complete":1}'),
    "odd values": (200, b'{"heads":{"a":"b"},"strays":["x"],"new":1,"objects":[5],"offset":-5,"complete":false}'),
    "an error of another form": (400, b'{"error":{"type":"UsageError","message":5}}'),
    "an error that is none": (500, b'{"error":5}'),
    "a stream that does not end": (200, b'{"heads":{}}\n'),
    "a half": (200, b'{"heads":{"'),
}


@pytest.fixture(scope="module")
def stranger() -> Iterator[tuple[str, dict[str, tuple[int, bytes]]]]:
    """A server, and what it answers to paths that begin with something; else it greets as it should."""
    said: dict[str, tuple[int, bytes]] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            found = next((one for path, one in said.items() if self.path.startswith(path)), (200, GREETING))
            self.send_response(found[0])
            cut = found == ANSWERS["a half"]
            self.send_header("Content-Length", str(len(found[1]) + 100 * cut))
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" or found[0] in (204, 304) else found[1])
            self.close_connection |= cut

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = answer  # noqa: N815 - the names of the parent

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with serving(Handler) as url:
        yield url, said


NEED: Final = Reference(DIGEST, "x", 50, "", "x")
QUESTIONS: Final[dict[str, tuple[str, Callable[[HttpPartner, Address], Any]]]] = {
    "greeting": ("/v1/registry", lambda partner, _: HttpPartner(partner.uri)),
    "heads": ("/v1/journal/heads", lambda partner, _: partner.knowledge()),
    "pull": ("/v1/journal/pull", lambda partner, _: list(partner.parcels(Knowledge(), Knowledge()))),
    "push": ("/v1/journal/push", lambda partner, _: partner.take_in(Parcel([], {}))),
    "select": ("/v1/select", lambda partner, _: partner.select({})),
    "missing": ("/v1/objects/missing", lambda partner, _: partner.needs("all", None)),
    "upload": ("/v1/uploads", lambda partner, file: partner.store(NEED, file)),
    "object": ("/v1/objects/sha256", lambda partner, file: partner.store(NEED, file)),
}


def test_another_registry_at_the_same_address_is_not_taken_for_the_first(team: Registry, tmp_path: Path) -> None:
    """Whoever made the server's registry anew would have the old one in it, as far as some process knew it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    with server_thread(Settings(str(team.folder), port=port)) as url:
        partner = HttpPartner(url)
        assert partner.knowledge() == Knowledge()
    with Registry(tmp_path / "anew"):
        pass
    again = server_thread(Settings(str(tmp_path / "anew"), port=port))
    with again, closing(partner), pytest.raises(RegistryNotFoundError, match="another registry"):
        partner.knowledge()


def test_a_server_that_keeps_nothing_of_an_upload_is_given_up(
    stranger: tuple[str, dict[str, tuple[int, bytes]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it begins to take it."""
    url, said = stranger
    monkeypatch.setattr(retries.Patience.after, "__defaults__", (lambda _: None,))
    monkeypatch.setattr(http, "_AT_ONCE_BYTES", 10)
    file = tmp_path / "x"
    file.write_bytes(b"x" * 50)
    said["/v1/uploads/"] = (409, b'{"error":{"type":"UploadOffsetMismatch","message":"other"}}')
    said["/v1/uploads"] = (201, b'{"id":"1","offset":7,"complete":false}')
    with closing(HttpPartner(url)) as partner, pytest.raises(StorageUnavailableError):
        partner.store(NEED, Address(str(file)))


@pytest.mark.parametrize("question", QUESTIONS)
def test_whatever_answers_in_place_of_a_server_is_told(
    stranger: tuple[str, dict[str, tuple[int, bytes]]], question: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In errors of our own, after few attempts; and no bytes count as stored that went elsewhere."""
    url, said = stranger
    monkeypatch.setattr(retries.Patience.after, "__defaults__", (lambda _: None,))
    monkeypatch.setattr(http, "_AT_ONCE_BYTES", 10 if question == "upload" else 100)
    file = tmp_path / "x"
    file.write_bytes(b"x" * 50)
    path, ask = QUESTIONS[question]
    for name, answer in ANSWERS.items():
        said.clear()
        with closing(HttpPartner(url)) as partner:
            said[path] = answer
            with pytest.raises(ModelStoreError):
                pytest.fail(f"{name} was taken for an answer to {question}: {ask(partner, Address(str(file)))}")

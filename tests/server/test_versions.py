"""Old clients and new servers, new clients and old servers: what was said by earlier versions, said again.

`tests/data/wire-N.jsonl` is what a client and a server of version N of the interface said to each other.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")

from modelstore.errors import InvalidOperationError, NewerRegistryError, RegistryError
from modelstore.records.operations import NewerOperationError
from modelstore.registry import Registry
from modelstore.registry.search import ModelSearch
from modelstore.server import Tokens
from modelstore.sync import wire
from modelstore.sync.http import HttpPartner
from tests.server.conftest import Client
from tests.web import serving

RECORDS = sorted((Path(__file__).parent.parent / "data").glob("wire-*.jsonl"))
_KEPT = ("content-range", "accept-ranges", "upload-offset", "content-type")
_OF_ITS_SERVER = {"id", "version", "format", "api", "oldest", "limits"}


def exchanges(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def data(text: Any) -> bytes:
    if isinstance(text, dict):
        return base64.b64decode(text["base64"])
    return (text or "").encode()


def told(recorded: Any, now: Any) -> bool:
    """Tell whether an answer says all that a recorded one does; more is no matter."""
    if isinstance(recorded, dict):
        return isinstance(now, dict) and all(key in now and told(recorded[key], now[key]) for key in recorded)
    if isinstance(recorded, list):
        return isinstance(now, list) and len(recorded) == len(now) and all(map(told, recorded, now))
    return bool(recorded == now)


def values(one: dict[str, Any], body: bytes) -> Any:
    """Return an answer as values: of JSON, of its lines, or the bytes; without words for people."""
    kind = one["answered"].get("content-type", "")
    if not body or "json" not in kind:
        return body
    read = [json.loads(line) for line in body.splitlines()]
    for record in read:
        if one["path"] == "/v1/registry":
            for name in _OF_ITS_SERVER & record.keys():
                record[name] = None
        if one["status"] >= 400:
            record["error"] = {"type": record["error"]["type"]}
    return read


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_client_of_an_earlier_version_is_answered_as_then(path: Path, team: Registry, url: str) -> None:
    """With what he expects, and whatever has been added since."""
    client = Client(url, Tokens(team).create("ann", "write"))
    for one in exchanges(path):
        headers = {name.replace("-", "_"): value for name, value in one["headers"].items()}
        body = data(one["body"]) if one["body"] is not None or one["method"] in ("PUT", "PATCH", "POST") else None
        answer = client(one["method"], one["path"], body, **headers)
        what = (one["method"], one["path"], answer.status, answer.body)
        assert answer.status == one["status"], what
        assert told(values(one, data(one["answer"])), values(one, answer.body)), what
        for name in _KEPT:
            if name in one["answered"]:
                assert answer.headers[name] == one["answered"][name], what


@contextmanager
def server_of(path: Path, change: Callable[[str, Any], Any]) -> Iterator[str]:
    """Answer as a recorded server did when everything had arrived, with what is changed in the JSON of its answers."""
    said = {(one["method"], one["path"]): one for one in exchanges(path) if one["status"] < 300}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            one = said[self.command, self.path]
            body = data(one["answer"])
            if "json" in one["answered"].get("content-type", ""):
                records = [change(self.path, json.loads(line)) for line in body.splitlines()]
                body = b"\n".join(json.dumps(record, separators=(",", ":")).encode() for record in records if record)
            self.send_response(one["status"])
            for name, value in one["answered"].items():
                if name != "content-length" or self.command == "HEAD":
                    self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_HEAD = do_POST = answer  # noqa: N815 - the names of the parent

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with serving(Handler) as url:
        yield url


@pytest.fixture
def bob(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path / "bob", actor="ann@desk", cache=tmp_path / "cache") as registry:
        yield registry


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_server_of_an_earlier_version_is_understood(path: Path, bob: Registry) -> None:
    """Models, and their bytes."""
    with server_of(path, lambda _, record: record) as url:
        assert bob.sync(url).received.unavailable == []
    found = {model.name: model for model in ModelSearch(include_archived=True).run(bob)}
    assert bob.weights.local_copy(found["reader"]).read_bytes() == b"weights" * 100
    assert bob.weights.local_copy(found["draft"]).read_bytes() == b"small"
    assert (found["reader"].tags, found["reader"].published) == (("-odd", "größe", "prod"), True)


def test_what_a_newer_server_says_besides_is_passed_over(bob: Registry) -> None:
    """Fields that this version has never heard of, wherever they are, but in operations."""

    def change(_: str, record: Any) -> Any:
        return record if "stamp" in record or "end" in record else {**record, "unheard": {"of": [1]}}

    with server_of(RECORDS[-1], change) as url:
        assert bob.sync(url).received.operations > 5
    assert ModelSearch(include_archived=True).count(bob) == 2


@pytest.mark.parametrize(
    "more", [{"unheard": 1}, {"kind": "tribe"}, {"action": "applaud"}, {"changes": {"name": "x", "mood": "good"}}]
)
def test_an_operation_of_a_newer_version_is_never_taken_for_less_than_it_is(
    bob: Registry, team: Registry, client: Client, more: dict[str, Any]
) -> None:
    """Neither side drops what it does not know: the one that has to be upgraded says so, and nothing of it is there."""

    def change(_: str, record: Any) -> Any:
        return record | more if record.get("action") == "publish" else record

    with server_of(RECORDS[-1], change) as url, pytest.raises(NewerOperationError, match="upgrade this one: pip"):
        bob.sync(url)
    assert list(bob.operations()) == []
    pushed = next(one for one in exchanges(RECORDS[-1]) if one["path"] == "/v1/journal/push")["body"].splitlines()
    answer = client.push(*[json.dumps(change("", json.loads(line))) for line in pushed])
    assert (answer.status, answer.json["error"]["type"]) == (422, InvalidOperationError.__name__)
    assert "upgrade the one on the server" in answer.json["error"]["hint"]
    assert list(team.operations()) == []


def test_who_is_too_old_for_the_other_is_told_which_side_to_upgrade(
    client: Client, bob: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is exchanged."""

    def newer(path: str, record: Any) -> Any:
        return record | {"api": 3, "oldest": 2, "version": "9.1"} if path == "/v1/registry" else record

    with server_of(RECORDS[-1], newer) as url, pytest.raises(NewerRegistryError, match=r"9\.1.*this machine: pip"):
        bob.sync(url)
    with monkeypatch.context() as patch:
        patch.setattr("modelstore.sync.http.OLDEST", 2)
        with (
            server_of(RECORDS[0], lambda _, record: record) as url,
            pytest.raises(RegistryError, match="on the server"),
        ):
            bob.sync(url)
    monkeypatch.setattr("modelstore.server.door.OLDEST", wire.SPEAKS + 1)
    refused = client("GET", "/v1/registry", Modelstore_Api=str(wire.SPEAKS))
    assert (refused.status, refused.json["error"]["type"]) == (426, "NewerRegistryError")
    assert client("GET", "/v1/registry", Modelstore_Api=str(wire.SPEAKS + 1)).status == 200
    assert client("GET", "/v1/registry", Modelstore_Api="x").status == 200
    assert client("GET", "/healthz").status == 200
    with pytest.raises(NewerRegistryError, match="this machine"):
        HttpPartner(client.url)

"""Registries behind real servers on real sockets."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from modelstore.registry import Registry
from modelstore.server import Settings, Tokens
from modelstore.testing.servers import server_thread

ROLES: Final = ("read", "write", "admin")


@dataclass(slots=True)
class Answer:
    """What a server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True)
class Client:
    """Asks a server as any program could."""

    url: str
    token: str | None = None

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token is not None:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def push(self, *operations: Any, heads: dict[str, str] | None = None) -> Answer:
        lines = [one if isinstance(one, str) else one.to_json() for one in operations]
        body = "\n".join([*lines, json.dumps({"heads": heads or {}})]).encode("utf-8", "surrogatepass")
        return self("POST", "/v1/journal/push", body, Content_Type="application/x-ndjson")


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Registry]:
    """The registry behind the server."""
    with Registry(tmp_path / "team", actor="server@host", cache=tmp_path / "cache") as registry:
        yield registry


@pytest.fixture
def url(team: Registry) -> Iterator[str]:
    """The address of a server over it."""
    with server_thread(Settings(str(team.folder), port=0, max_body=1 << 20, silence_s=10)) as address:
        yield address


@pytest.fixture
def client(url: str) -> Client:
    """Somebody of this machine, without a token."""
    return Client(url)


@pytest.fixture
def people(team: Registry, url: str) -> dict[str, Client]:
    """A client for each role, with a token of that name; "nobody" has none, "stranger" a bad one."""
    tokens = Tokens(team)
    made = {role: Client(url, tokens.create(role, role)) for role in ROLES}
    return made | {"nobody": Client(url), "stranger": Client(url, "mst_bad")}

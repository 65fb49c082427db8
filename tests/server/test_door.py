"""Who is let in where: every role at every endpoint, tokens that come and go, and pages in browsers."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import stat
import subprocess
import time
from urllib.parse import urlsplit

import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")

from modelstore.errors import AccessDeniedError, InvalidRequestError, NotFoundError, RegistryNotFoundError
from modelstore.registry import Registry
from modelstore.server import Settings, Tokens
from modelstore.server.endpoints import ENDPOINTS, Endpoint
from modelstore.server.peers import CAN_TELL, owner
from modelstore.server.running import serve
from tests.server.conftest import ROLES, Client

_DIGEST = "sha256:" + "0" * 64


def _ask(client: Client, endpoint: Endpoint) -> int:
    path = endpoint.path.replace("{digest}", _DIGEST).replace("{name}", "x").replace("{id}", "0" * 32)
    kind = {"lines": "application/x-ndjson", "bytes": "application/octet-stream"}.get(
        str(endpoint.body), "application/json"
    )
    body = None if endpoint.body is None else b"" if isinstance(endpoint.body, str) else b"{}"
    return client(endpoint.method, path, body, Content_Type=kind).status


def test_every_endpoint_lets_in_its_role_and_those_above(people: dict[str, Client]) -> None:
    """And nobody else: the table of the endpoints is what holds."""
    for endpoint in ENDPOINTS:
        for who in (*ROLES, "nobody"):
            status = _ask(people[who], endpoint)
            what = (endpoint.method, endpoint.path, who, status)
            if endpoint.role is None or (who in ROLES and ROLES.index(who) >= ROLES.index(endpoint.role)):
                assert status not in (401, 403, 429, 500), what
            else:
                assert status == (403 if who in ROLES else 401), what


def test_a_revoked_token_opens_nothing_from_then_on(team: Registry, people: dict[str, Client]) -> None:
    """The server looks at the tokens with every request; when the last one is gone, the door is not open."""
    assert people["read"]("GET", "/v1/registry").status == 200
    for role in ROLES:
        Tokens(team).revoke(role)

    assert people["read"]("GET", "/v1/registry").status == 401
    assert people["nobody"]("GET", "/v1/registry").status == 401
    with pytest.raises(NotFoundError, match="token ls"):
        Tokens(team).revoke("read")


def test_only_hashes_of_tokens_are_kept_and_only_for_the_owner(team: Registry) -> None:
    """Whoever reads the file, or a backup of it, cannot use it."""
    secret = Tokens(team).create("ann", "write", ("train-*",))
    path = team.folder / "tokens.json"

    assert secret not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(InvalidRequestError, match="already"):
        Tokens(team).create("ann", "read")
    with pytest.raises(InvalidRequestError, match="no name"):
        Tokens(team).create("an n", "read")
    found = Tokens(team).find(secret)
    assert found is not None
    assert [found.writes_as(actor) for actor in ("ann", "ann@x", "train-7", "anna", "bob", "")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip


def test_a_damaged_file_of_tokens_lets_nobody_in(team: Registry, people: dict[str, Client]) -> None:
    """Rather than everybody."""
    (team.folder / "tokens.json").write_text("{")

    answer = people["admin"]("GET", "/v1/registry")
    assert (answer.status, str(team.folder) in answer.body.decode()) == (500, False)
    assert people["nobody"]("GET", "/v1/registry").status == 401
    assert people["nobody"]("GET", "/healthz").status == 200


def test_unknown_tokens_are_slowed_down_and_good_ones_are_not(people: dict[str, Client]) -> None:
    """Behind a proxy everybody has one address: what a stranger does there must not shut out the others."""
    answers = [people["stranger"]("GET", "/v1/registry") for _ in range(12)]

    assert [answer.status for answer in answers] == [401] * 10 + [429] * 2
    assert int(answers[-1].headers["retry-after"]) > 0
    assert answers[0].headers["www-authenticate"].startswith("Bearer")
    assert people["read"]("GET", "/v1/registry").status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:8008"},
        {"Origin": "https://evil.example"},
        {"Sec_Fetch_Site": "cross-site"},
        {"X_Forwarded_For": "192.0.2.1"},
    ],
)
def test_without_tokens_no_page_in_a_browser_and_no_proxy_gets_in(client: Client, headers: dict[str, str]) -> None:
    """A page can be served under a name that points here, or post blindly; a proxy would let the world in."""
    assert client("GET", "/v1/registry", **headers).status == 403
    assert client("GET", "/v1/registry").status == 200


def test_without_tokens_nobody_else_on_this_machine_gets_in(client: Client) -> None:
    """Neither another user, nor a proxy that runs as one and hides everything else."""
    if os.getuid() != 0 or shutil.which("bash") is None:
        pytest.skip("only root can become somebody else")
    place = urlsplit(client.url)
    request = f"GET /v1/registry HTTP/1.1\\r\\nHost: {place.netloc}\\r\\nConnection: close\\r\\n\\r\\n"
    script = f"exec 3<>/dev/tcp/127.0.0.1/{place.port} && printf '{request}' >&3 && cat <&3"

    answers = [
        subprocess.run(["bash", "-c", script], user=user, cwd="/", capture_output=True, text=True, check=True).stdout
        for user in (65534, os.getuid())
    ]

    assert [answer.split()[1] for answer in answers] == ["403", "200"]
    assert "token create" in answers[0]


def test_without_tokens_a_proxy_that_says_nothing_of_itself_is_recognised(client: Client) -> None:
    """As nginx is when nobody configures more than where to go: it asks for what it was told, in HTTP/1.0."""
    place = urlsplit(client.url)
    with socket.create_connection((place.hostname, place.port or 0)) as line:
        line.sendall(f"GET /v1/registry HTTP/1.0\r\nHost: {place.netloc}\r\nConnection: close\r\n\r\n".encode())
        assert line.recv(1000).split()[1] == b"403"


def test_the_system_says_whose_a_connection_is() -> None:
    """Of both families; of one that does not exist it says nothing."""
    for host, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
        try:
            server = socket.create_server((host, 0), family=family)
        except OSError:
            continue
        with server, socket.create_connection(server.getsockname()[:2]) as client:
            ends = client.getsockname()[:2], server.getsockname()[:2]
            assert owner(*ends) == (os.getuid() if CAN_TELL else None)
        assert owner((host, 1), ends[1]) is None


def test_a_server_does_not_listen_beyond_this_machine_without_tokens(team: Registry) -> None:
    """Forgetting them must not open a registry to the world."""
    with pytest.raises(AccessDeniedError, match="token create"):
        serve(Settings(str(team.folder), host="0.0.0.0", port=0))  # noqa: S104 - it does not come to that
    with pytest.raises(RegistryNotFoundError):
        serve(Settings(str(team.folder / "none")))
    with pytest.raises(InvalidRequestError, match="together"):
        serve(Settings(str(team.folder), tls_cert="x"))


def test_every_refusal_has_one_form(people: dict[str, Client]) -> None:
    """Programs read the type, people the message, and the hint says what to do."""
    for answer in (
        people["nobody"]("GET", "/v1/registry"),
        people["read"]("POST", "/v1/uploads", {}),
        people["read"]("GET", "/v1/nothing"),
        people["read"]("DELETE", "/v1/registry"),
        people["read"]("POST", "/v1/models/search", b"[", Content_Type="application/json"),
        people["read"]("POST", "/v1/models/search", b"x", Content_Type="text/plain"),
        people["read"]("POST", "/v1/select", b"x" * (2 << 20), Content_Type="application/json"),
    ):
        assert set(json.loads(answer.body)["error"]) == {"type", "message", "hint"}
    assert answer.status == 413


def test_no_secret_gets_into_the_log(people: dict[str, Client], caplog: pytest.LogCaptureFixture) -> None:
    """Neither good tokens nor bad ones, and nothing of a query."""
    with caplog.at_level(logging.INFO, "modelstore.access"):
        people["read"]("GET", "/v1/registry?token=mst_query")
        people["stranger"]("GET", "/v1/registry")
        lines: list[dict[str, object]] = []
        while len(lines) < 2:  # a line is written when the answer has been sent
            time.sleep(0.01)
            lines = [record.__dict__["fields"] for record in caplog.records if record.name == "modelstore.access"]

    assert [(line["path"], line["status"], line["token"]) for line in lines] == [
        ("/v1/registry", 200, "read"),
        ("/v1/registry", 401, None),
    ]
    assert "mst_" not in str(lines)

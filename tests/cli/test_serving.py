"""The server's commands: what they print, what they refuse, and that nothing of a token is left behind."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")

from modelstore.registry import Registry
from modelstore.testing.servers import server_process
from tests.cli.conftest import Run


@pytest.fixture
def team(tmp_path: Path) -> Path:
    with Registry(tmp_path / "team") as registry:
        registry.models.create(name="theirs")
    return tmp_path / "team"


def test_a_team_syncs_through_a_server_by_commands_alone(run: Run, team: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token, a remote, a login, a sync: what a person types on two machines."""
    monkeypatch.setenv("MODELSTORE_ACTOR", "ann@laptop")
    token = run("token", "create", "ann", "--role", "write", "--registry", str(team)).stdout.strip()
    with server_process(team) as server:
        run("init")
        run("remote", "add", "team", server.url)
        assert "A token is needed" in run("sync", "team", code=1).stderr
        assert run("remote", "login", "team", text=f"{token}\n").stdout.startswith("kept in ")
        assert "received: 1 change," in run("sync", "team").stdout
        assert json.loads(run("ls", "--json").stdout)[0]["name"] == "theirs"
        assert "that it serves" in run("token", "ls", "--registry", server.url, code=2).stderr
        run("token", "revoke", "ann", "--registry", str(team))
        assert "not known" in run("sync", "team", code=1).stderr
        assert "forgotten" in run("remote", "logout", "team").stdout
        assert "none" in run("remote", "logout", "team").stdout
        assert token not in server.log.read_text()
    assert "only https" in run("remote", "login", str(team), text="x\n", code=2).stderr


def test_whoever_has_another_name_at_home_is_told_what_helps(
    run: Run, team: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The login on a laptop is seldom the name of the token; "of others" would be a riddle."""
    token = run("token", "create", "ann", "--role", "write", "--registry", str(team)).stdout.strip()
    monkeypatch.setenv("MODELSTORE_TOKEN", token)
    monkeypatch.setenv("MODELSTORE_ACTOR", "asmith@laptop")
    with server_process(team) as server:
        run("register", "s3://b/mine")
        monkeypatch.setenv("MODELSTORE_ACTOR", "somebody@else")
        run("register", "s3://b/theirs")
        monkeypatch.setenv("MODELSTORE_ACTOR", "asmith@laptop")
        said = run("sync", server.url).stdout
        assert "1 of yours stay here" in said
        assert "--actor asmith@laptop" in said
        assert "MODELSTORE_ACTOR" in said
        assert "1 of others (somebody@else)" in said

        monkeypatch.delenv("MODELSTORE_ACTOR")
        where = json.loads(run("where", "--json", "--registry", server.url).stdout)
        assert where["actor"].startswith("ann@")
        assert where["sources"]["actor"] == "the server's token"


def test_tokens_are_listed_without_their_secrets(run: Run, team: Path) -> None:
    """For people and for programs."""
    made = run("token", "create", "ci", "--role", "admin", "--actor", "train-*", "--json", "--registry", str(team))
    record = json.loads(made.stdout)
    assert (record["name"], record["role"], record["actors"]) == ("ci", "admin", ["train-*"])
    listed = run("token", "ls", "--registry", str(team)).stdout
    assert "ci" in listed
    assert record["token"] not in listed
    assert json.loads(run("token", "ls", "--json", "--registry", str(team)).stdout)[0]["actors"] == ["train-*"]
    assert "no token" in run("token", "revoke", "nobody", "--registry", str(team), code=3).stderr


def test_a_server_that_cannot_begin_says_why(run: Run, team: Path, tmp_path: Path) -> None:
    """In one line, before anything listens."""
    assert "token create" in run("serve", "--host", "0.0.0.0", "--registry", str(team), code=1).stderr  # noqa: S104
    none = str(tmp_path / "no such")
    for command in (("serve",), ("token", "create", "ann", "--role", "read"), ("token", "ls")):
        assert f"modelstore init '{none}'" in run(*command, "--registry", none, code=3).stderr
    assert not Path(none).exists()
    assert "together" in run("serve", "--tls-cert", "x", "--registry", str(team), code=2).stderr
    bad = tmp_path / "bad.pem"
    bad.write_text("x")
    options = ("--tls-cert", str(bad), "--tls-key", str(bad))
    assert "PEM" in run("serve", "--port", "0", *options, "--registry", str(team), code=2).stderr
    with server_process(team) as server:
        port = server.url.rpartition(":")[2]
        assert "Nothing can listen" in run("serve", "--port", port, "--registry", str(team), code=1).stderr


def test_a_server_speaks_tls(run: Run, team: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a certificate that the client is told to trust; another is refused."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("openssl cannot make a certificate here")
    with server_process(team, "--tls-cert", str(cert), "--tls-key", str(key)) as server:
        assert server.url.startswith("https://")
        run("init")
        refused = run("sync", server.url, code=1).stderr
        assert "certificate" in refused
        assert "SSL_CERT_FILE" in refused
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", os.fspath(cert))
        assert "received: 1 change," in run("sync", server.url).stdout

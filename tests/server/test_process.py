"""Servers as processes: several workers on one registry, kill -9 in the middle, and ending in good order."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")

from modelstore.errors import StorageUnavailableError
from modelstore.registry import Registry
from modelstore.server import Tokens
from modelstore.testing.reference import fold, read_index
from modelstore.testing.servers import server_process
from tests.server.conftest import Client

pytestmark = pytest.mark.filterwarnings("error")


def test_several_workers_are_one_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They write one registry at once, count together, and know of a revocation at once."""
    with Registry(tmp_path / "team") as team:
        tokens = Tokens(team)
        secret, other = tokens.create("ann", "admin"), tokens.create("bob", "read")
        with server_process(team.folder, "--workers", "2") as server:
            monkeypatch.setenv("MODELSTORE_TOKEN", secret)
            threads = [threading.Thread(target=_push, args=(tmp_path / f"p{n}", server.url)) for n in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            bob = Client(server.url, other)
            text = bob("GET", "/metrics").body.decode()
            assert "modelstore_operations_total 40\n" in text
            assert "modelstore_models 40\n" in text
            tokens.revoke("bob")
            assert {bob("GET", "/v1/registry").status for _ in range(8)} == {401}
            assert server.end() == 0
        assert len(list(team.operations())) == 40
        assert read_index(team.database.connection) == fold(o for _, o in team.operations())


def _push(folder: Path, url: str) -> None:
    with Registry(folder) as registry:
        for number in range(10):
            registry.models.create(name=f"{folder.name}-{number}")
            registry.sync(url, direction="push")


def test_a_server_that_is_killed_while_it_takes_things_in_is_whole_when_it_comes_back(tmp_path: Path) -> None:
    """What was answered is there, nothing is half there, and the next sync does the rest."""
    data = os.urandom(30_000_000)
    with Registry(tmp_path / "team") as team, Registry(tmp_path / "ann", cache=tmp_path / "cache") as ann:
        file = tmp_path / "big.pt"
        file.write_bytes(data)
        objects = ann.weights.objects
        ann.models.create(name="big", uri=objects.put(*objects.snapshot(file), file.name))
        for number in range(300):
            ann.models.create(name=f"m{number}")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        done = threading.Event()
        failure: list[BaseException] = []
        thread = threading.Thread(target=_sync, args=(tmp_path / "ann", f"http://127.0.0.1:{port}", done, failure))
        for pause in (0.0, 0.02, 0.05, 0.15, None):
            with server_process(team.folder, "--port", port) as server:
                if not thread.is_alive() and not done.is_set():
                    thread.start()
                if pause is not None:
                    time.sleep(pause)
                    server.kill()
                    assert read_index(team.database.connection) == fold(o for _, o in team.operations())
                    continue
                thread.join()
        assert not failure
        assert len(list(team.operations())) == 301
        assert [one.digest for one in team.weights.objects.iterate()] == [f"sha256:{hashlib.sha256(data).hexdigest()}"]
        assert [f for f in team.check(deep=True) if f.severity == "error"] == []


def _sync(folder: Path, url: str, done: threading.Event, failure: list[BaseException]) -> None:
    try:
        with Registry(folder) as registry:
            for _ in range(100):  # a user would try again, too
                try:
                    registry.sync(url)
                    return
                except StorageUnavailableError:
                    continue
            raise AssertionError("the server never came back")
    except BaseException as error:  # noqa: BLE001 - told in the test's own thread
        failure.append(error)
    finally:
        done.set()


def test_a_server_that_is_told_to_end_lets_requests_finish(tmp_path: Path) -> None:
    """The upload that is under way when SIGTERM comes is stored."""
    data = os.urandom(200_000)
    path = f"/v1/objects/sha256:{hashlib.sha256(data).hexdigest()}/net.pt"
    with Registry(tmp_path / "team") as team:
        with server_process(team.folder) as server:
            line = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)
            line.putrequest("PUT", path)
            line.putheader("Content-Length", str(len(data)))
            line.endheaders(data[:100_000])
            while b"received_bytes_total 0\n" in Client(server.url)("GET", "/metrics").body:
                time.sleep(0.01)
            server.process.terminate()
            time.sleep(0.2)
            line.send(data[100_000:])
            assert line.getresponse().status == 201
            line.close()
            assert server.process.wait(30) == 0
            log = [json.loads(text) for text in server.log.read_text().splitlines()]
        assert [one["status"] for one in log if one.get("method") == "PUT"] == [201]
        assert len(list(team.weights.objects.iterate())) == 1


def test_workers_end_when_whoever_looks_after_them_is_killed(tmp_path: Path) -> None:
    """Nothing goes on listening that nobody would find."""
    with Registry(tmp_path / "team"):
        pass
    with server_process(tmp_path / "team", "--workers", "2") as server:
        while Client(server.url)("GET", "/healthz").status != 200:
            time.sleep(0.05)
        os.kill(server.process.pid, 9)
        server.process.wait()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                with socket.create_connection((urlsplit(server.url).hostname, urlsplit(server.url).port), 1):
                    time.sleep(0.1)
            except OSError:
                break
        else:
            pytest.fail("somebody still listens")


@pytest.mark.long
def test_fifty_people_who_sync_at_once_lose_nothing(tmp_path: Path) -> None:
    """Each edits what all have, and what only he has, round after round, without waiting for the others."""
    with Registry(tmp_path / "team") as team, server_process(team.folder, "--workers", "2") as server:
        common = [team.models.create(name=f"common{n}").id for n in range(10)]
        failures: list[BaseException] = []

        def person(number: int) -> None:
            folder = tmp_path / f"p{number}"
            try:
                with Registry(folder, actor=f"p{number}@x", cache=tmp_path / "cache") as mine:
                    for turn in range(5):
                        mine.sync(server.url)
                        mine.models.tag(common[(number + turn) % 10], add=[f"p{number}-{turn}"])
                        _store(mine, folder, f"{number} {turn}")
                    mine.sync(server.url)
            except BaseException as error:  # noqa: BLE001 - told in the test's own thread
                failures.append(error)

        threads = [threading.Thread(target=person, args=(number,)) for number in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        tags = {tag for model in common for tag in team.models.get(model).tags}
        assert tags == {f"p{number}-{turn}" for number in range(50) for turn in range(5)}
        assert len(list(team.operations())) == 10 + 2 * 250
        assert len(list(team.weights.objects.iterate())) == 250
        assert read_index(team.database.connection) == fold(o for _, o in team.operations())
        assert [f for f in team.check(deep=True) if f.severity == "error"] == []
        with Registry(tmp_path / "late") as late:
            late.sync(server.url, with_objects="none")
            assert read_index(late.database.connection) == read_index(team.database.connection)


def _store(registry: Registry, folder: Path, text: str) -> None:
    file = folder / "net.pt"
    file.write_text(text)
    objects = registry.weights.objects
    registry.models.create(name=text, uri=objects.put(*objects.snapshot(file), file.name))

"""A registry in Azure's blob storage, as far as Azurite is like it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from modelstore.registry import Registry
from modelstore.registry.registration import register_files
from modelstore.storage.filesystems import open_filesystem
from modelstore.testing.proxy import FaultyProxy, faulty_proxy
from tests import npm
from tests.registry.hosts import Hosts, contents
from tests.registry.team import team_behind_a_bad_network

pytestmark = [
    pytest.mark.skipif(find_spec("adlfs") is None, reason="not installed: adlfs"),
    pytest.mark.skipif(npm.npm_program("azurite-blob") is None, reason="needs Azurite: `make test-azure` installs it"),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    yield from npm.azure_server(str(tmp_path_factory.mktemp("azure")))


@pytest.fixture
def place(server: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, FaultyProxy]]:
    """A registry's URI, and the bad network in front of it."""
    from adlfs import AzureBlobFileSystem

    AzureBlobFileSystem.clear_instance_cache()  # those of other tests remember their connections
    with faulty_proxy(f"http://127.0.0.1:{server}") as proxy:
        port = int(proxy.url.rpartition(":")[2])
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", npm.azure_connection(port))
        container = f"box-{uuid.uuid4().hex}"
        fs, _ = open_filesystem(f"az://{container}")
        fs.mkdir(container)
        yield f"az://{container}/team", proxy
    AzureBlobFileSystem.clear_instance_cache()


def test_two_hosts_use_a_container(
    place: tuple[str, FaultyProxy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "best é.pt"
    weights.write_bytes(b"weights" * 1000)
    hosts = Hosts(place[0], tmp_path, monkeypatch)
    a, b = hosts("a"), hosts("b")
    model = register_files(a, weights, name="one")
    a.compact()
    assert b.weights.local_copy(b.models.get(model.id)).read_bytes() == weights.read_bytes()
    b.models.tag(model.id, add=["seen"])
    assert contents(b) == contents(a) == contents(hosts("c"))
    assert [f for f in a.check(deep=True) if f.severity == "error"] == []
    for registry in hosts.opened:
        registry.close()


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_team_works_behind_a_bad_network(place: tuple[str, FaultyProxy], tmp_path: Path) -> None:
    with Registry(place[0], cache=tmp_path / "cache"):
        pass
    team_behind_a_bad_network(place[0], tmp_path, place[1], 60)

"""Registries in memory, hosts that use one, and object stores that imitate the real ones' protocols."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from modelstore.testing.proxy import FaultyProxy, faulty_proxy
from tests.registry.hosts import Hosts


@pytest.fixture
def place() -> str:
    """Where a registry is; modules that try another kind of place have their own."""
    return f"memory://bucket-{uuid.uuid4().hex}/team models"


@pytest.fixture
def host(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts[str]]:
    with Hosts(place, tmp_path, monkeypatch) as hosts:
        yield hosts


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    if not all(map(find_spec, ("s3fs", "moto", "flask"))):
        pytest.skip("needs s3fs and moto")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def gs_server() -> Iterator[str]:
    if not all(map(find_spec, ("gcsfs", "gcp_storage_emulator"))):
        pytest.skip("needs gcsfs and its emulator")
    import socket

    from gcp_storage_emulator.server import create_server

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = create_server("127.0.0.1", port, in_memory=True)
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def on_s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, FaultyProxy]]:
    import botocore.session
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()  # those of other tests remember their addresses
    with faulty_proxy(s3_server) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        bucket = f"bucket-{uuid.uuid4().hex}"
        botocore.session.get_session().create_client("s3").create_bucket(Bucket=bucket)
        yield f"s3://{bucket}/team", proxy
    s3fs.S3FileSystem.clear_instance_cache()

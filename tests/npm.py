"""Servers of object stores that come from npm: `make test-azure` installs them."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

BUILD = Path(__file__).parent.parent / "build"


def npm_program(name: str) -> str | None:
    """Return a server that comes from npm: on the path, or where `make test-azure` installs it."""
    return shutil.which(name) or shutil.which(name, path=str(BUILD / "servers" / "node_modules" / ".bin"))


def npm_server(command: list[str], port: int) -> Iterator[int]:
    """Run one until the generator is closed."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            for _ in range(300):
                with socket.socket() as one:
                    if one.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            yield port
        finally:
            process.terminate()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def azure_server(folder: str) -> Iterator[int]:
    """Run Azurite, which keeps its blobs below a folder."""
    port = free_port()
    command = [
        str(npm_program("azurite-blob")), "--silent", "--skipApiVersionCheck", "--disableTelemetry", "--blobPort",
        str(port), "--location", folder,
    ]  # fmt: skip
    yield from npm_server(command, port)


def azure_connection(port: int) -> str:
    """Return the connection string of the account that every Azurite has."""
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    return (
        f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={key};"
        f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
    )

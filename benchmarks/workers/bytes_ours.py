"""modelstore's transfers and cache, below the classes."""

from __future__ import annotations

import os
import time
from pathlib import Path

from benchmarks.workers import bytes_peers
from benchmarks.workers.bytes_peers import Tool, cached, get, hits, put, race
from benchmarks.workers.protocol import serve


def start(environment: dict[str, str]) -> None:
    os.environ.update(environment)
    from modelstore.cache import Cache
    from modelstore.storage.transfer import fetch
    from modelstore.storage.uploads import upload

    caches: dict[str, Cache] = {}

    def ours(uri: str, folder: str) -> str:
        if folder not in caches:
            caches[folder] = Cache(folder)
        return str(caches[folder].fetch(uri, fetch).path)

    bytes_peers.State.tool = Tool(lambda uri, target: fetch(uri, Path(target)), upload, ours)


def write_through(uri: str, target: str) -> dict[str, float]:
    """Download as `get`, and return when the bytes are on disk."""
    from modelstore.storage.transfer import download

    begin = time.perf_counter()
    download(uri, target)
    return {"seconds": time.perf_counter() - begin}


if __name__ == "__main__":
    serve(
        {
            "start": start, "get": get, "put": put, "cached": cached, "race": race, "hits": hits,
            "write_through": write_through,
        }
    )  # fmt: skip

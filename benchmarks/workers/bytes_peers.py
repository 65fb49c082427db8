"""What others move bytes and cache files with, each at its defaults, in whichever environment has it."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.workers.protocol import peak_rss_since, serve, start_peak


class Tool(NamedTuple):
    """A contender, its client made.

    Attributes:
        get: Bring what lies behind a URL to a file.
        put: Send a file.
        cached: Have the contender's own cache in a folder fetch a URL; return the path.
    """

    get: Callable[[str, str], object] | None = None
    put: Callable[[str, str], object] | None = None
    cached: Callable[[str, str], str] | None = None


class State:
    tool: Tool


def _s3fs() -> Tool:
    from s3fs import S3FileSystem

    fs = S3FileSystem()
    return Tool(fs.get_file, fs.put_file)


def _boto3() -> Tool:
    import boto3

    client = boto3.client("s3")

    def place(uri: str) -> tuple[str, str]:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return bucket, key

    return Tool(
        lambda uri, target: client.download_file(*place(uri), target),
        lambda source, uri: client.upload_file(source, *place(uri)),
    )


def _obstore() -> Tool:
    import obstore
    from obstore.store import S3Store

    def place(uri: str) -> tuple[Any, str]:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return S3Store(bucket, virtual_hosted_style_request=False, client_options={"allow_http": True}), key

    def get(uri: str, target: str) -> None:
        with open(target, "wb", buffering=0) as file:
            file.writelines(obstore.get(*place(uri)).stream(min_chunk_size=1 << 20))

    def put(source: str, uri: str) -> None:
        with open(source, "rb") as file:
            obstore.put(*place(uri), file)

    return Tool(get, put)


def _fsspec() -> Tool:
    import fsspec

    def cached(url: str, folder: str) -> str:
        plain = url.partition("?")[0]  # it takes a question mark for a pattern
        return str(fsspec.open_local(f"filecache::{plain}", filecache={"cache_storage": folder}))

    return Tool(fsspec.filesystem("http").get_file, None, cached)


def _pooch() -> Tool:
    import pooch

    pooch.get_logger().setLevel("ERROR")
    return Tool(None, None, lambda url, folder: str(pooch.retrieve(url, known_hash=None, path=folder, fname="net.bin")))


def _last(url: str) -> str:
    """Return the file's name out of ENDPOINT/bench/net/resolve/main/net.bin?anything."""
    return url.partition("?")[0].rpartition("/")[2]


def _huggingface_hub() -> Tool:
    os.environ |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    from huggingface_hub import hf_hub_download

    def cached(url: str, folder: str) -> str:
        return str(hf_hub_download("bench/net", _last(url), cache_dir=folder))

    return Tool(None, None, cached)


def _huggingface_hub_offline() -> Tool:
    from huggingface_hub import hf_hub_download

    return Tool(
        None,
        None,
        lambda url, folder: str(hf_hub_download("bench/net", _last(url), cache_dir=folder, local_files_only=True)),
    )


def _diskcache() -> Tool:
    """A dictionary on disk that leads from URL to path; the download is whoever's."""
    import diskcache

    caches: dict[str, Any] = {}

    def cached(url: str, folder: str) -> str:
        if folder not in caches:
            caches[folder] = diskcache.Cache(folder)
        path = caches[folder].get(url)
        if path is None:
            import urllib.request

            path = os.path.join(folder, "net.bin")
            urllib.request.urlretrieve(url, path)  # noqa: S310 - our own server's
            caches[folder][url] = path
        return str(path)

    return Tool(None, None, cached)


def _clearml() -> Tool:
    from clearml import StorageManager

    def cached(url: str, folder: str) -> str:  # the folder is named by the environment
        return str(StorageManager.get_local_copy(url))

    return Tool(None, None, cached)


TOOLS: dict[str, Callable[[], Tool]] = {
    "s3fs": _s3fs,
    "boto3": _boto3,
    "obstore": _obstore,
    "fsspec": _fsspec,
    "pooch": _pooch,
    "huggingface_hub": _huggingface_hub,
    "huggingface_hub_offline": _huggingface_hub_offline,
    "diskcache": _diskcache,
    "clearml": _clearml,
}


def start(tool: str, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    State.tool = TOOLS[tool]()


def _timed(job: Callable[[str, str], object] | None, first: str, second: str) -> dict[str, Any]:
    if job is None:
        message = "it has no such thing"
        raise RuntimeError(message)
    baseline = start_peak()
    begin = time.perf_counter()
    result = job(first, second)
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "peak_mib": peak_rss_since(baseline), "path": result if isinstance(result, str) else ""}


def get(uri: str, target: str) -> dict[str, Any]:
    return _timed(State.tool.get, uri, target)


def put(source: str, uri: str) -> dict[str, Any]:
    return _timed(State.tool.put, source, uri)


def cached(uri: str, folder: str) -> dict[str, Any]:
    return _timed(State.tool.cached, uri, folder)


def race(uri: str, folder: str, at: float) -> dict[str, Any]:
    """Ask the cache at a given moment, as other processes do; seconds from then on, and what came."""
    while time.time() < at:
        time.sleep(0.001)
    path = _timed(State.tool.cached, uri, folder)["path"]
    seconds = time.time() - at
    with open(path, "rb") as file:
        return {"seconds": seconds, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def hits(uri: str, folder: str, calls: int) -> float:
    """Return the microseconds of a call that finds the file in the cache."""
    cached = State.tool.cached
    assert cached is not None
    cached(uri, folder)
    begin = time.perf_counter()
    for _ in range(calls):
        cached(uri, folder)
    return (time.perf_counter() - begin) / calls * 1e6


if __name__ == "__main__":
    serve({"start": start, "get": get, "put": put, "cached": cached, "race": race, "hits": hits})

"""The limits of moving bytes: what one would write for this job alone, without retries, checks or resuming."""

from __future__ import annotations

import hashlib
import http.client
import itertools
import os
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from benchmarks.workers.protocol import peak_rss_since, serve, start_peak

MIB = 2**20


def start(environment: dict[str, str]) -> None:
    """Nothing to make ready: no client of anybody's is used."""


def _connect(url: str) -> tuple[http.client.HTTPConnection, str]:
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname or "", parts.port), parts.path


def ranges(url: str, target: str, connections: int, part_bytes: int, *, flush: bool = False) -> dict[str, float]:
    """Ask for ranges from several threads, and write each block where it belongs."""
    baseline = start_peak()
    begin = time.perf_counter()
    connection, path = _connect(url)
    connection.request("HEAD", path)
    size = int(connection.getresponse().headers["Content-Length"])
    file = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    numbers = itertools.count()

    def work() -> None:
        mine, _ = _connect(url)
        buffer = memoryview(bytearray(MIB // 4))
        while (start := next(numbers) * part_bytes) < size:
            end = min(start + part_bytes, size)
            mine.request("GET", path, headers={"Range": f"bytes={start}-{end - 1}"})
            answer = mine.getresponse()
            while start < end:
                count = answer.readinto(buffer[: end - start])
                os.pwrite(file, buffer[:count], start)
                start += count
            answer.read()
        mine.close()

    threads = [threading.Thread(target=work) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if flush:
        os.fsync(file)
    os.close(file)
    connection.close()
    return {"seconds": time.perf_counter() - begin, "peak_mib": peak_rss_since(baseline)}


def stream(url: str, target: str) -> dict[str, float]:
    """Ask once, and write what comes."""
    baseline = start_peak()
    begin = time.perf_counter()
    connection, path = _connect(url)
    connection.request("GET", path)
    answer = connection.getresponse()
    buffer = memoryview(bytearray(MIB // 4))
    with open(target, "wb", buffering=0) as file:
        while count := answer.readinto(buffer):
            file.write(buffer[:count])
    connection.close()
    return {"seconds": time.perf_counter() - begin, "peak_mib": peak_rss_since(baseline)}


def send(source: str, url: str, connections: int, part_bytes: int) -> dict[str, float]:
    """Send a file in parts, each by sendfile, to a server that asks for no signature."""
    baseline = start_peak()
    begin = time.perf_counter()
    connection, path = _connect(url)
    connection.request("POST", f"{path}?uploads=")
    number = connection.getresponse().read().decode().partition("<UploadId>")[2].partition("<")[0]
    size = os.stat(source).st_size

    def part(index: int) -> None:
        mine, _ = _connect(url)
        start = index * part_bytes
        end = min(start + part_bytes, size)
        mine.putrequest("PUT", f"{path}?partNumber={index + 1}&uploadId={number}")
        mine.putheader("Content-Length", str(end - start))
        mine.endheaders()
        with open(source, "rb") as file:
            while start < end:
                start += os.sendfile(mine.sock.fileno(), file.fileno(), start, end - start)
        mine.getresponse().read()
        mine.close()

    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(part, range(-(-size // part_bytes))))
    connection.request("POST", f"{path}?uploadId={number}", body=b"<CompleteMultipartUpload/>")
    connection.getresponse().read()
    connection.close()
    return {"seconds": time.perf_counter() - begin, "peak_mib": peak_rss_since(baseline)}


def sha256(source: str) -> dict[str, float]:
    """Hash a file, all of it in the page cache."""
    begin = time.perf_counter()
    with open(source, "rb") as file:
        hashlib.file_digest(file, "sha256").hexdigest()
    return {"seconds": time.perf_counter() - begin}


def copy(source: str, target: str) -> dict[str, float]:
    """`cp`."""
    begin = time.perf_counter()
    subprocess.run(["cp", "--reflink=auto", source, target], check=True)
    return {"seconds": time.perf_counter() - begin}


JOBS: dict[str, Any] = {
    "start": start,
    "ranges": ranges,
    "stream": stream,
    "send": send,
    "sha256": sha256,
    "copy": copy,
}

if __name__ == "__main__":
    serve(JOBS)

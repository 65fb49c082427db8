"""A web server that speaks enough of S3 for every client, and costs as little as a server in Python can.

Reads go through sendfile, one thread serves one connection, nothing is signed or checked: what is measured is the
client. A connection can be slowed down to what real object stores give, since that is where parallel requests pay.

    python -m benchmarks.origin FOLDER [--rate 50e6 --first-byte 0.03]

prints its port, and serves ``FOLDER/bucket/key`` at ``/bucket/key`` until its standard input is closed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from benchmarks.measure import ROOT

__all__ = ["RunningOrigin", "running"]

COUNTS = "/-/counts"
_STEP = 1 << 17
_WHOLE_STEP = 1 << 24


@dataclass(frozen=True)
class RunningOrigin:
    """A server in a process of its own."""

    url: str
    folder: Path

    def counts(self) -> dict[str, int]:
        """Return how many requests of each kind came, and the bytes of bodies sent and received, since it started."""
        with urllib.request.urlopen(self.url + COUNTS) as answer:  # noqa: S310 - our own
            counts: dict[str, int] = json.load(answer)
        return counts

    def environment(self) -> dict[str, str]:
        """Return what leads any S3 client here."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
            "HF_ENDPOINT": self.url,
        }


@contextmanager
def running(folder: Path, *, rate: float | None = None, first_byte_s: float = 0.0) -> Iterator[RunningOrigin]:
    """Serve a folder.

    Args:
        folder: Buckets are its folders, objects are files in them.
        rate: Bytes per second of one connection; None for as fast as it goes.
        first_byte_s: How long each answer takes to begin.
    """
    argv = [sys.executable, "-m", "benchmarks.origin", str(folder), "--first-byte", str(first_byte_s)]
    process = subprocess.Popen(
        [*argv, *(["--rate", str(rate)] if rate else [])],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        yield RunningOrigin(f"http://127.0.0.1:{int(process.stdout.readline())}", folder)
    finally:
        process.communicate(timeout=30)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, folder: Path, rate: float | None, first_byte_s: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.rate, self.first_byte_s = folder, rate, first_byte_s
        self.counts: Counter[str] = Counter(sent=0, received=0)
        self.lock = threading.Lock()
        self.numbers = itertools.count(1)

    def note(self, what: str, amount: int = 1) -> None:
        with self.lock:
            self.counts[what] += amount

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are no news."""


class _Pace:
    """Keeps a connection to its rate."""

    def __init__(self, rate: float | None) -> None:
        self._rate, self._begun, self._done = rate, time.monotonic(), 0
        self.step = _STEP if rate else _WHOLE_STEP

    def moved(self, count: int) -> None:
        self._done += count
        if self._rate and (ahead := self._begun + self._done / self._rate - time.monotonic()) > 0:
            time.sleep(ahead)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
        """Silence."""

    def handle_expect_100(self) -> bool:
        going_on = super().handle_expect_100()
        self.wfile.flush()
        return going_on

    def do_GET(self) -> None:
        path, query = self._place()
        if self.path == COUNTS:
            self._xml(json.dumps(self.server.counts))
        elif "uploadId" in query:
            self._xml("<ListPartsResult><IsTruncated>false</IsTruncated></ListPartsResult>")
        elif "list-type" in query:
            self._list(path, query)
        else:
            self._send(path, with_body=True)

    def do_HEAD(self) -> None:
        path, _ = self._place()
        if path.is_dir() and _size(path) is None:  # a bucket
            self._xml("")
        else:
            self._send(path, with_body=False)

    def do_PUT(self) -> None:
        path, query = self._place()
        time.sleep(self.server.first_byte_s)
        if "uploadId" in query:
            path = self.server.folder / "uploads" / query["uploadId"] / f"{int(query['partNumber']):05}"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._receive(path)
        # No MD5: computing it would cost the server more than all else, and no client depends on it.
        self._xml("", ETag=f'"{next(self.server.numbers):x}-part"')

    def do_POST(self) -> None:
        path, query = self._place()
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "uploads" in query:
            number = f"{next(self.server.numbers)}"
            (self.server.folder / "uploads" / number).mkdir(parents=True)
            self._xml(
                f"<InitiateMultipartUploadResult><UploadId>{number}</UploadId></InitiateMultipartUploadResult>",
            )
            return
        # The parts become the object as they are: a folder of them. Only who checks what arrived reads it.
        path.parent.mkdir(parents=True, exist_ok=True)
        (self.server.folder / "uploads" / query["uploadId"]).rename(path)
        self._xml('<CompleteMultipartUploadResult><ETag>"whole-1"</ETag></CompleteMultipartUploadResult>')

    def do_DELETE(self) -> None:
        self._xml("", status=204)

    def _place(self) -> tuple[Path, dict[str, str]]:
        self.server.note(self.command)
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        return self.server.folder / unquote(parts.path).strip("/"), query

    def _xml(self, text: str, status: int = 200, **headers: str) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _list(self, bucket: Path, query: dict[str, str]) -> None:
        found = bucket / query.get("prefix", "")
        size = _size(found)
        entry = f"<Contents><Key>{query.get('prefix', '')}</Key><Size>{size}</Size></Contents>" if size else ""
        self._xml(f"<ListBucketResult><IsTruncated>false</IsTruncated>{entry}</ListBucketResult>")

    def _send(self, path: Path, *, with_body: bool) -> None:
        size = _size(path)
        if size is None:
            self._xml("<Error><Code>NoSuchKey</Code></Error>", status=404)
            return
        begin, end = 0, size
        asked = self.headers.get("Range", "").removeprefix("bytes=")
        if asked:
            first, _, last = asked.partition("-")
            begin, end = int(first), min(int(last) + 1 if last else size, size)
            if begin >= size:
                self._xml("", status=416, **{"Content-Range": f"bytes */{size}"})
                return
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
        self.send_header("Content-Length", str(end - begin))
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{path.stat().st_mtime_ns:x}{size:x}"')
        self.send_header("Last-Modified", self.date_time_string(int(path.stat().st_mtime)))
        self.send_header("X-Repo-Commit", "0" * 40)  # what huggingface_hub looks for
        time.sleep(self.server.first_byte_s)
        self.end_headers()
        self.wfile.flush()
        if with_body:
            self._send_file(path, begin, end)

    def _send_file(self, path: Path, begin: int, end: int) -> None:
        pace = _Pace(self.server.rate)
        out = self.connection.fileno()
        with path.open("rb") as file:
            while begin < end:
                count = os.sendfile(out, file.fileno(), begin, min(pace.step, end - begin))
                if not count:
                    raise ConnectionError
                begin += count
                self.server.note("sent", count)
                pace.moved(count)

    def _receive(self, path: Path) -> None:
        """Write the body to a file, out of Amazon's own framing if it is in that."""
        with path.open("wb", buffering=0) as file:
            if "aws-chunked" not in self.headers.get("Content-Encoding", ""):
                self._receive_bytes(file, int(self.headers.get("Content-Length") or 0))
                return
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                self._receive_bytes(file, size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass

    def _receive_bytes(self, file: Any, left: int) -> None:
        pace = _Pace(self.server.rate)
        buffer = memoryview(bytearray(min(1 << 18, max(left, 1))))
        while left:
            count = self.rfile.readinto(buffer[: min(left, len(buffer))])
            if not count:
                raise ConnectionError
            file.write(buffer[:count])
            left -= count
            self.server.note("received", count)
            pace.moved(count)


def _size(path: Path) -> int | None:
    """Return the size of an object; of one that was put there in parts, of all of them."""
    if path.is_dir() and (path / "00001").exists():
        return sum(part.stat().st_size for part in path.iterdir())
    return path.stat().st_size if path.is_file() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--first-byte", type=float, default=0.0)
    arguments = parser.parse_args()
    server = _Server(arguments.folder, arguments.rate, arguments.first_byte)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()
    server.socket.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    main()

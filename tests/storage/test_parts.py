"""Parts of an object: passed on in order, in bounded memory, and not at all once somebody gave up."""

from __future__ import annotations

import errno
import random
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO

import pytest

from modelstore.storage import parts
from modelstore.storage.origins import Reader
from modelstore.storage.parts import Parts
from modelstore.storage.retries import Patience
from modelstore.storage.webclient import WebClient

MIB = 1 << 20
Pause = Callable[[int], object]


class MemoryOrigin:
    """An object in memory, whose readers pause before each block as told."""

    etag: str | None = '"x"'
    ranged = True
    connections = 8
    part_bytes = 1 * MIB
    waited_s = 0.0

    def __init__(self, data: bytes, pause: Pause) -> None:
        self.data, self.pause = memoryview(data), pause
        self.size: int | None = len(data)

    def look(self, start: int = 0, *, in_one: bool = False) -> None:
        """Nothing changes here."""

    def read(self, start: int, end: int | None) -> Reader:
        return MemoryReader(self, start, self.size if end is None else end)

    def recheck(self) -> None:
        """Nothing changes here."""

    def close(self) -> None:
        """Readers that pause go on pausing: they are what a driver is that cannot be interrupted."""


class MemoryReader:
    def __init__(self, origin: MemoryOrigin, start: int, end: int | None) -> None:
        self._origin, self._at, self._end = origin, start, end

    def readinto(self, buffer: memoryview, /) -> int:
        self._origin.pause(self._at)
        block = self._origin.data[self._at : self._end][: len(buffer)]
        buffer[: len(block)] = block
        self._at += len(block)
        return len(block)

    def close(self) -> None:
        """Nothing is open."""


class Taken:
    """What was passed on; sees to it that one thread at a time does so."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._lock = threading.Lock()

    def __call__(self, block: memoryview, release: Callable[[memoryview], object], /) -> None:
        assert self._lock.acquire(blocking=False)
        self.data += block
        release(block)
        self._lock.release()


def numbered(size: int) -> bytes:
    """Bytes no two eighths of a kilobyte of which are alike."""
    return b"".join(number.to_bytes(8, "big") * 16 for number in range(size // 128))


@pytest.mark.parametrize("seed", range(3))
def test_whatever_order_the_parts_come_in_they_are_passed_on_in_theirs(seed: int) -> None:
    """The file is at every moment the beginning of the object; the hash depends on it too."""
    chance = random.Random(seed)
    pauses = [chance.choice([0, 0, 0.001, 0.005]) for _ in range(12)]
    data, taken = numbered(12 * MIB), Taken()
    moving = Parts(MemoryOrigin(data, lambda at: time.sleep(pauses[at // MIB])), 0, len(data), Patience(), taken)
    moving.run(lambda _: None)

    assert taken.data == data
    assert moving.received == len(data)


def test_a_first_part_that_stands_still_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others go on as far as the bound, and wait; then all is well."""
    monkeypatch.setattr(parts, "_MOST_BLOCKS", 24)
    gate = threading.Event()
    data, taken = numbered(20 * MIB), Taken()
    moving = Parts(MemoryOrigin(data, lambda at: gate.wait() if at < MIB else None), 0, len(data), Patience(), taken)
    seen: list[int] = []
    stalled: list[int] = []

    def watch(received: int) -> None:
        seen.append(received)
        if received and seen[-5:] == [received] * 5 and not gate.is_set():
            stalled.append(received)
            gate.set()

    moving.run(watch)

    assert 0 < stalled[0] <= 24 * (1 << 18)
    assert taken.data == data


def test_nothing_is_passed_on_after_the_caller_gave_up() -> None:
    """By then the file may be closed, and its number somebody else's."""
    late = threading.Event()

    def pause(at: int) -> None:
        if at >= 2 * MIB:
            late.wait(60)

    data, taken = numbered(4 * MIB), Taken()
    moving = Parts(MemoryOrigin(data, pause), 0, len(data), Patience(), taken)

    def give_up(received: int) -> None:
        if received >= MIB:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        moving.run(give_up)
    before = len(taken.data)
    late.set()
    time.sleep(0.05)

    assert len(taken.data) == before
    assert taken.data == data[:before]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.ETIMEDOUT])
def test_what_cannot_be_written_ends_the_transfer_and_nothing_is_written_behind_it(number: int) -> None:
    """A full disk must leave a beginning of the object, not one with a hole; failing disks are not asked again."""
    data = numbered(8 * MIB)
    written: list[int] = []

    def take(block: memoryview, release: Callable[[memoryview], object], /) -> None:
        if sum(written) >= 3 * MIB:
            raise OSError(number, "no")
        written.append(len(block))
        release(block)

    with pytest.raises(OSError, match="no"):
        Parts(MemoryOrigin(data, lambda _: time.sleep(0.001)), 0, len(data), Patience(), take).run(lambda _: None)
    time.sleep(0.05)

    assert sum(written) == 3 * MIB


def test_a_server_that_fails_a_thousand_times_does_not_use_up_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory of attempts that came to nothing is used again."""
    monkeypatch.setattr(parts, "_MOST_BLOCKS", 20)
    data, taken = numbered(4 * MIB), Taken()
    failures = iter(range(1000))

    class Failing(MemoryOrigin):
        def read(self, start: int, end: int | None) -> Reader:
            if next(failures, None) is not None:
                raise ConnectionResetError(errno.ECONNRESET, "no")
            return super().read(start, end)

    patience = Patience(attempts=10_000, first_pause_s=0.0)
    Parts(Failing(data, lambda _: None), 0, len(data), patience, taken).run(lambda _: None)

    assert taken.data == data


def test_a_kept_connection_that_the_server_closed_costs_no_failure() -> None:
    """The body is sent from its beginning over another connection."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()
            self.close_connection = True  # without having said so

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
            """Silence."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    client = WebClient()
    try:
        for _ in range(3):
            client.request(
                "PUT", f"http://127.0.0.1:{server.server_address[1]}/a", {"Content-Length": "5"}, BytesIO(b"hello")
            ).close()
            time.sleep(0.02)
    finally:
        client.close()
        server.shutdown()
        server.server_close()
        thread.join()

    assert bodies == [b"hello"] * 3

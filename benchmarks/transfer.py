"""Moving one large object: each contender beside moving the same bytes by hand, and beside hashing them."""

from __future__ import annotations

import filecmp
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.arena import Arena, Bar, Outcome
from benchmarks.measure import ContenderFailedError, Series, Worker, in_turns, run_process, settle
from benchmarks.origin import RunningOrigin, running

__all__ = ["JOBS"]

MIB = 2**20
OURS = "modelstore, verified"
DURABLE = "modelstore, verified and flushed"
BARE = "bare ranged requests into a file"
STREAM = "one plain stream into a file"
HASH = "sha256 alone"
COPY = "cp, from folder to folder"
SLOWER = "the slower of bare ranged requests and sha256"
SLOWER_STREAM = "the slower of one plain stream and sha256"
S3_PEERS = {"s3fs": "transfer", "obstore": "transfer", "boto3": "aws"}
AWS_CP = "aws s3 cp, over one of nothing"
SLOW_RATE = 50e6
SLOW_FIRST_BYTE_S = 0.03


@dataclass
class Field:
    """An origin, one large file, and the contenders' processes."""

    arena: Arena
    origin: RunningOrigin
    home: Path
    source: Path
    workers: dict[str, Worker]
    memory: dict[str, Series]
    slow: bool
    mib: int

    @property
    def connections(self) -> int:
        """As many as serve the limit best: on loopback two threads fill both cores, slow ones want many."""
        return 16 if self.slow else 2

    @property
    def part_bytes(self) -> int:
        return (8 if self.slow else 16) * MIB

    def s3(self, name: str = "net.bin") -> str:
        return f"s3://bucket/{name}"

    def http(self, name: str = "net.bin") -> str:
        return f"{self.origin.url}/bucket/{name}"

    def ask(self, name: str, job: str, **arguments: Any) -> float:
        """Have a contender do a job, note its memory, and return its seconds."""
        settle()
        answer = self.workers[name].ask(job, **arguments)
        if "peak_mib" in answer:
            series = self.memory.setdefault(name, Series(f"{name}: memory over baseline", "MiB"))
            series.values.append(answer["peak_mib"])
        return float(answer["seconds"])

    def get(self, name: str, job: str, **arguments: Any) -> float:
        """Have a contender download, look whether all bytes came, and remove them."""
        target = self.home / f"{name.partition(',')[0]}.bin"
        seconds = self.ask(name, job, target=str(target), **arguments)
        self.check(target)
        return seconds

    def check(self, target: Path) -> None:
        if not filecmp.cmp(target, self.source, shallow=False):
            raise ContenderFailedError("the bytes differ")
        target.unlink()

    def put(self, name: str, **arguments: Any) -> float:
        """Have a contender upload, look whether all bytes came, and remove them."""
        seconds = self.ask(name, **arguments)
        self.check_stored("sent.bin")
        return seconds

    def check_stored(self, name: str) -> None:
        stored = self.origin.folder / "bucket" / name
        parts = sorted(stored.iterdir()) if stored.is_dir() else [stored]
        with self.source.open("rb") as whole:
            for part in parts:
                with part.open("rb") as file:
                    while block := file.read(MIB):
                        if block != whole.read(len(block)):
                            raise ContenderFailedError("the bytes differ")
            if whole.read(1):
                raise ContenderFailedError("bytes are missing")
        shutil.rmtree(stored) if stored.is_dir() else stored.unlink()

    def series(self, contenders: dict[str, Callable[[], float]], turns: int) -> dict[str, Series]:
        return in_turns(contenders, self.arena.turns(turns))


@contextmanager
def _field(arena: Arena, peers: dict[str, str], *, slow: bool, part: int = 1) -> Iterator[Field]:
    """Make everything ready; ``part`` makes the object so many times smaller."""
    home = arena.folder("transfer")
    served = arena.folder("origin")
    source = served / "bucket" / "net.bin"
    source.parent.mkdir()
    mib = max(arena.mib // part, 24)
    _write_random(source, mib)
    (source.parent / "empty.bin").touch()
    limits: dict[str, Any] = {"rate": SLOW_RATE, "first_byte_s": SLOW_FIRST_BYTE_S} if slow else {}
    with ExitStack() as stack:
        origin = stack.enter_context(running(served, **limits))
        environment = origin.environment()
        workers = {
            OURS: stack.enter_context(arena.worker("bytes_ours", home, environment=environment)),
            BARE: stack.enter_context(arena.worker("bytes_by_hand", home, environment=environment)),
        }
        workers[DURABLE] = workers[OURS]
        workers |= dict.fromkeys((STREAM, HASH), workers[BARE])
        for peer, place in peers.items():
            if python := arena.peers.get(place):
                worker = arena.worker("bytes_peers", home, python, tool=peer, environment=environment)
                workers[peer] = stack.enter_context(worker)
        yield Field(arena, origin, home, source, workers, {}, slow, mib)
    shutil.rmtree(home)
    shutil.rmtree(served)


def _write_random(path: Path, mib: int) -> None:
    block = os.urandom(MIB)
    with path.open("wb") as file:
        for number in range(mib):
            file.write(number.to_bytes(8, "big") + block[8:])


def _cp(field: Field, *, flush: bool = False) -> Callable[[], float]:
    """Return a job that copies the object's file with ``cp``: neither a network nor a server is in it."""
    target = field.home / "cp.bin"

    def copy() -> float:
        settle()
        commands = [["cp", str(field.source), str(target)]] + [["sync", str(target)]] * flush
        seconds = sum(run_process(command, os.environ, field.home)[0] for command in commands)
        field.check(target)
        return seconds

    return copy


def _limits(field: Field) -> dict[str, Callable[[], float]]:
    nearby = {} if field.slow else {COPY: _cp(field)}
    return nearby | {
        BARE: partial(
            field.get, BARE, "ranges", url=field.http(), connections=field.connections, part_bytes=field.part_bytes
        ),
        STREAM: partial(field.get, STREAM, "stream", url=field.http()),
        HASH: partial(field.ask, HASH, "sha256", source=str(field.source)),
    }


def _slower(series: dict[str, Series], moving: str, name: str) -> Series:
    """Return, turn by turn, the slower of moving the bytes and hashing them: the two can overlap."""
    pairs = zip(series[moving].values, series[HASH].values, strict=True)
    return Series(name, values=[max(pair) for pair in pairs])


def _ratio(top: Series | None, bottom: Series | None) -> float | None:
    if top is None or bottom is None or not top.values or not bottom.values:
        return None
    return top.ratio_to(bottom)


def _faster(series: dict[str, Series], ours: str, peers: tuple[str, ...], bound: float) -> list[Bar]:
    return [Bar(f"{peer} / modelstore", _ratio(series.get(peer), series[ours]), bound, at_least=True) for peer in peers]


def _memory_bar(field: Field) -> Bar:
    memory = field.memory.get(OURS)
    return Bar("memory over baseline, at its highest", max(memory.values) if memory else None, 200, unit="MiB")


def _aws_cp(field: Field, *words: str, empty: tuple[str, str]) -> Callable[[], float]:
    """Return a job that times ``aws s3 cp``, less what the same command needs to copy nothing."""
    command = field.arena.peers["aws"].parent / "aws"
    env = field.arena.env(field.home) | field.origin.environment()

    def run(*operands: str) -> float:
        settle()
        return run_process([command, "s3", "cp", "--quiet", *operands], env, field.home)[0]

    return lambda: run(*words) - run(*empty)


def from_s3(arena: Arena, *, slow: bool = False) -> Outcome:
    """Download from S3, where the wire costs nothing, or where each connection is slow."""
    with _field(arena, S3_PEERS, slow=slow) as field:
        contenders: dict[str, Callable[[], float]] = {
            OURS: partial(field.get, OURS, "get", uri=field.s3()),
            **_limits(field),
        }
        contenders |= {
            peer: partial(field.get, peer, "get", uri=field.s3()) for peer in S3_PEERS if peer in field.workers
        }
        if slow:  # in one stream, they would take as many times longer as there are connections
            contenders = {name: job for name, job in contenders.items() if name not in {STREAM, "obstore"}}
        if "aws" in arena.peers:
            target = field.home / "aws.bin"
            copy = _aws_cp(field, field.s3(), str(target), empty=(field.s3("empty.bin"), str(field.home / "empty")))

            def aws() -> float:
                seconds = copy()
                field.check(target)
                return seconds

            contenders[AWS_CP] = aws
        series = field.series(contenders, 3 if slow else 5)
        series[SLOWER] = _slower(series, BARE, SLOWER)
        bars = [
            Bar(f"modelstore / {SLOWER}", _ratio(series[OURS], series[SLOWER]), 1.15),
            *_faster(series, OURS, ("s3fs", "boto3", AWS_CP), 1.5),
            _memory_bar(field),
        ]
        notes = [*_conditions(field), "Nobody but modelstore verifies what it fetched, and none flushes."]
        return Outcome(_title(field, "from S3"), [*series.values(), *field.memory.values()], bars, notes)


def _title(field: Field, what: str) -> str:
    where = "each connection slow" if field.slow else "on loopback"
    return f"{field.mib} MiB {what}, {where}"


def _conditions(field: Field) -> list[str]:
    if not field.slow:
        return ["Server and client share the cores, so what the server costs is part of every figure."]
    return [
        f"Each connection gets {SLOW_RATE / 1e6:.0f} MB/s, and {SLOW_FIRST_BYTE_S * 1000:.0f} ms pass before an answer."
    ]


def from_http(arena: Arena, *, slow: bool = False) -> Outcome:
    """Download from a web server that understands ranges."""
    with _field(arena, {"fsspec": "transfer"}, slow=slow, part=4 if slow else 1) as field:
        contenders: dict[str, Callable[[], float]] = {
            OURS: partial(field.get, OURS, "get", uri=field.http()),
            **_limits(field),
        }
        if "fsspec" in field.workers:
            contenders["fsspec"] = partial(field.get, "fsspec", "get", uri=field.http())
        series = field.series(contenders, 3 if slow else 7)
        ratio = _ratio(series[STREAM], series[OURS])
        bars = [Bar(f"{STREAM} / modelstore", ratio, 1.5 if slow else 0.95, at_least=True), _memory_bar(field)]
        if not slow:
            # Nothing that verifies can be faster than hashing, and on loopback a stream can.
            series[SLOWER_STREAM] = _slower(series, STREAM, SLOWER_STREAM)
            ratio = _ratio(series[SLOWER_STREAM], series[OURS])
            bars.insert(1, Bar(f"{SLOWER_STREAM} / modelstore", ratio, 0.95, at_least=True))
        return Outcome(
            _title(field, "from a web server"), [*series.values(), *field.memory.values()], bars, _conditions(field)
        )


def to_s3(arena: Arena, *, slow: bool = False) -> Outcome:
    """Upload to S3."""
    with _field(arena, S3_PEERS, slow=slow, part=4 if slow else 1) as field:
        source, uri = str(field.source), field.s3("sent.bin")
        contenders: dict[str, Callable[[], float]] = {
            name: partial(field.put, name, job="put", source=source, uri=uri)
            for name in (OURS, *S3_PEERS)
            if name in field.workers
        }
        contenders[BARE] = partial(
            field.put, BARE, job="send", source=source, url=field.http("sent.bin"),
            connections=field.connections, part_bytes=field.part_bytes,
        )  # fmt: skip
        if "aws" in arena.peers:
            nothing = str(field.source.parent / "empty.bin")
            copy = _aws_cp(field, source, uri, empty=(nothing, field.s3("nothing.bin")))

            def aws() -> float:
                seconds = copy()
                field.check_stored("sent.bin")
                return seconds

            contenders[AWS_CP] = aws
        series = field.series(contenders, 3 if slow else 5)
        series["bare parts, by sendfile"] = series.pop(BARE)
        series["bare parts, by sendfile"].name = "bare parts, by sendfile"
        bars = [*_faster(series, OURS, ("s3fs", "boto3"), 1.5), _memory_bar(field)]
        return Outcome(_title(field, "to S3"), [*series.values(), *field.memory.values()], bars, _conditions(field))


def flushed(arena: Arena) -> Outcome:
    """Download as the cache does it: verified, and on disk when it is done."""
    with _field(arena, {}, slow=False) as field:
        numbers = itertools.count()
        contenders: dict[str, Callable[[], float]] = {
            DURABLE: lambda: field.get(DURABLE, "write_through", uri=f"{field.http()}?{next(numbers)}"),
            BARE: partial(field.get, BARE, "ranges", url=field.http(), connections=2, part_bytes=16 * MIB, flush=True),
            f"{COPY}, and sync": _cp(field, flush=True),
        }
        series = field.series(contenders, 5)
        bars = [Bar("modelstore / bare ranged requests, flushed", _ratio(series[DURABLE], series[BARE]), 1.15)]
        return Outcome(_title(field, "onto the disk"), list(series.values()), bars)


JOBS: dict[str, Callable[[Arena], Outcome]] = {
    "s3-download": from_s3,
    "s3-download-slow": partial(from_s3, slow=True),
    "http-download": from_http,
    "http-download-slow": partial(from_http, slow=True),
    "s3-upload": to_s3,
    "s3-upload-slow": partial(to_s3, slow=True),
    "flushed": flushed,
}

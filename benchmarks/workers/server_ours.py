"""A client of a server: syncs, bytes both ways, questions, registrations."""

from __future__ import annotations

import http.client
import json
import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.shapes import LIMIT, SHAPES
from benchmarks.workers.protocol import peak_rss_since, serve, start_peak
from modelstore.registry.registration import register_files
from modelstore.registry.registry import Registry


class State:
    found = 0


def start() -> None:
    """Load what every job needs."""


def sync(url: str, folder: str, direction: str = "both") -> dict[str, Any]:
    """Exchange everything with a server; seconds, MiB above the beginning, changes and files moved."""
    with Registry(folder) as registry:
        baseline = start_peak()
        begin = time.perf_counter()
        done = registry.sync(url, direction=direction)  # type: ignore[arg-type]
        seconds = time.perf_counter() - begin
        moved = done.received.operations + done.sent.operations, done.received.objects + done.sent.objects
        return {"seconds": seconds, "peak_mib": peak_rss_since(baseline), "moved": moved}


def again(url: str, folder: str) -> float:
    """Sync when nothing is to do."""
    with Registry(folder) as registry:
        registry.sync(url)
        begin = time.perf_counter()
        assert registry.sync(url).nothing
        return time.perf_counter() - begin


def register(folder: str, mib: int) -> str:
    """Register a file of random bytes; returns where a plain web server finds it, below the registry."""
    path = Path(folder).parent / "big.bin"
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(1 << 20))
    with Registry(folder) as registry:
        model = register_files(registry, path, name="big")
        path.unlink()
        return str(registry.weights.objects.path(str(model.digest), "big.bin"))


def ask(url: str, shape: str, kind: str) -> float:
    """Ask for the newest by tags, on one connection; seconds a question."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.netloc, timeout=60)
    path, body = _question(shape, kind)
    asked = 0
    begin = time.perf_counter()
    while asked < 3 or time.perf_counter() - begin < 1.0:
        connection.request("POST" if kind == "ours" else "GET", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        found = json.loads(answer.read())
        if answer.status != 200:
            raise RuntimeError(f"status {answer.status}: {found}")
        State.found = len(found.get("models" if kind == "ours" else "registered_models", ()))
        asked += 1
    seconds = (time.perf_counter() - begin) / asked
    connection.close()
    return seconds


def _question(shape: str, kind: str) -> tuple[str, str | None]:
    if kind == "ours":
        return "/v1/models/search", json.dumps({"tags": SHAPES[shape].tags, "limit": LIMIT})
    from urllib.parse import urlencode

    words = {"filter": SHAPES[shape].mlflow, "max_results": LIMIT, "order_by": "last_updated_timestamp DESC"}
    return f"/api/2.0/mlflow/registered-models/search?{urlencode(words)}", None


def write(place: str, count: int, begin_at: float) -> float:
    """Register so many models, one by one, from a moment on that all writers know; seconds until the last was there."""
    with Registry(place) as registry:
        registry.refresh()
        time.sleep(max(begin_at - time.time(), 0))
        begin = time.perf_counter()
        for number in range(count):
            registry.models.create(name=f"m{number}", uri=f"s3://bucket/{number}.pt", tags=["new"])
        return time.perf_counter() - begin


if __name__ == "__main__":
    serve({"start": start, "sync": sync, "again": again, "register": register, "ask": ask, "write": write})

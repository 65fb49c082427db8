"""What the workers of one server count together: a file of numbers for each, in one folder.

Nobody waits for anybody: each worker writes its own file, and whoever is asked adds them up. The files of workers that
ended stay until the server does, so that no counter ever falls.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path
from typing import Final

__all__ = ["BUCKETS_S", "Board"]

BUCKETS_S: Final = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)
"""Upper bounds of the histogram of how long requests take."""

_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "other")
_CLASSES: Final = ("1xx", "2xx", "3xx", "4xx", "5xx")
_PLAIN: Final = ("received_bytes", "sent_bytes", "operations", "objects", "refused", "seconds")
_HELP: Final = {
    "received_bytes": "Bytes of bodies of requests.",
    "sent_bytes": "Bytes of bodies of answers.",
    "operations": "Operations that were taken in and were new.",
    "objects": "Objects that were stored.",
    "refused": "Requests with a missing or unknown token.",
}
_SIZE: Final = 8 * (len(_METHODS) * len(_CLASSES) + len(_PLAIN) + len(BUCKETS_S) + 1)


class Board:
    """The counters of one worker, and the sums of all.

    Args:
        folder: The server's folder of counters.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        path = self._folder / f"{os.getpid()}-{time.monotonic_ns()}"
        with path.open("w+b") as file:
            file.truncate(_SIZE)
            self._map = mmap.mmap(file.fileno(), _SIZE)
        self._numbers = memoryview(self._map).cast("d")

    def add(self, what: str, amount: float) -> None:
        """Count something of `_PLAIN`."""
        self._numbers[_PLAIN.index(what)] += amount

    def note(self, method: str, status: int, seconds: float) -> None:
        """Count a request."""
        self.add("seconds", seconds)
        row = _METHODS.index(method) if method in _METHODS else len(_METHODS) - 1
        self._numbers[len(_PLAIN) + row * len(_CLASSES) + min(max(status // 100, 1), 5) - 1] += 1
        bucket = next((n for n, bound in enumerate(BUCKETS_S) if seconds <= bound), len(BUCKETS_S))
        self._numbers[len(_PLAIN) + len(_METHODS) * len(_CLASSES) + bucket] += 1

    def text(self, gauges: dict[str, tuple[str, float]]) -> str:
        """Return all counters, and these, as Prometheus reads them.

        Args:
            gauges: Name to what it is and how much.
        """
        sums = self._sums()
        lines: list[str] = []

        def metric(name: str, kind: str, what: str, rows: list[tuple[str, float]]) -> None:
            lines.extend((f"# HELP modelstore_{name} {what}", f"# TYPE modelstore_{name} {kind}"))
            lines.extend(f"modelstore_{name}{labels} {_number(value)}" for labels, value in rows)

        for name, what in _HELP.items():
            metric(f"{name}_total", "counter", what, [("", sums[_PLAIN.index(name)])])
        at = len(_PLAIN)
        rows: list[tuple[str, float]] = []
        for method in _METHODS:
            rows.extend((f'{{method="{method}",status="{c}"}}', sums[at + n]) for n, c in enumerate(_CLASSES))
            at += len(_CLASSES)
        metric("requests_total", "counter", "Requests that were answered.", [row for row in rows if row[1]])
        _histogram(lines, sums[at:], sums[_PLAIN.index("seconds")])
        for name, (what, value) in gauges.items():
            metric(name, "gauge", what, [("", value)])
        return "\n".join(lines) + "\n"

    def close(self) -> None:
        """Let go of the file."""
        self._numbers.release()
        self._map.close()

    def _sums(self) -> list[float]:
        sums = [0.0] * (_SIZE // 8)
        for path in self._folder.iterdir():
            data = path.read_bytes()
            if len(data) == _SIZE:
                sums = [a + b for a, b in zip(sums, struct.unpack(f"{_SIZE // 8}d", data), strict=True)]
        return sums


def _histogram(lines: list[str], counts: list[float], seconds: float) -> None:
    name = "modelstore_request_seconds"
    lines.extend((f"# HELP {name} How long requests took.", f"# TYPE {name} histogram"))
    total = 0.0
    for bound, count in zip((*BUCKETS_S, "+Inf"), counts, strict=True):
        total += count
        lines.append(f'{name}_bucket{{le="{bound}"}} {_number(total)}')
    lines.extend((f"{name}_sum {_number(seconds)}", f"{name}_count {_number(total)}"))


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)

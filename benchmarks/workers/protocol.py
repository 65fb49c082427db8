"""The contender's side of the conversation: read a job per line, do it, answer in one line.

Only the standard library: this also runs in the environments of the peers.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

__all__ = ["peak_rss_since", "per_call", "serve", "start_peak", "unique_file"]


def serve(jobs: dict[str, Callable[..., Any]]) -> None:
    """Answer until the pipe is closed. What libraries print goes to stderr, so that it cannot spoil an answer."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"result": jobs[request["job"]](**request["arguments"])}
        except Exception as error:  # noqa: BLE001 - the harness reports it as this contender's failure
            import traceback

            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def unique_file(folder: str, number: int, size: int) -> str:
    """Write a file of ``size`` bytes whose content no other number has, and return its path."""
    path = os.path.join(folder, f"weights-{number}.bin")
    with open(path, "wb") as file:
        file.write(number.to_bytes(8, "big") + os.urandom(size - 8))
    return path


def per_call(job: Callable[[], Any], *, least: int = 3, seconds: float = 0.04) -> float:
    """Return the median of several calls, in seconds: as many as there is time for, at least so many."""
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while len(taken) < least or time.perf_counter() < until:
        begin = time.perf_counter()
        job()
        taken.append(time.perf_counter() - begin)
        if len(taken) == 1 and taken[0] > 10 * seconds:
            break
    return statistics.median(taken)


def _status(key: str) -> float:
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(key + ":"):
                return int(line.split()[1]) / 1024
    message = f"no {key} in /proc/self/status"
    raise RuntimeError(message)


def start_peak() -> float:
    """Forget the peak of memory so far; return resident memory now, in MiB."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return _status("VmRSS")


def peak_rss_since(baseline: float) -> float:
    """Return by how many MiB resident memory rose above ``baseline`` at its highest."""
    return _status("VmHWM") - baseline

"""TensorBoardX's writer of event files."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.workers.protocol import serve


class State:
    writer: Any


def start(folder: str) -> None:
    from tensorboardX import SummaryWriter

    State.writer = SummaryWriter(logdir=f"{folder}/events")
    State.writer.add_scalar("warm", 0.0, 0)
    State.writer.flush()


def report(count: int, series: str) -> float:
    begin = time.perf_counter()
    for number in range(count):
        State.writer.add_scalar(series, number * 0.1, number)
    State.writer.flush()
    return (time.perf_counter() - begin) / count


if __name__ == "__main__":
    serve({"start": start, "report": report})

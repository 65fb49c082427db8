"""Fair timing on a machine that is never quiet: everything is measured in turns, and compared turn by turn."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["ROOT", "ContenderFailedError", "Series", "Worker", "in_turns", "median", "run_process", "settle"]

ROOT = Path(__file__).parent.parent


class ContenderFailedError(Exception):
    """A contender could not do the job; its own words are the message."""


@dataclass
class Series:
    """What one contender needed, one value per turn.

    Attributes:
        name: Who.
        unit: Of the values: s, MiB, statements.
        values: One per turn; turn i of every series was measured within the same moments.
        failure: Why there are none.
    """

    name: str
    unit: str = "s"
    values: list[float] = field(default_factory=list)
    failure: str | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def minus(self, other: Series, name: str) -> Series:
        """Subtract turn by turn."""
        return Series(name, self.unit, [a - b for a, b in zip(self.values, other.values, strict=True)])

    def ratio_to(self, other: Series) -> float:
        """Return the median over the turns of self / other."""
        return statistics.median(a / b for a, b in zip(self.values, other.values, strict=False))


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def in_turns(contenders: Mapping[str, Callable[[], float]], turns: int, *, warm_up: int = 1) -> dict[str, Series]:
    """Let every contender do its job once per turn, starting each turn with another one.

    A shared machine slows down and speeds up by the minute. Taking turns lets that fall on all alike; what it does
    to one turn cancels in the ratio of that turn.

    Args:
        contenders: Name to job; the job returns what it needed.
        turns: How often.
        warm_up: Turns before that are not counted: they fill the page cache and write bytecode.

    Returns:
        One series per contender; a contender that fails once is left out from then on, with its reason.
    """
    series = {name: Series(name) for name in contenders}
    names = list(contenders)
    for turn in range(-warm_up, turns):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            if series[name].failure is not None:
                continue
            try:
                value = contenders[name]()
            except ContenderFailedError as error:
                series[name].failure = str(error)
                series[name].values.clear()
                continue
            if turn >= 0:
                series[name].values.append(value)
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return series


def run_process(argv: Sequence[str | Path], env: Mapping[str, str], cwd: Path) -> tuple[float, str]:
    """Run a fresh process to its end.

    Returns:
        Wall time from before it was started until it had ended, in seconds, and what it printed.

    Raises:
        ContenderFailedError: It ended with an error.
    """
    begin = time.perf_counter()
    process = subprocess.Popen(
        [str(word) for word in argv],
        env=dict(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, err = process.communicate(timeout=600)
    elapsed = time.perf_counter() - begin
    if process.returncode != 0:
        raise ContenderFailedError((err.strip() or out.strip() or f"exit status {process.returncode}").splitlines()[-1])
    return elapsed, out


class Worker:
    """A process of a contender that lives through all turns: it is asked in JSON lines, and answers in them.

    It times itself, so that what is compared contains no pipe.
    """

    def __init__(self, python: Path, module: str, env: Mapping[str, str], prefix: Sequence[str] = ()) -> None:
        self._log = Path(env["HOME"]) / f"{module.rpartition('.')[2]}.log"
        self._process = subprocess.Popen(
            [*prefix, str(python), "-m", module],
            env=dict(env),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log.open("a"),
            text=True,
        )

    def ask(self, job: str, **arguments: Any) -> Any:
        """Have a job done and return its result.

        Raises:
            ContenderFailedError: It raised, or the process is gone.
        """
        if self._process.stdin is None or self._process.stdout is None:
            raise ContenderFailedError("no pipe")
        try:
            self._process.stdin.write(json.dumps({"job": job, "arguments": arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            tail = self._log.read_text().strip().splitlines()[-1:] or ["no message"]
            raise ContenderFailedError(f"the process ended: {tail[0]}")
        answer = json.loads(line)
        if "error" in answer:
            raise ContenderFailedError(answer["error"])
        return answer["result"]

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def settle() -> None:
    """Let the disk finish what earlier contenders left it to write."""
    os.sync()

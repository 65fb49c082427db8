"""Where contenders meet: scratch folders, environments, interpreters, and what a job reports."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT, Series, Worker

__all__ = ["Arena", "Bar", "Outcome"]

PEERS = ("mlflow", "bentoml", "clearml", "transfer", "aws", "tensorboardx")
SCRIPTS = Path(__file__).parent / "scripts"


@dataclass(frozen=True)
class Bar:
    """A promise about speed.

    Attributes:
        text: The promise.
        value: What was measured; None where a contender is missing.
        bound: What was promised.
        at_least: The value must not be below the bound; otherwise it must not be above.
        unit: Of both; "×" for a ratio.
    """

    text: str
    value: float | None
    bound: float
    at_least: bool = False
    unit: str = "×"

    @property
    def kept(self) -> bool | None:
        if self.value is None:
            return None
        return self.value >= self.bound if self.at_least else self.value <= self.bound


@dataclass
class Outcome:
    """What one job found.

    Attributes:
        title: The job.
        series: What each contender needed.
        bars: The promises, judged.
        notes: What a reader must know to read the figures rightly.
    """

    title: str
    series: list[Series]
    bars: list[Bar]
    notes: list[str] = field(default_factory=list)


class Arena:
    """The folder, the interpreters and the environment that all contenders share.

    Args:
        scratch: An empty folder on the filesystem to be measured.
        quick: A few turns and small sizes: shows that everything runs, measures nothing.
        peers: Names of peers' environments to use; those that are missing are left out.
        mib: Size of the objects whose transfer is measured, MiB.
    """

    def __init__(self, scratch: Path, *, quick: bool, peers: Sequence[str] = PEERS, mib: int = 256) -> None:
        self.scratch = scratch
        self.quick = quick
        self.mib = 24 if quick else mib
        self.python = Path(sys.executable)
        self.peers = {
            name: python for name in peers if (python := ROOT / f".venv-peers-{name}" / "bin" / "python").exists()
        }
        self.filled: tuple[Path, int] | None = None
        """Home of a registry that a job has filled, and with how many models."""
        self._folders = 0

    def turns(self, full: int) -> int:
        return min(full, 2) if self.quick else full

    def folder(self, name: str) -> Path:
        """Make a new empty folder."""
        self._folders += 1
        path = self.scratch / f"{self._folders:03}-{name}"
        path.mkdir()
        return path

    def env(self, home: Path) -> dict[str, str]:
        """Return the environment for a contender whose everything lies in ``home``.

        Nothing of the user's settings, no reports to anybody's servers, and bytecode as in any normal installation.
        """
        return {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "LANG": os.environ.get("LANG", "C.UTF-8"),
            "HOME": str(home),
            "TMPDIR": str(home),
            "MODELSTORE_HOME": str(home / "modelstore"),
            "MODELSTORE_REGISTRY": str(home / "registry"),
            "MODELSTORE_CACHE": str(home / "cache"),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db",
            "DO_NOT_TRACK": "true",
            "BENTOML_HOME": str(home / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "true",
            "CLEARML_OFFLINE_MODE": "1",
            "CLEARML_CACHE_DIR": str(home / "clearml"),
        }

    @contextmanager
    def worker(
        self, name: str, home: Path, python: Path | None = None, prefix: Sequence[str] = (), **start: Any
    ) -> Iterator[Worker]:
        """Start a contender's worker and have it make itself ready."""
        worker = Worker(python or self.python, f"benchmarks.workers.{name}", self.env(home), prefix)
        try:
            worker.ask("start", **start)
            yield worker
        finally:
            worker.close()

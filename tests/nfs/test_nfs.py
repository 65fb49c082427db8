"""A shared registry on a real NFS server with real clients: kernels of their own, caches of their own, power cuts.

Run by `make test-nfs`; needs user-mode-linux and the packages that `lab.sh install` brings.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_HERE = Path(__file__).parent
_ROOT = _HERE.parent.parent
_NEEDED = ("linux.uml", "uml_switch", "mkfs.ext4", "exportfs")
_SECONDS = float(os.environ.get("MODELSTORE_NFS_SECONDS", "60"))
_HOSTS = (1, 2, 3)
_PROCESSES = 4

pytestmark = [pytest.mark.nfs, pytest.mark.timeout(1800)]


class Lab:
    """One server and three clients."""

    def __init__(self, folder: Path, options: str) -> None:
        self.folder = folder
        self._environment = os.environ | {
            "LAB_RUN": str(folder),
            "LAB_OPTS": options,
            "LAB_MEM": "400M",
            "LAB_PYTHON": sys.executable,
        }
        self._prelude = (
            "mkdir -p /run/local; export TMPDIR=/run/local HOME=/run/local MODELSTORE_PROGRESS=0"
            f" PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={_ROOT};"
        )

    def __call__(self, *words: object, timeout: float = 300) -> str:
        done = subprocess.run(
            [str(_HERE / "lab.sh"), *map(str, words)],
            env=self._environment, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{words}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def python(self, verb: str, host: int, *words: object) -> str:
        return self(verb, host, f"{self._prelude} {sys.executable} {' '.join(map(str, words))}")


@pytest.fixture(params=["vers=4.2", "vers=4.0", "vers=3", "vers=3,nolock"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    missing = [name for name in _NEEDED if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed; `tests/nfs/lab.sh install` does it as root")
    folder = Path("/tmp") / f"modelstore-nfs-{os.getpid()}"  # noqa: S108 - a socket's path must be short
    one = Lab(folder, request.param)
    try:
        one("up", len(_HOSTS))
        yield one
    finally:
        one("down")


def test_a_team_on_nfs_loses_nothing(lab: Lab, request: pytest.FixtureRequest) -> None:
    """Twelve processes on three hosts; one host is frozen for a while, one loses its power in the middle of writing."""
    acks = lab.folder / "acks"
    acks.mkdir()
    lab.python("exec", 1, "-m modelstore init --shared /mnt/shared/team")
    worker = _HERE / "worker.py"
    jobs = {
        (host, number): lab.python(
            "bg", host, worker, "work /mnt/shared/team /mnt/lab/acks", f"h{host}-p{number}", _SECONDS
        ).strip()
        for host in _HOSTS
        for number in range(_PROCESSES)
    }
    time.sleep(_SECONDS / 3)
    lab("freeze", 2)
    time.sleep(_SECONDS / 6)
    lab("thaw", 2)
    time.sleep(_SECONDS / 6)
    lab("crash", 3)
    said = [json.loads(lab("wait", host, job)) for (host, _), job in jobs.items() if host != 3]
    lab("boot", 3)
    seen: list[dict[str, Any]] = [
        json.loads(lab.python("exec", host, worker, "check /mnt/shared/team /mnt/lab/acks", f"check{host}"))
        for host in _HOSTS
    ]

    done = sum(sum(one["done"].values()) for one in said)
    print(
        f"\n{request.node.name}: {done} actions by hosts 1 and 2, {seen[0]['operations']} operations in the journal,"
        f" 1 host frozen, 1 killed; {sum(one['stale'] for one in said)} acknowledged and not seen at once,"
        f" {sum(len(one['missing']) for one in seen)} lost, {sum(one['doubled'] for one in seen)} doubled"
    )
    assert done > 50
    assert [one["errors"] for one in said] == [[]] * len(said)
    assert [one["stale"] for one in said] == [0] * len(said)
    for one in seen:
        assert (one["missing"], one["doubled"], one["errors"], one["damaged"]) == ([], 0, [], [])
    assert len({one["state"] for one in seen}) == 1

"""Hosts and processes that work on one registry at once, one of which is killed, and what must be true afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from modelstore.registry import Registry
from modelstore.testing.proxy import FaultyProxy

_WORKER = Path(__file__).parent.parent / "nfs" / "worker.py"


def team_at_work(uri: str, tmp_path: Path, proxy: FaultyProxy, seconds: float) -> None:
    """Three hosts of two processes each, one of them killed; then all must agree, and nothing acknowledged be lost."""
    acks = tmp_path / "acks"
    acks.mkdir()

    def run(what: str, name: str, *rest: str) -> subprocess.Popen[str]:
        own = {"MODELSTORE_INDEX": str(tmp_path / name[0] / "index"), "MODELSTORE_CACHE": str(tmp_path / name[0] / "c")}
        command = [sys.executable, str(_WORKER), what, uri, str(acks), name, *rest]
        return subprocess.Popen(command, env=os.environ | own, stdout=subprocess.PIPE, text=True)

    with Registry(uri, cache=tmp_path / "cache"):
        pass
    proxy.rate = 0.05
    workers = [run("work", f"{host}{number}", str(seconds)) for host in "abc" for number in (1, 2)]
    time.sleep(seconds * 0.6)
    workers[0].send_signal(signal.SIGKILL)
    outputs = [worker.communicate(timeout=250)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [-signal.SIGKILL, *[0] * 5]
    proxy.rate = 0.0
    checks = [json.loads(run("check", f"{host}9").communicate(timeout=250)[0]) for host in "abcd"]
    done = [json.loads(output) for output in outputs[1:]]
    actions = sum(sum(one["done"].values()) for one in done)
    print(f"\n{actions} actions, {checks[0]['operations']} operations, faults {dict(proxy.faults)}")
    assert [check["missing"] for check in checks] == [[]] * 4
    assert [check["doubled"] for check in checks] == [0] * 4
    assert len({check["state"] for check in checks}) == 1
    assert [check["errors"] for check in checks] == [[]] * 4
    assert actions > 10
    assert sum(proxy.faults.values()) > 0

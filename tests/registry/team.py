"""Hosts and processes that work on one registry at once, one of which is killed, and what must be true afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from modelstore.testing.proxy import FaultyProxy

_WORKER = Path(__file__).parent.parent / "nfs" / "worker.py"


def team_at_work(
    uri: str, folder: Path, hosts: str, disturb: Callable[[], object], seconds: float, calm: Callable[[], object]
) -> int:
    """Have two processes of each host work, kill the first; all must agree then, and nothing acknowledged be lost.

    Args:
        uri: Of a registry that is there.
        folder: For what the hosts have of their own.
        hosts: Their names, a letter each.
        disturb: Called while they work; takes most of the time.
        seconds: How long they work.
        calm: Called when they have ended, before anybody looks.

    Returns:
        How many operations there are in the end.
    """
    acks = folder / "acks"
    acks.mkdir()

    def run(what: str, name: str, *rest: str) -> subprocess.Popen[str]:
        own = {"MODELSTORE_INDEX": str(folder / name[0] / "index"), "MODELSTORE_CACHE": str(folder / name[0] / "c")}
        command = [sys.executable, str(_WORKER), what, uri, str(acks), name, *rest]
        return subprocess.Popen(command, env=os.environ | own, stdout=subprocess.PIPE, text=True)

    workers = [run("work", f"{host}{number}", str(seconds)) for host in hosts for number in (1, 2)]
    disturb()
    workers[0].send_signal(signal.SIGKILL)
    outputs = [worker.communicate(timeout=250)[0] for worker in workers]
    calm()
    assert [worker.returncode for worker in workers[1:]] == [0] * (len(workers) - 1)
    checks = [json.loads(run("check", f"{host}9").communicate(timeout=250)[0]) for host in f"{hosts}z"]
    actions = sum(sum(json.loads(output)["done"].values()) for output in outputs[1:])
    print(f"\n{actions} actions, {checks[0]['operations']} operations")
    assert [check["missing"] for check in checks] == [[]] * len(checks)
    assert [check["doubled"] for check in checks] == [0] * len(checks)
    assert len({check["state"] for check in checks}) == 1
    assert [check["errors"] for check in checks] == [[]] * len(checks)
    assert actions > 10
    return int(checks[0]["operations"])


def team_behind_a_bad_network(uri: str, folder: Path, proxy: FaultyProxy, seconds: float) -> None:
    """Three hosts at work while one request in twenty is refused, or answered late, or not at all."""
    proxy.rate = 0.05
    team_at_work(uri, folder, "abc", lambda: time.sleep(seconds * 0.6), seconds, lambda: setattr(proxy, "rate", 0.0))
    print(f"faults {dict(proxy.faults)}")
    assert sum(proxy.faults.values()) > 0

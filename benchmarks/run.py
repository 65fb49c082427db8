"""Measure modelstore, its peers and the machine's limits in one run.

make bench-peers            install the peers, once
make bench                  everything; results go to benchmarks/results/
make bench ARGS="--only import,register-small"   some jobs, nothing saved
make bench ARGS="--quick"   a few turns: shows that it runs, measures nothing, saves nothing
make bench ARGS="--scratch /mnt/xfs"   on another filesystem
make bench ARGS="--suite transfer --mib 1024 --real-time"   on a shared machine: whatever else runs there waits
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import cache, foundation, query, reports, server, transfer
from benchmarks.arena import PEERS, Arena, Outcome
from benchmarks.machine import describe
from benchmarks.measure import ROOT, ContenderFailedError
from benchmarks.report import as_markdown, save

QUIET = 2.0
SUITES = {
    "foundation": foundation.JOBS,
    "cache": cache.JOBS,
    "transfer": transfer.JOBS,
    "query": query.JOBS,
    "bulk": query.BULK_JOBS,
    "reports": reports.JOBS,
    "server": server.JOBS,
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=SUITES, default="foundation")
    parser.add_argument("--only", help="jobs, separated by commas")
    parser.add_argument("--peers", default=",".join(PEERS), help="peers to compare with, separated by commas")
    parser.add_argument("--quick", action="store_true", help="a few turns, small sizes, nothing saved")
    parser.add_argument("--mib", type=int, default=256, help="size of what is transferred")
    parser.add_argument("--real-time", action="store_true", help="keep others off the processors (needs root)")
    parser.add_argument("--scratch", type=Path, default=ROOT / "benchmarks" / "out", help="filesystem to measure on")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    return parser.parse_args()


def main() -> int:
    """Run what was asked for; 1 when a promise was missed or a job did not run."""
    arguments = _arguments()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    jobs = SUITES[arguments.suite]
    wanted = arguments.only.split(",") if arguments.only else list(jobs)
    unknown = [name for name in wanted if name not in jobs]
    if unknown:
        print(f"no such job: {', '.join(unknown)}; there are {', '.join(jobs)}", file=sys.stderr)
        return 2
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    if arguments.real_time:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))  # inherited by every contender
    outcomes: list[Outcome] = []
    failed = False
    with tempfile.TemporaryDirectory(dir=arguments.scratch, ignore_cleanup_errors=True) as scratch:
        arena = Arena(Path(scratch), quick=arguments.quick, peers=arguments.peers.split(","), mib=arguments.mib)
        machine = {"date": dt.datetime.now(tz=dt.UTC).date().isoformat()} | describe(Path(scratch), arena.peers)
        for name in wanted:
            begin, load = time.perf_counter(), os.getloadavg()[0]
            print(f"{name} ", end="", file=sys.stderr, flush=True)
            try:
                outcome = jobs[name](arena)
                after = os.getloadavg()[0]
                outcome.notes.append(f"Load of the machine: {load:.2f} before, {after:.2f} after.")
                # Contenders take turns, so a job alone makes a load of one, and of less than two with its threads.
                if arguments.real_time:
                    outcome.notes.append("Measured at real-time priority: others on the machine waited.")
                elif max(load, after) > QUIET:
                    outcome.notes.append("**Disturbed**: others were using the machine; only the ratios mean anything.")
                outcomes.append(outcome)
            except ContenderFailedError as error:
                print(f"\n{name}: {error}", file=sys.stderr)
                failed = True
            print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    machine["load_after"] = round(os.getloadavg()[0], 2)
    print(as_markdown(arguments.suite, machine, outcomes))
    # A part must not replace the page of the whole.
    if not arguments.quick and not arguments.only:
        for path in save(arguments.results, arguments.suite, machine, outcomes):
            print(f"saved {path}", file=sys.stderr)
    missed = any(bar.kept is False for outcome in outcomes for bar in outcome.bars)
    return 1 if failed or missed else 0


if __name__ == "__main__":
    sys.exit(main())

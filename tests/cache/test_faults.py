"""The fault kit itself: it strikes where and when it was told, and nowhere else."""

from __future__ import annotations

import errno
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from modelstore.testing import faults

Spawn = Callable[..., "subprocess.Popen[str]"]


def _steps(*names: str) -> None:
    for name in names:
        sys.audit(faults.EVENT, name)


def test_a_fault_strikes_at_its_step_and_passage_only() -> None:
    """The second passage of one step is another place than the first."""
    with faults.inject("a.2", OSError(errno.EIO, "broken"), occurrence=2):
        _steps("a.1", "a.2", "a.3")
        with pytest.raises(OSError, match="broken"):
            _steps("a.2")
        _steps("a.2")
    _steps("a.2", "a.2")


def test_a_pattern_stands_for_many_steps() -> None:
    """And occurrence 0 for every passage."""
    with faults.inject("b.*", ValueError("no"), occurrence=0):
        _steps("a.1")
        for _ in range(2):
            with pytest.raises(ValueError, match="no"):
                _steps("b.7")


def test_steps_can_be_counted() -> None:
    """To see that a test reaches what it wants to break."""
    with faults.trace() as passed:
        _steps("a.1", "a.1", "b.1")
    _steps("a.1")

    assert passed == {"a.1": 2, "b.1": 1}


def test_a_plan_is_read_from_text() -> None:
    """So that it can be given to a child by an environment variable."""
    sleep, fail = faults.parse("a.1=sleep:0.05; b.*#3=enospc;")
    begin = time.monotonic()
    sleep.action()

    assert time.monotonic() - begin >= 0.05
    assert (fail.pattern, fail.occurrence) == ("b.*", 3)
    with pytest.raises(OSError, match="No space") as caught:
        fail.action()
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("plan", ["a.1", "a.1=explode", "a.1#x=kill", "a.1=sleep:long"])
def test_a_malformed_plan_is_refused(plan: str) -> None:
    """A typing error must not turn a crash test into one that tests nothing."""
    with pytest.raises(ValueError):
        faults.parse(plan)


def test_a_child_follows_the_plan_of_its_environment(spawn: Spawn) -> None:
    """That is how processes are killed at a step."""
    child = spawn("import sys\nsys.audit('modelstore.step', 'x.1')\nprint('survived')", plan="x.1=kill")
    out, _ = child.communicate(timeout=30)

    assert (child.returncode, out) == (-9, "")

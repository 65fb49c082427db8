"""One look serves all who asked before it began; nobody gets what is older than his question."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from modelstore.journal.looks import Looks, ProcessLock


def test_who_asks_during_a_look_waits_for_the_next_which_serves_all_of_them() -> None:
    looks: Looks[int] = Looks(ProcessLock())
    began, may_end = threading.Event(), threading.Event()
    made: list[int] = []

    def look() -> int:
        made.append(len(made) + 1)
        number = made[-1]
        if number == 1:
            began.set()
            may_end.wait(30)
        return number

    asked = threading.Barrier(21)

    def ask() -> int:
        asked.wait(30)
        return looks.share(look)

    with ThreadPoolExecutor(21) as pool:
        first = pool.submit(looks.share, look)
        began.wait(30)
        others = [pool.submit(ask) for _ in range(20)]
        asked.wait(30)
        while repr(looks._numbers) != "count(23)":  # the first has taken two, each of the others one
            time.sleep(0.001)
        may_end.set()
        assert first.result(30) == 1
        assert {other.result(30) for other in others} == {2}
    assert made == [1, 2]
    assert looks.share(look) == 3


def test_nobody_gets_what_is_older_than_his_question() -> None:
    """Whatever was written before a thread asks, it finds."""
    looks: Looks[int] = Looks(ProcessLock())
    written = 0

    def write_and_ask(_: int) -> bool:
        nonlocal written
        with lock:
            written += 1
            mine = written
        return looks.share(lambda: written) >= mine

    lock = threading.Lock()
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(write_and_ask, range(4000)))


def test_a_look_that_fails_fails_for_him_who_looked() -> None:
    looks: Looks[int] = Looks(ProcessLock())

    def fail() -> int:
        raise OSError("no answer")

    with pytest.raises(OSError, match="no answer"):
        looks.share(fail)
    assert looks.share(lambda: 7) == 7


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_that_is_forked_during_a_look_looks_for_itself() -> None:
    looks: Looks[int] = Looks(ProcessLock())
    began, may_end = threading.Event(), threading.Event()

    def slow() -> int:
        began.set()
        may_end.wait(30)
        return 1

    thread = threading.Thread(target=looks.share, args=(slow,))
    thread.start()
    began.wait(30)
    child = os.fork()
    if child == 0:
        os._exit(looks.share(lambda: 5))
    may_end.set()
    thread.join(30)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5

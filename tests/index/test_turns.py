"""Threads of one process write in the order in which they asked."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from modelstore.index import turns as turns_module
from modelstore.index.turns import Turns
from modelstore.registry import Registry


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """An empty registry."""
    with Registry(tmp_path / "registry") as opened:
        yield opened


def test_turns_come_in_the_order_of_asking() -> None:
    """`threading.Lock` lets the one that is awake go first, again and again."""
    turns, order = Turns(), list[int]()
    threads = []
    with turns.mine():
        for number in range(5):
            thread = threading.Thread(target=lambda n=number: _note(turns, order, n))
            thread.start()
            threads.append(thread)
            while len(turns._waiting) <= number:
                time.sleep(0.001)
    for thread in threads:
        thread.join(60)

    assert order == [0, 1, 2, 3, 4]


def _note(turns: Turns, order: list[int], number: int) -> None:
    with turns.mine():
        order.append(number)


def test_no_two_have_their_turn_at_once() -> None:
    """A lock first of all."""
    turns, inside, most = Turns(), list[int](), list[int]()

    def work() -> None:
        for _ in range(200):
            with turns.mine():
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert max(most) == 1
    assert len(most) == 800


def test_one_that_is_interrupted_while_it_waits_holds_nobody_up() -> None:
    """Ctrl-C in a waiting thread must not lock the registry for the others."""
    turns = Turns()
    stopped = threading.Event()

    def wait() -> None:
        try:
            with turns.mine():
                pass
        except KeyboardInterrupt:
            stopped.set()

    with turns.mine():
        thread = threading.Thread(target=wait)
        thread.start()
        while not turns._waiting:
            time.sleep(0.001)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident or 0), ctypes.py_object(KeyboardInterrupt)
        )
    thread.join(60)

    assert not thread.is_alive()
    assert stopped.is_set()
    with turns.mine():
        pass
    assert not turns.taken


def test_one_that_is_interrupted_while_it_passes_its_turn_on_passes_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """It pauses there for the sake of other processes: the likeliest moment of all for ctrl-C."""
    turns, order = Turns(), list[int]()

    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(turns_module, "time", SimpleNamespace(sleep=interrupted, monotonic=time.monotonic))
    threads = [threading.Thread(target=_note, args=(turns, order, n), daemon=True) for n in range(2)]
    with pytest.raises(KeyboardInterrupt), turns.mine():
        for thread in threads:
            thread.start()
        while len(turns._waiting) < 2:
            time.sleep(0.001)
        turns._since -= 1
    monkeypatch.setattr(turns_module, "time", time)
    for thread in threads:
        thread.join(60)

    assert sorted(order) == [0, 1]
    assert not turns.taken
    assert not turns._waiting


def test_a_thread_that_writes_all_the_time_lets_others_write(registry: Registry) -> None:
    """A training loop that annotates its model must not starve an upload that wants to finish."""
    made = registry.models.create(name="n")
    together, counts = threading.Barrier(4), dict.fromkeys(range(4), 0)

    def work(name: int) -> None:
        together.wait(60)
        while max(counts.values()) < 200:
            registry.models.edit(made.id, comment=f"{name} {counts[name]}")
            counts[name] += 1

    threads = [threading.Thread(target=work, args=(name,)) for name in counts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert min(counts.values()) >= 50


def test_the_generation_grows_with_every_write_that_ends(registry: Registry) -> None:
    """Objects compare it with that of their last reading; one that were lost would leave them stale."""
    before = registry.version
    made = registry.models.create(name="n")
    middle = registry.version
    with pytest.raises(ZeroDivisionError), registry.transaction():
        registry.models.edit(made.id, name="x")
        raise ZeroDivisionError

    assert before < middle < registry.version
    assert registry.models.get(made.id).name == "n"


def test_a_thread_that_is_gone_leaves_no_connection(registry: Registry) -> None:
    """Each upload has a thread of its own; thousands of them must not use up the file descriptors."""
    made = registry.models.create(name="n")
    before = len(registry.database._connections)
    for number in range(20):
        thread = threading.Thread(target=lambda n=number: registry.models.edit(made.id, comment=str(n)))
        thread.start()
        thread.join(60)

    assert len(registry.database._connections) == before
    assert registry.models.get(made.id).comment == "19"


def test_a_fork_among_threads_leaves_the_parents_locks_alone(registry: Registry, tmp_path: Path) -> None:
    """Closing a file in the child would drop the locks that the parent holds on it."""
    made = registry.models.create(name="n")
    ready, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with registry.transaction():
            registry.models.edit(made.id, comment="held")
            ready.set()
            assert leave.wait(100)

    thread = threading.Thread(target=hold)
    thread.start()
    assert ready.wait(60)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            gc.collect()
            registry.database.one("SELECT 1")
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    elsewhere = sqlite3.connect(registry.folder / "registry.db", timeout=0.2, isolation_level=None)

    assert os.waitstatus_to_exitcode(status) == 0
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        elsewhere.execute("BEGIN IMMEDIATE")
    elsewhere.close()
    leave.set()
    thread.join(60)
    assert registry.models.get(made.id).comment == "held"


def test_a_child_forked_while_other_threads_use_sqlite_can_use_it(registry: Registry) -> None:
    """SQLite's own locks belong to the process: a child that inherits one that is held would wait for ever."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            with sqlite_of(registry) as connection:
                connection.execute("SELECT count(*) FROM ops").fetchone()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    codes = []
    try:
        for _ in range(40):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    signal.alarm(60)
                    registry.database.one("SELECT count(*) FROM ops")
                    status = 0
                finally:
                    os._exit(status)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)

    assert codes == [0] * 40


@contextmanager
def sqlite_of(registry: Registry) -> Iterator[sqlite3.Connection]:
    """A connection that is opened and closed again, as each upload's thread does."""
    connection = registry.database.connect_read_only()
    try:
        yield connection
    finally:
        connection.close()


def test_threads_that_write_all_the_time_let_other_processes_write(registry: Registry) -> None:
    """SQLite looks only now and then whether the lock is free: threads that hand it on at once would keep them out."""
    made = registry.models.create(name="n")
    stop = threading.Event()

    def work(name: int) -> None:
        while not stop.is_set():
            registry.models.edit(made.id, comment=f"{name} {time.monotonic_ns()}")

    threads = [threading.Thread(target=work, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    code = f"""
from modelstore.index import database
database.BUSY_TIMEOUT_S = 60
from modelstore.registry import Registry
with Registry({str(registry.folder)!r}) as registry:
    for number in range(3):
        registry.models.create(name=f"other {{number}}")
"""
    try:
        children = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
        codes = [child.wait(100) for child in children]
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)

    assert codes == [0, 0]
    assert len(registry.database.all("SELECT 1 FROM models")) == 7

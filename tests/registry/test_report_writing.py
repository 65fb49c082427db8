"""What was reported is written once: whatever becomes of the process, and however many there are."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelstore import Model
from modelstore import open as open_registry
from modelstore.errors import ReadOnlyRegistryError, RegistryError, StorageFullError
from modelstore.index.contents import check_copies, read_index
from modelstore.sdk._context import Registry
from modelstore.testing.reference import fold
from tests.permissions import obeying_permissions
from tests.registry.test_crashes import Template, check_whole, every_step

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """A registry of its own."""
    with open_registry(tmp_path / "registry", cache=tmp_path / "cache") as opened:
        yield opened


@pytest.fixture
def model(registry: Registry) -> str:
    """A model to report to."""
    return registry.models.create(name="net").id


def report(registry: Registry, model: str, values: range, series: str = "s") -> None:
    for value in values:
        registry.reports.scalar("model", model, "t", series, float(value), value)


def read(folder: Path | Registry, model: str, series: str = "s") -> list[int]:
    """Return the iterations that are there, after seeing that the registry is whole."""
    if isinstance(folder, Path):
        with open_registry(folder) as registry:
            return read(registry, model, series)
    check_copies(folder.database.connection)
    found = Model(model).get_reported_scalars().get("t", {})
    return list(found[series]["x"]) if series in found else []


def journal(registry: Registry) -> int:
    """Return how many reports are in the journal."""
    row = registry.database.one("SELECT count(*) FROM ops WHERE action = 'report'")
    return 0 if row is None else int(row[0])


def test_reports_are_written_by_themselves(registry: Registry, model: str) -> None:
    """Nobody has to flush; and a second's reports are one operation."""
    report(registry, model, range(100))
    deadline = time.monotonic() + 60
    while not journal(registry) and time.monotonic() < deadline:
        time.sleep(0.05)

    assert read(registry, model) == list(range(100))
    assert 1 <= journal(registry) <= 2  # two, if the second was over in their middle
    assert [f for f in registry.check(deep=True) if f.severity != "note"] == []
    before = read_index(registry.database.connection)
    registry.rebuild()
    assert read_index(registry.database.connection) == before == fold(o for _, o in registry.operations())


def test_many_points_are_written_before_they_fill_the_memory(registry: Registry, model: str) -> None:
    """Whoever brings the point too many writes."""
    report(registry, model, range(120_000))
    in_memory = registry.reports._buffer.count

    assert in_memory < 50_000
    assert read(registry, model) == list(range(120_000))
    assert journal(registry) >= 3


def test_threads_lose_and_double_nothing(registry: Registry, model: str) -> None:
    """Data loaders and callbacks report from where they are."""
    threads = [threading.Thread(target=report, args=(registry, model, range(3000), f"s{n}")) for n in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        registry.reports.flush()
    for thread in threads:
        thread.join()

    assert all(read(registry, model, f"s{n}") == list(range(3000)) for n in range(4))


def test_a_killed_process_leaves_whole_blocks(tmp_path: Path) -> None:
    """What was seen in the registry stays; of the rest there is a beginning, without gaps."""
    folder = tmp_path / "registry"
    with open_registry(folder) as registry:
        model = registry.models.create(name="net").id
    child = os.fork()
    if child == 0:
        with open_registry(folder) as registry:
            value = 0
            while True:
                report(registry, model, range(value, value + 10))
                value += 10
                time.sleep(0.001)
    try:
        seen: list[int] = []
        deadline = time.monotonic() + 60
        while len(seen) < 50 and time.monotonic() < deadline:
            time.sleep(0.05)
            seen = read(folder, model)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    after = read(folder, model)

    assert len(seen) >= 50
    assert after == list(range(len(after)))
    assert len(after) >= len(seen)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return Template(tmp_path_factory.mktemp("crash") / "registry")


def test_writing_reports_is_all_or_nothing(template: Template, tmp_path: Path) -> None:
    """Killed at each of its steps: the points and the plot of a flush are there, or none of them."""

    def action(registry: Registry) -> None:
        report(registry, template.model_id, range(5))
        registry.reports.single_value("task", template.task_id, "best", 1.0)
        registry.reports.flush()

    def look(registry: Registry) -> str:
        points = [s.points for s in registry.reports.series(template.model_id)]
        return f"{points} {len(registry.reports.series(template.task_id))}"

    seen = every_step(template, tmp_path, action, look)
    assert set(seen) == {"[] 0", "[5] 1"}
    assert seen == sorted(seen, key=["[] 0", "[5] 1"].index)


SCRIPT = """
import sys
from modelstore import OutputModel, Task
task = Task.init(project_name="p", task_name="t")
model = OutputModel(task, name="net")
for i in range(10):
    model.report_scalar("t", "s", i, i)
print(model.id, flush=True)
"""


@pytest.mark.parametrize("end", ["", "raise ValueError", "task.close()"])
def test_the_end_of_a_process_writes_what_it_reported(end: str) -> None:
    """Nobody has to close anything."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT) + end], capture_output=True, text=True, check=False
    )
    folder = Path(os.environ["MODELSTORE_REGISTRY"])

    assert read(folder, done.stdout.strip()) == list(range(10)), done.stderr


def test_a_forked_child_writes_its_own_and_not_its_parents(registry: Registry, model: str) -> None:
    """What the parent had not written yet is written once, and the child sees it."""
    report(registry, model, range(10))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if read(registry, model) == list(range(10)) else 2
            report(registry, model, range(10, 20))
            registry.reports.flush()
        finally:
            os._exit(status)
    report(registry, model, range(20, 30))
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert read(registry, model) == list(range(30))


def test_a_child_of_multiprocessing_writes_at_its_end(registry: Registry, model: str) -> None:
    """It leaves without what atexit registered."""
    context = multiprocessing.get_context("fork")
    children = [
        context.Process(target=report, args=(registry, model, range(n * 10, n * 10 + 10)), daemon=True)
        for n in range(3)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(60)

    assert [child.exitcode for child in children] == [0, 0, 0]
    assert read(registry, model) == list(range(30))


def test_a_rollback_takes_no_reports_with_it(registry: Registry, model: str) -> None:
    """They happened, whatever became of the transaction around them."""
    with pytest.raises(ZeroDivisionError), registry.transaction():
        registry.models.edit(model, name="other")
        report(registry, model, range(5))
        registry.reports.flush()
        raise ZeroDivisionError

    assert read(registry, model) == list(range(5))
    assert registry.models.get(model).name == "net"


def test_what_cannot_be_written_is_kept_and_written_later(registry: Registry, model: str) -> None:
    """A full disk costs nothing but memory while it lasts."""
    connection = registry.database.connection
    report(registry, model, range(3000))
    connection.execute("PRAGMA max_page_count = 1")
    with pytest.raises(StorageFullError):
        registry.reports.flush()
    report(registry, model, range(3000, 3010))
    connection.execute("PRAGMA max_page_count = 1000000000")

    assert read(registry, model) == list(range(3010))


def test_what_was_written_is_not_written_again_after_an_interruption(registry: Registry, model: str) -> None:
    """Ctrl-C may come between the commit and the note that it happened."""
    report(registry, model, range(5))
    interrupted = registry.reports._buffer
    registry.reports.flush()
    registry.reports._staged = interrupted  # as if the note had not been made
    report(registry, model, range(5, 8))
    registry.reports.flush()

    assert read(registry, model) == list(range(8))
    assert journal(registry) == 2


def test_a_closed_registry_takes_no_reports(tmp_path: Path) -> None:
    """Rather than hold them until nobody can write them."""
    registry = open_registry(tmp_path / "r")
    model = registry.models.create(name="net").id
    report(registry, model, range(3))
    registry.close()

    with pytest.raises(RegistryError, match="closed"):
        report(registry, model, range(3, 4))
    assert read(tmp_path / "r", model) == [0, 1, 2]


def test_registries_that_meet_have_each_point_once(registry: Registry, model: str, tmp_path: Path) -> None:
    """Twice the same journal, in any order."""
    with open_registry(tmp_path / "other") as other:
        other.ingest([operation for _, operation in registry.operations()])
        report(registry, model, range(0, 10, 2))
        report(other, model, range(1, 10, 2))
        registry.reports.flush()
        other.reports.flush()
        for _ in range(2):
            registry.ingest([operation for _, operation in other.operations()])
            other.ingest([operation for _, operation in registry.operations()])
        check_whole(registry)

        assert read_index(registry.database.connection) == read_index(other.database.connection)
        assert [s.points for s in other.reports.series(model)] == [10]


def test_a_registry_that_cannot_be_written_says_so_at_the_first_report(registry: Registry, model: str) -> None:
    """Not at exit."""
    registry.close()
    for path in (registry.folder, registry.database.path):
        path.chmod(path.stat().st_mode & ~0o222)

    def try_it() -> None:
        with open_registry(registry.folder) as reader, pytest.raises(ReadOnlyRegistryError):
            report(reader, model, range(1))

    try:
        obeying_permissions(try_it)
    finally:
        registry.folder.chmod(0o755)

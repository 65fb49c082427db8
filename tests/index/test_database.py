"""Opening the database: by many at once, of other versions, damaged, read-only."""

from __future__ import annotations

import importlib
import itertools
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import modelstore.index.database as database_module
import modelstore.index.driver as driver_module
import modelstore.index.schema as schema_module
from modelstore import OutputModel, Task
from modelstore import open as open_registry
from modelstore.errors import (
    CorruptRegistryError,
    NewerRegistryError,
    ReadOnlyRegistryError,
    RegistryError,
    RegistryNotFoundError,
    StorageFullError,
)
from modelstore.index.database import Database
from modelstore.index.schema import SCHEMA_VERSION
from tests.effort import in_turn

EIGHT_WRITERS = """
import sys
import modelstore
from modelstore import OutputModel, Task
folder, weights, number = sys.argv[1:]
sys.stdin.readline()
with modelstore.open(folder, cache=folder + "-cache"):
    task = Task.create(project_name="race", task_name=f"writer {number}")
    for i in range(25):
        model = OutputModel(task, name=f"{number}/{i}", tags=["race", f"writer{number}"])
        model.update_weights(weights)
"""


def test_eight_processes_open_one_new_registry_and_register_25_models_each(tmp_path: Path) -> None:
    """The obvious ways lose writes or fail here: deferred transactions, concurrent creation."""
    weights = tmp_path / "w.bin"
    weights.write_bytes(b"x" * 1024)
    folder = tmp_path / "registry"
    command = [sys.executable, "-c", EIGHT_WRITERS, str(folder), str(weights)]
    processes = [
        subprocess.Popen([*command, str(n)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for n in range(8)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    errors = [process.communicate()[1] for process in processes]

    assert errors == [""] * 8
    with open_registry(folder) as registry:
        names = {row[0] for row in registry.database.all("SELECT name FROM models WHERE state = 0")}
        stamps = registry.database.all("SELECT count(*), count(DISTINCT stamp) FROM ops")[0]
        assert names == {f"{n}/{i}" for n in range(8) for i in range(25)}
        assert stamps[0] == stamps[1]
        assert [f for f in registry.check(deep=True) if f.severity != "note"] == []


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """Never guess what a later version means by its columns."""
    open_registry(tmp_path / "r").close()
    connection = sqlite3.connect(tmp_path / "r" / "registry.db")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()

    with pytest.raises(NewerRegistryError, match=r"format .*[Uu]pgrade"):
        open_registry(tmp_path / "r")


def test_a_newer_kind_of_folder_is_refused(tmp_path: Path) -> None:
    """The folder's format file decides which kind it is."""
    open_registry(tmp_path / "r").close()
    (tmp_path / "r" / "modelstore.json").write_text('{"format": 1, "kind": "served", "id": "x"}')

    with pytest.raises(NewerRegistryError, match="served"):
        open_registry(tmp_path / "r")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "x"}'])
def test_a_damaged_format_file_is_reported(tmp_path: Path, text: str) -> None:
    """A half-written file must not look like a new registry."""
    open_registry(tmp_path / "r").close()
    (tmp_path / "r" / "modelstore.json").write_text(text)

    with pytest.raises(CorruptRegistryError, match=r"modelstore\.json"):
        open_registry(tmp_path / "r")


def test_a_damaged_database_is_reported(tmp_path: Path) -> None:
    """Garbage is neither opened nor overwritten."""
    open_registry(tmp_path / "r").close()
    path = tmp_path / "r" / "registry.db"
    for leftover in path.parent.glob("registry.db-*"):
        leftover.unlink()
    path.write_bytes(b"garbage" * 1000)

    with pytest.raises(CorruptRegistryError, match=r"damaged"):
        open_registry(tmp_path / "r")
    assert path.read_bytes() == b"garbage" * 1000


@pytest.mark.parametrize("left", [None, b""])
def test_a_lost_database_is_no_new_registry(tmp_path: Path, left: bytes | None) -> None:
    """To an empty one, every stored file would be garbage, and `gc` would delete it."""
    weights = tmp_path / "net.bin"
    weights.write_bytes(b"weights")
    with open_registry(tmp_path / "r", cache=tmp_path / "cache"):
        OutputModel(Task.create(task_name="t"), name="m").update_weights(weights)
    path = tmp_path / "r" / "registry.db"
    path.unlink()
    if left is not None:
        path.write_bytes(left)

    with pytest.raises(CorruptRegistryError, match="modelstore recover"):
        open_registry(tmp_path / "r")
    assert path.exists() == (left is not None)


def test_a_registry_whose_making_was_cut_off_is_made(tmp_path: Path) -> None:
    """Its format file is there, and nothing is stored yet."""
    open_registry(tmp_path / "r").close()
    (tmp_path / "r" / "registry.db").unlink()

    open_registry(tmp_path / "r").close()


def test_a_foreign_database_is_left_alone(tmp_path: Path) -> None:
    """Somebody's own SQLite file is not turned into a registry."""
    (tmp_path / "r").mkdir()
    connection = sqlite3.connect(tmp_path / "r" / "registry.db")
    connection.execute("CREATE TABLE mine (x)")
    connection.close()

    with pytest.raises(CorruptRegistryError, match="no modelstore registry"):
        open_registry(tmp_path / "r")


def test_opening_without_creating_says_that_there_is_none(tmp_path: Path) -> None:
    """A wrong path is not to become an empty registry."""
    with pytest.raises(RegistryNotFoundError):
        open_registry(tmp_path / "r", create=False)
    assert not (tmp_path / "r").exists()


@pytest.fixture
def next_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """The schema of a release to come: one more migration."""
    real = schema_module.migrations

    def migrations() -> object:
        steps = real()

        @steps()
        def m999_a_new_column(db: object) -> None:
            db.execute("ALTER TABLE models ADD COLUMN novelty TEXT")  # type: ignore[attr-defined]

        return steps

    monkeypatch.setattr(schema_module, "migrations", migrations)
    monkeypatch.setattr(database_module, "SCHEMA_VERSION", SCHEMA_VERSION + 1)


def test_migrating_keeps_a_copy_of_what_was(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Upgrading must be possible to take back, and happen once however many open the file."""
    Database(tmp_path / "registry.db", tmp_path / "backups").close()
    request.getfixturevalue("next_version")

    upgraded = Database(tmp_path / "registry.db", tmp_path / "backups")
    again = Database(tmp_path / "registry.db", tmp_path / "backups")

    (backup,) = (tmp_path / "backups").iterdir()
    columns = "SELECT count(*) FROM pragma_table_info('models') WHERE name = 'novelty'"
    assert upgraded.all(columns)[0][0] == again.all(columns)[0][0] == 1
    kept = sqlite3.connect(backup)
    assert kept.execute(columns).fetchone()[0] == 0
    assert kept.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION
    kept.close()


@pytest.mark.timeout(600)  # a process for each statement
@pytest.mark.usefixtures("next_version")
@pytest.mark.parametrize("existing", [False, True])
def test_a_killed_migration_leaves_the_old_version_or_the_new(
    tmp_path: Path, existing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at each statement and file operation in turn, the file always opens afterwards."""
    versions = set()
    killed = True
    former = tmp_path / "former"
    former.mkdir()
    if existing:
        with monkeypatch.context() as then:
            then.setattr(database_module, "SCHEMA_VERSION", SCHEMA_VERSION)
            then.setattr(schema_module, "migrations", ORIGINAL_MIGRATIONS)
            Database(former / "registry.db", former / "backups").close()
    for step in itertools.takewhile(lambda number: number < 300, in_turn(3)):
        folder = tmp_path / f"{step}"
        shutil.copytree(former, folder)
        killed = _migrate_and_die(folder, step)
        connection = sqlite3.connect(folder / "registry.db")
        versions.add(connection.execute("PRAGMA user_version").fetchone()[0])
        connection.close()
        Database(folder / "registry.db", folder / "backups").close()
        if not killed:
            break

    assert not killed
    assert versions == {SCHEMA_VERSION if existing else 0, SCHEMA_VERSION + 1}


ORIGINAL_MIGRATIONS = schema_module.migrations


def _migrate_and_die(folder: Path, step: int) -> bool:
    child = os.fork()
    if child == 0:
        count = 0

        def tick(*_: object) -> None:
            nonlocal count
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

        driver = vars(database_module)["sqlite3"]
        connect = driver.connect

        def traced(*args: object, **kwargs: object) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(*args, **kwargs)
            connection.set_trace_callback(tick)
            return connection

        driver.connect = traced
        Database(folder / "registry.db", folder / "backups")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def read_only(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become somebody without rights")
def test_a_read_only_registry_can_be_read_and_says_so_when_written(tmp_path: Path) -> None:
    """A registry on somebody else's account or a mounted image."""
    weights = tmp_path / "w.bin"
    weights.write_bytes(b"x")
    folder = tmp_path / "registry"
    with open_registry(folder) as registry:
        registry.models.create(name="kept", tags=["a"])
    read_only(folder)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == 0 and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    tmp_path.chmod(0o755)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            registry = open_registry(folder, cache=tmp_path / "cache")
            assert [r["name"] for r in registry.database.all("SELECT name FROM models")] == ["kept"]
            with pytest.raises(ReadOnlyRegistryError, match="read-only"):
                registry.models.create(name="more")
            with pytest.raises(ReadOnlyRegistryError):
                open_registry(folder / "inside")
            status = 0
        finally:
            os._exit(status)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_forked_child_has_a_connection_of_its_own(tmp_path: Path) -> None:
    """SQLite connections do not survive a fork; DataLoader workers fork all the time."""
    registry = open_registry(tmp_path / "r")
    registry.models.create(name="parent")
    children = []
    for n in range(4):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                registry.models.create(name=f"child {n}")
                status = 0
            finally:
                os._exit(status)
        children.append(child)

    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    assert len(registry.database.all("SELECT 1 FROM models")) == 5
    assert [f for f in registry.check(deep=True) if f.severity != "note"] == []
    registry.close()


def test_two_threads_that_fork_at_once_let_go_of_their_own_locks_only() -> None:
    """The second gives up waiting for the first, and goes on: neither may take the other's locks, nor lose one."""
    connection = driver_module.connect(":memory:", check_same_thread=False)
    first_is_in, second_is_out = threading.Event(), threading.Event()

    def first() -> None:
        driver_module._before_fork()
        first_is_in.set()
        second_is_out.wait(30)
        driver_module._after_fork()

    def second() -> None:
        first_is_in.wait(30)
        driver_module._before_fork()
        driver_module._after_fork()

    with ThreadPoolExecutor(2) as pool:
        forks = [pool.submit(first), pool.submit(second)]
        forks[1].exception()
        second_is_out.set()
        assert [fork.exception() for fork in forks] == [None, None]
    assert connection.inside.acquire(timeout=1)
    connection.inside.release()
    connection.close()


def test_a_child_can_import_what_another_thread_was_importing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock of a half loaded module is held for ever in a child: a background upload that begins loads several."""
    (tmp_path / "loaded_late.py").write_text("import time\nbegun = True\ntime.sleep(0.3)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(driver_module, "_LOADED_LATE", ("loaded_late",))
    monkeypatch.setattr(driver_module, "_FORK_WAIT_S", 60.0)
    thread = threading.Thread(target=importlib.import_module, args=("loaded_late",))
    thread.start()
    while not hasattr(sys.modules.get("loaded_late"), "begun"):
        time.sleep(0.001)
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(60)
            importlib.import_module("loaded_late")
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    thread.join()
    del sys.modules["loaded_late"]

    assert status == 0


def test_a_closed_registry_says_so(tmp_path: Path) -> None:
    """Better than SQLite's own words."""
    registry = open_registry(tmp_path / "r")
    registry.close()

    with pytest.raises(RegistryError, match="closed"):
        registry.models.create(name="late")


def test_a_copied_registry_writes_under_a_name_of_its_own(tmp_path: Path) -> None:
    """Two copies that go on must never give two operations one stamp."""
    import shutil

    with open_registry(tmp_path / "one") as one:
        one.models.create(name="first")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    with open_registry(tmp_path / "one") as one, open_registry(tmp_path / "two") as two:
        one.models.create(name="here")
        two.models.create(name="there")
        writers = [{o.stamp[16:] for _, o in registry.operations(after=1)} for registry in (one, two)]

        assert writers[0].isdisjoint(writers[1])
        two.ingest(o for _, o in one.operations())
        one.ingest(o for _, o in two.operations())
        names = [sorted(r[0] for r in registry.database.all("SELECT name FROM models")) for registry in (one, two)]
        assert names == [["first", "here", "there"]] * 2


def fill(model: OutputModel) -> None:
    for i in range(10_000):
        model.set_metadata(f"key{i}", "x" * 100_000)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to mount a small filesystem")
def test_a_full_disk_changes_nothing_and_says_so(tmp_path: Path) -> None:
    """Neither a row without bytes nor bytes that stay behind."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("no filesystem can be mounted here")
    try:
        big = tmp_path / "big.bin"
        big.write_bytes(os.urandom(8 << 20))
        small = tmp_path / "small.bin"
        small.write_bytes(b"small")
        with open_registry(disk / "registry", cache=tmp_path / "cache") as registry:
            task = Task.create(task_name="t")
            model = OutputModel(task, name="m")
            model.update_weights(small)
            before = len(list(registry.operations()))
            with pytest.raises(StorageFullError, match="full"):
                model.update_weights(big)

            assert len(list(registry.operations())) == before
            assert model.get_local_copy() is not None
            assert list((disk / "registry" / "objects" / "tmp").iterdir()) == []
            assert [f for f in registry.check(deep=True) if f.severity != "note"] == []
            with pytest.raises(StorageFullError):
                fill(model)
            assert [f for f in registry.check() if f.severity != "note"] == []
            small.write_bytes(b"other")
    finally:
        subprocess.run(["umount", str(disk)], check=True)

"""A journal in a folder: the contract of every home, kills at every step, and a filesystem that sins."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelstore.errors import StorageError
from modelstore.journal import folder as folder_module
from modelstore.journal.files import Files
from modelstore.journal.folder import FolderHome
from modelstore.journal.home import Home, StreamClosedError
from modelstore.journal.lines import encode_lines
from modelstore.testing import faults
from modelstore.testing.journals import A, B, HomeContract, SinfulFiles, everything


def made(path: Path) -> FolderHome:
    home = FolderHome(path)
    home.create()
    return home


class TestFolder(HomeContract):
    """Streams that go away at once, so that readers meet every state."""

    @pytest.fixture
    def opened(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Home]:
        monkeypatch.setattr(folder_module, "_GRACE_S", -1.0)
        made(tmp_path / "home")
        return lambda: FolderHome(tmp_path / "home")


def test_many_packs_are_merged_and_what_is_packed_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a thousand short-lived writers a few files stay."""
    monkeypatch.setattr(folder_module, "_GRACE_S", -1.0)
    home = made(tmp_path)
    for number in range(50):
        stream = f"{number:016x}-0000"
        home.pack({stream: home.append(stream, 0, [b"x"])})
    for _ in range(3):
        home.pack({})

    assert len(os.listdir(tmp_path / "journal")) <= 8
    assert len(everything(FolderHome(tmp_path))) == 50


def test_what_is_packed_stays_for_those_who_listed_before(tmp_path: Path) -> None:
    """Until every listing that may lack the pack has ended."""
    home = made(tmp_path)
    home.pack({A: home.append(A, 0, [b"x"])})
    home.pack({})

    assert {name.rpartition(".")[2] for name in os.listdir(tmp_path / "journal")} == {"ops", "end", "pack"}


_APPEND = ["journal.append.1", "journal.append.2", "journal.append.3", "journal.append.4"]
_PACK = ["journal.pack.1", "journal.pack.2", "journal.pack.3", "journal.pack.4", "journal.pack.4#2"]


def _killed(step: str, action: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    child = os.fork()
    if child == 0:
        monkeypatch.setenv("MODELSTORE_FAULTS", f"{step}=kill")
        faults.install()
        action()
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"{step} was not reached"
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize("step", _APPEND)
@pytest.mark.parametrize("begun", [False, True])
def test_an_append_that_is_killed_is_there_or_not(
    tmp_path: Path, step: str, begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of its lines count or none; and the next append goes on."""
    home = made(tmp_path)
    tip = home.append(A, 0, [b"before"]) if begun else 0
    if begun and step == "journal.append.1":
        pytest.skip("only a new stream has this step")
    _killed(step, lambda: FolderHome(tmp_path).append(A, tip, [b"one", b"two"]), monkeypatch)

    first = [b"before"] if begun else []
    counts = step == "journal.append.4"
    assert everything(FolderHome(tmp_path)).get(A, []) == first + ([b"one", b"two"] if counts else [])
    end = FolderHome(tmp_path).tips().get(A, 0)
    FolderHome(tmp_path).append(A, end, [b"after"])
    assert everything(FolderHome(tmp_path))[A][-1] == b"after"


@pytest.mark.parametrize("step", _PACK)
def test_packing_that_is_killed_loses_nothing_and_goes_on(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever packs next finishes it."""
    monkeypatch.setattr(folder_module, "_GRACE_S", -1.0)
    home = made(tmp_path)
    ends = {stream: home.append(stream, 0, [stream.encode()]) for stream in (A, B)}

    def pack_twice() -> None:
        packer = FolderHome(tmp_path)
        packer.pack(ends)
        packer.pack({})

    _killed(step, pack_twice, monkeypatch)

    expected = {stream: [stream.encode()] for stream in (A, B)}
    assert everything(FolderHome(tmp_path)) == expected
    for _ in range(2):
        FolderHome(tmp_path).pack(ends)
        assert everything(FolderHome(tmp_path)) == expected
    assert sum(name.endswith(".pack") for name in os.listdir(tmp_path / "journal")) == 1


def test_a_torn_line_below_the_tip_is_left_out_and_reported(tmp_path: Path) -> None:
    """A damaged disk must not stop everybody; `damaged` says where."""
    home = made(tmp_path)
    home.append(A, 0, [b"one", b"two", b"three"])
    path = tmp_path / "journal" / f"{A}.ops"
    data = bytearray(path.read_bytes())
    data[len(encode_lines([b"one"])) + 1] ^= 1
    path.write_bytes(data)
    reader = FolderHome(tmp_path)

    assert everything(reader)[A] == [b"one", b"three"]
    assert reader.damaged == {(A, len(encode_lines([b"one"])))}


def test_a_folder_that_is_gone_is_an_error_and_no_closed_stream(tmp_path: Path) -> None:
    """An unmounted share: going on in a new stream would help nobody."""
    home = FolderHome(tmp_path / "gone")

    with pytest.raises(StorageError, match="mounted"):
        home.append(A, 0, [b"x"])
    with pytest.raises(StorageError, match="mounted"):
        home.append(A, 100, [b"x"])
    with pytest.raises(StorageError, match="mounted"):
        home.tips()


def test_a_damaged_pack_is_named(tmp_path: Path) -> None:
    """And not mistaken for an empty one."""
    home = made(tmp_path)
    home.pack({A: home.append(A, 0, [b"x"])})
    (pack,) = (tmp_path / "journal").glob("*.pack")
    pack.write_bytes(b"garbage")

    with pytest.raises(StorageError, match=pack.name):
        FolderHome(tmp_path).tips()


def test_a_listing_that_hides_a_rename_is_repeated(tmp_path: Path) -> None:
    """Whoever knew the stream sees it; nobody is told that there is less than there was."""

    class Hiding(Files):
        hide = 0

        def names(self, folder: Path) -> list[str]:
            self.hide -= 1
            return [n for n in super().names(folder) if self.hide < 0 or not n.endswith(".tip")]

    files = Hiding()
    home = FolderHome(tmp_path, files)
    home.create()
    tip = home.append(A, 0, [b"x"])
    home.tips()
    home.append(A, tip, [b"y"])
    files.hide = 3

    assert len(list(home.read(A, 0, home.tips()[A]))) == 2


def test_files_are_for_the_group(tmp_path: Path) -> None:
    """What the umask allows, nothing less."""
    before = os.umask(0o002)
    try:
        made(tmp_path).append(A, 0, [b"x"])
    finally:
        os.umask(before)

    for path in (tmp_path / "journal").iterdir():
        assert path.stat().st_mode & 0o777 == 0o664
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o775


def test_writers_readers_and_packers_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every reader sees each writer's lines in order, and what was acknowledged before it looked."""
    monkeypatch.setattr(folder_module, "_GRACE_S", 0.05)
    made(tmp_path)
    acknowledged = [0, 0, 0]
    failures: list[str] = []
    done = threading.Event()

    def write(writer: int) -> None:
        home = FolderHome(tmp_path)
        number, tip = 0, 0
        for count in range(60):
            while True:
                try:
                    tip = home.append(f"{writer:016x}-{number:04x}", tip, [b"%d" % count])
                    break
                except StreamClosedError:
                    number, tip = number + 1, 0
            acknowledged[writer] = count + 1

    def read() -> None:
        while not done.is_set():
            before = list(acknowledged)
            seen = everything(FolderHome(tmp_path))
            for writer in range(3):
                lines = [int(line) for s in sorted(seen) if s.startswith(f"{writer:016x}") for line in seen[s]]
                if lines != list(range(len(lines))) or len(lines) < before[writer]:
                    failures.append(f"{writer}: {lines} of {before[writer]}")

    def pack() -> None:
        home = FolderHome(tmp_path)
        while not done.is_set():
            home.pack(home.tips())

    writers = [threading.Thread(target=write, args=(n,)) for n in range(3)]
    others = [threading.Thread(target=target) for target in (read, read, pack)]
    for thread in (*writers, *others):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in others:
        thread.join()

    assert failures == []
    assert acknowledged == [60, 60, 60]


_ACTIONS = st.lists(
    st.tuples(st.sampled_from(["append", "append", "append", "read", "pack", "restart"]), st.integers(0, 2)),
    min_size=1,
    max_size=40,
)


@settings(deadline=None)
@given(actions=_ACTIONS, seed=st.integers(0, 10_000))
def test_on_a_filesystem_that_sins_nothing_acknowledged_is_lost_or_doubled(
    actions: list[tuple[str, int]], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Against lists in memory: what was acknowledged is there, once, in order; what failed is whole or not there."""
    path = tmp_path_factory.mktemp("sins")
    made(path)
    files = SinfulFiles(seed)
    patch = pytest.MonkeyPatch()
    patch.setattr(folder_module, "_GRACE_S", -1.0)
    patch.setattr(folder_module, "_PAUSE_S", 0.0)
    homes = [FolderHome(path, files) for _ in range(3)]
    places = [[0, 0] for _ in range(3)]  # number of the stream, tip
    said: list[list[tuple[int, bool]]] = [[] for _ in range(3)]  # what each writer wrote, and whether he was told so
    count = 0
    try:
        for action, who in actions:
            with suppress(StorageError):
                if action == "append":
                    count += 1
                    said[who].append((count, False))
                    _append(homes[who], who, places[who], [b"%d" % count, b"%d" % count])
                    said[who][-1] = (count, True)
                elif action == "read":
                    _check(everything(homes[who]), said, complete=False)
                elif action == "pack":
                    homes[who].pack(homes[who].tips())
                else:
                    homes[who] = FolderHome(path, files)
        _check(everything(FolderHome(path)), said, complete=True)
    finally:
        patch.undo()


def _append(home: FolderHome, who: int, place: list[int], lines: list[bytes]) -> None:
    for _ in range(20):
        try:
            place[1] = home.append(f"{who:016x}-{place[0]:04x}", place[1], lines)
            return
        except StreamClosedError:
            place[:] = [place[0] + 1, 0]
    raise StorageError("no stream")


def _check(seen: dict[str, list[bytes]], said: list[list[tuple[int, bool]]], *, complete: bool) -> None:
    for who, expected in enumerate(said):
        lines = [int(line) for stream in sorted(seen) if stream.startswith(f"{who:016x}") for line in seen[stream]]
        assert lines[::2] == lines[1::2]
        unique = lines[::2]
        assert sorted(unique) == unique
        assert set(unique) <= {number for number, _ in expected}
        if complete:
            assert {number for number, told in expected if told} <= set(unique)


class _Server:
    """When the folders of an NFS server were changed, by a clock that stands still but while somebody waits."""

    def __init__(self) -> None:
        self.tick = 0
        self.changed: dict[Path, int] = {}

    def change(self, folder: Path) -> None:
        self.changed[folder] = self.tick


class _Client(Files):
    """A client of NFS 3: a listing is kept while the folder's time is the same."""

    def __init__(self, server: _Server, *, by_time: bool = True) -> None:
        super().__init__(by_time=by_time)
        self._server = server
        self._kept: dict[Path, tuple[int, list[str]]] = {}

    def rename(self, old: Path, new: Path) -> None:
        super().rename(old, new)
        self._server.change(new.parent)

    def pause(self, seconds: float) -> None:
        assert seconds > 0.01
        self._server.tick += 1

    def touch(self, folder: Path) -> None:
        super().touch(folder)
        self._server.change(folder)

    def names(self, folder: Path) -> list[str]:
        changed = self._server.changed.get(folder, -1)
        if folder not in self._kept or self._kept[folder][0] != changed:
            self._kept[folder] = changed, super().names(folder)
        return self._kept[folder][1]


def test_changes_within_one_tick_of_a_servers_clock_are_seen_at_once(tmp_path: Path) -> None:
    server = _Server()
    one, two, reader = (FolderHome(tmp_path, _Client(server)) for _ in range(3))
    one.create()
    tips = {A: 0, B: 0}
    for number in range(5):
        for stream, writer in ((A, one), (B, two)):
            tips[stream] = writer.append(stream, tips[stream], [b"%d" % number])
            assert reader.tips() == {stream: tip for stream, tip in tips.items() if tip}


def test_without_another_time_a_change_would_be_seen_late(tmp_path: Path) -> None:
    """What the emulation above is worth."""
    server = _Server()
    writer = FolderHome(tmp_path, _Client(server, by_time=False))
    reader = FolderHome(tmp_path, _Client(server))
    writer.create()
    tip = writer.append(A, 0, [b"1"])
    assert reader.tips() == {A: tip}
    writer.append(A, tip, [b"2"])
    assert reader.tips() == {A: tip}

"""A journal in a bucket: the contract of every home, lost answers that come true late, listings of yesterday."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelstore.errors import StorageError
from modelstore.journal import bucket as bucket_module
from modelstore.journal.bucket import BucketHome
from modelstore.journal.home import Home, StreamClosedError
from modelstore.storage.buckets import Bucket
from modelstore.storage.retries import Patience
from modelstore.testing.journals import A, B, HomeContract, SinfulBucket, everything


@pytest.fixture
def place() -> str:
    return f"memory://bucket-{os.urandom(6).hex()}/team"


class TestMemory(HomeContract):
    """Packed objects that go away at once, so that readers meet every state."""

    @pytest.fixture
    def opened(self, place: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Home]:
        monkeypatch.setattr(Bucket, "settled_after_s", -1.0)
        return lambda: BucketHome(Bucket(place))


def test_many_packs_are_merged_and_what_is_packed_goes(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a thousand short-lived writers a few objects stay."""
    monkeypatch.setattr(Bucket, "settled_after_s", -1.0)
    home = BucketHome(Bucket(place))
    for number in range(50):
        stream = f"{number:016x}-0000"
        home.pack({stream: home.append(stream, 0, [b"x"])})
    for _ in range(3):
        home.pack({})

    assert len(Bucket(place).entries("journal")) <= 8
    assert home.loose() == 0
    assert len(everything(BucketHome(Bucket(place)))) == 50


@pytest.mark.parametrize("settled_after_s", [0.0, -1.0])
def test_who_writes_for_long_packs_what_everybody_lists(
    place: str, monkeypatch: pytest.MonkeyPatch, settled_after_s: float
) -> None:
    """A question costs no more after a thousand changes than after ten, though no process has ended."""
    monkeypatch.setattr(Bucket, "settled_after_s", settled_after_s)
    monkeypatch.setattr(bucket_module, "_MANY_LOOSE", 16)
    home, other = BucketHome(Bucket(place)), BucketHome(Bucket(place))
    tip = position = 0
    read: list[bytes] = []
    for number in range(200):
        tip = home.append(A, tip, [b"%d" % number])
        if number % 7 == 0:
            known = other.tips()[A]
            read += other.read(A, position, known)
            position = known
        assert len(Bucket(place).entries("journal")) < 64

    assert other.tips() == {A: tip} == BucketHome(Bucket(place)).tips()
    assert read == [b"%d" % number for number in range(197)]
    assert list(BucketHome(Bucket(place)).read(A, 0, tip)) == [b"%d" % number for number in range(200)]


def test_a_process_writes_on_where_packing_fails(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packing saves time, and nothing depends on it."""
    monkeypatch.setattr(bucket_module, "_MANY_LOOSE", 8)

    class Full(Bucket):
        def upload(self, name: str, path: Any) -> None:
            raise StorageError(f"No room for {name}")

    home = BucketHome(Full(place))
    tip = 0
    for number in range(50):
        tip = home.append(A, tip, [b"%d" % number])

    assert len(list(BucketHome(Bucket(place)).read(A, 0, tip))) == 50


def test_a_long_stream_is_left_for_another(place: str) -> None:
    """Packing copies a stream as a whole."""
    home = BucketHome(Bucket(place))
    tip = home.append(A, 0, [b"x" * (1 << 20)])

    with pytest.raises(StreamClosedError):
        home.append(A, tip, [b"y"])


def test_what_is_little_comes_in_few_requests(place: str) -> None:
    """A new host reads what lies side by side in one go."""
    asked: list[str] = []

    class Counting(Bucket):
        def _driver(self, method: str, *args: Any, **named: Any) -> Any:
            asked.append(method)
            return super()._driver(method, *args, **named)

    home = BucketHome(Bucket(place))
    ends = {f"{n:016x}-0000": home.append(f"{n:016x}-0000", 0, [b"%d" % n]) for n in range(200)}
    home.pack(ends)
    reader = BucketHome(Counting(place))
    spans = [(stream, 0, tip) for stream, tip in reader.tips().items()]
    asked.clear()

    assert {stream: list(lines) for stream, lines in reader.read_many(spans)} == {
        f"{n:016x}-0000": [b"%d" % n] for n in range(200)
    }
    assert asked == ["cat_file"]


def test_a_fork_begins_streams_of_its_own(place: str) -> None:
    """What the parent has on its way it cannot know."""
    home = BucketHome(Bucket(place))
    tip = home.append(A, 0, [b"1"])
    child = os.fork()
    if child == 0:
        code = 1
        try:
            home.append(A, tip, [b"2"])
        except StreamClosedError:
            code = 0
        os._exit(code)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    home.append(A, tip, [b"3"])


def test_a_write_whose_answer_was_lost_is_followed_by_nothing_in_its_stream(place: str) -> None:
    """It may arrive a minute later, and both would be at the same place."""
    late: list[tuple[Any, ...]] = []

    class Lost(Bucket):
        def _driver(self, method: str, *args: Any, **named: Any) -> Any:
            if method == "pipe_file" and late is not None and args[0].endswith(".ops") and lost:
                late.append(args)
                raise TimeoutError("no answer")
            return super()._driver(method, *args, **named)

    lost = False
    home = BucketHome(Lost(place, Patience(attempts=2, first_pause_s=0.001)))
    tip = home.append(A, 0, [b"1"])
    lost = True
    with pytest.raises(StorageError, match="Nobody knows"):
        home.append(A, tip, [b"late"])
    lost = False
    with pytest.raises(StreamClosedError):
        home.append(A, tip, [b"other"])
    home.append(B, 0, [b"other"])
    assert everything(home) == {A: [b"1"], B: [b"other"]}
    Bucket(place)._driver("pipe_file", *late[0])

    assert everything(home) == everything(BucketHome(Bucket(place))) == {A: [b"1", b"late"], B: [b"other"]}


@settings(max_examples=settings().max_examples // 2)
@given(seed=st.integers(0, 2**32), plan=st.lists(st.sampled_from("aabbcp"), min_size=4, max_size=30))
def test_nothing_acknowledged_is_lost_whatever_the_store_does(seed: int, plan: list[str]) -> None:
    """What failed is there or not, and in the end everybody sees the same."""
    place = f"memory://bucket-{os.urandom(6).hex()}/x"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bucket, "settled_after_s", -1.0)
        patch.setattr(bucket_module, "_MANY_LOOSE", 8)
        homes = {name: BucketHome(SinfulBucket(place, seed + number)) for number, name in enumerate("abcp")}
        mine: dict[str, tuple[str, int]] = {}
        acknowledged: list[bytes] = []
        tried: set[bytes] = set()
        for number, who in enumerate(plan):
            home, line = homes[who], b"%d" % number
            try:
                if who == "p":
                    home.pack(home.tips())
                    continue
                stream, tip = mine.get(who) or (home.next_stream(who * 16, None), 0)
                tried.add(line)
                mine[who] = stream, home.append(stream, tip, [line])
                acknowledged.append(line)
            except (StorageError, StreamClosedError):
                mine.pop(who, None)
        honest = BucketHome(Bucket(place))
        found = [line for lines in everything(honest).values() for line in lines]
        assert len(found) == len(set(found))
        assert set(acknowledged) <= set(found) <= tried


def test_a_pack_that_cannot_be_read_for_a_moment_hides_nothing_for_longer(place: str) -> None:
    """What was listed beside it is known when it can be read again."""
    failing = [False]

    class Failing(Bucket):
        def _driver(self, method: str, *args: Any, **named: Any) -> Any:
            if failing[0] and method == "cat_file":
                raise TimeoutError("no answer")
            return super()._driver(method, *args, **named)

    writer = BucketHome(Bucket(place))
    reader = BucketHome(Failing(place, Patience(attempts=1)))
    reader.tips()
    writer.pack({A: writer.append(A, 0, [b"packed"])})
    for number in range(20):
        writer.append(f"{number:016x}-0000", 0, [b"loose"])
    failing[0] = True
    with pytest.raises(StorageError):
        reader.tips()
    failing[0] = False

    assert everything(reader) == everything(BucketHome(Bucket(place)))

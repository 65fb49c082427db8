"""What every home of a journal must hold, and a filesystem and a bucket that sin."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import pytest

from modelstore.errors import StorageError
from modelstore.journal.files import Files
from modelstore.journal.home import Home, StreamClosedError
from modelstore.storage.buckets import Bucket
from modelstore.storage.retries import Patience

__all__ = ["HomeContract", "SinfulBucket", "SinfulFiles", "everything"]

A, B = "a" * 16 + "-0000", "b" * 16 + "-0000"


def everything(home: Home) -> dict[str, list[bytes]]:
    """Read all streams from their beginning to their tips."""
    return {stream: list(home.read(stream, 0, tip)) for stream, tip in home.tips().items()}


class Opener(Protocol):
    """Opens the same home again, as another host would."""

    def __call__(self) -> Home:
        """Return a home that shares nothing with earlier ones but what is stored."""
        ...


class HomeContract:
    """Subclass it with a fixture `opened` that returns an `Opener`."""

    def test_what_was_appended_is_seen_by_everybody(self, opened: Opener) -> None:
        """Also by a home that had listed before."""
        writer, reader = opened(), opened()
        reader.tips()
        tip = writer.append(A, 0, [b'{"n":1}', b'{"n":2}'])
        assert everything(reader) == {A: [b'{"n":1}', b'{"n":2}']}
        end = writer.append(A, tip, [b'{"n":3}'])
        assert reader.tips() == {A: end}
        assert list(reader.read(A, tip, end)) == [b'{"n":3}']

    def test_nothing_new_gives_the_same_object(self, opened: Opener) -> None:
        """So that whoever compares need not look inside."""
        home = opened()
        home.append(A, 0, [b"x"])
        assert home.tips() is home.tips()

    def test_streams_do_not_disturb_each_other(self, opened: Opener) -> None:
        """Two writers, in turn."""
        one, two = opened(), opened()
        a = one.append(A, 0, [b"1"])
        two.append(B, 0, [b"2"])
        one.append(A, a, [b"3"])
        assert everything(opened()) == {A: [b"1", b"3"], B: [b"2"]}

    def test_a_stream_is_continued_only_at_its_end(self, opened: Opener) -> None:
        """Whoever is wrong about it is told, and nothing that counts is touched."""
        home = opened()
        first = home.append(A, 0, [b"1"])
        second = home.append(A, first, [b"2"])
        for wrong in (0, first, second + 1):
            with pytest.raises(StreamClosedError):
                opened().append(A, wrong, [b"x" * 50])
        assert everything(opened()) == {A: [b"1", b"2"]}
        home.append(A, second, [b"3"])
        assert everything(opened()) == {A: [b"1", b"2", b"3"]}

    def test_a_packed_stream_reads_as_before_and_is_closed(self, opened: Opener) -> None:
        """A reader that listed before finds it too; who may go on with it loses nothing by that."""
        home, before = opened(), opened()
        ends = {stream: home.append(stream, 0, [stream.encode(), b"x"]) for stream in (A, B)}
        before.tips()
        assert home.pack(ends) == 2
        for _ in range(3):
            home.pack({})
        assert everything(before) == everything(opened()) == {s: [s.encode(), b"x"] for s in (A, B)}
        with pytest.raises(StreamClosedError):
            home.append(A, 0, [b"late"])
        if home.single_process:
            home.append(B, ends[B], [b"on"])
            assert everything(before)[B] == everything(opened())[B] == [B.encode(), b"x", b"on"]
        with pytest.raises(StreamClosedError):
            (opened() if home.single_process else home).append(A, ends[A], [b"late"])
        assert everything(opened())[A] == [A.encode(), b"x"]

    def test_a_stream_that_goes_on_loses_nothing_by_packing(self, opened: Opener) -> None:
        """Its writer lives."""
        home = opened()
        tip = home.append(A, 0, [b"1"])
        end = home.append(A, tip, [b"2"])
        assert opened().pack({A: tip}) == home.single_process
        end = home.append(A, end, [b"3"])
        assert everything(opened()) == {A: [b"1", b"2", b"3"]}
        opened().pack({A: end})
        opened().pack({})
        assert everything(opened()) == {A: [b"1", b"2", b"3"]}

    def test_a_writer_goes_on_in_a_stream_of_another_name(self, opened: Opener) -> None:
        """And of his own."""
        home = opened()
        first = home.next_stream("c" * 16, None)
        second = home.next_stream("c" * 16, first)
        assert first != second
        for stream in (first, second):
            assert stream.startswith("c" * 16 + "-")
            home.append(stream, 0, [b"1"])
        assert everything(opened()) == {first: [b"1"], second: [b"1"]}

    def test_many_short_streams_become_few_files(self, opened: Opener) -> None:
        """Packs are packed too."""
        home = opened()
        expected = {}
        for number in range(30):
            stream = f"{number:016x}-0000"
            tip = home.append(stream, 0, [b"%d" % number])
            expected[stream] = [b"%d" % number]
            home.pack({stream: tip})
        for _ in range(3):
            home.pack({})
        assert everything(opened()) == expected

    def test_a_checkpoint_is_whole_or_refused(self, opened: Opener, tmp_path: Path) -> None:
        """Its name says what it must contain."""
        from hashlib import blake2b

        home = opened()
        file = tmp_path / "index"
        file.write_bytes(os.urandom(3_000_000))
        digest = blake2b(file.read_bytes(), digest_size=8).hexdigest()
        name, wrong = f"{'1' * 32}-{digest}.index", f"{'2' * 32}-{'0' * 16}.index"
        home.put_checkpoint(name, file)
        home.put_checkpoint(wrong, file)
        assert opened().checkpoints() == [name, wrong]
        opened().get_checkpoint(name, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == file.read_bytes()
        with pytest.raises(StorageError, match="damaged"):
            opened().get_checkpoint(wrong, tmp_path / "copy")
        home.remove_checkpoint(wrong)
        home.remove_checkpoint(wrong)
        with pytest.raises(StorageError):
            opened().get_checkpoint(wrong, tmp_path / "copy")
        assert home.checkpoints() == [name]


class SinfulFiles(Files):
    """Files as a network shows them on a bad day: short writes, lost answers, errors, names that hide.

    Args:
        seed: Decides when it sins.
        rate: How often, 0 to 1.

    Attributes:
        sins: How often it did.
    """

    def __init__(self, seed: int, rate: float = 0.15) -> None:
        super().__init__()
        self._random = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self._rate = rate
        self.sins = 0

    def _sins(self) -> bool:
        found = self._random.random() < self._rate
        self.sins += found
        return found

    def _error(self, *codes: int) -> OSError:
        code = self._random.choice(codes)
        return OSError(code, os.strerror(code))

    def names(self, folder: Path) -> list[str]:
        """List; sometimes with ESTALE, sometimes without both names of what is being renamed."""
        if self._sins():
            raise self._error(errno.ESTALE)
        found = super().names(folder)
        if self._sins():
            hidden = self._random.choice(found or [""]).split(".")[0]
            found = [name for name in found if not (name.startswith(hidden) and name.endswith((".tip", ".end")))]
        return found

    def rename(self, old: Path, new: Path) -> None:
        """Rename; sometimes the answer is lost, sometimes it fails."""
        if self._sins():
            if self._random.random() < 0.5:
                super().rename(old, new)
                raise FileNotFoundError(errno.ENOENT, "the repeated call found nothing")
            raise self._error(errno.EIO, errno.ESTALE)
        super().rename(old, new)

    def write(self, path: Path, start: int, chunks: Iterable[bytes], *, create: bool, cut: bool = False) -> None:
        """Write; sometimes half of it, and then EIO or no space, or the flush fails."""
        if self._sins():
            data = b"".join(chunks)
            super().write(path, start, [data[: self._random.randrange(len(data) + 1)]], create=create, cut=cut)
            raise self._error(errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE)
        super().write(path, start, chunks, create=create, cut=cut)

    def pwrite(self, descriptor: int, data: memoryview, offset: int) -> int:
        """Write; often less than asked."""
        size = self._random.randrange(1, len(data) + 1) if self._sins() else len(data)
        return super().pwrite(descriptor, data[:size], offset)

    def sync_folder(self, folder: Path) -> None:
        """Flush; sometimes it fails after it was done."""
        super().sync_folder(folder)
        if self._sins():
            raise self._error(errno.EIO)

    def read(self, path: Path, start: int, end: int, at_a_time: int) -> Any:
        """Read; sometimes the handle is stale."""
        if self._sins():
            raise self._error(errno.ESTALE)
        yield from super().read(path, start, end, min(at_a_time, 37))


class SinfulBucket(Bucket):
    """A bucket on a bad day: errors before and after the deed, and listings of a while ago.

    Args:
        uri: Where it is.
        seed: Decides when it sins.
        rate: How often, 0 to 1; may be changed at any time.

    Attributes:
        sins: How often it did.
    """

    def __init__(self, uri: str, seed: int, rate: float = 0.2) -> None:
        self._random = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self._older: dict[str, list[Any]] = {}
        self.rate = rate
        self.sins = 0
        super().__init__(uri, Patience(attempts=3, first_pause_s=0.0001, longest_pause_s=0.0002))

    def _driver(self, method: str, *args: Any, **named: Any) -> Any:
        sins = self._random.random() < self.rate
        self.sins += sins
        if sins and self._random.random() < 0.5:
            raise ConnectionResetError(errno.ECONNRESET, "before the deed")
        found = super()._driver(method, *args, **named)
        if method == "ls":
            seen = self._older.setdefault(str(args[0]), [])
            seen.append(found)
            return self._random.choice(seen[-3:]) if sins else found
        if sins:
            raise TimeoutError("after the deed")
        return found

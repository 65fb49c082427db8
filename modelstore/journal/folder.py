"""A journal in a folder that hosts share, on NFS or any other filesystem.

What lies there, and why so, is told in docs/design/010-shared-registries.md. In short: `<stream>.ops` grows, and the
*name* of the empty file `<stream>.<tip>.tip` says how many of its bytes count, because a listing is what every client
of a network filesystem asks the server for, while sizes and "no such file" are remembered for half a minute.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Final, NoReturn, TypeVar

from modelstore.errors import StorageError, StorageFullError
from modelstore.journal.files import Files, TailError
from modelstore.journal.home import StreamClosedError
from modelstore.journal.lines import encode_lines, sound_lines
from modelstore.journal.looks import Looks, ProcessLock
from modelstore.journal.packs import MANY_PACKS, PACK, SMALL_PACK, covered_elsewhere, pack_header, parse_header

__all__ = ["FolderHome"]

_log = logging.getLogger(__name__)

T = TypeVar("T")

_TIP: Final = re.compile(r"([0-9a-f]{16}-[0-9a-f]{4})\.([0-9a-f]{12})\.(tip|end)")
_OPS: Final = re.compile(r"([0-9a-f]{16}-[0-9a-f]{4})\.ops")
_CHECKPOINT: Final = re.compile(r"[0-9a-f]{32}-[0-9a-f]{16}\.index")
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_TEMPORARY: Final = re.compile(r"[0-9a-f]{16}\.tmp")
_LOOKS: Final = 6
_PAUSE_S: Final = 0.002
_AT_A_TIME: Final = 1 << 20
_GRACE_S: Final = 60.0
_LEFT_S: Final = 3_600.0


def _step(name: str) -> None:
    sys.audit("modelstore.step", name)


def _patiently(action: Callable[[], T]) -> T:
    """Do something again as long as a network filesystem says that what it knew of a file is stale."""
    for look in range(_LOOKS - 1):
        try:
            return action()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
        time.sleep(_PAUSE_S * 2**look)
    return action()


class FolderHome:
    """Streams and checkpoints in a folder; see `modelstore.journal.home.Home` for what holds.

    Safe to use from any number of threads and processes, and on any number of hosts. Files are made with the rights
    that the umask and a folder's setgid bit give.

    Args:
        folder: The registry's folder.
        files: How files are reached; tests pass one that misbehaves.
        journal: Where the streams are, when that is another folder than usual.

    Attributes:
        damaged: Stream and position of lines that count and are not what was written, as far as they were read.
    """

    single_process = False

    def __init__(self, folder: Path, files: Files | None = None, journal: Path | None = None) -> None:
        self._files = files or Files()
        self._journal = journal or folder / "journal"
        self._checkpoints = folder / "checkpoints"
        self._names: list[str] = []
        self._looks: Looks[Mapping[str, int]] = Looks(ProcessLock())
        self._tips: Mapping[str, int] = {}
        self._packs: dict[str, dict[str, tuple[int, int]]] = {}  # name -> stream -> where in the file, how long
        self.damaged: set[tuple[str, int]] = set()

    def create(self) -> None:
        """Make the folders; those that exist are no error.

        Raises:
            StorageError: The journal was closed, by a conversion that is at work or died: a new one would be forgotten.
        """
        if not self._journal.is_dir() and self._journal.with_name("journal.closed").is_dir():
            raise StorageError(
                f"The registry at {self._journal.parent} is being made one of a single machine",
                "Wait for it; when it died, finish it with `modelstore convert --local`.",
            )
        for folder in (self._journal, self._checkpoints):
            self._files.make_folder(folder)

    # -- reading ---------------------------------------------------------------------------------------------------

    def tips(self) -> Mapping[str, int]:
        """Return the tip of every stream; the same object as before when nothing has changed."""
        return self._looks.share(self._look)

    def _look(self) -> Mapping[str, int]:
        tips: dict[str, int] = {}
        hidden: set[str] = set()
        for look in range(_LOOKS):
            names = self._list(self._journal)
            if names == self._names:
                return self._tips
            tips, hidden = self._parse(names)
            hidden.update(self._tips.keys() - tips.keys())
            if not hidden:
                self._names, self._tips = names, tips
                return tips
            # A rename while the folder was listed hides both names; so look again. A pack that was merged likewise.
            time.sleep(_PAUSE_S * 2**look)
        lost = sorted(hidden)
        _log.warning("%s: no tip of %s; what was known of them is kept. Run `modelstore fsck`.", self._journal, lost)
        return {**{stream: self._tips.get(stream, 0) for stream in lost}, **tips}

    def loose(self) -> int:
        """Return how many streams are in no pack, as of the last `tips`."""
        return sum(name.endswith(".tip") for name in self._names)

    def _parse(self, names: list[str]) -> tuple[dict[str, int], set[str]]:
        """Read tips from names; also returns streams that have bytes and no tip."""
        tips = self._all_packed(names)
        streams: set[str] = set()
        for name in names:
            if found := _TIP.fullmatch(name):
                tips[found[1]] = max(tips.get(found[1], 0), int(found[2], 16))
            elif found := _OPS.fullmatch(name):
                streams.add(found[1])
        return tips, streams - tips.keys()

    def read(self, stream: str, start: int, end: int) -> Iterator[bytes]:
        """Yield the lines of a stream between two positions."""
        return sound_lines(self._bytes(stream, start, end), start, partial(self._note_damage, stream))

    def _note_damage(self, stream: str, position: int) -> None:
        if (stream, position) not in self.damaged:
            self.damaged.add((stream, position))
            _log.error("%s: the line at %d of %s is damaged. Run `modelstore fsck`.", self._journal, position, stream)

    def read_many(self, spans: Sequence[tuple[str, int, int]]) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Yield the lines of many streams."""
        for span in spans:
            yield span[0], self.read(*span)

    def _bytes(self, stream: str, start: int, end: int) -> Iterator[bytes]:
        problem: Exception | None = None
        for look in range(_LOOKS):
            try:
                for data in self._bytes_once(stream, start, end):
                    start += len(data)
                    yield data
                if start == end:
                    return
            except (EOFError, OSError) as error:
                problem = error
                if isinstance(error, OSError) and error.errno not in (errno.ESTALE, errno.ENOENT):
                    break
            time.sleep(_PAUSE_S * 2**look)
        raise StorageError(
            f"The journal {self._journal} cannot be read: {stream} from {start} to {end} ({problem})",
            "Run `modelstore fsck`; what was read before is kept.",
        ) from problem

    def _bytes_once(self, stream: str, start: int, end: int) -> Iterator[bytes]:
        try:
            for data in self._files.read(self._journal / f"{stream}.ops", start, end, _AT_A_TIME):
                start += len(data)
                yield data
        except FileNotFoundError:  # packed since the tips were listed
            yield from self._packed_bytes(stream, start, end)

    def _packed_bytes(self, stream: str, start: int, end: int) -> Iterator[bytes]:
        for name in filter(PACK.fullmatch, self._list(self._journal)):
            try:
                offset, length = self._contents(name).get(stream, (0, -1))
                if length < end:
                    continue
                yield from self._files.read(self._journal / name, offset + start, offset + end, _AT_A_TIME)
            except FileNotFoundError:  # merged meanwhile: the caller looks again
                continue
            return

    def _contents(self, name: str) -> dict[str, tuple[int, int]]:
        """Return where in a pack its streams are: offset and length."""
        found = self._packs.get(name)
        if found is None:
            found = self._packs[name] = self._read_contents(name)
        return found

    def _read_contents(self, name: str) -> dict[str, tuple[int, int]]:
        try:
            return parse_header(self._first_line(self._journal / name))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageError(
                f"The journal {self._journal} cannot be read: {name} ({error.strerror or error})", "Try again."
            ) from error
        except (EOFError, ValueError, KeyError, TypeError) as error:
            raise StorageError(
                f"The file {self._journal / name} is damaged", "Run `modelstore fsck`, or restore it from a backup."
            ) from error

    def _first_line(self, path: Path) -> bytes:
        def read() -> bytes:
            data = b""
            for chunk in self._files.read(path, 0, sys.maxsize, 1 << 16):
                data += chunk
                if b"\n" in chunk:
                    break
            return data.partition(b"\n")[0]

        return _patiently(read)

    def _list(self, folder: Path) -> list[str]:
        try:
            return _patiently(lambda: self._files.names(folder))
        except OSError as error:
            raise StorageError(
                f"The journal {folder} cannot be listed ({error.strerror or error})",
                "Check that the folder is mounted and may be read.",
            ) from error

    # -- writing ---------------------------------------------------------------------------------------------------

    def next_stream(self, writer: str, last: str | None) -> str:
        """Return the name with the next number."""
        return f"{writer}-{0 if last is None else int(last[17:], 16) + 1:04x}"

    def append(self, stream: str, tip: int, lines: list[bytes]) -> int:
        """Append lines to the caller's own stream.

        1. (a new stream only) create its tip of 0  2. write the bytes behind the tip, and flush  3. rename the tip.
        A process killed before 3 has written nothing that counts; the next append overwrites it
        (tests/journal/test_folder.py kills it at each).
        """
        data = encode_lines(lines)
        old, new = self._tip(stream, tip), self._tip(stream, tip + len(data))
        try:
            if tip == 0:
                self._begin(stream)
            _step("journal.append.2")
            self._write(stream, tip, data)
        except (FileNotFoundError, EOFError) as error:
            self._list(self._journal)  # a folder that is gone is another matter
            raise StreamClosedError(f"{stream} is not to be continued at {tip}") from error
        except OSError as error:
            self._fail(error, "nothing of the change counts")
        _step("journal.append.3")
        self._announce(stream, old, new, data)
        _step("journal.append.4")
        return tip + len(data)

    def _begin(self, stream: str) -> None:
        names = self._list(self._journal)
        if _tips_of(stream, names) not in ([], [self._tip(stream, 0).name]) or stream in self._all_packed(names):
            raise StreamClosedError(f"{stream} was begun before")
        _step("journal.append.1")
        with suppress(FileExistsError):  # an append that died here
            self._files.create(self._tip(stream, 0))

    def _write(self, stream: str, tip: int, data: bytes) -> None:
        path = self._journal / f"{stream}.ops"
        write = partial(self._files.write, path, tip, [data], create=tip == 0)
        try:
            _patiently(write)
        except TailError as error:
            # Bytes of an append that died, or of somebody who went on with this stream: only the tip can tell.
            if _tips_of(stream, self._list(self._journal)) != [self._tip(stream, tip).name]:
                raise StreamClosedError(f"{stream} is not to be continued at {tip}") from error
            _patiently(partial(write, cut=True))

    def _announce(self, stream: str, old: Path, new: Path, data: bytes) -> None:
        try:
            self._files.rename(old, new)
        except OSError as error:
            # An answer that was lost: a client that repeats its call is told that there is no such file.
            names = self._list(self._journal)
            if new.name not in names and new.with_suffix(".end").name not in names:
                if isinstance(error, FileNotFoundError):
                    raise StreamClosedError(f"{stream} was closed, or continued by somebody else") from error
                self._fail(error, "nothing of the change counts")
            end = int(new.suffixes[0][1:], 16)
            if b"".join(self._bytes(stream, end - len(data), end)) != data:
                raise StreamClosedError(f"{stream} was continued by somebody else") from error
        try:
            self._files.sync_folder(self._journal)
        except OSError as error:
            self._fail(error, "the change is written, and may be lost when the server fails now")
        try:
            self._files.show_change(self._journal)
        except OSError as error:
            _log.warning("%s: other hosts may see a change late: %s", self._journal, error)

    def _fail(self, error: OSError, what: str) -> NoReturn:
        kind = StorageFullError if error.errno in _FULL else StorageError
        raise kind(
            f"The journal {self._journal} cannot be written ({error.strerror or error}); {what}",
            "Free some space." if error.errno in _FULL else "Check that the folder is mounted and may be written.",
        ) from error

    def _tip(self, stream: str, tip: int, kind: str = "tip") -> Path:
        return self._journal / f"{stream}.{tip:012x}.{kind}"

    # -- packing ---------------------------------------------------------------------------------------------------

    def pack(self, streams: Mapping[str, int]) -> int:
        """Close streams and gather them, and what was closed before, into one file.

        1. rename the tips: from here on nobody continues these streams  2. write a temporary file, and flush
        3. rename it to a pack  4. later, when every listing that began before has ended: remove the streams, then
        their tips. A process killed anywhere leaves what the next packing goes on with; what is both in a pack and
        by itself is the same bytes.
        """
        closed = self._close(streams)
        try:
            self._remove_packed()
            self._remove_leftovers(self._journal)
            names = self._list(self._journal)
            packed = self._all_packed(names)
            loose = {f[1]: int(f[2], 16) for f in map(_TIP.fullmatch, names) if f and f[3] == "end"}
            loose = {stream: tip for stream, tip in loose.items() if packed.get(stream, -1) < tip}
            small = [name for name in filter(PACK.fullmatch, names) if self._length(name) < SMALL_PACK]
            merged = small if len(small) >= MANY_PACKS else []
            if loose or merged:
                self._write_pack(loose, merged)
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            self._fail(error, "no stream was lost; packing goes on another time")
        return closed

    def _close(self, streams: Mapping[str, int]) -> int:
        closed = 0
        for stream, tip in streams.items():
            _step("journal.pack.1")
            try:
                self._files.rename(self._tip(stream, tip), self._tip(stream, tip, "end"))
            except FileNotFoundError:  # it has moved, or was closed before
                continue
            except OSError as error:
                self._fail(error, "no stream was lost; packing goes on another time")
            closed += 1
        return closed

    def _all_packed(self, names: list[str]) -> dict[str, int]:
        """Return how long the streams in packs are."""
        packed: dict[str, int] = {}
        for name in filter(PACK.fullmatch, names):
            with suppress(FileNotFoundError):  # merged into another meanwhile: that one is listed, or soon will be
                for stream, (_, length) in self._contents(name).items():
                    packed[stream] = max(packed.get(stream, 0), length)
        return packed

    def _length(self, name: str) -> int:
        return sum(length for _, length in self._contents(name).values())

    def _write_pack(self, loose: dict[str, int], merged: list[str]) -> None:
        order = sorted((self._all_packed(merged) | loose).items())  # what is loose is longer than what is packed of it
        header, name = pack_header(order)
        temporary = self._journal / f"{os.urandom(8).hex()}.tmp"
        _step("journal.pack.2")
        streams = (self._bytes(stream, 0, tip) for stream, tip in order)
        try:
            self._files.write(temporary, 0, chain([header], chain.from_iterable(streams)), create=True)
            _step("journal.pack.3")
            self._files.rename(temporary, self._journal / name)
            self._files.sync_folder(self._journal)
        except BaseException:
            with suppress(OSError):
                self._files.remove(temporary)
            raise

    def _remove_packed(self) -> None:
        """Remove what has been in a pack for so long that nobody has a listing without it."""
        names = self._list(self._journal)
        packs = {name: self._contents(name) for name in filter(PACK.fullmatch, names)}
        settled = [name for name in packs if self._settled(name)]
        safe = self._all_packed(settled)
        for found in filter(None, map(_TIP.fullmatch, names)):
            if found[3] == "end" and safe.get(found[1], -1) >= int(found[2], 16):
                for path in (self._journal / f"{found[1]}.ops", self._journal / found[0]):
                    _step("journal.pack.4")
                    with suppress(FileNotFoundError):
                        self._files.remove(path)
        for name in packs:
            if covered_elsewhere(name, packs, settled):
                _step("journal.pack.4")
                with suppress(FileNotFoundError):
                    self._files.remove(self._journal / name)

    def _settled(self, name: str) -> bool:
        return self._age(self._journal / name) > _GRACE_S

    def _age(self, path: Path) -> float:
        probe = path.parent / f"{os.urandom(8).hex()}.tmp"
        try:
            return self._files.age(path, probe)
        except FileNotFoundError:
            return 0.0

    def _remove_leftovers(self, folder: Path) -> None:
        """Remove what packers and makers of checkpoints left that died."""
        for name in self._list(folder):
            if _TEMPORARY.fullmatch(name) and self._age(folder / name) > _LEFT_S:
                with suppress(FileNotFoundError):
                    self._files.remove(folder / name)

    # -- checkpoints -----------------------------------------------------------------------------------------------

    def checkpoints(self) -> list[str]:
        """Return the names of the finished indexes, oldest first."""
        return sorted(filter(_CHECKPOINT.fullmatch, self._list(self._checkpoints)))

    def put_checkpoint(self, name: str, file: Path) -> None:
        """Store a finished index: 1. copy it to a temporary file, and flush 2. rename it."""
        temporary = self._checkpoints / f"{os.urandom(8).hex()}.tmp"
        try:
            with file.open("rb") as stream:
                chunks = iter(lambda: stream.read(_AT_A_TIME), b"")
                self._files.write(temporary, 0, chunks, create=True)
            _step("journal.checkpoint.2")
            self._files.rename(temporary, self._checkpoints / name)
            self._files.sync_folder(self._checkpoints)
        except OSError as error:
            with suppress(OSError):
                self._files.remove(temporary)
            self._fail(error, "no checkpoint was made; nothing is lost")

    def get_checkpoint(self, name: str, target: Path) -> None:
        """Copy a finished index to a local file, and compare it with the digest in its name."""
        digest = blake2b(digest_size=8)
        try:
            with target.open("wb") as stream, suppress(EOFError):  # its end is not known before
                for data in self._files.read(self._checkpoints / name, 0, sys.maxsize, _AT_A_TIME):
                    digest.update(data)
                    stream.write(data)
        except OSError as error:
            raise StorageError(f"The checkpoint {name} cannot be read ({error.strerror or error})") from error
        if f"-{digest.hexdigest()}." not in name:
            raise StorageError(f"The checkpoint {name} is damaged", "Another will be made; nothing is lost.")

    def remove_checkpoint(self, name: str) -> None:
        """Remove a finished index, and what makers of others left that died."""
        try:
            with suppress(FileNotFoundError):
                self._files.remove(self._checkpoints / name)
            self._remove_leftovers(self._checkpoints)
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            self._fail(error, "the checkpoint stays")


def _tips_of(stream: str, names: list[str]) -> list[str]:
    return [found[0] for found in map(_TIP.fullmatch, names) if found and found[1] == stream]

"""A journal in an object store, or in a table that answers the same questions.

What lies there, and why so, is told in docs/design/010-shared-registries.md. In short: every append is an object,
`<stream>.<from>-<to>.ops`, which is written once. How far a stream goes is seen from the names alone: the end of an
unbroken row.

An answer that was lost may come true later: the request is still on its way when the process that made it is dead. So a
stream is continued only by the process that began it, and only while it knows the answer to everything it has sent.
"""

from __future__ import annotations

import logging
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple

from modelstore.errors import BlobNotFoundError, StorageError
from modelstore.journal.home import StreamClosedError
from modelstore.journal.lines import encode_lines, sound_lines
from modelstore.journal.looks import Looks, ProcessLock
from modelstore.journal.packs import MANY_PACKS, PACK, SMALL_PACK, covered_elsewhere, pack_header, parse_header
from modelstore.storage.buckets import Entry, ObjectStorage, Span
from modelstore.storage.failures import is_transient, translated

__all__ = ["BucketHome"]

_log = logging.getLogger(__name__)

_SEGMENT: Final = re.compile(r"([0-9a-f]{16}-[0-9a-f]{4,16})\.([0-9a-f]{12})-([0-9a-f]{12})\.ops")
_CHECKPOINT: Final = re.compile(r"[0-9a-f]{32}-[0-9a-f]{16}\.index")
_LOOKS: Final = 6
_MANY_LOOSE: Final = 256
"""Objects in no pack from which on a writer packs them: every question lists them all."""
_PAUSE_S: Final = 0.002
_LONG: Final = 1 << 20
"""Bytes from which on a stream is left: packing copies it as a whole each time."""
_AT_A_TIME: Final = 8 << 20
_AHEAD: Final = 64 << 20
_HEAD: Final = 1 << 16
_REMOVED_AT_ONCE: Final = 64
_LEFT_S: Final = 3_600.0


class _Piece(NamedTuple):
    """A part of a stream: from where in the stream, and in which object it lies."""

    stream: str
    start: int
    end: int
    span: Span


def _go_together(run: list[_Piece], piece: _Piece) -> bool:
    last, end = run[-1].span, piece.span.end
    beside = last.name == piece.span.name and last.end == piece.span.start
    return beside and end is not None and end - run[0].span.start <= _AT_A_TIME


def _some_appends() -> int:
    """Return after how many appends to look whether packing is worth it: by chance, lest many do it at once."""
    return random.randrange(_MANY_LOOSE // 4, _MANY_LOOSE // 2)  # noqa: S311 - no secret


def _step(name: str) -> None:
    sys.audit("modelstore.step", name)


class BucketHome:
    """Streams and checkpoints in a bucket; see `modelstore.journal.home.Home` for what holds.

    Safe to use from any number of threads and processes, and on any number of hosts. Needs of the store that an object
    appears whole, and that a listing shows it in the end: where it does so late, others see a change late.

    Args:
        bucket: The registry's place.

    Attributes:
        damaged: Stream and position of lines that count and are not what was written, as far as they were read.
    """

    single_process = True

    def __init__(self, bucket: ObjectStorage) -> None:
        self._bucket = bucket
        self._lock = ProcessLock()
        self._looks: Looks[Mapping[str, int]] = Looks(self._lock)
        self._names: frozenset[str] | None = None
        self._parsed: set[str] = set()
        self._ends: dict[str, int] = {}
        self._tips: Mapping[str, int] = {}
        self._segments: dict[str, dict[int, int]] = {}
        self._packs: dict[str, dict[str, tuple[int, int]]] = {}
        self._own: dict[str, int] = {}
        self._until_packing = _some_appends()
        self._pid = os.getpid()
        self.damaged: set[tuple[str, int]] = set()

    def create(self) -> None:
        """Make what must be there: nothing, in a bucket."""

    # -- reading ---------------------------------------------------------------------------------------------------

    def tips(self) -> Mapping[str, int]:
        """Return the tip of every stream; the same object as before when nothing has changed."""
        return self._looks.share(self._look)

    def _look(self) -> Mapping[str, int]:
        tips: dict[str, int] = {}
        behind: list[str] = []
        for look in range(_LOOKS):
            names = frozenset(entry.name for entry in self._bucket.entries("journal"))
            if names == self._names:
                return self._tips
            tips = self._parse(names)
            behind = [stream for stream, tip in self._tips.items() if tips.get(stream, 0) < tip]
            if not behind:
                self._names, self._tips = names, tips
                return tips
            # A listing that is older than one before it, or was made while a pack was merged.
            time.sleep(_PAUSE_S * 2**look)
        _log.warning(
            "%r: the end of %s is not listed; what was known is kept. If this goes on, run `modelstore fsck`.",
            self._bucket, behind,
        )  # fmt: skip
        return {**tips, **{stream: self._tips[stream] for stream in behind}}

    def _parse(self, names: Collection[str]) -> dict[str, int]:
        """Return how far each stream goes by what is listed; looks only at what was not listed the last time."""
        listed = frozenset(names)
        if not self._parsed <= listed:  # something was packed and removed
            self._parsed, self._segments, self._ends = set(), {}, {}
        new = listed - self._parsed
        for name in filter(PACK.fullmatch, new):
            self._contents(name)  # which may fail, and then nothing of the listing is taken for known
        grown: set[str] = set()
        for name in new:
            if found := _SEGMENT.fullmatch(name):
                self._segments.setdefault(found[1], {})[int(found[2], 16)] = int(found[3], 16)
                grown.add(found[1])
            elif PACK.fullmatch(name):
                if name not in self._packs:
                    continue  # gone meanwhile; to be looked at again should it still be listed
                longer = {s: n for s, (_, n) in self._packs[name].items() if n > self._ends.get(s, 0)}
                self._ends |= longer
                grown |= longer.keys()
            self._parsed.add(name)
        for stream in grown:
            tip, ends = self._ends.get(stream, 0), self._segments.get(stream, {})
            while tip in ends:
                tip = ends[tip]
            if tip:
                self._ends[stream] = tip
        return dict(self._ends)

    def _packed(self, packs: Iterable[str]) -> dict[str, int]:
        packed: dict[str, int] = {}
        for name in packs:
            for stream, (_, length) in self._contents(name).items():
                packed[stream] = max(packed.get(stream, 0), length)
        return packed

    def _contents(self, name: str) -> dict[str, tuple[int, int]]:
        """Return where in a pack its streams are; nothing for one that was merged into another meanwhile."""
        if name not in self._packs:
            try:
                line = self._first_line(f"journal/{name}")
                self._packs[name] = parse_header(line)
            except BlobNotFoundError:
                return {}
            except (ValueError, KeyError, TypeError) as error:
                raise StorageError(
                    f"The object {self._bucket.address(f'journal/{name}')} is damaged",
                    "Run `modelstore fsck`, or restore it from a backup.",
                ) from error
        return self._packs[name]

    def _first_line(self, name: str) -> bytes:
        end = _HEAD
        while True:
            data = self._bucket.read(name, 0, end)
            line, newline, _ = data.partition(b"\n")
            if newline or len(data) < end:
                return line
            end *= 8

    def loose(self) -> int:
        """Return how many objects hold what is in no pack, as of the last `tips`."""
        packed = self._packed(filter(PACK.fullmatch, self._names or ()))
        return sum(end > packed.get(stream, 0) for stream, ends in self._segments.items() for end in ends.values())

    def read(self, stream: str, start: int, end: int) -> Iterator[bytes]:
        """Yield the lines of a stream between two positions."""
        for _, lines in self.read_many([(stream, start, end)]):
            yield from lines

    def read_many(self, spans: Sequence[tuple[str, int, int]]) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Yield the lines of many streams; what is little is asked for all at once."""
        ahead: dict[tuple[str, int], bytes] = {}
        if sum(end - start for _, start, end in spans) <= _AHEAD:
            with self._lock:
                pieces = [piece for span in spans for piece in self._pieces(*span)]
            ahead = self._fetched(pieces)
        for stream, start, end in spans:
            chunks = self._bytes(stream, start, end, ahead)
            yield stream, sound_lines(chunks, start, partial(self._note_damage, stream))

    def _note_damage(self, stream: str, position: int) -> None:
        if (stream, position) not in self.damaged:
            self.damaged.add((stream, position))
            _log.error("%r: the line at %d of %s is damaged. Run `modelstore fsck`.", self._bucket, position, stream)

    def _bytes(
        self, stream: str, start: int, end: int, ahead: Mapping[tuple[str, int], bytes] | None = None
    ) -> Iterator[bytes]:
        for look in range(_LOOKS):
            with self._lock:
                pieces = self._pieces(stream, start, end)
            for piece in pieces:
                data = (ahead or {}).get((stream, piece.start))
                if data is None:
                    data = self._fetched([piece]).get((stream, piece.start))
                if data is None:
                    break  # packed and removed, or merged, since the names were listed
                yield data
                start = piece.end
            if start == end:
                return
            time.sleep(_PAUSE_S * 2**look)
            self._look_again()
        raise StorageError(
            f"The journal {self._bucket.address('journal')} cannot be read: {stream} from {start} to {end}",
            "Run `modelstore fsck`; what was read before is kept.",
        )

    def _look_again(self) -> None:
        with self._lock:
            self._parse([entry.name for entry in self._bucket.entries("journal")])

    def _pieces(self, stream: str, start: int, end: int) -> list[_Piece]:
        """Return the objects in which a part of a stream lies, as far as they are known."""
        pieces = []
        packs = [(name, *found[stream]) for name, found in self._packs.items() if stream in found]
        segments = self._segments.get(stream, {})
        while start < end:
            name, offset, length = max(packs, key=lambda pack: pack[2], default=("", 0, 0))
            if length > start:
                stop = min(length, end, start + _AT_A_TIME)
                span = Span(f"journal/{name}", offset + start, offset + stop)
            elif (stop := segments.get(start, 0)) and stop <= end:
                span = Span(f"journal/{stream}.{start:012x}-{stop:012x}.ops", 0, None)
            else:
                break
            pieces.append(_Piece(stream, start, stop, span))
            start = stop
        return pieces

    def _fetched(self, pieces: Sequence[_Piece]) -> dict[tuple[str, int], bytes]:
        """Return the bytes of pieces by stream and position; those that lie side by side come in one request."""
        runs: list[list[_Piece]] = []
        for piece in sorted(pieces, key=lambda one: one.span[:2]):
            if runs and _go_together(runs[-1], piece):
                runs[-1].append(piece)
            else:
                runs.append([piece])
        found = self._bucket.read_many([Span(run[0].span.name, run[0].span.start, run[-1].span.end) for run in runs])
        fetched: dict[tuple[str, int], bytes] = {}
        for run, data in zip(runs, found, strict=True):
            if data is None:
                for piece in run:
                    self._packs.pop(piece.span.name.removeprefix("journal/"), None)
                continue
            if len(data) != sum(piece.end - piece.start for piece in run):
                raise StorageError(
                    f"The object {self._bucket.address(run[0].span.name)} is damaged: it has another length",
                    "Run `modelstore fsck`, or restore it from a backup.",
                )
            at = 0
            for piece in run:
                size = piece.end - piece.start
                fetched[piece.stream, piece.start] = data[at : at + size]
                at += size
        return fetched

    # -- writing ---------------------------------------------------------------------------------------------------

    def next_stream(self, writer: str, last: str | None) -> str:  # noqa: ARG002 - see `Home`
        """Return a name that nobody has used: the time, so that they are in order, and chance."""
        return f"{writer}-{int(time.time()) & 0xFFFFFFFF:08x}{os.urandom(4).hex()}"

    def append(self, stream: str, tip: int, lines: list[bytes]) -> int:
        """Append lines to the caller's own stream.

        One object is written, which counts from then on. A process killed before has written nothing, or what others
        take in as if it had lived (tests/journal/test_bucket.py kills it there); either way nobody goes on with this
        stream.
        """
        data = encode_lines(lines)
        self._pack_what_is_loose()
        with self._lock:
            if self._pid != os.getpid():
                self._own, self._pid = {}, os.getpid()
            if tip == 0 and stream not in self._own and stream not in (self._tips if self._names else self.tips()):
                self._own[stream] = 0
            if self._own.pop(stream, None) != tip or tip > _LONG:
                raise StreamClosedError(f"{stream} is not to be continued at {tip}")
        end = tip + len(data)
        _step("journal.append.2")
        try:
            self._bucket.write(f"journal/{stream}.{tip:012x}-{end:012x}.ops", data)
        except StorageError as error:
            if not is_transient(error):
                raise
            raise StorageError(
                f"Nobody knows whether the change was written to {self._bucket.address('journal')}: {error.message}",
                "Look, when the store answers again, before you repeat it.",
            ) from error
        _step("journal.append.3")
        with self._lock:
            self._own[stream] = end
        return end

    def _pack_what_is_loose(self) -> None:
        """Now and then, see to it that a question need not list very many objects, however long a process writes."""
        self._until_packing -= 1
        if self._until_packing > 0:
            return
        self._until_packing = _some_appends()
        try:
            tips = self.tips()
            if self.loose() >= _MANY_LOOSE:
                self.pack(tips)
                if not self._bucket.settled_after_s:
                    self.pack({})  # removes what the pack has
        except OSError as error:
            _log.warning("%r was not packed, and is read slower until it is: %s", self._bucket, error)

    # -- packing ---------------------------------------------------------------------------------------------------

    def pack(self, streams: Mapping[str, int]) -> int:
        """Gather what streams have up to the given tips in one object; nobody is disturbed, their writers neither.

        1. what has been in a pack for long is removed  2. a pack is written  3. later, the next call removes what is
        in it. A process killed anywhere leaves what the next packing goes on with; what is both in a pack and by
        itself is the same bytes.
        """
        with self._lock:
            tips = self.tips()
            entries = self._bucket.entries("journal")
            removed = self._remove_packed(entries)
            names = [entry.name for entry in entries if entry.name not in removed]
            self._parse(names)
            packs = [name for name in names if PACK.fullmatch(name)]
            packed = self._packed(packs)
            loose = {s: tip for s, tip in streams.items() if packed.get(s, 0) < tip <= tips.get(s, 0)}
            small = [name for name in packs if sum(n for _, n in self._contents(name).values()) < SMALL_PACK]
            merged = small if len(small) >= MANY_PACKS else []
            if loose or merged:
                self._write_pack(loose, merged)
            return len(loose)

    def _write_pack(self, loose: dict[str, int], merged: Iterable[str]) -> None:
        order = sorted((self._packed(merged) | loose).items())
        header, name = pack_header(order)
        _step("journal.pack.2")
        with (
            translated(tempfile.gettempdir(), writing=True),
            tempfile.TemporaryDirectory(prefix="modelstore-pack-") as scratch,
        ):
            path = Path(scratch, name)
            with path.open("wb") as file:
                file.write(header)
                for start in range(0, len(order), 1_000):
                    spans = [(stream, 0, tip) for stream, tip in order[start : start + 1_000]]
                    small = sum(tip for _, _, tip in spans) <= _AHEAD
                    ahead = self._fetched([p for span in spans for p in self._pieces(*span)]) if small else {}
                    for span in spans:
                        file.writelines(self._bytes(*span, ahead))
            _step("journal.pack.3")
            self._bucket.upload(f"journal/{name}", path)

    def _remove_packed(self, entries: Sequence[Entry]) -> set[str]:
        """Remove what has been in a pack for so long that nobody has a listing without it; returns what that was."""
        changed = {entry.name: entry.changed_at for entry in entries if PACK.fullmatch(entry.name)}
        self._remove_leftovers()
        if not changed:
            return set()
        limit = self._bucket.now(f"tmp/{os.urandom(8).hex()}") - self._bucket.settled_after_s
        settled = [name for name, then in changed.items() if then <= limit]
        safe = self._packed(settled)
        segments = filter(None, (_SEGMENT.fullmatch(entry.name) for entry in entries))
        gone = [found[0] for found in segments if safe.get(found[1], -1) >= int(found[3], 16)]
        packs = {name: self._contents(name) for name in changed}
        gone += [name for name in changed if covered_elsewhere(name, packs, settled)]
        for start in range(0, len(gone), _REMOVED_AT_ONCE):
            _step("journal.pack.1")
            self._bucket.remove(f"journal/{name}" for name in gone[start : start + _REMOVED_AT_ONCE])
        return set(gone)

    def _remove_leftovers(self) -> None:
        """Remove what packers left that died."""
        entries = self._bucket.entries("tmp")
        latest = max((entry.changed_at for entry in entries), default=0.0)
        self._bucket.remove(f"tmp/{entry.name}" for entry in entries if entry.changed_at < latest - _LEFT_S)

    # -- checkpoints -----------------------------------------------------------------------------------------------

    def checkpoints(self) -> list[str]:
        """Return the names of the finished indexes, oldest first."""
        return sorted(filter(_CHECKPOINT.fullmatch, (entry.name for entry in self._bucket.entries("checkpoints"))))

    def put_checkpoint(self, name: str, file: Path) -> None:
        """Store a finished index; it appears whole."""
        _step("journal.checkpoint.2")
        self._bucket.upload(f"checkpoints/{name}", file)

    def get_checkpoint(self, name: str, target: Path) -> None:
        """Copy a finished index to a local file, and compare it with the digest in its name."""
        self._bucket.download(f"checkpoints/{name}", target)
        digest = blake2b(digest_size=8)
        with target.open("rb") as stream:
            while data := stream.read(_HEAD):
                digest.update(data)
        if f"-{digest.hexdigest()}." not in name:
            raise StorageError(f"The checkpoint {name} is damaged", "Another will be made; nothing is lost.")

    def remove_checkpoint(self, name: str) -> None:
        """Remove a finished index."""
        self._bucket.remove([f"checkpoints/{name}"])

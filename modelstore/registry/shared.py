"""The journal of a shared registry and the private index of this host: what is new comes in, what is made goes out.

Reading: one listing of the home's tips; what lies between them and the positions known here is taken into the index,
together with the new positions. Writing: the operations of a transaction are appended to this index's own stream as
one append just before the transaction is committed here.

    1. everything new is taken in    2. the transaction's operations are appended: from here on others see them
    3. their position is written, and the index commits

Killed between 2 and 3, the operations are in the journal and not in the index: the next reader here takes them in as
he does those of others, and finds that the own stream is longer than he knows. Whoever finds that begins a new writer:
a stream is only continued where the index says that it ends, since it might also be a copied index that went on.
(tests/registry/test_shared.py kills the process everywhere.)
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from modelstore.errors import ReadOnlyRegistryError, ReadOnlyStorageError, StorageError, StorageUnavailableError
from modelstore.index import ops
from modelstore.index.heads import follow
from modelstore.index.ingest import ingest
from modelstore.journal.home import Home, StreamClosedError
from modelstore.journal.lines import following, follows
from modelstore.records.operations import Operation
from modelstore.registry.unanswered import Unanswered, leave
from modelstore.storage.progress import reporting

if TYPE_CHECKING:
    from modelstore.index.database import Database
    from modelstore.storage.fingerprints import Progress

__all__ = ["SharedJournal", "hinting_at_offline"]

_TRIES: Final = 16
_FORBIDDEN: Final = (errno.EACCES, errno.EPERM, errno.EROFS)
_AT_ONCE: Final = 32 << 20
"""Bytes of streams that are taken in together, in the order of their stamps: all of them are held in memory."""


@contextmanager
def hinting_at_offline() -> Iterator[None]:
    """Say, where it cannot be asked for news, how to do without."""
    try:
        yield
    except StorageError as error:
        raise type(error)(
            error.message, f"{error.hint} MODELSTORE_OFFLINE=1 reads what is known here.".lstrip()
        ) from error


class SharedJournal:
    """Keeps one private index and one home together; for any number of threads, and for forked children.

    Args:
        home: Where the streams are.
        database: The private index.
        writer: Returns the id of this index's writer; called inside write transactions.
        offline: Read what is known here and do not ask the home; writing is an error then.

    Attributes:
        written: Whether this process has put something there.
    """

    def __init__(self, home: Home, database: Database, writer: Callable[[], str], *, offline: bool) -> None:
        self.home = home
        self._database = database
        self._writer = writer
        self._offline = offline
        self._seen: Mapping[str, int] | None = None
        self.written = False
        self._last = (0, "")
        self._heads: dict[str, str] = {}
        self._unanswered = Unanswered(database.path.parent / "sending")

    # -- coming in -------------------------------------------------------------------------------------------------

    def take_in(self) -> None:
        """Bring the index up to what had been acknowledged before this call; inside a transaction it does nothing.

        Raises:
            StorageError: The home cannot be read; the index stays as it was.
        """
        if self._offline or self._database.connection.in_transaction:
            return
        with hinting_at_offline():
            tips = self.home.tips()
        if tips is self._seen:
            return
        # Of the many that have been quiet for long, nothing is asked.
        moved = tips.items() - (self._seen or {}).items()
        known = self._positions(stream for stream, _ in moved)
        news = [(stream, tip - known.get(stream, 0)) for stream, tip in moved if tip > known.get(stream, 0)]
        news.sort(reverse=True)  # taken from the end: a writer's streams in their order
        total = sum(length for _, length in news)
        with reporting("fetching changes") if total > _AT_ONCE else nullcontext() as progress:
            self._take_groups(news, tips, progress, total)
        self._seen = tips

    def _take_groups(
        self, news: list[tuple[str, int]], tips: Mapping[str, int], progress: Progress | None, total: int
    ) -> None:
        done = 0
        while news:
            group: list[str] = []
            size = 0
            while news and (not group or size + news[-1][1] <= _AT_ONCE):
                stream, length = news.pop()
                group.append(stream)
                size += length
            self._take_in(group, tips)
            done += size
            if progress is not None:
                progress(done, total)

    def _positions(self, streams: Iterable[str]) -> dict[str, int]:
        sql = "SELECT s.name, s.position FROM json_each(?) AS w CROSS JOIN streams AS s ON s.name = w.value"
        return dict(map(tuple, self._database.all(sql, (json.dumps(list(streams)),))))

    def _take_in(self, streams: list[str], tips: Mapping[str, int]) -> None:
        with self._database.write(private=True) as connection:
            known = self._positions(streams)  # another process may have been first
            spans = [(s, known.get(s, 0), tips[s]) for s in streams if tips[s] > known.get(s, 0)]
            if not spans:
                return
            heads: dict[str, str] = {}
            operations = self._read(spans, connection, heads)
            # Parents come before children then, which is the cheap way in; a transaction's operations stay together.
            ordered = sorted(operations, key=lambda o: (o.batch or o.stamp, o.stamp)) if len(spans) > 1 else operations
            ingest(connection, ordered, heads, checked=True)
            connection.executemany(
                "INSERT OR REPLACE INTO streams VALUES (?,?)", [(stream, end) for stream, _, end in spans]
            )
            for stream, _, _ in spans:
                # Ours, and longer than we know: never to be continued by this writer.
                leave(connection, stream[:16])

    def _read(self, spans: list[tuple[str, int, int]], connection: Any, heads: dict[str, str]) -> Iterator[Operation]:
        """Yield operations; then tell up to where all of their writers is here.

        A writer has several streams where each process begins one, and nobody promises that a listing shows the
        older of two changes when it shows the newer: so his operations say on which they follow.
        """
        runs: list[tuple[str, str]] = []
        for stream, lines in self.home.read_many(spans):
            before, last = "", ""
            for line in lines:
                operation = Operation.from_json(line.decode())
                if operation.stamp[16:] == stream[:16]:
                    previous = follows(line)
                    if previous is not None and previous != last:
                        if last:
                            runs.append((before, last))
                        before = previous
                    last = max(last, operation.stamp)
                yield operation
            if last:
                runs.append((before, last))
        heads.update(follow(connection, runs))

    # -- going out -------------------------------------------------------------------------------------------------

    def begin(self, connection: Any) -> int:
        """Return where the operations of the transaction that begins will start; a writer in doubt is left."""
        if self.home.single_process:
            self._unanswered.settle(connection)
        rows = connection.execute("SELECT h.writer, h.stamp FROM writers AS w JOIN heads AS h ON h.writer = w.id")
        self._heads = dict(map(tuple, rows))
        return ops.last_number(connection)

    def append(self, connection: Any, after: int) -> bool:
        """Write the operations of a transaction that is about to be committed into the journal.

        Args:
            connection: Inside the transaction.
            after: What `begin` returned.

        Returns:
            Whether there were any.

        Raises:
            ReadOnlyRegistryError: This user may not write there.
            StorageError: They could not be written; the transaction must be rolled back.
        """
        operations = [operation for _, operation in ops.read(connection, after)]
        if not operations:
            return False
        if self._offline:
            raise StorageUnavailableError("Nothing can be written with MODELSTORE_OFFLINE=1", "Unset it.")
        stream, tip = self._stream(connection)
        lines = self._lines(operations, stream[:16])
        if self.home.single_process:
            self._unanswered.note(*{operation.stamp[16:]: operation.stamp for operation in operations}.values())
        for _ in range(_TRIES):
            try:
                sys.audit("modelstore.step", "shared.write.1")
                end = self.home.append(stream, tip, lines)
                break
            except StreamClosedError:  # packed, or continued by a copy of this index
                stream, tip = self.home.next_stream(stream[:16], stream), 0
            except StorageError as error:
                refused = isinstance(error, ReadOnlyStorageError)
                if refused or getattr(error.__cause__, "errno", None) in _FORBIDDEN:
                    raise ReadOnlyRegistryError(error.message, "Check its permissions.") from error
                raise
        else:
            raise StorageError("The journal accepts no stream of this host", "Try again.")
        self.written = True
        sys.audit("modelstore.step", "shared.write.2")
        self._last = os.getpid(), stream
        connection.execute("INSERT OR REPLACE INTO streams VALUES (?,?)", (stream, end))
        sys.audit("modelstore.step", "shared.write.3")
        return True

    def _lines(self, operations: list[Operation], writer: str) -> list[bytes]:
        lines = [operation.to_json().encode() for operation in operations]
        first = next((n for n, operation in enumerate(operations) if operation.stamp[16:] == writer), None)
        if first is not None:
            lines[first] = following(lines[first], self._heads.get(writer, ""))
        return lines

    def _stream(self, connection: Any) -> tuple[str, int]:
        writer = self._writer()
        least, beyond = f"{writer}-", f"{writer}."  # the dot follows the dash
        if self.home.single_process:
            pid, mine = self._last
            if pid != os.getpid() or not mine.startswith(least):
                return self.home.next_stream(writer, None), 0
            least, beyond = mine, f"{mine}."
        row = connection.execute(
            "SELECT name, position FROM streams WHERE name >= ? AND name < ? ORDER BY name DESC LIMIT 1",
            (least, beyond),
        ).fetchone()
        return (self.home.next_stream(writer, None), 0) if row is None else (row[0], row[1])

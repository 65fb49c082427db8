"""Reports: what a training says of itself, to a model or a task.

A report is put into the memory of this process and written a second later at the most, together with all others of that
second: one operation an entity, whatever the number of its points. What was reported is also written before anything is
read here, when a task or registry is closed, before a fork and at exit. A process that is killed loses what it reported
in its last second, and never half of what it wrote.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from modelstore.errors import BlobNotFoundError, InvalidRequestError, ModelStoreError, ReadOnlyRegistryError
from modelstore.ids import now_ms
from modelstore.index import ops
from modelstore.index import reports as index
from modelstore.journal import Draft
from modelstore.records.points import MAX_ITERATION, SINGLE_VALUE, SUMMARY, Points, pack
from modelstore.records.reports import PlotRecord, SeriesRecord
from modelstore.records.values import decode, encode
from modelstore.registry import leaving, rules
from modelstore.storage.failures import translated

if TYPE_CHECKING:
    from modelstore.registry.registry import Registry
    from modelstore.storage.fingerprints import Fingerprint

__all__ = ["Owner", "Place", "Reports"]

logger = logging.getLogger("modelstore")

Owner = Literal["model", "task"]

FLUSH_S: Final = 0.8
"""A report waits for others at most so long; with the time of writing it stays below a second."""

_MOST_POINTS: Final = 50_000
"""So many points are written at once by whoever brings the last: a bound of memory, and of an operation's size."""

_INLINE: Final = 32_768
"""Figures of more characters are files among the objects, so that journal and index stay small."""

_IDLE_S: Final = 30.0


class Place(NamedTuple):
    """Where a plot belongs: kind and id of the model or task, title, series, iteration (None counts as 0)."""

    kind: Owner
    entity: str
    title: str
    series: str
    iteration: int | None


class _Buffer:
    """Reports that are not written yet.

    Attributes:
        points: (iteration, milliseconds, value), by entity and series.
        plots: Operations that are to be.
        count: How many points.
        stamps: Of the operations it became, once they were made: tells after an interruption whether they are written.
    """

    def __init__(self) -> None:
        self.points: dict[tuple[Owner, str, str, str], list[tuple[int, int, float]]] = {}
        self.plots: list[Draft] = []
        self.count = 0
        self.stamps: list[str] = []

    def __bool__(self) -> bool:
        return bool(self.count or self.plots)

    def drafts(self) -> list[Draft]:
        """Return the operations that say it all."""
        entities: dict[tuple[Owner, str], list[Points]] = {}
        for (kind, entity, title, series), rows in self.points.items():
            iterations, times, values = zip(*rows, strict=True)
            points = Points(title, series, array("q", iterations), array("q", times), array("d", values))
            entities.setdefault((kind, entity), []).append(points)
        scalars = [Draft(k, entity, "report", {"scalars": pack(found)}) for (k, entity), found in entities.items()]
        return [*scalars, *self.plots]


class Reports:
    """What was reported to the models and tasks of one registry.

    Args:
        registry: The registry.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._database = registry.database
        self.after_fork()
        leaving.watch(self)

    def after_fork(self) -> None:
        """Begin anew: a child writes nothing that its parent reported, since the parent does."""
        self._lock = threading.RLock()  # reentrant, because a signal handler may report
        self._flushing = threading.RLock()
        self._buffer = _Buffer()
        self._staged: _Buffer | None = None
        self._known: set[tuple[str, str]] = set()
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    # -- reporting -------------------------------------------------------------------------------------------------

    def scalar(self, kind: Owner, entity: str, title: str, series: str, value: Any, iteration: Any) -> None:
        """Add a point to a series.

        Args:
            kind: What the entity is.
            entity: Id of the model or task.
            title: Name of the chart.
            series: Name of the line in it.
            value: A number, or text that is one, or an array of one number; NaN and infinities count.
            iteration: A whole number; None counts as 0.

        Raises:
            InvalidRequestError: An argument is not acceptable; nothing was reported.
            ModelNotFoundError: There is no such model.
            TaskNotFoundError: There is no such task.
        """
        if type(value) is not float:
            value = rules.check_number("value", value)
        if type(iteration) is not int or not -MAX_ITERATION <= iteration <= MAX_ITERATION:
            iteration = _checked_iteration(iteration)
        key = (kind, entity, title, series)
        if key not in self._buffer.points:
            self._check(kind, entity, title, series)
        with self._lock:
            buffer = self._buffer
            rows = buffer.points.get(key)
            if rows is None:
                rows = buffer.points[key] = []
            rows.append((iteration, time.time_ns() // 1_000_000, value))
            buffer.count += 1
            many = buffer.count
        if many == 1:
            self._begin_writing()
        elif many >= _MOST_POINTS:
            self.flush()

    def single_value(self, kind: Owner, entity: str, name: str, value: Any) -> None:
        """Report a value that belongs to no iteration; a later one of the same name takes its place."""
        self.scalar(kind, entity, SUMMARY, name, value, SINGLE_VALUE)

    def figure(self, place: Place, figure: Mapping[str, Any]) -> None:
        """Add a Plotly figure: {"data": […], "layout": {…}} of plain values, NaN and infinities included.

        Raises:
            InvalidRequestError: A value in it cannot be kept; nothing was reported.
        """
        encoded = encode(dict(figure))
        text = json.dumps(encoded, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        if len(text) <= _INLINE:
            self._plot(place, {"kind": "plotly", "figure": encoded})
        else:
            self.file(place, "plotly", text.encode(), "figure.json")

    def file(
        self,
        place: Place,
        what: Literal["plotly", "image", "media"],
        content: bytes | str | os.PathLike[str],
        name: str,
    ) -> None:
        """Add a picture or another file; its bytes are kept among the registry's objects.

        Args:
            place: Where it belongs.
            what: Kind of the plot.
            content: The bytes, or the path of a file.
            name: File name, whose ending says what it is.

        Raises:
            StorageError: The file cannot be read or stored; nothing was reported.
        """
        self._check(*place[:4])
        _checked_iteration(place.iteration)
        fingerprint = self._stored(content, name)
        stored = {"kind": what, "digest": fingerprint.digest, "size": fingerprint.size, "name": name}
        self._plot(place, stored)

    def _stored(self, content: bytes | str | os.PathLike[str], name: str) -> Fingerprint:
        objects = self._registry.weights.objects
        while True:
            if isinstance(content, bytes):
                source = objects.temporary()
                try:
                    with translated(source, writing=True):
                        source.write_bytes(content)
                    snapshot, fingerprint = objects.snapshot(source)
                finally:
                    source.unlink(missing_ok=True)
            else:
                snapshot, fingerprint = objects.snapshot(content)
            objects.put(snapshot, fingerprint, name)
            with self._database.write():
                # What is here now was touched just now, so a collection, which works in transactions, spares it
                # until the report is written. It is not here when one took old garbage of the same bytes away.
                if objects.size(fingerprint.digest, name) is not None:
                    return fingerprint

    def address(self, place: Place, what: Literal["image", "media"], url: str) -> None:
        """Add a picture or another file that is kept elsewhere."""
        self._plot(place, {"kind": what, "url": rules.check_text("URL", url)})

    def _plot(self, place: Place, content: dict[str, Any]) -> None:
        self._check(*place[:4])
        number = _checked_iteration(place.iteration)
        plot = {"title": place.title, "series": place.series, "iteration": number, "time": now_ms(), **content}
        with self._lock:
            self._buffer.plots.append(Draft(place.kind, place.entity, "report", {"plot": plot}))
        self._begin_writing()

    def _check(self, kind: Owner, entity: str, title: str, series: str) -> None:
        rules.check_text("title", title, limit=rules.MAX_NAME)
        rules.check_text("series", series, limit=rules.MAX_NAME)
        if (kind, entity) in self._known and not self._stop.is_set():
            return
        if self._database.read_only:
            raise ReadOnlyRegistryError(
                f"The registry at {self._registry.place} is read-only for this user", "Check its permissions."
            )
        (self._registry.models if kind == "model" else self._registry.tasks).get(entity)
        self._known.add((kind, entity))

    # -- writing ---------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write what this process has reported; when it returns, that survives a power cut.

        Inside a transaction of this thread it does nothing: what is reported there is written after its end, whether
        that is well or not.

        Raises:
            ModelStoreError: It could not be written. It is kept, and written by a later call.
        """
        if self._database.in_transaction or not (self._buffer or self._staged):
            return
        with self._flushing:
            if self._staged is not None:  # a former call failed or was interrupted
                self._write(self._staged)
            with self._lock:
                self._staged, self._buffer = self._buffer, _Buffer()
            self._write(self._staged)

    def _write(self, buffer: _Buffer) -> None:
        if buffer.stamps:
            self._registry.refresh()  # a write to a shared journal may have failed after it took effect
        if buffer and not (buffer.stamps and ops.contains(self._database.connection, buffer.stamps[0])):
            drafts = buffer.drafts()
            with self._database.write():
                drafts = [draft for draft in drafts if self._is_there(draft)]
                buffer.stamps = [operation.stamp for operation in self._registry.commit(drafts)]
        self._staged = None

    def _is_there(self, draft: Draft) -> bool:
        """Tell whether there is, or was, what a report is of: a transaction that made it may have been undone."""
        table = "models" if draft.kind == "model" else "tasks"
        found = self._database.one(f"SELECT 1 FROM {table} WHERE id = ?", (draft.entity,)) is not None
        if not found:
            self._known.discard((draft.kind, draft.entity))
            logger.warning("Reports of the %s %s are dropped: it was never registered", draft.kind, draft.entity)
        return found

    def _begin_writing(self) -> None:
        """Let a thread of this process write in a moment."""
        self._wake.set()
        with self._lock:
            if self._thread is not None:
                return
            self._thread = threading.Thread(target=self._keep_writing, name="modelstore-reports", daemon=True)
            leaving.watch(self)  # in a child of multiprocessing, its end is known only once it runs
            try:
                self._thread.start()
                return
            except RuntimeError:  # the interpreter is ending, and starts no more threads
                self._thread = None
        self.flush()

    def _keep_writing(self) -> None:
        failing = False
        while not self._stop.is_set():
            if not self._wake.wait(_IDLE_S):
                with self._lock:
                    if not self._wake.is_set():
                        self._thread = None
                        return
            self._wake.clear()
            self._stop.wait(FLUSH_S)
            try:
                self.flush()
                failing = False
            except ModelStoreError as error:
                if not failing:
                    logger.warning("Reports cannot be written now, and are kept in memory: %s", error)
                failing = True
                self._wake.set()

    def close(self) -> None:
        """Write what was reported, and end the thread that does.

        Raises:
            ModelStoreError: It could not be written, and is lost.
        """
        self._stop.set()
        self._wake.set()
        self.flush()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    # -- reading ---------------------------------------------------------------------------------------------------

    def series(self, entity: str, title: str | None = None, series: str | None = None) -> list[SeriesRecord]:
        """Return the scalar series of a model or task, sorted by title and name; single values are among them."""
        self.flush()
        self._registry.refresh()
        return index.series(self._database.connection, entity, title, series)

    def blocks(self, record: SeriesRecord) -> list[tuple[bytes, bytes, bytes]]:
        """Return the points of a series: iterations, times, values of each block, in the order of reporting.

        Each is a column of eight bytes a number, little-endian: whole numbers, milliseconds since 1970, floats.
        """
        with self._database.snapshot():
            return index.blocks(self._database.connection, record.key)

    def plots(self, entity: str) -> list[PlotRecord]:
        """Return the plots, pictures and files of a model or task, sorted by title, series and iteration."""
        self.flush()
        self._registry.refresh()
        return index.plots(self._database.connection, entity)

    def load_figure(self, plot: PlotRecord) -> dict[str, Any]:
        """Return a Plotly figure as it was reported: {"data": […], "layout": {…}}.

        Raises:
            InvalidRequestError: It is a picture or another file.
            BlobNotFoundError: Its file is gone.
        """
        if plot.kind != "plotly":
            raise InvalidRequestError(
                f"{plot.title!r} / {plot.series!r} is no figure but {plot.kind}", "Take its path."
            )
        if plot.digest is None:
            text = index.figure_text(self._database.connection, plot.op)
        else:
            text = self.path(plot).read_text(encoding="utf-8")
        figure: dict[str, Any] = decode(json.loads(text))
        return figure

    def path(self, plot: PlotRecord) -> Path:
        """Return the stored file of a plot: read-only, not to be changed.

        Raises:
            InvalidRequestError: It has none: a small figure, or something kept elsewhere.
            BlobNotFoundError: The file is gone.
        """
        if plot.digest is None:
            raise InvalidRequestError(f"{plot.title!r} / {plot.series!r} has no file here")
        name = plot.name or "file"
        found = self._registry.weights.object_file(plot.digest, name)
        if found is None:
            where = self._registry.weights.objects.uri(plot.digest, name)
            raise BlobNotFoundError(f"The file of the plot {plot.title!r} / {plot.series!r} is missing: {where}")
        return found


def _checked_iteration(iteration: Any) -> int:
    if iteration is None:
        return 0
    if isinstance(iteration, float) and iteration.is_integer():
        iteration = int(iteration)
    number = rules.check_integer("iteration", iteration)
    if abs(number) > MAX_ITERATION:
        raise InvalidRequestError(f"The iteration {number} is out of range")
    return number

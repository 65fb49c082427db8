"""Uploads in the background.

What is to be sent lies in the registry folder (`uploads/`) and in the table `uploads` from before the call returns
until the destination has the bytes. So an upload outlives the process: a later one goes on with it.

    1. the snapshot moves from `objects/tmp/` to `uploads/`      2. the row is written
    3. the bytes are sent and verified                            4. in one transaction: the model gets its new content,
    5. the snapshot is deleted, and the user's file if asked         the row goes

Killed before 2, a file without a row is left, which `gc` removes; killed later, the row is there and the upload can be
taken up again. Sending twice does no harm, since contents have addresses of their own.
(tests/registry/test_crashes.py kills the process everywhere.)
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modelstore.cache import owners
from modelstore.cache.owners import parse_owner, this_process
from modelstore.errors import ModelNotFoundError, ModelStoreError, UploadError
from modelstore.ids import new_id, now_ms
from modelstore.index import reader
from modelstore.records.entities import UploadRecord
from modelstore.registry import ending
from modelstore.registry.sources import Leftover, delete_leftovers
from modelstore.registry.weights import Snapshot
from modelstore.storage.failures import translated
from modelstore.storage.fingerprints import Fingerprint
from modelstore.storage.objects import remote_object_uri
from modelstore.storage.uris import redact

if TYPE_CHECKING:
    from modelstore.registry.registry import Registry

__all__ = ["Enqueued", "Uploads", "is_alive"]

logger = logging.getLogger("modelstore")

_WORKERS: Final = 4
_THIS: Final = "id = ? AND snapshot = ?"
"""Which upload is meant: the number alone may be another's, of a process that began one when this one was given up."""


@dataclass(frozen=True, slots=True)
class Enqueued:
    """An upload that is written down: its number, its model, and the URI that the weights will have."""

    id: int
    model: str
    uri: str
    snapshot: Snapshot


class Uploads:
    """The background uploads of one registry in this process.

    Uploads of different models do not wait for each other; those of one model happen in order.

    Args:
        registry: The registry.

    Attributes:
        folder: Where bytes lie that wait to be sent; on a shared registry a folder of this host's own.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._greatest = 0  # a number is not given again while this process may still know what had it
        # Hosts that share a registry know only their own uploads, and clean up only among those.
        self.folder = registry.folder / "uploads" / ("" if registry.kind == "local" else _host(registry))
        self._forget()
        ending.watch(self)

    def _forget(self) -> None:
        """Begin with nothing: in a new process, and in a forked child, whose parent sees to what it began."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._workers = 0
        self._ready: deque[str] = deque()
        self._running: dict[int, Future[None]] = {}
        self._models: dict[int, str] = {}
        self._queues: dict[str, deque[int]] = {}
        self._failures: dict[int, tuple[str, ModelStoreError]] = {}
        self._stranded: list[int] = []
        self._left = False

    def unfinished(self) -> int:
        """Return how many uploads this process still has to do."""
        if self._pid != os.getpid():
            return 0
        with self._lock:
            return sum(not future.done() for future in self._running.values()) + len(self._stranded)

    def leave(self) -> None:
        """Wait for nothing any more: the process ends, and what is not finished is a later one's to send."""
        self._left = True

    def pending(self, model_id: str | None = None) -> list[UploadRecord]:
        """Return the uploads that have not finished, of this process and of others, oldest first."""
        return reader.uploads(self._registry.database, model_id)

    def begun_here(self, model_id: str | None = None) -> bool:
        """Tell whether this process has uploads to do, also such as wait for the end of a transaction."""
        own = this_process().token
        return any(one.status == "pending" and one.changes.get("owner") == own for one in self.pending(model_id))

    def adopt(self, snapshot: Snapshot) -> None:
        """Move a snapshot to where it waits for its upload."""
        assert snapshot.path is not None  # noqa: S101 - only a snapshot that is still here is sent
        folder = self.folder
        target = folder / new_id()
        with translated(target, writing=True):
            folder.mkdir(parents=True, exist_ok=True)
            os.rename(snapshot.path, target)  # step 1
        snapshot.path = target

    def enqueue(
        self,
        model_id: str,
        snapshot: Snapshot,
        destination: str,
        fields: dict[str, Any],
        leftovers: Sequence[Leftover] = (),
    ) -> Enqueued:
        """Write down, as part of the caller's transaction, what is to be sent; `start` must follow in it."""
        fingerprint, path = snapshot.fingerprint, snapshot.path
        assert path is not None  # noqa: S101 - `adopt` came before
        uri = remote_object_uri(destination, fingerprint.digest, snapshot.name)
        changes = {
            "fields": fields,
            "filename": snapshot.name,
            "size": fingerprint.size,
            "sha256": fingerprint.sha256,
            "xxh3": fingerprint.xxh3,
            "leftovers": [[one.path, one.looks] for one in leftovers],
            "owner": this_process().token,
        }
        with self._registry.database.write() as connection:  # step 2
            cursor = connection.execute(
                "INSERT INTO uploads (id, model, snapshot, destination, changes, status, host, pid, actor, created)"
                " VALUES ((SELECT max(coalesce(max(id), 0), ?) + 1 FROM uploads),?,?,?,?,'pending',?,?,?,?)",
                (
                    self._greatest,
                    model_id, str(path.relative_to(self._registry.folder)), destination, json.dumps(changes),
                    os.uname().nodename,
                    os.getpid(), self._registry.actor, now_ms(),
                ),
            )  # fmt: skip
        assert cursor.lastrowid is not None  # noqa: S101 - an INSERT always has one
        self._greatest = max(self._greatest, cursor.lastrowid)
        return Enqueued(cursor.lastrowid, model_id, uri, snapshot)

    def start(self, upload: Enqueued) -> None:
        """Begin sending what `enqueue` wrote down, at the end of the transaction where one is still open."""
        path = upload.snapshot.path
        assert path is not None  # noqa: S101 - it was enqueued
        upload.snapshot.path = None  # from here on the row is in charge of the file
        self._registry.database.at_end(
            well=partial(self._submit, upload.id, upload.model), undone=partial(path.unlink, missing_ok=True)
        )

    def _submit(self, upload_id: int, model_id: str) -> None:
        if self._pid != os.getpid():
            self._forget()
        with self._lock:
            if upload_id in self._running and not self._running[upload_id].done():
                return
            self._running[upload_id] = Future()
            self._models[upload_id] = model_id
            queue = self._queues.setdefault(model_id, deque())
            queue.append(upload_id)
            if len(queue) == 1:  # else it is ready or being worked on, and comes back as long as something is queued
                self._ready.append(model_id)
            if not self._ready or self._workers >= _WORKERS:
                return
            self._workers += 1
        # No daemon and no executor: the interpreter waits for these threads before it runs its exit handlers. For those
        # that such a handler begins it would not wait.
        if threading.main_thread().is_alive():
            threading.Thread(target=self._work, name="modelstore-upload").start()
        else:
            self._work()
            self._send_stranded()

    def _work(self) -> None:
        """Send what is queued, one upload of each model in turn, those of one model in order, until nothing is left."""
        while True:
            with self._lock:
                if not self._ready:
                    self._workers -= 1
                    return
                model_id = self._ready.popleft()
                upload_id = self._queues[model_id][0]
            try:
                self._send(upload_id)
            except ModelStoreError as error:
                self._failed(upload_id, model_id, error)
            except Exception as error:  # noqa: BLE001 - the top of a thread: kept for whoever waits
                self._failed(upload_id, model_id, UploadError(f"An upload failed: {type(error).__name__}: {error}"))
            with self._lock:
                queue = self._queues[model_id]
                queue.popleft()
                finished = self._running[upload_id]
                if queue:
                    self._ready.append(model_id)
                else:
                    del self._queues[model_id]
            finished.set_result(None)

    def _failed(self, upload_id: int, model_id: str, error: ModelStoreError) -> None:
        with self._lock:
            self._failures[upload_id] = (model_id, error)
        logger.error("Upload of the weights of model %s failed: %s", model_id, error)

    def _send(self, upload_id: int) -> None:
        upload = self._row(upload_id)
        if upload is None:
            return  # finished by another process, or given up
        try:
            gone = self._deliver(upload)
        except Exception as error:
            now = self._row(upload_id)
            if now is None or now.snapshot != upload.snapshot:
                return  # given up meanwhile, and its snapshot is gone
            if ending.is_too_late(error):
                self._strand(upload)
                return
            if not isinstance(error, ModelStoreError):
                raise
            self._note_failure(upload, error)
            raise UploadError(
                f"The weights of model {upload.model} could not be sent to {redact(upload.destination)}: {error}",
                "They are kept in the registry; send them with `modelstore uploads --resume`.",
            ) from error
        for path in gone:  # step 5
            path.unlink(missing_ok=True)
        leftovers = [Leftover(path, looks and tuple(looks)) for path, looks in upload.changes["leftovers"]]
        delete_leftovers(leftovers if gone else (), (self._registry.folder, self._registry.cache_folder))

    def _deliver(self, upload: UploadRecord) -> list[Path]:
        """Send the bytes and write the row; return the snapshots that nobody needs any more."""
        from modelstore.storage.progress import reporting
        from modelstore.storage.uploads import upload_object

        changes = upload.changes
        snapshot = self._registry.folder / upload.snapshot
        fingerprint = Fingerprint(changes["size"], changes["sha256"], changes["xxh3"])
        with reporting(f"uploading {changes['filename']}") as progress:  # step 3
            uri = upload_object(
                snapshot, fingerprint, upload.destination, changes["filename"], progress=progress,
                checkpoint=_Checkpoint(self._registry, upload),
            )  # fmt: skip
        fields = changes["fields"] | {"uri": uri, "digest": fingerprint.digest, "size": fingerprint.size}
        with self._registry.database.write() as connection:  # step 4
            if not connection.execute(f"DELETE FROM uploads WHERE {_THIS}", (upload.id, upload.snapshot)).rowcount:
                return []
            gone = [snapshot, *self._registry.weights.supersede(upload.model, upload.id)]
            try:
                record = self._registry.models.get(upload.model)
            except ModelNotFoundError:
                logger.warning("Model %s was removed while its weights were being uploaded", upload.model)
                return gone
            if record.framework is not None:
                fields.pop("framework", None)  # ours was a guess
            self._registry.models.edit(upload.model, **fields)
        return gone

    def _strand(self, upload: UploadRecord) -> None:
        """Leave an upload to another process: this one ends, and drivers can begin no threads in it any more."""
        with self._registry.database.write() as connection:
            connection.execute(
                f"UPDATE uploads SET changes = json_set(changes, '$.owner', '') WHERE {_THIS}",
                (upload.id, upload.snapshot),
            )
        with self._lock:
            self._stranded.append(upload.id)

    def _row(self, upload_id: int) -> UploadRecord | None:
        return next((u for u in self.pending() if u.id == upload_id), None)

    def _note_failure(self, upload: UploadRecord, error: ModelStoreError) -> None:
        with self._registry.database.write() as connection:
            connection.execute(
                f"UPDATE uploads SET status = 'failed', attempts = attempts + 1, error = ? WHERE {_THIS}",
                (str(error), upload.id, upload.snapshot),
            )

    def wait(
        self,
        model_id: str | None = None,
        *,
        timeout: float | None = None,
        count: int | None = None,
        quiet: bool = False,
    ) -> None:
        """Wait for this process's uploads.

        Args:
            model_id: Only of this model; None for all.
            timeout: Seconds at most; None as long as it takes.
            count: Until so many have finished; None for all.
            quiet: Leave it to a later call to tell of failures.

        Raises:
            UploadError: One failed (each is told once).
        """
        if self._pid != os.getpid():
            self._forget()
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            waiting = {f for i, f in self._running.items() if model_id is None or self._models[i] == model_id}
        finished = 0
        while waiting and not self._left and (count is None or finished < count):
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            done, waiting = wait(waiting, timeout=left, return_when=FIRST_COMPLETED)
            finished += len(done)
            if not done:
                break
        self._send_stranded()
        with self._lock:
            for upload_id in [i for i, future in self._running.items() if future.done()]:
                del self._running[upload_id], self._models[upload_id]
            failed = [i for i, (model, _) in self._failures.items() if model_id is None or model == model_id]
            errors = [] if quiet else [self._failures.pop(i)[1] for i in failed]
        if errors:
            raise errors[0]

    def _send_stranded(self) -> None:
        with self._lock:
            stranded, self._stranded = self._stranded, []
        if not stranded or self._left:
            return
        ending.send_in_a_child(self._registry.uri, self._registry.actor, stranded)
        for upload in self.pending():
            if upload.id in stranded:
                error = UploadError(
                    f"The weights of model {upload.model} were not sent to {redact(upload.destination)} before the "
                    f"process ended{f': {upload.error}' if upload.error else ''}",
                    "They are kept in the registry; send them with `modelstore uploads --resume`.",
                )
                self._failed(upload.id, upload.model, error)

    def resume(self, only: Collection[int] | None = None) -> list[UploadRecord]:
        """Send what earlier processes, or earlier tries, did not; returns the uploads that were taken up.

        Uploads of processes that are still alive are left to them.

        Args:
            only: Numbers of uploads; None for all.

        Raises:
            UploadError: One failed again; the others were tried too.
        """
        with self._lock:
            ours = {i for i, future in self._running.items() if not future.done()}
        taken = [
            u
            for u in self.pending()
            if u.id not in ours and (only is None or u.id in only) and (u.status == "failed" or not is_alive(u))
        ]
        for upload in taken:
            self._take(upload)
            with self._lock:
                self._failures.pop(upload.id, None)  # that of a former try says nothing of this one
            self._submit(upload.id, upload.model)
        self.wait()
        return taken

    def _take(self, upload: UploadRecord) -> None:
        changes = json.dumps(upload.changes | {"owner": this_process().token})
        with self._registry.database.write() as connection:
            connection.execute(
                f"UPDATE uploads SET status = 'pending', changes = ?, host = ?, pid = ? WHERE {_THIS}",
                (changes, os.uname().nodename, os.getpid(), upload.id, upload.snapshot),
            )

    def cancel(self, upload_id: int) -> bool:
        """Give an unfinished upload up and delete its snapshot; False when there is none of that number.

        Parts that are at the destination already are deleted there, as far as it can be reached.
        """
        upload = self._row(upload_id)
        if upload is None:
            return False
        with self._registry.database.write() as connection:
            connection.execute(f"DELETE FROM uploads WHERE {_THIS}", (upload.id, upload.snapshot))
        (self._registry.folder / upload.snapshot).unlink(missing_ok=True)
        state = upload.changes.get("checkpoint")
        if state is not None:
            from modelstore.storage.uploads import abandon

            digest = f"sha256:{upload.changes['sha256']}"
            try:
                abandon(remote_object_uri(upload.destination, digest, upload.changes["filename"]), state)
            except ModelStoreError as error:
                logger.warning("Parts of upload %d are left at its destination: %s", upload_id, error)
        return True

    def close(self) -> None:
        """Wait for all uploads.

        Raises:
            UploadError: One failed.
        """
        self.wait()


class _Checkpoint:
    """Where an upload has got to, kept in its row: another process goes on from there."""

    def __init__(self, registry: Registry, upload: UploadRecord) -> None:
        self._registry, self._upload = registry, upload
        self.state: str | None = upload.changes.get("checkpoint")

    def save(self, state: str) -> None:
        self.state = state
        with self._registry.database.write() as connection:
            connection.execute(
                f"UPDATE uploads SET changes = json_set(changes, '$.checkpoint', ?) WHERE {_THIS}",
                (state, self._upload.id, self._upload.snapshot),
            )


def _host(registry: Registry) -> str:
    """Return a name for one private index on one host."""
    import hashlib

    return hashlib.sha256(f"{os.uname().nodename}:{registry.private}".encode()).hexdigest()[:16]


def is_alive(upload: UploadRecord) -> bool:
    """Tell whether the process that began an upload may still be at it."""
    owner = parse_owner(upload.changes.get("owner", ""))
    if owner is None or owner == this_process():
        return False
    return bool(owners.is_alive(owner))

"""A registry: one folder, opened."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from modelstore import config
from modelstore.errors import ModelStoreError
from modelstore.ids import new_writer, now_ms
from modelstore.index import fold, ops
from modelstore.index.database import Database
from modelstore.index.ingest import Ingested, append_own, ingest, rebuild
from modelstore.journal import Draft, seal
from modelstore.records.operations import Action, EntityKind, Operation
from modelstore.registry import mounts, opening
from modelstore.registry.lookback import Lookback
from modelstore.registry.upkeep import Upkeep

if TYPE_CHECKING:
    from modelstore.index.readonly import Selection
    from modelstore.registry.conflicts import Conflicts
    from modelstore.registry.models import Models
    from modelstore.registry.remotes import Remotes
    from modelstore.registry.reports import Reports
    from modelstore.registry.tasks import Tasks
    from modelstore.registry.weights import Weights
    from modelstore.sync import Direction, Objects, Partner, SyncResult

__all__ = ["Registry", "open_registry"]

T = TypeVar("T")

logger = logging.getLogger("modelstore")


@dataclass(slots=True)
class _Batch:
    """What a transaction of several operations has written so far: stamp of the first, numbers of first and last."""

    stamp: str = ""
    first: int = 0
    last: int = 0
    size: int = 0

    def become(self, other: _Batch) -> None:
        """Be as it was, when what was written since is undone."""
        self.stamp, self.first, self.last, self.size = other.stamp, other.first, other.last, other.size


class Registry(Lookback, Upkeep):
    """A model registry in a folder, in a bucket, or behind a server.

    Safe to use from any number of threads and processes at once; a process that dies at any point leaves each change
    wholly done or not done at all. A context manager: leaving it waits for uploads and closes the database.

    Args:
        uri: Where the registry is: a path or `file://` URI, an object store (`s3://`, `gs://`, `az://`), a database
            (`postgresql://`), or a server (`https://`); None takes `MODELSTORE_REGISTRY` or the user's data folder.
        create: Make the registry when there is none.
        cache: Folder of local copies of remote weights; None takes `MODELSTORE_CACHE` or the user's cache folder.
        actor: Who makes the changes; None takes `MODELSTORE_ACTOR` or user@host.
        shared: Whether the registry is one that several hosts use at once; None takes what it is, and makes a new one
            shared where its folder lies on a network filesystem.
        offline: Read what this host knows of a shared registry, without looking for what others have written; writing
            is an error then. None takes `MODELSTORE_OFFLINE`.
        objects: Where the bytes of a registry in a database are to be, a bucket or a folder that all hosts see; matters
            when the registry is made. None takes what it has.

    Attributes:
        kind: "local" or "shared".
        id: The registry's id.
        bucket: The registry's place in an object store; None for one elsewhere.
        server: The server that has the registry; None for one elsewhere.
        objects: Where the bytes are, when not beside the journal.
        folder: The registry's folder; for one in a bucket that of this host's index.
        home: Where the journal of a shared registry is; None for a registry of one machine, and offline.
        private: Folder of the index: the registry's own, or, when that is shared, one on this host's disk.

    Raises:
        RegistryNotFoundError: There is none, and ``create`` is False.
        InvalidRequestError: The URI is of no kind that this version can open, or the registry of another than asked.
        NewerRegistryError: A newer modelstore wrote it.
        CorruptRegistryError: Its database or format file is damaged.
        ReadOnlyRegistryError: It must be created, and the folder cannot be written.
        NetworkFilesystemError: A registry of one machine lies on a network filesystem.
        StorageUnavailableError: A shared registry that this host knows is not there: its folder is not mounted.
    """

    def __init__(
        self,
        uri: str | os.PathLike[str] | None = None,
        *,
        create: bool = True,
        cache: str | os.PathLike[str] | None = None,
        actor: str | None = None,
        shared: bool | None = None,
        offline: bool | None = None,
        objects: str | os.PathLike[str] | None = None,
    ) -> None:
        how = opening.Opening(create, shared, config.offline() if offline is None else offline, actor, objects)
        place = opening.find(config.registry_uri() if uri is None else uri, how)
        self._place = place
        self.kind, self.id, self.folder, self.private = place.kind, place.id, place.folder, place.private
        self.bucket, self.server, self.objects, self.actor = place.bucket, place.server, place.objects, place.actor
        self.cache_folder = Path(cache).expanduser().absolute() if cache is not None else config.cache_folder()
        self._commits = 0
        self._local = threading.local()
        self._writer: tuple[int, str] | None = None
        self._parts: dict[str, Any] = {}
        self.database: Database
        with ExitStack() as failed:
            failed.callback(place.close)
            self.home = opening.open_index(self, place, self._writer_id, offline=how.offline)
            failed.pop_all()

    # -- parts -----------------------------------------------------------------------------------------------------

    @property
    def uri(self) -> str:
        """Where the registry is, as a URI."""
        return self.folder.as_uri() if self.in_folder else self.place

    @property
    def place(self) -> str:
        """Where the registry is, for people: a path, or the URI of a bucket or server."""
        if self.server is not None:
            return self.server.url
        return str(self.folder) if self.bucket is None else self.bucket.uri

    @property
    def in_folder(self) -> bool:
        """Whether the registry is in a folder, of this machine or one that hosts share."""
        return self.bucket is None and self.server is None

    @property
    def version(self) -> int:
        """Grows with every write of this process, also of one that is rolled back: what was read before is old then."""
        return self._commits + self.database.generation

    @property
    def models(self) -> Models:
        """The models of this registry."""
        from modelstore.registry.models import Models

        return self.part("models", Models)

    @property
    def tasks(self) -> Tasks:
        """The tasks of this registry."""
        from modelstore.registry.tasks import Tasks

        return self.part("tasks", Tasks)

    @property
    def weights(self) -> Weights:
        """The bytes of this registry's models: storing, uploading, local copies."""
        from modelstore.registry.weights import Weights

        return self.part("weights", Weights)

    @property
    def reports(self) -> Reports:
        """What was reported to the models and tasks of this registry: scalars, plots, pictures."""
        from modelstore.registry.reports import Reports

        return self.part("reports", Reports)

    @property
    def conflicts(self) -> Conflicts:
        """Edits that did not know of each other, and settling them."""
        from modelstore.registry.conflicts import Conflicts

        return self.part("conflicts", Conflicts)

    @property
    def remotes(self) -> Remotes:
        """The other registries that this one knows by a name."""
        from modelstore.registry.remotes import Remotes

        return self.part("remotes", Remotes)

    def refresh(self) -> None:
        """Take in what others have written to a shared registry; every public read and write does so by itself.

        Raises:
            StorageError: The registry's folder cannot be read.
        """
        journal = self.database.journal
        if journal is not None and not getattr(self._local, "reading", False):
            journal.take_in()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Look once for what others have written, however much the block reads."""
        if self.database.journal is None or getattr(self._local, "reading", False):
            yield
            return
        self.refresh()
        self._local.reading = True
        try:
            yield
        finally:
            self._local.reading = False

    def flush_reports(self) -> None:
        """Write what this process has reported and not written yet, so that what is read next has it.

        Raises:
            ModelStoreError: It could not be written; it is kept.
        """
        if "reports" in self._parts:
            self.reports.flush()

    def part(self, name: str, factory: Callable[[Registry], T]) -> T:
        """Return a part of this registry, made at its first use."""
        found: T | None = self._parts.get(name)
        if found is None:
            found = self._parts.setdefault(name, factory(self))
        return found

    # -- writing ---------------------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make several changes as one: others see all of them or none.

        The changes are durable when the block ends; when it raises, or the process dies in it, none was made. A block
        inside another is part of that: when it raises and the outer one goes on, only its own changes are undone.

        Other threads and processes that want to write wait for the end of the block, and so do uploads in the
        background: bytes are better stored before it begins.

        Raises:
            ReadOnlyRegistryError: The registry cannot be written.
            RegistryBusyError: Others kept it locked too long.
        """
        if getattr(self._local, "batch", None) is not None:
            with self.database.savepoint():
                yield
            return
        with self.database.write() as connection:
            batch = self._local.batch = _Batch()
            try:
                yield
                if batch.size:
                    connection.execute(
                        "UPDATE ops SET batch_size = ? WHERE seq BETWEEN ? AND ? AND batch = ?",
                        (batch.size, batch.first, batch.last, batch.stamp),
                    )
            finally:
                self._local.batch = None

    def commit(self, drafts: Sequence[Draft]) -> list[Operation]:
        """Write changes into the journal and the index, as one transaction or as part of the one that is open.

        Returns:
            The operations they became.
        """
        with self.database.write() as connection:
            batch: _Batch | None = getattr(self._local, "batch", None)
            operations = seal(
                drafts,
                last=ops.last_stamp(connection),
                writer=self._writer_id(),
                actor=self.actor,
                parents_of=self._parents_of,
            )
            if batch is not None and operations:
                # The size is not known before the transaction ends: 0 stands for it until then.
                stamp = batch.stamp or operations[0].stamp
                operations = [replace(operation, batch=stamp, batch_size=0) for operation in operations]
            numbers = append_own(connection, operations)
            if batch is not None and operations:
                self.database.at_end(undone=partial(batch.become, replace(batch)))
                batch.stamp = operations[0].batch or ""
                batch.first = batch.first or numbers[0]
                batch.last = numbers[-1]
                batch.size += len(numbers)
            self._commits += 1
        return operations

    def _parents_of(self, kind: EntityKind, entity: str, action: Action, keys: list[str]) -> dict[str, str]:
        connection = self.database.connection
        if action == "report":
            return {}
        if action == "delete":
            return fold.all_winners(connection, kind, entity)
        return fold.winners(connection, kind, entity, keys)

    def _writer_id(self) -> str:
        """Return this registry's writer id; a copy of the folder gets one of its own.

        Stamps must stay unique when somebody copies a registry and both copies go on: the copy's database file has
        another inode.
        """
        if self.kind == "local" and self._writer is not None and self._writer[0] == os.getpid():
            return self._writer[1]  # that of a shared registry may have been given up by another process
        status = os.stat(self.database.path)
        filesystem = os.statvfs(self.database.path).f_fsid
        fingerprint = f"{mounts.machine_id()}:{filesystem:x}:{status.st_ino}"
        if self.kind == "shared":  # indexes travel with images of machines and containers
            fingerprint += f":{mounts.boot_id()}:{os.uname().nodename}"
        with self.database.write() as connection:
            self.database.at_end(undone=self._forget_writer)
            row = connection.execute("SELECT id FROM writers WHERE fingerprint = ?", (fingerprint,)).fetchone()
            writer = row[0] if row is not None else new_writer()
            if row is None:
                connection.execute(
                    "INSERT INTO writers VALUES (?,?,?,?)", (writer, fingerprint, os.uname().nodename, now_ms())
                )
        self._writer = (os.getpid(), writer)
        return str(writer)

    def _forget_writer(self) -> None:
        self._writer = None

    def ingest(
        self, operations: Iterable[Operation], heads: Mapping[str, str] | None = None, *, checked: bool = False
    ) -> Ingested:
        """Take in operations made elsewhere, in any order, any number of times; part of an open transaction.

        Args:
            operations: The operations.
            heads: By writer, the stamp up to which all his operations are here when these have arrived.
            checked: They obey the format, as those that `Operation.from_json` reads do.

        Raises:
            InvalidOperationError: One breaks the format; none was taken in.
        """
        with self.database.write() as connection:
            return ingest(connection, operations, heads, checked=checked)

    def operations(self, after: int = 0, limit: int | None = None) -> Iterator[tuple[int, Operation]]:
        """Yield the journal's operations in order of arrival with their numbers, behind number ``after``."""
        self.refresh()
        return ops.read(self.database.connection, after, limit)

    def rebuild(self) -> int:
        """Make the index anew from the journal, in one transaction; returns the number of operations folded."""
        with self.database.write() as connection:
            return rebuild(connection)

    def sync(
        self,
        remote: str | os.PathLike[str],
        *,
        direction: Direction = "both",
        with_objects: Objects = "all",
        only: Mapping[str, Any] | None = None,
        dry_run: bool = False,
        progress: Callable[[str, int, int | None], object] | None = None,
    ) -> SyncResult:
        """Exchange changes and bytes with another registry, so that each has what the other had.

        Cut off anywhere, the next call goes on where this one ended; a second call moves nothing.

        Args:
            remote: Name of a remote, a folder, or any URI that a registry can have.
            direction: "both", or only "push" or "pull".
            with_objects: Which of the bytes that registries keep themselves go along, to whoever lacks them: "all",
                those of "published" models, "none", or "wanted": of models that the receiver has made or changed.
            only: Conditions on models, as `Model.query_models` names them, to which, with their tasks and projects,
                the exchange is limited; None for everything.
            dry_run: Only say how many changes would move.
            progress: Told what is being done, how much of it, and of how much (None where that is not known).

        Returns:
            What was moved, and which conflicts that brought to light.

        Raises:
            RegistryNotFoundError: There is no registry at the remote.
            InvalidRequestError: An argument is unknown, or the remote is this registry.
            StorageError, RegistryError: A side cannot be read or written; what was moved before stays.
        """
        from modelstore.sync import sync

        with closing(self.contact(self.remotes.resolve(os.fspath(remote)))) as partner:
            return sync(
                self, partner, direction=direction, with_objects=with_objects, only=only, dry_run=dry_run,
                progress=progress,
            )  # fmt: skip

    @staticmethod
    def contact(uri: str) -> Partner:
        """Open another registry, wherever that is, for questions and bytes; the caller closes it.

        Raises:
            RegistryNotFoundError: There is none.
            AccessDeniedError, StorageUnavailableError: A server refuses, or cannot be reached.
        """
        from modelstore.sync import open_partner

        return open_partner(uri)

    def seen_through(self, database: Database) -> Self:
        """Return a registry with everything of this one but its index."""
        view = object.__new__(type(self))
        view.__dict__.update(
            folder=self.folder, bucket=self.bucket, server=self.server, objects=self.objects, actor=self.actor,
            cache_folder=self.cache_folder, kind=self.kind, id=self.id, private=self.private, home=None,
            database=database, _commits=0, _local=threading.local(), _writer=None,
            _parts={}, _place=replace(self._place, bucket=None, server=None),
        )  # fmt: skip
        return view

    def select(self, statement: str) -> Selection:
        """Run one SQL statement that reads the index, on a connection through which nothing can be changed.

        Args:
            statement: One SELECT; values belong into it as SQL literals.

        Returns:
            The rows, read as they are asked for; a context manager.

        Raises:
            InvalidRequestError: It is no statement that only reads, or SQLite cannot run it.
        """
        from modelstore.index.readonly import select

        self.flush_reports()
        self.refresh()
        return select(self.database, statement)

    # -- end -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Write what was reported, wait for this process's uploads and close the database.

        Later use raises `RegistryError`.
        """
        try:
            for part in ("reports", "weights"):
                if part in self._parts:
                    self._parts[part].close()
            if "views" in self._parts:
                self._parts["views"].close()
            journal = self.database.journal
            if self.home is not None and journal is not None and journal.written:  # who only reads may have no right to
                self._tidy()
        finally:
            self.home = None
            self.database.close()
            self._place.close()

    def _tidy(self) -> None:
        """Spare those who join a shared registry later from reading all of its streams, where that would be much."""
        from modelstore.registry.compacting import compact, worth_compacting

        try:
            if worth_compacting(self):
                compact(self)
        except ModelStoreError as error:
            logger.warning("The registry at %s was not compacted: %s", self.place, error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Registry({self.place!r})"


def open_registry(
    uri: str | os.PathLike[str] | None = None,
    *,
    create: bool = True,
    cache: str | os.PathLike[str] | None = None,
    actor: str | None = None,
    shared: bool | None = None,
    offline: bool | None = None,
    objects: str | os.PathLike[str] | None = None,
) -> Registry:
    """Open a registry; see `Registry` for the arguments and errors."""
    return Registry(uri, create=create, cache=cache, actor=actor, shared=shared, offline=offline, objects=objects)

"""A server's registry, used through an index on this host.

What is new comes in before each question; what is made goes out before the call returns:

    1. everything new is pulled    2. the stamp of the last change is noted beside the index    3. the transaction's
    operations are pushed: from here on others see them    4. the index commits

Killed between 3 and 4, or when the answer of 3 is lost, the server has operations that the index has not, or will have
them in a moment. Whoever begins the next transaction here finds the stamp noted and no such operation, and goes on as
another writer: this one's stamps may be taken. What the server has comes in with the next pull.
(tests/sync/test_replica.py kills the process everywhere.)

Offline, changes stay in the index, and bytes beside it; the next question that reaches the server sends them first.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from modelstore import config
from modelstore.errors import InvalidRequestError, StorageUnavailableError
from modelstore.index import ops
from modelstore.index.heads import read_heads, read_strays
from modelstore.index.ingest import ingest
from modelstore.registry.references import Reference
from modelstore.registry.shared import hinting_at_offline
from modelstore.registry.unanswered import Unanswered, leave
from modelstore.storage import uris
from modelstore.storage.fingerprints import Fingerprint
from modelstore.storage.objects import ObjectStore, StoredObject, object_uri, parse_object_uri, sanitise_filename
from modelstore.storage.transfer import Address
from modelstore.sync.client import REFUSALS
from modelstore.sync.http import HttpPartner
from modelstore.sync.partners import Knowledge, Parcel, RegistryPartner

if TYPE_CHECKING:
    from modelstore.records.operations import Operation
    from modelstore.registry.registry import Registry

__all__ = ["Server", "ServerJournal", "ServerObjects"]


class Server:
    """The server of one registry; for any number of threads, and for forked children.

    Args:
        url: Its address.
        offline: Never ask it.

    Attributes:
        url: Its address.
        offline: Whether it is never asked.
    """

    def __init__(self, url: str, *, offline: bool) -> None:
        self.url = uris.refuse_secrets(uris.normalise(url)).rstrip("/")
        self.offline = offline
        self._partner: tuple[int, HttpPartner] | None = None

    @property
    def partner(self) -> HttpPartner:
        """The registry behind it.

        Raises:
            RegistryNotFoundError: No modelstore server answers there.
            AccessDeniedError: It wants another token.
            StorageUnavailableError: It cannot be reached, or must not be asked.
        """
        if self.offline:
            raise StorageUnavailableError(f"{self.url} is not asked with MODELSTORE_OFFLINE=1", "Unset it.")
        if self._partner is None or self._partner[0] != os.getpid():  # a child's requests would mix with its parent's
            self._partner = os.getpid(), HttpPartner(self.url)
        return self._partner[1]

    def actor(self, noted: Path) -> str:
        """Return as whom this process writes: what the environment says, else as the token allows.

        Args:
            noted: A file of this host that knows it when the server is not asked.
        """
        if not self.offline:
            name, role = self.partner.who
            noted.write_text(f"{name}@{os.uname().nodename}" if role == "write" else config.actor())
        if config.sources()["actor"] != "default" or not noted.exists():
            return config.actor()
        return noted.read_text()

    def objects(self, root: Path) -> ServerObjects:
        """Return the bytes of its registry; ``root`` is a folder of this host for copies in the making."""
        return ServerObjects(root, self)

    def journal(self, registry: Registry) -> ServerJournal:
        """Return what keeps a registry's index and the server together."""
        return ServerJournal(self, registry)

    def close(self) -> None:
        """Drop the connections."""
        if self._partner is not None and self._partner[0] == os.getpid():
            self._partner[1].close()
        self._partner = None


class ServerJournal:
    """Keeps one index and one server together.

    Args:
        server: The server.
        registry: What the index is of.
    """

    def __init__(self, server: Server, registry: Registry) -> None:
        self._server, self._registry = server, registry
        self._unanswered = Unanswered(registry.private / "sending")
        self._seen: tuple[Knowledge, dict[str, str]] | None = None
        self.written = False

    # -- coming in -------------------------------------------------------------------------------------------------

    def take_in(self) -> None:
        """Bring the index up to what had been acknowledged before this call; inside a transaction it does nothing.

        What was written offline is sent first.

        Raises:
            StorageError: The server cannot be asked; the index stays as it was.
        """
        database = self._registry.database
        if self._server.offline or database.connection.in_transaction:
            return
        with hinting_at_offline():
            theirs = self._server.partner.knowledge()
        mine = self._mine()
        if (theirs, mine) == self._seen:
            return
        waiting = {w: stamp for w, stamp in mine.items() if stamp > theirs.heads.get(w, "")}
        if waiting:
            self._send_waiting(theirs, waiting)
        with database.snapshot():
            ours = Knowledge(read_heads(database.connection), frozenset(read_strays(database.connection)))
        if ours.lacks(theirs):
            for parcel in self._server.partner.parcels(ours, theirs):
                self._take(parcel, mine.keys())
        self._seen = theirs, mine

    def _mine(self) -> dict[str, str]:
        """Return the writers of this host that have written, with the stamps of their last changes."""
        sql = "SELECT w.id, h.stamp FROM writers AS w JOIN heads AS h ON h.writer = w.id"
        return {row[0]: row[1] for row in self._registry.database.all(sql)}

    def _send_waiting(self, theirs: Knowledge, waiting: Mapping[str, str]) -> None:
        """Send what was written offline: 1. bytes, which go from here when they have arrived  2. operations."""
        sys.audit("modelstore.step", "replica.waiting.1")
        self._objects().send_waiting()
        sys.audit("modelstore.step", "replica.waiting.2")
        for parcel in RegistryPartner(self._registry).parcels(theirs, Knowledge(waiting)):
            try:
                self._server.partner.take_in(parcel)
            except REFUSALS as error:
                kind = next(one for one in REFUSALS if isinstance(error, one))
                raise kind(
                    f"What was made here offline cannot be sent: {error.message}",
                    f"{error.hint} Until then, MODELSTORE_OFFLINE=1 works with what is here.".lstrip(),
                ) from error

    def _objects(self) -> ServerObjects:
        return self._server.objects(self._registry.private / "objects")

    def _take(self, parcel: Parcel, own: AbstractSet[str]) -> None:
        with self._registry.database.write(private=True) as connection:
            ingest(connection, parcel.operations, parcel.heads, checked=parcel.checked)
            # Ours, and not known here: an answer was lost, or a copy of this index went on. Never to be continued.
            for writer in {o.stamp[16:] for o in parcel.operations} & own:
                leave(connection, writer)

    # -- going out -------------------------------------------------------------------------------------------------

    def begin(self, connection: Any) -> int:
        """Return where the operations of the transaction that begins will start; a writer in doubt is left."""
        self._unanswered.settle(connection)
        return ops.last_number(connection)

    def append(self, connection: Any, after: int) -> bool:
        """Send the operations of a transaction that is about to be committed; offline they wait in the index.

        Args:
            connection: Inside the transaction.
            after: What `begin` returned.

        Returns:
            Whether there were any, and the server has them.

        Raises:
            AccessDeniedError: This token may not write, or not as this actor.
            StorageUnavailableError: The server cannot be reached; the change may have arrived, or may yet.
            StorageError: They could not be written; the transaction must be rolled back.
        """
        made = [operation for _, operation in ops.read(connection, after)]
        if not made:
            return False
        if self._server.offline:
            self._refuse_others(made)
            return False
        self.written = True
        parcel = self._parcel(connection, made)
        if len(parcel.operations) > len(made):
            self._objects().send_waiting()
        self._unanswered.note(*{operation.stamp[16:]: operation.stamp for operation in made}.values())
        sys.audit("modelstore.step", "replica.write.3")
        try:
            self._server.partner.take_in(parcel)
        except REFUSALS:
            self._unanswered.take_back()
            raise
        except StorageUnavailableError as error:
            raise StorageUnavailableError(
                f"Nobody knows whether the change has arrived: {error.message}",
                "Look, when the server answers again, before you repeat it.",
            ) from error
        sys.audit("modelstore.step", "replica.write.4")
        return True

    def _parcel(self, connection: Any, made: list[Operation]) -> Parcel:
        """Return what is to be sent, and of whom the server then has everything: what is taken in is of many writers.

        A process of this host that is offline may have written since `take_in`, as the same writer: whoever has a
        writer's last change must have those before it.
        """
        sent = {operation.stamp: operation for operation in made}
        known = {} if self._seen is None else self._seen[0].heads
        writers = {stamp[16:] for stamp in sent}
        heads = {writer: stamp for writer, stamp in read_heads(connection).items() if writer in writers}
        for writer, stamp in heads.items():
            sent |= {one.stamp: one for one in ops.of_writer(connection, writer, known.get(writer, ""), stamp)}
        return Parcel([sent[stamp] for stamp in sorted(sent)], heads)

    def _refuse_others(self, made: list[Operation]) -> None:
        """See that what waits for the server is of this host: nothing else is looked for when it is sent."""
        own = {row[0] for row in self._registry.database.all("SELECT id FROM writers")}
        if any(operation.stamp[16:] not in own for operation in made):
            raise StorageUnavailableError(
                "Changes of others are not taken in with MODELSTORE_OFFLINE=1", "Do it when the server can be reached."
            )


class ServerObjects(ObjectStore):
    """The bytes of a registry behind a server; what was stored offline waits on this host.

    Args:
        root: Folder of this host for copies in the making and for what waits.
        server: The server.
    """

    remote: ClassVar[bool] = True

    def __init__(self, root: Path, server: Server) -> None:
        super().__init__(root)
        self._server = server

    def options(self) -> Mapping[str, Any]:
        """Return the token, for those who read from the addresses that are returned here."""
        return {"headers": self._server.partner.headers}

    # -- writing ---------------------------------------------------------------------------------------------------

    def put(self, snapshot: Path, fingerprint: Fingerprint, filename: str, *, durable: bool = True) -> str:
        """Send a finished snapshot, which is gone afterwards, and return its logical URI; offline it waits here.

        Raises:
            StorageError: It could not be sent or kept.
        """
        if self._server.offline:
            return super().put(snapshot, fingerprint, filename, durable=durable)
        name = sanitise_filename(filename)
        self._send(fingerprint.digest, name, fingerprint.size, snapshot)
        snapshot.unlink()
        return object_uri(fingerprint.digest, name)

    def send_waiting(self) -> None:
        """Send what was stored offline, and remove it here; what has gone before a kill is known there.

        Raises:
            StorageError: Something could not be sent; it stays.
        """
        for stored in list(super().iterate()):
            for name in stored.names:
                path = super().path(stored.digest, name)
                self._send(stored.digest, name, path.stat().st_size, path)
            super().remove(stored.digest)

    def _send(self, digest: str, name: str, size: int, path: Path) -> None:
        from modelstore.storage.progress import reporting

        with reporting(f"uploading {name}") as progress:
            self._server.partner.store(Reference(digest, name, size, "", name), Address(str(path)), progress)

    # -- looking ---------------------------------------------------------------------------------------------------

    def uri(self, digest: str, filename: str) -> str:
        """Return the address of that object, there or not."""
        return self._server.url + HttpPartner.path_of(digest, sanitise_filename(filename))

    def address(self, digest: str, filename: str) -> str | None:
        """Return where a content can be read; None when neither the server nor this host has it."""
        waiting = self.local(digest, filename)
        if waiting is not None:
            return str(waiting)
        return None if self.size(digest, filename) is None else self.uri(digest, filename)

    def named(self, uri: str) -> tuple[str, str] | None:
        """Return digest and file name of what lies at a normalised URI of this server; None for any other URI."""
        head = f"{self._server.url}/v1/objects/sha256:"
        hexdigest, _, name = uri.removeprefix(head).partition("/") if uri.startswith(head) else ("", "", "")
        try:
            return parse_object_uri(f"modelstore://sha256/{hexdigest}/{name}")
        except InvalidRequestError:
            return None

    def size(self, digest: str, filename: str | None = None) -> int | None:
        """Return the bytes of an object; None when neither the server nor this host has it."""
        waiting = super().size(digest, filename)
        if waiting is not None or self._server.offline:
            return waiting
        return self._server.partner.size_of(digest, sanitise_filename(filename or "file"))

    def lacking(self, wanted: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        """Return those digests and file names under which there is no object."""
        return {(digest, name) for digest, name in wanted if self.size(digest, name) is None}

    # -- what only the server's own host can do ----------------------------------------------------------------------

    def iterate(self) -> Iterator[StoredObject]:
        """Yield nothing: what waits here is not garbage, and the rest is the server's."""
        return iter(())

    def remove(self, digest: str) -> NoReturn:
        """Refuse: bytes are freed where they are.

        Raises:
            InvalidRequestError: Always.
        """
        raise InvalidRequestError(f"{digest} is kept by {self._server.url}", "Run `modelstore gc` on its host.")

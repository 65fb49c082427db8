"""What one registry can ask of another, wherever that is: what it knows, its operations, its bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final, Literal, Protocol

from modelstore.errors import ProjectNotFoundError, RegistryNotFoundError
from modelstore.ids import project_id
from modelstore.index import ops
from modelstore.index.heads import read_heads, read_strays
from modelstore.index.ingest import Ingested
from modelstore.records.operations import Operation
from modelstore.registry.registry import Registry
from modelstore.registry.search import ModelSearch
from modelstore.storage import uris
from modelstore.storage.fingerprints import Progress
from modelstore.storage.objects import parse_object_uri
from modelstore.storage.transfer import download

__all__ = ["Filters", "Knowledge", "Need", "Objects", "Parcel", "Partner", "RegistryPartner", "open_partner"]

PARCEL: Final = 2_000
"""Operations that are taken in together: one transaction, and what is lost of the work when a sync is cut off."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What a registry has.

    Attributes:
        heads: By writer, the stamp up to which all his operations are there.
        strays: Stamps of what is there besides.
    """

    heads: Mapping[str, str] = field(default_factory=dict)
    strays: frozenset[str] = frozenset()

    def lacks(self, other: Knowledge) -> bool:
        """Tell whether another registry has anything that this one has not."""
        if any(stamp > self.heads.get(writer, "") for writer, stamp in other.heads.items()):
            return True
        return any(not self.has(stamp) for stamp in other.strays)

    def has(self, stamp: str) -> bool:
        """Tell whether that operation is surely there."""
        return stamp <= self.heads.get(stamp[16:], "") or stamp in self.strays


@dataclass(frozen=True, slots=True)
class Parcel:
    """Operations that travel together, and what their receiver may say of himself afterwards (see `Knowledge`)."""

    operations: list[Operation]
    heads: dict[str, str]


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that an entity refers to: digest, the name of their file, their size where it is known."""

    digest: str
    name: str
    size: int | None


Filters = Mapping[str, Any]
"""Conditions on models: attributes of `modelstore.registry.search.ModelSearch`; all can be said in JSON."""

Objects = Literal["all", "published", "none", "wanted"]

_OWN = "SELECT entity FROM ops WHERE substr(stamp, 17) IN (SELECT id FROM writers)"
_MODELS = "SELECT id, uri, digest, NULL, size FROM models WHERE state < 2 AND uri LIKE 'modelstore://%'"
_PLOTS = (
    "SELECT entity, NULL, digest, name, size FROM plots WHERE digest IS NOT NULL"
    " AND entity NOT IN (SELECT id FROM models WHERE state = 2)"
)
_REFERENCES: Final[dict[Objects, str]] = {
    "all": f"{_MODELS} UNION ALL {_PLOTS}",
    "published": f"{_MODELS} AND published_op IS NOT NULL UNION ALL {_PLOTS}"
    " AND entity IN (SELECT id FROM models WHERE published_op IS NOT NULL)",
    "wanted": f"{_MODELS} AND id IN ({_OWN}) UNION ALL {_PLOTS} AND entity IN ({_OWN})",
    "none": f"{_MODELS} AND 0",
}


class Partner(Protocol):
    """One side of an exchange."""

    @property
    def id(self) -> str:
        """The registry's id."""
        ...

    @property
    def uri(self) -> str:
        """Where it is, without credentials."""
        ...

    def knowledge(self) -> Knowledge:
        """Return what it has now."""
        ...

    def parcels(self, known: Knowledge, upto: Knowledge) -> Iterator[Parcel]:
        """Yield what it has up to a state of its own and the other side has not; transactions are never split.

        Args:
            known: What the other side has.
            upto: What this side had when the exchange began.
        """
        ...

    def take_in(self, parcel: Parcel) -> Ingested:
        """Take a parcel in: all of it, durably, or nothing."""
        ...

    def select(self, filters: Filters) -> set[str]:
        """Return the ids of the models that match, of their tasks and their projects."""
        ...

    def needs(self, which: Objects, entities: set[str] | None) -> list[Need]:
        """Return the bytes that it refers to, wants and has not.

        Args:
            which: See `modelstore.sync.sync`.
            entities: Only those of these; None for all.
        """
        ...

    def address(self, need: Need) -> str | None:
        """Return where its bytes can be fetched; None when it has them not."""
        ...

    def store(self, need: Need, address: str, progress: Progress | None = None) -> int:
        """Keep the bytes that are at an address which this process can read; returns how many.

        Raises:
            IntegrityError: They are not those of the digest; nothing was kept.
            StorageError: They could not be had, or not be kept.
        """
        ...

    def close(self) -> None:
        """End the exchange."""
        ...


class RegistryPartner:
    """A registry that this process can open: this machine's own, a folder, a team's.

    Args:
        registry: The registry.
        owned: Close it with the partner.
    """

    def __init__(self, registry: Registry, *, owned: bool = False) -> None:
        self.registry = registry
        self._owned = owned

    @property
    def id(self) -> str:
        """The registry's id."""
        return self.registry.id

    @property
    def uri(self) -> str:
        """Where it is, without credentials."""
        return uris.redact(self.registry.uri)

    def knowledge(self) -> Knowledge:
        """Return what it has now, what was reported and not yet written included."""
        self.registry.flush_reports()
        with self.registry.database.snapshot():
            connection = self.registry.database.connection
            return Knowledge(read_heads(connection), frozenset(read_strays(connection)))

    def parcels(self, known: Knowledge, upto: Knowledge) -> Iterator[Parcel]:
        """Yield what the other side has not, in order of stamps; see `Partner`."""
        writers = {w: s for w, s in upto.heads.items() if s > known.heads.get(w, "")}
        after = min((known.heads.get(w, "") for w in writers), default="")
        last = max(writers.values(), default="")
        waiting: list[Operation] = []
        unfinished: dict[str, int] = {}
        said: dict[str, str] = {}
        for operation in self._newer(after, last, upto.strays, known):
            stamp = operation.stamp
            writer = stamp[16:]
            wanted = known.heads.get(writer, "") < stamp <= writers.get(writer, "") or stamp in upto.strays
            if not wanted or known.has(stamp):
                continue
            waiting.append(operation)
            if stamp <= writers.get(writer, ""):
                said[writer] = stamp
            if operation.batch is not None:
                left = unfinished.get(operation.batch, operation.batch_size) - 1
                unfinished[operation.batch] = left
                if left <= 0:
                    del unfinished[operation.batch]
            if len(waiting) >= PARCEL and not unfinished:
                yield Parcel(waiting, said)
                waiting, said = [], {}
        yield Parcel(waiting, writers)

    def _newer(self, after: str, last: str, strays: frozenset[str], known: Knowledge) -> Iterator[Operation]:
        connection = self.registry.database.connection
        alone = sorted(stamp for stamp in strays if not known.has(stamp) and not after < stamp <= last)
        for stamp in alone:
            operation = ops.get(connection, stamp)
            if operation is not None:
                yield operation
        if last:
            yield from ops.between(connection, after, last)

    def take_in(self, parcel: Parcel) -> Ingested:
        """Take a parcel in, in one transaction."""
        return self.registry.ingest(parcel.operations, parcel.heads)

    def select(self, filters: Filters) -> set[str]:
        """Return the ids of the models that match, of their tasks and their projects; the archived ones too."""
        found: set[str] = set()
        search = ModelSearch(**{"include_archived": True, **filters})
        with suppress(ProjectNotFoundError):  # this side may not have heard of it yet
            for model in chain.from_iterable(search.pages(self.registry)):
                found.add(model.id)
                found.update(link.task for link in self.registry.models.links(model.id))
                found.update(one for one in (model.task, model.parent) if one is not None)
                if model.project is not None:
                    found.add(project_id(model.project))
        return found

    def needs(self, which: Objects, entities: set[str] | None) -> list[Need]:
        """Return the bytes that it refers to, wants and has not."""
        objects = self.registry.weights.objects
        found: dict[str, Need] = {}
        for entity, uri, digest, name, size in self.registry.database.all(_REFERENCES[which]):
            if entities is not None and entity not in entities:
                continue
            own = parse_object_uri(uri) if uri is not None else (digest, name or "file")
            if own is not None and own[0] not in found and not objects.path(*own).exists():
                found[own[0]] = Need(own[0], own[1], size)
        return list(found.values())

    def address(self, need: Need) -> str | None:
        """Return the path of its file; None when it has none."""
        objects = self.registry.weights.objects
        path = objects.path(need.digest, need.name)
        found = path if path.exists() else objects.find(need.digest)
        return None if found is None else str(found)

    def store(self, need: Need, address: str, progress: Progress | None = None) -> int:
        """Keep the bytes that are at an address; see `Partner`."""
        objects = self.registry.weights.objects
        snapshot = objects.temporary()
        try:
            done = download(address, snapshot, progress=progress, expected_digest=need.digest)
            objects.put(snapshot, done.fingerprint, need.name)
        finally:
            snapshot.unlink(missing_ok=True)
        return done.fingerprint.size

    def close(self) -> None:
        """Close the registry if it was opened for this."""
        if self._owned:
            self.registry.close()


def open_partner(uri: str, *, create: bool = False) -> Partner:
    """Open the other side of an exchange.

    Args:
        uri: A folder, or any URI that a registry can have.
        create: Make a registry there when there is none; a folder becomes one of this machine.

    Raises:
        RegistryNotFoundError: There is none, and ``create`` is False.
        InvalidRequestError: No registry can be at such a URI.
    """
    try:
        return RegistryPartner(Registry(uri, create=create), owned=True)
    except RegistryNotFoundError as error:
        raise RegistryNotFoundError(
            f"There is no registry at {uris.redact(uri)}", "Check the address, or make one with `modelstore init`."
        ) from error

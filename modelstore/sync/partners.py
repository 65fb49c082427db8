"""What one registry can ask of another, wherever that is: what it knows, its operations, its bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from modelstore.errors import ProjectNotFoundError, RegistryNotFoundError
from modelstore.index import ops
from modelstore.index.heads import read_heads, read_strays
from modelstore.index.ingest import Ingested
from modelstore.records.operations import Operation
from modelstore.registry.references import Reference, around, references
from modelstore.registry.registry import Registry
from modelstore.registry.search import ModelSearch
from modelstore.storage import uris
from modelstore.storage.fingerprints import Progress
from modelstore.storage.transfer import Address

__all__ = ["Filters", "Knowledge", "Objects", "Parcel", "Partner", "RegistryPartner", "open_partner"]

PARCEL: Final = 2_000
"""Operations that are taken in together: one transaction, and what is lost of the work when a sync is cut off."""
_PAGE: Final = 2_000
"""Operations that are read from the journal at once."""


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

    def with_parcel(self, parcel: Parcel) -> Knowledge:
        """Return what there is when a parcel has arrived."""
        heads = dict(self.heads)
        for writer, stamp in parcel.heads.items():
            heads[writer] = max(stamp, heads.get(writer, ""))
        alone = (o.stamp for o in parcel.operations if o.stamp > heads.get(o.stamp[16:], ""))
        return Knowledge(heads, self.strays.union(alone))


@dataclass(frozen=True, slots=True)
class Parcel:
    """Operations that travel together, and what their receiver may say of himself afterwards (see `Knowledge`).

    Attributes:
        operations: In order of stamps.
        heads: By writer, the stamp up to which the receiver has everything when these have arrived.
        checked: Whether the operations are known to obey the format, as those that `Operation.from_json` reads do.
    """

    operations: list[Operation]
    heads: dict[str, str]
    checked: bool = False


Filters = Mapping[str, Any]
"""Conditions on models: attributes of `modelstore.registry.search.ModelSearch`; all can be said in JSON."""

Objects = Literal["all", "published", "none", "wanted"]

_CHOSEN: Final[dict[Objects, str]] = {
    "published": "SELECT id FROM models WHERE published_op IS NOT NULL",
    "wanted": "SELECT entity FROM ops WHERE substr(stamp, 17) IN (SELECT id FROM writers)",
}
"""Of which entities the bytes go along, where not those of all do."""


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

    def takes(self, operation: Operation) -> bool:
        """Tell whether it would take an operation in from this side; what it would not stays where it is."""
        ...

    def take_in(self, parcel: Parcel) -> Ingested:
        """Take a parcel in: all of it, durably, or nothing."""
        ...

    def select(self, filters: Filters) -> set[str]:
        """Return the ids of the models that match, of their tasks and their projects."""
        ...

    def needs(self, which: Objects, entities: set[str] | None) -> list[Reference]:
        """Return the bytes that it refers to, wants and has not.

        Args:
            which: See `modelstore.sync.sync`.
            entities: Only those of these; None for all.
        """
        ...

    def address(self, need: Reference) -> Address | None:
        """Return where its bytes can be fetched; None when it has them not."""
        ...

    def store(self, need: Reference, address: Address, progress: Progress | None = None) -> int:
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
        self.registry.refresh()
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
            ahead = known.heads.get(writer, "") < stamp <= writers.get(writer, "")
            # What the other side has of a transaction counts, too. Strays are no part of one that could become whole.
            if ahead and operation.batch is not None:
                left = unfinished.get(operation.batch, operation.batch_size) - 1
                unfinished[operation.batch] = left
                if left <= 0:
                    del unfinished[operation.batch]
            if known.has(stamp) or not (ahead or stamp in upto.strays):
                continue
            waiting.append(operation)
            if ahead:
                said[writer] = stamp
            if len(waiting) >= PARCEL and not unfinished:
                yield Parcel(waiting, said)
                waiting, said = [], {}
        yield Parcel(waiting, writers)

    def _newer(self, after: str, last: str, strays: frozenset[str], known: Knowledge) -> Iterator[Operation]:
        alone = sorted(stamp for stamp in strays if not known.has(stamp) and not after < stamp <= last)
        for stamp in alone:
            operation = ops.get(self.registry.database.connection, stamp)
            if operation is not None:
                yield operation
        while last:
            # Page by page: nothing is open in the database while the receiver, perhaps far away, takes his time.
            page = list(ops.between(self.registry.database.connection, after, last, limit=_PAGE))
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1].stamp

    def takes(self, operation: Operation) -> bool:  # noqa: ARG002 - anybody's
        """Whoever can open a registry may write it."""
        return True

    def take_in(self, parcel: Parcel) -> Ingested:
        """Take a parcel in, in one transaction."""
        return self.registry.ingest(parcel.operations, parcel.heads, checked=parcel.checked)

    def select(self, filters: Filters) -> set[str]:
        """Return the ids of the models that match, archived ones too, of their parents, and of what is around them."""
        search = ModelSearch(**{"include_archived": True, **filters})
        try:
            found = search.keys(self.registry)
        except ProjectNotFoundError:  # this side may not have heard of it yet
            return set()
        sql = (
            "SELECT m.id, m.parent FROM json_each(?) AS wanted CROSS JOIN models AS m ON m.key = wanted.value"
            " WHERE m.state <> 2"
        )
        rows = self.registry.database.all(sql, (json.dumps(found),))
        parents = {row[1] for row in rows if row[1] is not None}
        return parents | around(self.registry, [row[0] for row in rows])

    def needs(self, which: Objects, entities: set[str] | None) -> list[Reference]:
        """Return the bytes that it refers to, wants and has not."""
        self.registry.refresh()
        objects, database = self.registry.weights.objects, self.registry.database
        chosen = {row[0] for row in database.all(_CHOSEN[which])} if which in _CHOSEN else None
        found = {
            one.digest: one
            for one in reversed(references(database))
            if (entities is None or one.entity in entities) and (chosen is None or one.entity in chosen)
        }
        lacking = objects.lacking((one.digest, one.name) for one in found.values())
        return [one for one in found.values() if (one.digest, one.name) in lacking]

    def address(self, need: Reference) -> Address | None:
        """Return the path or URI of its bytes; None when it has them not."""
        found = self.registry.weights.objects.address(need.digest, need.name)
        return None if found is None else Address(found)

    def store(self, need: Reference, address: Address, progress: Progress | None = None) -> int:
        """Keep the bytes that are at an address; see `Partner`."""
        return address.fetch(self.registry.weights.objects, need.digest, need.name, progress).size

    def close(self) -> None:
        """Close the registry if it was opened for this."""
        if self._owned:
            self.registry.close()


def open_partner(uri: str) -> Partner:
    """Open the other side of an exchange.

    Args:
        uri: A folder, or any URI that a registry can have.

    Raises:
        RegistryNotFoundError: There is none.
        InvalidRequestError: No registry can be at such a URI.
        AccessDeniedError, StorageUnavailableError: A server refuses, or cannot be reached.
    """
    if uris.scheme(uri) in ("http", "https"):
        from modelstore.sync.http import HttpPartner

        return HttpPartner(uri)
    try:
        return RegistryPartner(Registry(uri, create=False), owned=True)
    except RegistryNotFoundError as error:
        raise RegistryNotFoundError(
            f"There is no registry at {uris.redact(uri)}", "Check the address, or make one with `modelstore init`."
        ) from error

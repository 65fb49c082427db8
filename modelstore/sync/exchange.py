"""One exchange: who lacks what, operations in parcels, then bytes, then what came of it.

    1. both say what they have            nothing moves when that is the same
    2. operations, parcel by parcel       each is one transaction at the receiver, with what he may say of himself then
    3. bytes that the receiver wants      by digest, verified, only what is missing
    4. the time is noted at the remote

Cut off anywhere, the next exchange goes on: a parcel that arrived is known, bytes that arrived are not lacking.
(tests/sync/test_exchange.py kills the process at each.)
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from modelstore.errors import InvalidRequestError
from modelstore.ids import now_ms
from modelstore.registry.conflicts import Conflicts, OpenConflict
from modelstore.registry.registry import Registry
from modelstore.storage.progress import counting, reporting
from modelstore.sync.partners import Filters, Knowledge, Objects, Parcel, Partner, RegistryPartner

__all__ = ["DIRECTIONS", "OBJECTS", "Direction", "Moved", "Objects", "SyncResult", "sync"]

Tell = Callable[[str, int, int | None], object]
Direction = Literal["both", "push", "pull"]
DIRECTIONS: Final = get_args(Direction)
OBJECTS: Final = get_args(Objects)


@dataclass(slots=True)
class Moved:
    """What went one way.

    Attributes:
        operations: New to the receiver.
        entities: Ids of the models, tasks and projects that they touched.
        objects: Files of bytes that the receiver lacked.
        bytes: Their size.
        unavailable: Digests that the receiver wants and the sender has not.
        left: Operations by actor that the receiver takes only from those who made them, or from an admin.
    """

    operations: int = 0
    entities: set[str] = field(default_factory=set)
    objects: int = 0
    bytes: int = 0
    unavailable: list[str] = field(default_factory=list)
    left: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class SyncResult:
    """What came of an exchange.

    Attributes:
        remote: The other side, without credentials.
        sent: What went there.
        received: What came here.
        conflicts: Edits that did not know of each other and that this exchange brought to light or touched; empty
            for a dry run.
        dry_run: Whether nothing was moved.
    """

    remote: str
    sent: Moved = field(default_factory=Moved)
    received: Moved = field(default_factory=Moved)
    conflicts: list[OpenConflict] = field(default_factory=list)
    dry_run: bool = False

    @property
    def nothing(self) -> bool:
        """Whether both sides had the same already."""
        moved = (self.sent, self.received)
        return not any(one.operations or one.objects for one in moved)


def sync(
    registry: Registry,
    partner: Partner,
    *,
    direction: Direction = "both",
    with_objects: Objects = "all",
    only: Filters | None = None,
    dry_run: bool = False,
    progress: Tell | None = None,
) -> SyncResult:
    """Exchange operations and bytes with another registry, so that each has what the other had.

    Any number of exchanges may run at once, on either side. Cut off anywhere, the next goes on where this ended.

    Args:
        registry: This side.
        partner: The other side.
        direction: "both", or only "push" or "pull".
        with_objects: Which of the bytes that registries keep themselves go along, to whoever lacks them: "all", those
            of "published" models, "none", or "wanted": of models that the receiver itself has made or changed.
        only: Conditions on models, to which, with their tasks and projects, the exchange is limited; None for all.
        dry_run: Only say what would be moved: operations, not bytes.
        progress: Told what is being done, how much of it, and of how much (None where that is not known).

    Returns:
        What was moved, and which conflicts that brought to light.

    Raises:
        InvalidRequestError: The two are one registry, or an argument is unknown.
        StorageError, RegistryError: A side cannot be read or written; what was moved before stays.
    """
    if direction not in DIRECTIONS or with_objects not in OBJECTS:
        raise InvalidRequestError(f"Unknown direction {direction!r} or objects {with_objects!r}")
    ours = RegistryPartner(registry)
    if partner.uri == ours.uri:
        raise InvalidRequestError("A registry cannot be synced with itself", "Name another registry.")
    exchange = _Exchange(ours, partner, direction, with_objects, only, progress or _silent, dry_run=dry_run)
    return exchange.run()


def _silent(*_: object) -> None:
    pass


class _Exchange:
    """One run of `sync`; its arguments."""

    def __init__(
        self,
        ours: RegistryPartner,
        partner: Partner,
        direction: Direction,
        which: Objects,
        only: Filters | None,
        tell: Tell,
        *,
        dry_run: bool,
    ) -> None:
        self.ours, self.partner, self.direction, self.which = ours, partner, direction, which
        self.only, self.tell, self.dry_run = only, tell, dry_run
        self.result = SyncResult(partner.uri, dry_run=dry_run)

    def run(self) -> SyncResult:
        """Do it."""
        sys.audit("modelstore.step", "sync.exchange.1")
        here, there = self.ours.knowledge(), self.partner.knowledge()
        done = f"{self.direction}:{self.which}:{self._mark(here)}"
        settled = not (here.lacks(there) or there.lacks(here))
        if settled and self.only is None and self._remembered() == done:
            return self.result
        result = self.result
        if self.direction != "push" and here.lacks(there):
            self._operations(self.partner, self.ours, there, here, result.received, "receiving")
        if self.direction != "pull" and there.lacks(here):
            self._operations(self.ours, self.partner, here, there, result.sent, "sending")
        if self.dry_run:
            return result
        if self.which != "none":
            self._bytes()
        sys.audit("modelstore.step", "sync.exchange.4")
        if self.only is None and not (result.received.unavailable or result.sent.unavailable):
            self._remember(f"{self.direction}:{self.which}:{self._mark(self.ours.knowledge())}")
        touched = result.received.entities | result.sent.entities
        result.conflicts = Conflicts(self.ours.registry).open(touched) if touched else []
        return result

    def _operations(
        self, sender: Partner, receiver: Partner, has: Knowledge, known: Knowledge, moved: Moved, what: str
    ) -> None:
        chosen = None if self.only is None else sender.select(self.only)
        left: set[str] = set()
        with counting(f"{what} changes") as progress:
            for parcel in sender.parcels(known, has):
                self._parcel(self._wanted(parcel, receiver, chosen, moved, left), receiver, moved)
                self.tell(f"{what} changes", moved.operations, None)
                if progress is not None:
                    progress(moved.operations, None)

    @staticmethod
    def _wanted(parcel: Parcel, receiver: Partner, chosen: set[str] | None, moved: Moved, left: set[str]) -> Parcel:
        """Return what of a parcel goes to the receiver; writers of whom something is left out are noted."""
        operations, heads = parcel.operations, parcel.heads
        if chosen is not None:
            operations, heads = [o for o in operations if o.entity in chosen], {}
        refused = [o for o in operations if not receiver.takes(o)]
        if refused:
            operations = [o for o in operations if receiver.takes(o)]
            moved.left.update(o.actor for o in refused)
            left.update(o.stamp[16:] for o in refused)
        # What is left out stays unknown to the receiver, so he may say nothing about its writers.
        heads = {writer: stamp for writer, stamp in heads.items() if writer not in left}
        return Parcel(operations, heads, parcel.checked)

    def _parcel(self, parcel: Parcel, receiver: Partner, moved: Moved) -> None:
        if self.dry_run:
            moved.operations += len(parcel.operations)
            moved.entities.update(operation.entity for operation in parcel.operations)
        elif parcel.operations or parcel.heads:
            sys.audit("modelstore.step", "sync.exchange.2")
            taken = receiver.take_in(parcel)
            moved.operations += taken.new
            moved.entities.update(taken.entities)

    def _bytes(self) -> None:
        if self.direction != "push":
            self._copy(self.partner, self.ours, self.result.received, "receiving")
        if self.direction != "pull":
            self._copy(self.ours, self.partner, self.result.sent, "sending")

    def _copy(self, sender: Partner, receiver: Partner, moved: Moved, what: str) -> None:
        chosen = None if self.only is None else sender.select(self.only)
        needs = receiver.needs(self.which, chosen)
        for number, need in enumerate(needs):
            address = sender.address(need)
            if address is None:
                moved.unavailable.append(need.digest)
                continue
            sys.audit("modelstore.step", "sync.exchange.3")
            self.tell(f"{what} files", number, len(needs))
            with reporting(f"{what} {need.name}") as progress:
                moved.bytes += receiver.store(need, address, progress)
            moved.objects += 1

    # -- what both had when they last met ----------------------------------------------------------------------------

    def _mark(self, knowledge: Knowledge) -> str:
        text = repr((sorted(knowledge.heads.items()), sorted(knowledge.strays)))
        return hashlib.sha256(text.encode()).hexdigest()

    def _remembered(self) -> str | None:
        row = self.ours.registry.database.one(
            "SELECT value FROM registry_info WHERE key = ?", (f"synced:{self.partner.id}",)
        )
        return None if row is None else str(row[0])

    def _remember(self, mark: str) -> None:
        with self.ours.registry.database.write() as connection:
            connection.execute("INSERT OR REPLACE INTO registry_info VALUES (?,?)", (f"synced:{self.partner.id}", mark))
            connection.execute("UPDATE remotes SET synced = ? WHERE uri = ?", (now_ms(), self.partner.uri))

"""Freeing what nobody refers to, beside processes that are storing at the same moment.

The race: somebody stores bytes that lie here as garbage already. He finds them, and stores nothing; we delete them; he
writes his row. Two things prevent that, either of which would do on one machine:

* Finding stored bytes touches them, and what was touched within the grace period is left alone.
* We delete inside a write transaction, in which we look at references and times once more; he writes his row in one,
  in which he sees that the bytes are there, and stores them again when they are not (`Weights.confirm`).

(tests/registry/test_gc.py runs a collection at every step of a registration, and the reverse.)
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from modelstore.errors import InvalidRequestError, ReadOnlyRegistryError
from modelstore.registry.checks import GRACE_S, unfinished, within
from modelstore.registry.past import left_behind, remove_left_behind
from modelstore.registry.references import former, is_used, used
from modelstore.storage.failures import translated
from modelstore.storage.objects import StoredObject

if TYPE_CHECKING:
    from modelstore.registry.registry import Registry

__all__ = ["KEEP_FORMER_S", "Collection", "Garbage", "Kept", "collect"]

KEEP_FORMER_S: Final = 30 * 86_400.0
_WORKING_S: Final = 3_600.0
"""Copies in the making have no other protection than their age, so this much of it is asked for in any case."""
_LOOK_S: Final = 60.0
_AT_ONCE: Final = 50
"""Objects to a transaction: others who write wait for it."""


@dataclass(frozen=True, slots=True)
class Garbage:
    """Something that was, or would be, deleted.

    Attributes:
        what: ``sha256:hex`` of an object, the path of an unfinished copy inside the registry, or that of a temporary
            folder.
        size: In bytes.
        why: "orphan": no model ever had it; "former": its model was removed or has newer weights, long ago;
            "unfinished": a process was killed while it stored it, or while it looked at what was.
    """

    what: str
    size: int
    why: Literal["orphan", "former", "unfinished"]


@dataclass(slots=True)
class Kept:
    """What nothing refers to, and stays: how many objects, how many bytes."""

    objects: int = 0
    bytes: int = 0

    def add(self, stored: StoredObject) -> None:
        """Count one."""
        self.objects += 1
        self.bytes += stored.size


@dataclass(frozen=True, slots=True)
class Collection:
    """What `collect` did, or would do.

    Attributes:
        garbage: What was deleted.
        freed_bytes: Its size.
        kept_former: What is kept for restorations and looks into the past.
        kept_young: What is too young to be sure.
        dry_run: Whether nothing was touched.
    """

    garbage: tuple[Garbage, ...]
    freed_bytes: int
    kept_former: Kept
    kept_young: Kept
    dry_run: bool


def collect(
    registry: Registry, *, grace_s: float = GRACE_S, keep_former_s: float = KEEP_FORMER_S, dry_run: bool = False
) -> Collection:
    """Delete what the registry keeps and nobody will ask for any more; see `Registry.gc`."""
    for seconds in (grace_s, keep_former_s):
        if not isinstance(seconds, (int, float)) or not seconds >= 0:
            raise InvalidRequestError(f"{seconds!r} is no time in seconds")
    if registry.database.in_transaction:
        raise InvalidRequestError("Bytes cannot be deleted as part of a transaction", "Collect after its end.")
    if registry.database.read_only and not dry_run:
        raise ReadOnlyRegistryError(f"The registry at {registry.place} is read-only for this user")
    registry.flush_reports()
    registry.refresh()
    objects = registry.weights.objects
    now = time.time() if dry_run else objects.now()  # where they are: the clock of this host may be days off
    sorted_out = _Sorted(registry, now - grace_s, (now - keep_former_s) * 1000)
    candidates = list(sorted_out)
    left = list(unfinished(registry, (time.time() if objects.remote else now) - max(grace_s, _WORKING_S)))
    looks = list(left_behind(registry))
    if not dry_run:
        candidates = list(_removed(registry, candidates, now - grace_s))
        for path, _ in left:
            with translated(path, writing=True):
                path.unlink(missing_ok=True)
        remove_left_behind(registry)
    garbage = [
        *candidates,
        *(Garbage(within(registry, path), size, "unfinished") for path, size in left),
        *(Garbage(str(path), size, "unfinished") for path, size in looks),
    ]
    freed = sum(one.size for one in garbage)
    return Collection(tuple(garbage), freed, sorted_out.former, sorted_out.young, dry_run)


class _Sorted:
    """Yields what may go; what stays though nothing refers to it is counted."""

    def __init__(self, registry: Registry, young_since: float, former_since_ms: float) -> None:
        self._registry, self._young_since, self._former_since_ms = registry, young_since, former_since_ms
        self.young, self.former = Kept(), Kept()

    def __iter__(self) -> Iterator[Garbage]:
        # Listed before asking: what is stored and referred to in between is then known to be in use.
        present = list(self._registry.weights.objects.iterate())
        with self._registry.database.snapshot():
            needed, past = used(self._registry.database), former(self._registry.database)
        for stored in present:
            if stored.digest in needed:
                continue
            if stored.changed_at > self._young_since:
                self.young.add(stored)
            elif past.get(stored.digest, 0) > self._former_since_ms:
                self.former.add(stored)
            else:
                yield Garbage(stored.digest, stored.size, "former" if stored.digest in past else "orphan")


def _removed(registry: Registry, garbage: list[Garbage], young_since: float) -> Iterator[Garbage]:
    """Delete what is still garbage inside the transaction, and yield it."""
    # Killed at each of these by tests/registry/test_gc.py; what is deleted is referred to by nobody at any of them:
    # 1. before a transaction    2. before objects go    3. after that
    store = registry.weights.objects
    for start in range(0, len(garbage), _AT_ONCE):
        chunk = {one.what: one for one in garbage[start : start + _AT_ONCE]}
        sys.audit("modelstore.step", "gc.collect.1")
        with registry.database.write() as connection:
            looked = time.time()
            present = store.stored(list(chunk))
            gone = [o for o in present if o.changed_at <= young_since and not is_used(registry.database, o.digest)]
            for stored in gone:
                connection.execute("DELETE FROM verified WHERE digest = ?", (stored.digest,))
                registry.weights.forget(stored.digest)
            sys.audit("modelstore.step", "gc.collect.2")
            if not 0 <= time.time() - looked < _LOOK_S:
                continue  # this process slept; what was seen may be needed by now, on another host
            store.discard(gone)
            sys.audit("modelstore.step", "gc.collect.3")
        yield from (Garbage(stored.digest, stored.size, chunk[stored.digest].why) for stored in gone)

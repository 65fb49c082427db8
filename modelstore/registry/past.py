"""A registry as it was: the operations until then, folded into an index of their own.

Exact by construction, since it is the same fold and the same queries; what it costs is the fold, about 0.1 ms an
operation, once for each moment asked for. Bytes are those of the registry: what was freed since is gone.
"""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final
from weakref import finalize

from modelstore.index import ops
from modelstore.index.database import Database
from modelstore.index.ingest import ingest
from modelstore.registry.moments import Moment, last_stamp_of

if TYPE_CHECKING:
    from modelstore.registry.registry import Registry

__all__ = ["Views"]

_KEPT: Final = 4
_TOGETHER: Final = 10_000


class Views:
    """The moments of one registry that were asked for last, and those that somebody still looks at.

    Args:
        registry: The registry.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._recent: dict[tuple[str, int], Registry] = {}
        self._ends: list[finalize[..., Registry]] = []

    def at(self, moment: Moment) -> Registry:
        """Return the registry as it was; see `Registry.at`."""
        stamp = last_stamp_of(moment)
        self._registry.flush_reports()
        self._registry.refresh()
        row = self._registry.database.one("SELECT coalesce(max(seq), 0) FROM ops")
        key = stamp, 0 if row is None else int(row[0])  # what arrives later may be older than the moment
        found = self._recent.pop(key, None)
        if found is None or found.database.closed:  # by whoever used it in a `with` block
            found = self._fold(stamp)
        self._recent[key] = found
        self._registry.database.at_end(undone=partial(self._recent.pop, key, None))
        if len(self._recent) > _KEPT:
            del self._recent[next(iter(self._recent))]  # it ends with the last model of it that somebody holds
        return found

    def _fold(self, stamp: str) -> Registry:
        folder = Path(tempfile.mkdtemp(prefix="modelstore-past-"))
        try:
            database = Database(folder / "registry.db", folder / "backups", durable=False)
            connection = self._registry.database.connection
            after = ""
            while batch := list(ops.between(connection, after, stamp, limit=_TOGETHER)):
                after = batch[-1].stamp
                with database.write() as writing:
                    ingest(writing, batch, checked=True)
            database.freeze("This is the registry as it was; it cannot be changed")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        view = self._registry.seen_through(database)
        self._ends = [end for end in self._ends if end.alive]
        self._ends.append(finalize(view, _discard, database, folder))
        return view

    def close(self) -> None:
        """End all of them."""
        self._recent.clear()
        for end in self._ends:
            end()


def _discard(database: Database, folder: Path) -> None:
    database.close()
    shutil.rmtree(folder, ignore_errors=True)

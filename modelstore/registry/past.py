"""A registry as it was: the operations until then, folded into an index of their own.

Exact by construction, since it is the same fold and the same queries; what it costs is the fold, about 0.1 ms an
operation, once for each moment asked for. Bytes are those of the registry: what was freed since is gone.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

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
    """The moments of one registry that were asked for last.

    Args:
        registry: The registry.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._views: dict[tuple[str, int], tuple[Registry, Path]] = {}

    def at(self, moment: Moment) -> Registry:
        """Return the registry as it was; see `Registry.at`."""
        stamp = last_stamp_of(moment)
        self._registry.flush_reports()
        self._registry.refresh()
        row = self._registry.database.one("SELECT coalesce(max(seq), 0) FROM ops")
        key = stamp, 0 if row is None else int(row[0])  # what arrives later may be older than the moment
        if key in self._views and self._views[key][0].database.closed:  # by whoever used it in a `with` block
            self._forget(key)
        found = self._views.pop(key, None) or self._fold(stamp)
        self._views[key] = found
        while len(self._views) > _KEPT:
            self._forget(next(iter(self._views)))
        return found[0]

    def _fold(self, stamp: str) -> tuple[Registry, Path]:
        folder = Path(tempfile.mkdtemp(prefix="modelstore-past-"))
        try:
            database = Database(folder / "registry.db", folder / "backups", durable=False)
            connection = self._registry.database.connection
            after = ""
            while True:
                batch = list(ops.between(connection, after, stamp, limit=_TOGETHER))
                if not batch:
                    break
                after = batch[-1].stamp
                with database.write() as writing:
                    ingest(writing, batch, checked=True)
            database.freeze("This is the registry as it was; it cannot be changed")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return self._registry.seen_through(database), folder

    def _forget(self, key: tuple[str, int]) -> None:
        view, folder = self._views.pop(key)
        view.database.close()
        shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Forget all of them."""
        for key in list(self._views):
            self._forget(key)

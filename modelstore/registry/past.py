"""A registry as it was: the operations until then, folded into an index of their own.

Exact by construction, since it is the same fold and the same queries; what it costs is the fold, about 0.1 ms an
operation, once for each moment asked for. Bytes are those of the registry: what was freed since is gone.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from stat import S_ISDIR
from typing import TYPE_CHECKING, Final
from weakref import finalize

from modelstore.cache.owners import is_alive, parse_owner, this_process
from modelstore.index import ops
from modelstore.index.database import Database
from modelstore.index.ingest import ingest
from modelstore.registry.moments import Moment, last_stamp_of

if TYPE_CHECKING:
    from modelstore.registry.registry import Registry

__all__ = ["Views", "left_behind", "remove_left_behind"]

_KEPT: Final = 4
_TOGETHER: Final = 10_000
_PREFIX: Final = "modelstore-past-"
_MARK: Final = 12
"""So many digits of the registry's id are in the name of a folder."""


class Views:
    """The moments of one registry that were asked for last, and those that somebody still looks at.

    Args:
        registry: The registry.
    """

    def __init__(self, registry: Registry) -> None:
        remove_left_behind()
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
        folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{self._registry.id[:_MARK]}-{this_process().token}-"))
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
        self._ends.append(finalize(view, _discard, database, folder, os.getpid()))
        return view

    def close(self) -> None:
        """End all of them."""
        self._recent.clear()
        for end in self._ends:
            end()


def _discard(database: Database, folder: Path, pid: int) -> None:
    if pid != os.getpid():
        return  # a forked child ends; its parent goes on looking
    database.close()
    shutil.rmtree(folder, ignore_errors=True)


def left_behind(registry: Registry | None = None) -> Iterator[tuple[Path, int]]:
    """Yield the folders, with their sizes, of moments that this user's processes looked at until they were killed.

    Args:
        registry: Only of this one; None for all.
    """
    mark = "" if registry is None else f"{registry.id[:_MARK]}-"
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}{mark}*"):
        owner = parse_owner(path.name.removeprefix(_PREFIX)[_MARK + 1 :].rpartition("-")[0])
        try:
            status = path.lstat()
            mine = S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
            if mine and owner is not None and is_alive(owner) is False:
                yield path, sum(file.lstat().st_size for file in path.rglob("*"))
        except FileNotFoundError:
            continue  # somebody else removes it


def remove_left_behind(registry: Registry | None = None) -> None:
    """Remove what `left_behind` finds."""
    for path, _ in left_behind(registry):
        shutil.rmtree(path, ignore_errors=True)

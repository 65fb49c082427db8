"""Keeping a shared registry quick for those who join it: finished indexes to copy, and few files instead of many.

A checkpoint is this host's index without what belongs to this host, compressed. A new host copies the newest, and reads
of the streams only what came after. A stream whose writer has been quiet is packed with others (see
`modelstore.journal.home`). Both may be done by anybody at any time; whoever writes meanwhile notices at the most that
he goes on in a new stream.
"""

from __future__ import annotations

import gzip
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final

from modelstore.errors import InvalidRequestError, StorageError
from modelstore.ids import now_ms, stamp_ms
from modelstore.index.driver import sqlite3
from modelstore.index.heads import read_heads
from modelstore.index.ops import last_stamp
from modelstore.index.private import forget_host, stamp_of_copy, user_version
from modelstore.index.schema import SCHEMA_VERSION
from modelstore.storage.failures import translated

if TYPE_CHECKING:
    from modelstore.journal.home import Home
    from modelstore.registry.registry import Registry

__all__ = ["Compacted", "adopt_checkpoint", "compact", "worth_compacting"]

_log = logging.getLogger(__name__)

_KEPT: Final = 2
"""Checkpoints that stay: a host may be copying the one before the newest."""
_QUIET_MS: Final = 3_600_000
_MANY_STREAMS: Final = 64
_MANY_OPERATIONS: Final = 20_000
_PREFIX: Final = ".checkpoint-"
_LEFT_S: Final = 86_400.0
_EMPTY: Final = "0" * 32


@dataclass(frozen=True, slots=True)
class Compacted:
    """What was done.

    Attributes:
        checkpoint: Name of the new checkpoint; None when nothing had been written since the newest.
        size: Its bytes.
        packed: Streams that were closed and packed.
    """

    checkpoint: str | None
    size: int
    packed: int


def compact(registry: Registry, *, quiet_ms: int = _QUIET_MS) -> Compacted:
    """Make a checkpoint, and pack the streams of writers that have been quiet; see `Registry.compact`."""
    home = _home(registry)
    registry.refresh()
    before = home.checkpoints()
    stamp = last_stamp(registry.database.connection) or _EMPTY
    name, size = None, 0
    if not any(one.startswith(stamp) for one in before):
        name, size = _make_checkpoint(registry, home)
        for old in before[: max(len(before) + 1 - _KEPT, 0)]:
            home.remove_checkpoint(old)
    return Compacted(name, size, home.pack(_quiet(registry, home, quiet_ms)))


def _home(registry: Registry) -> Home:
    if registry.home is None:
        raise InvalidRequestError(
            f"The registry at {registry.place} is of one machine, or open offline; there is nothing to compact",
            "`modelstore gc` frees what nothing refers to.",
        )
    return registry.home


def _quiet(registry: Registry, home: Home, quiet_ms: int) -> Mapping[str, int]:
    """Return the streams that may be packed, which may take them away from their writers."""
    if home.single_process:
        return home.tips()
    own = {row[0] for row in registry.database.all("SELECT id FROM writers")} if quiet_ms else set()
    heads = read_heads(registry.database.connection)
    limit = now_ms() - quiet_ms
    return {
        stream: tip
        for stream, tip in home.tips().items()
        if stream[:16] not in own and stamp_ms(heads.get(stream[:16], _EMPTY)) <= limit
    }


def _make_checkpoint(registry: Registry, home: Home) -> tuple[str, int]:
    """Store this host's index: 1. copy it  2. take out what is this host's  3. compress it  4. store it."""
    with translated(registry.private, writing=True), _scratch(registry.private) as scratch:
        copy, packed = scratch / "registry.db", scratch / "packed"
        registry.database.copy_to(copy)
        forget_host(copy)
        stamp = stamp_of_copy(copy) or _EMPTY  # others may have gone on since anybody looked
        with copy.open("rb") as source, gzip.open(packed, "wb", compresslevel=1) as target:
            shutil.copyfileobj(source, target, 1 << 20)
        digest = blake2b(digest_size=8)
        with packed.open("rb") as file:
            while data := file.read(1 << 20):
                digest.update(data)
        name = f"{stamp}-{digest.hexdigest()}.index"
        sys.audit("modelstore.step", "compacting.checkpoint.4")
        home.put_checkpoint(name, packed)
        return name, packed.stat().st_size


def adopt_checkpoint(home: Home, target: Path) -> str | None:
    """Begin a private index from the newest checkpoint that can be used.

    1. copy it beside the target  2. uncompress it  3. link it to its name, unless another process was first. A kill
    leaves a file that the next does not look at; without any checkpoint the index is folded from the streams.

    Args:
        home: The journal's home.
        target: The index, which does not exist.

    Returns:
        The checkpoint's name; None when there is none.
    """
    for name in reversed(home.checkpoints()):
        with _scratch(target.parent) as scratch:
            packed, index = scratch / "packed", scratch / "registry.db"
            try:
                home.get_checkpoint(name, packed)
                with gzip.open(packed, "rb") as source, index.open("wb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
                    file.flush()
                    os.fsync(file.fileno())  # SQLite mends what a power cut leaves of its own writing, and not of this
                if user_version(index) > SCHEMA_VERSION:
                    continue  # made by a newer version; what the streams say is enough
                sys.audit("modelstore.step", "compacting.adopt.3")
                with suppress(FileExistsError):
                    os.link(index, target)
            except (StorageError, EOFError, OSError, sqlite3.Error) as error:
                _log.warning("The checkpoint %s cannot be used (%s); an older one or the streams will do", name, error)
                continue
            return name
    return None


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Give a folder for the time of the block, and remove those of processes that were killed in theirs."""
    for left in folder.glob(f"{_PREFIX}*"):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _LEFT_S:
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=folder) as scratch:
        yield Path(scratch)


def worth_compacting(registry: Registry) -> bool:
    """Tell whether a new host would have much to read: many streams, or many operations since the last checkpoint."""
    home = _home(registry)
    names = home.checkpoints()
    since = names[-1][:32] if names else _EMPTY
    row = registry.database.one(
        "SELECT count(*) FROM (SELECT 1 FROM ops WHERE stamp > ? LIMIT ?)", (since, _MANY_OPERATIONS)
    )
    if row is not None and row[0] >= _MANY_OPERATIONS:
        return True
    quiet = _quiet(registry, home, _QUIET_MS)
    return home.loose() >= _MANY_STREAMS and (home.single_process or len(quiet) >= _MANY_STREAMS)

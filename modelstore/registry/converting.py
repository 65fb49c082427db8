"""From a registry of one machine to one that hosts share, and back; nothing of its history is lost.

To shared, while nobody has it open:

    1. the journal is made in the folder, under a name of its own    2. it gets its name    3. the format file says
    "shared"    4. the database moves to `backups`: each host makes an index of its own

To local, which is for the last host that uses it:

    1. the journal gets another name: whoever still writes is told that it is gone    2. what it has is taken in
    3. the index becomes `registry.db`    4. the format file says "local"    5. journal and checkpoints move to
    `backups`

Killed anywhere, running it again finishes it (tests/registry/test_converting.py kills it at each).
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from modelstore import config
from modelstore.errors import InvalidRequestError, RegistryNotFoundError
from modelstore.ids import new_writer
from modelstore.index import ops
from modelstore.index.database import Database
from modelstore.index.exclusive import exclusive
from modelstore.index.heads import read_heads
from modelstore.index.private import forget_host
from modelstore.journal.folder import FolderHome
from modelstore.registry import mounts
from modelstore.registry.kinds import FORMAT_FILE, Form, Kind, read_form, refuse_remote, write_form
from modelstore.registry.places import private_folder
from modelstore.registry.shared import SharedJournal
from modelstore.storage.failures import translated
from modelstore.storage.objects import fsync_folder

if TYPE_CHECKING:
    from modelstore.records.operations import Operation

__all__ = ["convert"]

_TOGETHER: Final = 50_000
"""Operations that are held in memory; each time, the stream of each of their writers is flushed."""


def convert(folder: str | os.PathLike[str] | None, kind: Kind) -> bool:
    """Make a registry one that hosts share, or one of this machine.

    Args:
        folder: Its folder; None for the default registry.
        kind: "shared" or "local".

    Returns:
        Whether anything was to do.

    Raises:
        RegistryNotFoundError: There is no registry.
        NewerRegistryError, CorruptRegistryError: It cannot be opened.
        RegistryBusyError: A process of this machine has it open.
        InvalidRequestError: Uploads are unfinished; or it would become local on a network filesystem.
        StorageError: The folder cannot be written; what was done is finished by the next call.
    """
    place = config.registry_uri() if folder is None else folder
    refuse_remote(
        place, "Only a registry in a folder can be converted", "Make one in a folder, and sync: `modelstore sync`."
    )
    path = Path(os.path.realpath(Path(place).expanduser()))
    form = read_form(path)
    if form is None:
        raise RegistryNotFoundError(f"There is no registry at {path}", "Check the path.")
    with translated(path, writing=True):
        return _to_shared(path, form) if kind == "shared" else _to_local(path, form)


# -- to shared ---------------------------------------------------------------------------------------------------------


def _to_shared(path: Path, form: Form) -> bool:
    database, making = path / "registry.db", path / "journal.making"
    if not database.exists():
        return False
    with exclusive(database) as connection:
        if form.kind != "shared":
            _refuse_uploads(connection.execute("SELECT count(*) FROM uploads").fetchone()[0])
            shutil.rmtree(making, ignore_errors=True)
            _write_journal(making, ops.read(connection), read_heads(connection))
            sys.audit("modelstore.step", "converting.shared.2")
            shutil.rmtree(path / "journal", ignore_errors=True)  # of a conversion that died here
            (making / "journal").rename(path / "journal")
            shutil.rmtree(making)
            FolderHome(path).create()
            fsync_folder(path)
            sys.audit("modelstore.step", "converting.shared.3")
            _say(path, form._replace(kind="shared"))
        sys.audit("modelstore.step", "converting.shared.4")
        _set_aside(path, "registry.db")
    for name in ("registry.db-wal", "registry.db-shm", "registry.db.lock"):
        (path / name).unlink(missing_ok=True)
    return True


def _refuse_uploads(count: int) -> None:
    if count:
        raise InvalidRequestError(
            f"{count} uploads are not finished", "Send or give them up first: `modelstore uploads --resume`."
        )


def _write_journal(folder: Path, operations: Iterator[tuple[int, Operation]], heads: Mapping[str, str]) -> None:
    """Write a stream for each writer of whom all is here up to some stamp, and one for what is beyond these.

    So every host that takes them in knows as much of each writer as this registry does, and a sync need not compare
    operation by operation.
    """
    home = FolderHome(folder)
    home.create()
    rest = new_writer()
    tips: dict[str, int] = {}
    while batch := [operation for _, operation in islice(operations, _TOGETHER)]:
        lines: dict[str, list[bytes]] = {}
        for operation in batch:
            writer = operation.stamp[16:]
            whose = writer if operation.stamp <= heads.get(writer, "") else rest
            lines.setdefault(f"{whose}-0000", []).append(operation.to_json().encode())
        for stream, some in lines.items():
            tips[stream] = home.append(stream, tips.get(stream, 0), some)


# -- to local ----------------------------------------------------------------------------------------------------------


def _to_local(path: Path, form: Form) -> bool:
    closed = path / "journal.closed"
    if form.kind == "local" and not closed.exists():
        return False
    if mounts.network_filesystem(path) is not None:
        raise InvalidRequestError(
            f"{path} lies on a network filesystem, where a registry of one machine loses writes",
            "Copy the folder to a local disk, and convert it there.",
        )
    if form.kind == "shared":
        sys.audit("modelstore.step", "converting.local.1")
        if not closed.exists():
            (path / "journal").rename(closed)
        _make_database(path, closed, form.id)
        sys.audit("modelstore.step", "converting.local.4")
        _say(path, form._replace(kind="local"))
    sys.audit("modelstore.step", "converting.local.5")
    _set_aside(path, "journal.closed")
    if (path / "checkpoints").exists():
        _set_aside(path, "checkpoints")
    return True


def _make_database(path: Path, closed: Path, identity: str) -> None:
    """Fold what was shared into a database: from this host's index where there is one, and from the journal."""
    sys.audit("modelstore.step", "converting.local.2")
    making = path / "registry.db.making"
    for name in (making, *(making.with_name(f"{making.name}{end}") for end in ("-wal", "-shm", ".lock"))):
        name.unlink(missing_ok=True)
    index = private_folder(path, identity) / "registry.db"
    if index.exists():
        private = Database(index, index.parent / "backups")
        try:
            private.copy_to(making)
        finally:
            private.close()
        forget_host(making)
    database = Database(making, path / "backups")
    try:
        SharedJournal(FolderHome(path, journal=closed), database, new_writer, offline=False).take_in()
    finally:
        database.close()
    forget_host(making, positions=False)
    making.with_name(f"{making.name}.lock").unlink(missing_ok=True)
    sys.audit("modelstore.step", "converting.local.3")
    making.replace(path / "registry.db")
    fsync_folder(path)


# -- both --------------------------------------------------------------------------------------------------------------


def _say(path: Path, form: Form) -> None:
    write_form(path, form, durable=True).replace(path / FORMAT_FILE)
    fsync_folder(path)


def _set_aside(path: Path, name: str) -> None:
    (path / "backups").mkdir(exist_ok=True)
    (path / name).rename(path / "backups" / f"converted-{os.urandom(4).hex()}-{name}")
    fsync_folder(path)

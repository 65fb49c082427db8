"""Opening a registry wherever it is: what its address means, what is there, and the index on this host."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modelstore import config
from modelstore.errors import (
    CorruptRegistryError,
    InvalidRequestError,
    ReadOnlyRegistryError,
    StorageUnavailableError,
)
from modelstore.index.database import Database
from modelstore.index.failures import how_to_restore
from modelstore.registry import mounts
from modelstore.registry.kinds import Kind, open_form, whereabouts

if TYPE_CHECKING:
    from modelstore.journal.home import Home
    from modelstore.registry.registry import Registry
    from modelstore.storage.buckets import ObjectStorage
    from modelstore.sync import Server

__all__ = ["Opening", "Place", "find", "open_index"]


@dataclass(frozen=True, slots=True)
class Opening:
    """How a registry is to be opened; see `Registry`."""

    create: bool
    shared: bool | None
    offline: bool
    actor: str | None
    objects: str | os.PathLike[str] | None


@dataclass(frozen=True, slots=True)
class Place:
    """A registry that was found; the attributes of `Registry` of these names."""

    kind: Kind
    id: str
    folder: Path
    private: Path
    actor: str
    bucket: ObjectStorage | None = None
    server: Server | None = None
    objects: str | None = None

    def close(self) -> None:
        """Drop connections to where it is."""
        for one in (self.bucket, self.server):
            if one is not None:
                one.close()


def find(uri: str | os.PathLike[str], how: Opening) -> Place:
    """Return what is at an address, made when there is nothing and it may be.

    Raises:
        RegistryNotFoundError, InvalidRequestError, NewerRegistryError, CorruptRegistryError, ReadOnlyRegistryError,
        NetworkFilesystemError: As `Registry`.
        AccessDeniedError, StorageError: A server, database or store refuses, or does not answer.
    """
    text = os.fspath(uri)
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise InvalidRequestError(f"{text!r} is no folder for a registry")
    where = whereabouts(text)
    if where != "database" and how.objects is not None:
        raise InvalidRequestError("Only a registry in a database keeps its bytes elsewhere", "Leave objects out.")
    if where == "server":
        return _behind_server(text, how)
    if where == "database":
        from modelstore.storage.tables import TableStorage

        return _in_storage(TableStorage(text), how)
    if where == "bucket":
        from modelstore.storage.buckets import Bucket

        return _in_storage(Bucket(text), how)
    if "://" not in text:
        return _in_folder(Path(text).expanduser().absolute(), how)
    from modelstore.storage.uris import local_path

    folder = local_path(text) if where == "folder" else None
    if folder is not None:
        return _in_folder(folder, how)
    raise InvalidRequestError(
        f"This version cannot keep a registry at {text.partition('://')[0].lower()}://",
        "Open a folder or an object store; set_upload_destination() and output_uri can send the weights there.",
    )


def _in_folder(folder: Path, how: Opening) -> Place:
    try:
        anew = bool(how.shared) and not how.offline
        form = open_form(folder, create=how.create, shared=how.shared, anew=anew)
    except (StorageUnavailableError, ReadOnlyRegistryError):
        from modelstore.registry.places import known_index

        index = known_index(folder) if how.offline else None
        if index is None:
            raise
        return Place("shared", index.name[17:], folder, index, how.actor or config.actor())
    private = folder
    if form.kind == "shared":
        from modelstore.registry.places import private_folder

        private = private_folder(folder, form.id)
    return Place(form.kind, form.id, folder, private, how.actor or config.actor())


def _in_storage(storage: ObjectStorage, how: Opening) -> Place:
    """Find out what is in a bucket or a database; offline, what this host knows of it."""
    from modelstore.registry.kinds import open_bucket
    from modelstore.registry.places import known_registry, private_folder

    actor = how.actor or config.actor()
    if how.offline:
        identity = known_registry(storage.uri)
        private = private_folder(storage.uri, identity)
        noted = private / "objects-place"
        objects = noted.read_text() if noted.exists() else None
        return Place("shared", identity, private, private, actor, storage, objects=objects)
    with ExitStack() as failed, _hinting_at_what_is_known(storage.uri):
        failed.callback(storage.close)
        form = open_bucket(storage, create=how.create, shared=how.shared, objects=_objects(how.objects))
        private = private_folder(storage.uri, form.id)
        if form.objects is not None:
            (private / "objects-place").write_text(form.objects)
        failed.pop_all()
    return Place("shared", form.id, private, private, actor, storage, objects=form.objects)


@contextmanager
def _hinting_at_what_is_known(location: str) -> Iterator[None]:
    """Say, where a place that this host knows does not answer, how to do without."""
    from modelstore.registry.places import known_index

    try:
        yield
    except StorageUnavailableError as error:
        if known_index(location) is None:
            raise
        hint = f"{error.hint} MODELSTORE_OFFLINE=1 reads what is known here.".strip()
        raise StorageUnavailableError(error.message, hint) from error


def _objects(given: str | os.PathLike[str] | None) -> str | None:
    if given is None:
        return None
    from modelstore.storage import uris
    from modelstore.storage.buckets import is_bucket

    where = uris.refuse_secrets(uris.normalise(given)).rstrip("/")
    if not is_bucket(where) and uris.local_path(where) is None:
        raise InvalidRequestError(f"{uris.redact(where)} is no place for objects", "Name a bucket or a folder.")
    return where


def _behind_server(url: str, how: Opening) -> Place:
    from modelstore.registry.places import known_registry, private_folder
    from modelstore.sync import Server

    if how.shared is False:
        raise InvalidRequestError(f"A registry behind a server is shared: {url}", "Name a folder.")
    server = Server(url, offline=how.offline)
    with ExitStack() as failed, _hinting_at_what_is_known(server.url):
        failed.callback(server.close)
        identity = known_registry(server.url) if how.offline else server.partner.id
        private = private_folder(server.url, identity)
        actor = how.actor or server.actor(private / "actor")
        failed.pop_all()
    return Place("shared", identity, private, private, actor, server=server)


def open_index(registry: Registry, place: Place, writer: Callable[[], str], *, offline: bool) -> Home | None:
    """Give a registry its database, tied to its journal where that is elsewhere; returns the journal's home.

    Args:
        registry: What was found at ``place``.
        place: The same.
        writer: Returns the id of the index's writer; called inside write transactions.
        offline: Whether the journal is left alone.
    """
    index, backups = place.private / "registry.db", place.private / "backups"
    if place.kind == "local":
        _refuse_a_lost_database(index, place.folder / "objects" / "sha256")
        registry.database = Database(index, backups)
        return None
    if place.server is not None:
        registry.database = Database(index, backups, durable=False)
        registry.database.journal = place.server.journal(registry)
        return None
    from modelstore.registry.shared import SharedJournal

    home: Home
    if place.bucket is None:
        from modelstore.journal.files import Files
        from modelstore.journal.folder import FolderHome

        files = Files(sync_names=not mounts.keeps_names(place.folder), by_time=mounts.compares_times(place.folder))
        home = FolderHome(place.folder, files)
    else:
        from modelstore.journal.bucket import BucketHome

        home = BucketHome(place.bucket)
    if not offline:
        home.create()
        if not index.exists():
            from modelstore.registry.compacting import adopt_checkpoint

            adopt_checkpoint(home, index)
    registry.database = Database(index, backups, durable=False)
    registry.database.journal = SharedJournal(home, registry.database, writer, offline=offline)
    return None if offline else home


def _refuse_a_lost_database(index: Path, objects: Path) -> None:
    """See that no empty database takes the place of one that is gone: all stored files would be garbage to it.

    Raises:
        CorruptRegistryError: There are stored files, and no database that knows them.
    """
    if _has_content(index) or next(objects.glob("??/*"), None) is None:
        return
    if not _has_content(index):  # which another process may have made meanwhile
        raise CorruptRegistryError(f"The registry has lost its database {index}", how_to_restore(index))


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False

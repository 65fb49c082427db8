"""A registry in one file, taken while it is in use, and made a folder again."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from modelstore.errors import BlobNotFoundError, CorruptRegistryError, IntegrityError, InvalidRequestError
from modelstore.ids import is_id, now_ms
from modelstore.index import ops, reader
from modelstore.index.database import Database
from modelstore.registry.bundling import add_object
from modelstore.registry.kinds import refuse_remote
from modelstore.registry.references import is_used, references
from modelstore.storage.bundles import BundleReader, BundleWriter, object_of
from modelstore.storage.failures import translated
from modelstore.storage.objects import ObjectStore, fsync_folder
from modelstore.storage.transfer import fsync_file

if TYPE_CHECKING:
    from modelstore.registry.registry import Registry

__all__ = ["KIND", "Backup", "backup", "recover"]

KIND: Final = "backup"
_ROUNDS: Final = 10
"""So often the database is copied anew because an object was freed while it was to be copied."""


@dataclass(frozen=True, slots=True)
class Backup:
    """What is in a backup.

    Attributes:
        path: The file, or the folder that was made of it.
        operations: How many operations the journal has.
        objects: How many objects.
        size: Bytes of the file.
        missing: Digests of objects that are referred to and were missing already.
        damaged: Digests of objects whose bytes were others already; they are kept in ``quarantine/``.
    """

    path: Path
    operations: int
    objects: int
    size: int
    missing: tuple[str, ...]
    damaged: tuple[str, ...]


def backup(
    registry: Registry, target: str | os.PathLike[str], *, with_objects: bool = True, overwrite: bool = False
) -> Backup:
    """Write the registry into one file; see `Registry.backup`.

    A kill leaves hidden files beside the target, and no half backup.
    """
    registry.flush_reports()
    path = Path(target).expanduser().absolute()
    with (
        BundleWriter(path, KIND, overwrite=overwrite) as bundle,
        tempfile.TemporaryDirectory(prefix=".modelstore-", dir=path.parent) as scratch,
    ):
        copying = _Copying(registry, bundle, Path(scratch) / "registry.db", with_objects=with_objects)
        count = copying.run()
        bundle.add("registry.db", copying.database)
        if (registry.folder / "redirects.json").exists():
            bundle.add("redirects.json", registry.folder / "redirects.json")
        missing, damaged = sorted(copying.missing), sorted(copying.damaged)
        size = bundle.finish(
            registry=registry.id, created=now_ms(), with_objects=with_objects, names=copying.names,
            missing=missing, damaged=damaged, operations=count,
        )  # fmt: skip
    return Backup(path, count, len(copying.done), size, tuple(missing), tuple(damaged))


class _Copying:
    """Copies the database and then the objects; once more when one of these was freed in between."""

    def __init__(self, registry: Registry, bundle: BundleWriter, database: Path, *, with_objects: bool) -> None:
        self.registry, self.bundle, self.database, self.with_objects = registry, bundle, database, with_objects
        self.done: set[str] = set()
        self.uploads: set[str] = set()
        self.missing: set[str] = set()
        self.damaged: set[str] = set()
        self.names: dict[str, list[str]] = {}

    def run(self) -> int:
        """Do it, and return how many operations the copy has."""
        for _ in range(_ROUNDS):
            self.database.unlink(missing_ok=True)
            sys.audit("modelstore.step", "backup.copy.1")
            self.registry.refresh()
            self.registry.database.copy_to(self.database)
            copy = Database(self.database, self.database.parent, create=False)
            try:
                vanished = self._objects(copy) + self._uploads(copy)
                count = ops.count(copy.connection)
            finally:
                copy.close()
            if not vanished:
                return count
        raise InvalidRequestError(
            "Objects were freed faster than they could be copied", "Try again when nobody removes models."
        )

    def _objects(self, copy: Database) -> int:
        self.names, self.missing, vanished = {}, set(), 0
        if not self.with_objects:
            return 0
        for one in references(copy):
            names = self.names.setdefault(one.digest, [])
            if one.name not in names:
                names.append(one.name)
        for digest, names in self.names.items():
            if digest in self.done:
                continue
            sys.audit("modelstore.step", "backup.copy.2")
            found = add_object(self.registry, self.bundle, digest, names[0])
            if found is None:
                if is_used(self.registry.database, digest):
                    self.missing.add(digest)
                else:
                    vanished += 1
                continue
            self.done.add(digest)
            if found != digest:
                self.damaged.add(digest)
        return vanished

    def _uploads(self, copy: Database) -> int:
        vanished = 0
        for upload in reader.uploads(copy):
            if upload.snapshot in self.uploads:
                continue
            try:
                self.bundle.add(upload.snapshot, self.registry.folder / upload.snapshot)
                self.uploads.add(upload.snapshot)
            except BlobNotFoundError:  # sent meanwhile; unless it is lost, which the check after a recovery tells
                vanished += all(one.id != upload.id for one in reader.uploads(self.registry.database))
        return vanished


def recover(source: str | os.PathLike[str], folder: str | os.PathLike[str]) -> Backup:
    """Make a registry of a backup; every byte is checked first, and the folder appears whole or not at all.

    A kill leaves a hidden folder beside it, whose name ends in ``.recovering``.

    Args:
        source: A file that `backup` wrote.
        folder: Where the registry is to be; missing or empty.

    Raises:
        BlobNotFoundError: There is no such file.
        InvalidRequestError: The folder is not empty or in a bucket, or the file is no backup.
        IntegrityError: The file is cut off or damaged.
        UnsafeArchiveError: It holds what no backup holds.
        StorageError: The folder cannot be written.
    """
    refuse_remote(folder, "A backup is recovered to a folder", "Then `modelstore push` it to the bucket.")
    target = Path(folder).expanduser().absolute()
    if os.path.lexists(target) and (not target.is_dir() or any(target.iterdir())):
        raise InvalidRequestError(f"{str(target)!r} exists and is not empty", "Name another folder.")
    with BundleReader(source, KIND) as bundle:
        work = target.with_name(f".{target.name}.{os.urandom(6).hex()}.recovering")
        try:
            with translated(target, writing=True):
                work.mkdir(parents=True)
                count = _unpack(bundle, work)
                # 1. everything is there, checked and on disk    2. the folder gets its name    3. so does the disk
                sys.audit("modelstore.step", "backup.recover.1")
                _sync_folders(work)
                sys.audit("modelstore.step", "backup.recover.2")
                work.rename(target)
                sys.audit("modelstore.step", "backup.recover.3")
                fsync_folder(target.parent)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        manifest = bundle.manifest
        objects = len(list(bundle.objects()))
    missing, damaged = (tuple(map(str, manifest.get(key, ()))) for key in ("missing", "damaged"))
    return Backup(target, count, objects, bundle.path.stat().st_size, missing, damaged)


def _unpack(bundle: BundleReader, work: Path) -> int:
    if "registry.db" not in bundle.members or not is_id(bundle.manifest.get("registry")):
        raise IntegrityError(f"{str(bundle.path)!r} is no whole backup")
    for member in bundle.members:
        found = object_of(member)
        path = work / member if found is None else ObjectStore(work / "objects").path(*found)
        path.parent.mkdir(parents=True, exist_ok=True)
        fingerprint = bundle.extract(member, path)
        if found is None:
            continue
        path.chmod(0o444)
        if fingerprint.digest != found[0]:
            aside = work / "quarantine" / f"{found[0].removeprefix('sha256:')}.{found[1]}"
            aside.parent.mkdir(exist_ok=True)
            path.rename(aside)
            continue
        for name in map(str, bundle.manifest.get("names", {}).get(found[0], [])):
            other = ObjectStore(work / "objects").path(found[0], name)
            if not other.exists():
                os.link(path, other)
    record = {"format": 1, "kind": "local", "id": bundle.manifest["registry"], "software": "modelstore"}
    (work / "modelstore.json").write_text(json.dumps(record, indent=1) + "\n")
    fsync_file(work / "modelstore.json")
    return _checked(work)


def _checked(work: Path) -> int:
    """See that SQLite finds nothing wrong; uploads belong to nobody from now on."""
    database = Database(work / "registry.db", work / "backups", create=False)
    try:
        answer = [row[0] for row in database.all("PRAGMA quick_check(1)")]
        if answer != ["ok"]:
            raise CorruptRegistryError(f"The database in the backup is damaged: {answer[0]}", "Take another backup.")
        with database.write() as connection:
            connection.execute("UPDATE uploads SET changes = json_set(changes, '$.owner', '')")
        return ops.count(database.connection)
    finally:
        database.close()


def _sync_folders(work: Path) -> None:
    for folder, _, _ in os.walk(work):
        fsync_folder(folder)

"""Handing out the bytes of models: where they are, local copies, verified, and what is known of somebody else's."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from modelstore import config
from modelstore.errors import BlobNotFoundError, IntegrityError, ModelStoreError, StorageUnavailableError
from modelstore.records.entities import ModelRecord
from modelstore.registry import mounts
from modelstore.storage import uris
from modelstore.storage.fingerprints import hash_file
from modelstore.storage.objects import ObjectStore, parse_object_uri, sanitise_filename

if TYPE_CHECKING:
    from collections.abc import Callable

    from modelstore.cache import Cache, CachedFile
    from modelstore.registry.registry import Registry
    from modelstore.registry.relocation import Redirects
    from modelstore.storage.scanning import ScanReport
    from modelstore.storage.transfer import Download

__all__ = ["LocalCopies"]

logger = logging.getLogger("modelstore")

T = TypeVar("T")

_ARCHIVES: Final = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


class LocalCopies:
    """The half of `Weights` that gives bytes away.

    Args:
        registry: The registry.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.objects = _objects(registry)
        self._lock = threading.Lock()
        self._cache: Cache | None = None
        self._redirects: Redirects | None = None
        self._seen: dict[str, tuple[str, int, int, int]] = {}

    @property
    def redirects(self) -> Redirects:
        """Where the weights of published models were moved."""
        from modelstore.registry.relocation import Redirects

        if self._redirects is None:
            self._redirects = Redirects(self._registry.folder)
        return self._redirects

    def place(self, record: ModelRecord) -> str | None:
        """Return where a model's weights are today, as a logical URI; None without weights.

        Raises:
            CorruptRegistryError: What was noted about moves cannot be read.
        """
        if record.uri is None or not record.published or not self.redirects:
            return record.uri
        published = self._registry.database.one(
            "SELECT o.stamp FROM models AS m JOIN ops AS o ON o.seq = m.published_op WHERE m.id = ?", (record.id,)
        )
        return record.uri if published is None else self.redirects(record.uri, published[0])

    def read_at_place(self, record: ModelRecord, read: Callable[[str], T]) -> T:
        """Return what ``read`` returns for the place of a model's weights.

        Where nothing is, whoever published the model may not have known that its place had been moved: then that of
        the move is tried.

        Args:
            record: The model.
            read: Given a logical URI.

        Raises:
            BlobNotFoundError: The model has no weights, or they are at none of these places.
        """
        uri = self.place(record)
        if uri is None:
            raise BlobNotFoundError(f"The model {record.name!r} ({record.id}) has no weights yet")
        try:
            return read(uri)
        except BlobNotFoundError:
            moved = self.redirects(uri, None) if record.published else uri
            if moved == uri:
                raise
            return read(moved)

    def address(self, record: ModelRecord) -> str | None:
        """Return where a model's weights are today, as other programs understand it; None without weights."""
        uri = self.place(record)
        return None if uri is None else self.physical(uri)

    def physical(self, uri: str) -> str:
        """Return a logical URI as one that other programs understand."""
        parsed = parse_object_uri(uri)
        return uri if parsed is None else self.objects.uri(*parsed)

    @property
    def cache(self) -> Cache:
        """The cache of remote weights."""
        from modelstore.cache import Cache

        with self._lock:
            if self._cache is None:
                self._cache = Cache(self._registry.cache_folder, max_bytes=config.cache_max_bytes())
            return self._cache

    def local_copy(
        self, record: ModelRecord, *, extract: bool | None = None, force: bool = False, verify: bool = False
    ) -> Path:
        """Return the path of a complete, verified local copy of a model's weights.

        Args:
            record: The model.
            extract: Unpack an archive; None unpacks packages only.
            force: Fetch remote weights again, although a copy is there.
            verify: Read and compare every byte, although the file looks as it did when it was verified.

        Raises:
            BlobNotFoundError: The weights are not where the model says.
            IntegrityError: They are not what the model says.
            StorageError: They could not be had otherwise.
        """
        path = self.read_at_place(record, lambda uri: self._file(record, uri, force=force, verify=verify))
        unpack = record.package if extract is None else extract
        if not unpack or path.is_dir() or not (record.package or path.name.lower().endswith(_ARCHIVES)):
            return path
        from modelstore.storage.packages import extract as unpack_archive

        digest = record.digest or hash_file(path).digest
        return self.cache.extracted(digest, path, unpack_archive, verify=verify)

    def _file(self, record: ModelRecord, uri: str, *, force: bool, verify: bool) -> Path:
        parsed = parse_object_uri(uri)
        if parsed is not None and self._registry.kind == "shared":
            return self._from_share(*parsed, force=force, verify=verify)
        if parsed is not None:
            path = self.objects.local(*parsed)
            if path is None:
                self._from_remotes(*parsed)
                path = self.objects.path(*parsed)
            self.check_file(path, record.digest or parsed[0], verify=verify)
            return path
        path_or_none = uris.local_path(uri)
        if path_or_none is None or (mounts.network_filesystem(path_or_none) and path_or_none.is_file()):
            return self._fetch(record, uri, force=force, verify=verify)
        if not path_or_none.exists():
            raise BlobNotFoundError(f"Nothing exists at {path_or_none}", "Was it moved or deleted?")
        if record.digest is not None:
            self.check_file(path_or_none, record.digest, verify=verify)
        return path_or_none

    def _from_remotes(self, digest: str, name: str) -> bool:
        """Bring an object that is missing here, as after a sync without bytes, from the first remote that has it.

        Returns:
            Whether one had it.
        """
        from modelstore.registry.references import Reference
        from modelstore.storage.progress import reporting

        for remote in self._registry.remotes.all():
            try:
                with closing(self._registry.contact(remote.uri)) as other:
                    address = other.address(Reference(digest, name, None, "", "weights"))
                    if address is None:
                        continue
                    with reporting(f"fetching {name}") as progress:
                        address.fetch(self.objects, digest, name, progress)
            except ModelStoreError as error:
                logger.warning("The remote %r could not give %s: %s", remote.name, digest, error)
                continue
            return True
        return False

    def object_file(self, digest: str, name: str) -> Path | None:
        """Return a file of this machine with the bytes of an object of the registry, preferably of that name.

        Those of a bucket are fetched into the cache; others are not verified here.

        Returns:
            The path; None when the registry does not have it.

        Raises:
            StorageError: It could not be fetched.
        """
        if not self.objects.remote:
            return self.objects.local(digest, name)
        try:
            return self._from_share(digest, name, force=False, verify=False)
        except BlobNotFoundError:
            return None

    def _from_share(self, digest: str, name: str, *, force: bool, verify: bool) -> Path:
        """Return the cached copy of an object of a shared registry: each host reads it once."""
        waiting = self.objects.local(digest, name) if self.objects.remote else None
        if waiting is not None:
            self.check_file(waiting, digest, verify=verify)
            return waiting
        try:
            return self._cached(self.objects.uri(digest, name), digest, force=force, verify=verify).path
        except BlobNotFoundError:
            other = self.objects.address(digest, name)
            if other is None and self._from_remotes(digest, name):
                other = self.objects.uri(digest, name)
            if other is None:
                raise _missing(digest, self.objects.uri(digest, name)) from None
            return self._cached(other, digest, force=force, verify=verify).path

    def _fetch(self, record: ModelRecord, uri: str, *, force: bool, verify: bool) -> Path:
        """Fetch remote weights, and notice when they are not what they were.

        What has a digest was stored by us, or published: other bytes are an error. The rest is somebody else's, who
        may change it as long as nobody has published it; then a change is reported.
        """
        seen = None if record.digest is not None or not record.id else self.seen(uri)
        expected = record.digest or (seen[0] if seen is not None and record.published else None)
        found = self._cached(uri, expected, force=force, verify=verify)
        if record.digest is None and record.id and (seen is None or seen[0] != found.digest):
            if seen is not None:
                logger.warning(
                    "The weights of model %r (%s) have changed at %s: their digest was %s when they were first fetched "
                    "here, and is %s",
                    record.name, record.id, uris.redact(uri), seen[0], found.digest,
                )  # fmt: skip
            self._note_seen(uri, found.digest, found.size)
        return found.path

    def _cached(self, uri: str, expected: str | None, *, force: bool, verify: bool) -> CachedFile:
        from modelstore.storage.progress import reporting
        from modelstore.storage.transfer import fetch

        def fetch_own(*given: Any, **named: Any) -> Download:
            return fetch(*given, storage_options=self.objects.options(), to_be_synced=True, **named)

        name = uris.basename(uri) or "weights"
        with reporting(f"fetching {name}") as progress:
            return self.cache.fetch(
                uri,
                fetch_own if self.objects.remote and self.objects.named(uri) else fetch,
                expected=expected,
                filename=sanitise_filename(name),
                force_download=force,
                verify=verify,
                progress=progress,
            )

    def seen(self, uri: str) -> tuple[str, int] | None:
        """Return digest and size of what was behind a remote URI when this registry last fetched it; None for never."""
        looks = self._seen.get(uri)
        if looks is None:
            row = self._registry.database.one(
                "SELECT digest, size, mtime_ns, inode FROM verified WHERE path = ?", (uri,)
            )
            if row is None:
                return None
            looks = self._seen[uri] = tuple(row)
        return looks[0], looks[1]

    def _note_seen(self, uri: str, digest: str, size: int) -> None:
        # Not in the journal: reading a model would make it the one changed last.
        looks = (digest, size, 0, 0)
        with suppress(ModelStoreError), self._registry.database.write() as connection:
            connection.execute("INSERT OR REPLACE INTO verified VALUES (?,?,?,?,?)", (uri, *looks))
        self._seen[uri] = looks

    def open(self, record: ModelRecord, member: str | None = None) -> IO[bytes]:
        """Return a seekable file over a model's weights, read where they are and not downloaded as a whole.

        Bytes that the registry or the cache has are used, and verified first. Others are what their storage sends;
        members of packages are checked by their checksum when they are read to the end.

        Args:
            record: The model.
            member: Name of a file in a package or another zip archive; None for the whole.

        Raises:
            BlobNotFoundError: The weights are not where the model says, or have no such member.
            IntegrityError: The weights that are here are not what the model says, or no archive.
            StorageError: They could not be had otherwise.
        """
        whole = self.read_at_place(record, lambda uri: self._open_whole(record, uri))
        if member is None:
            return whole
        from modelstore.storage.packages import open_member

        return open_member(whole, member)

    def _open_whole(self, record: ModelRecord, uri: str) -> IO[bytes]:
        from modelstore.storage.blobs import open_file

        own = parse_object_uri(uri)
        if uris.is_local(uri) or (own is not None and not self.objects.remote):
            return open_file(self._file(record, uri, force=False, verify=False))
        address = uri if own is None else self.objects.uri(*own)
        try:
            name = sanitise_filename(uris.basename(uri) or "weights")
            digest = record.digest if own is None else own[0]
            cached = self.cache.fetch(address, _no_fetcher, expected=digest, filename=name, offline=True)
        except StorageUnavailableError:
            if own is None:
                return open_file(uri)
            return open_file(self.objects.address(*own) or address, self.objects.options())
        return open_file(cached.path)

    def scan(self, record: ModelRecord) -> ScanReport:
        """Return what loading a model's weights would import; they are fetched and verified, and not loaded.

        Raises:
            StorageError: As `local_copy`.
        """
        from modelstore.storage.scanning import scan

        return scan(self.local_copy(record, extract=False))

    def check_file(self, path: Path, digest: str, *, verify: bool = False) -> None:
        """See that a file holds its digest: by its looks when they were good before, else by reading it.

        Raises:
            BlobNotFoundError: It is not there.
            IntegrityError: It holds something else.
        """
        try:
            status = os.stat(path)
        except FileNotFoundError:
            raise _missing(digest, str(path.parent)) from None
        looks = (digest, status.st_size, status.st_mtime_ns, status.st_ino)
        if not verify and (self._seen.get(str(path)) == looks or self._known(path) == looks):
            self._seen[str(path)] = looks
            return
        found = hash_file(path)
        if found.digest != digest:
            raise IntegrityError(
                f"{path} does not hold the bytes that were stored: its digest is {found.digest}, not {digest}",
                "Restore the file from a backup, or register the model anew.",
            )
        with suppress(ModelStoreError), self._registry.database.write():  # saves the next reader work, no more
            self._remember(str(path), digest, status)

    def _key(self, path: str) -> str:
        root = f"{self._registry.folder}/"
        return path.removeprefix(root)

    def _known(self, path: Path) -> tuple[str, int, int, int] | None:
        row = self._registry.database.one(
            "SELECT digest, size, mtime_ns, inode FROM verified WHERE path = ?", (self._key(str(path)),)
        )
        return None if row is None else tuple(row)

    def _remember(self, path: str, digest: str, status: os.stat_result) -> None:
        looks = (digest, status.st_size, status.st_mtime_ns, status.st_ino)
        if self._seen.get(path) == looks:
            return
        with self._registry.database.write() as connection:
            connection.execute("INSERT OR REPLACE INTO verified VALUES (?,?,?,?,?)", (self._key(path), *looks))
        self._seen[path] = looks


def _missing(digest: str, where: str) -> BlobNotFoundError:
    return BlobNotFoundError(
        f"The weights {digest} are missing from {where}",
        "Run `modelstore doctor`, or name a registry that has them: `modelstore remote add`.",
    )


def _objects(registry: Registry) -> ObjectStore:
    root = registry.folder / "objects"
    if registry.server is not None:
        return registry.server.objects(root)
    if registry.bucket is None:
        return ObjectStore(root, sync_names=registry.kind == "local" or not mounts.keeps_names(registry.folder))
    from modelstore.registry.references import is_used
    from modelstore.storage.bucket_objects import BucketObjects, NoObjects
    from modelstore.storage.buckets import Bucket

    bucket: Bucket | None = registry.bucket if isinstance(registry.bucket, Bucket) else None
    if registry.objects is not None:
        folder = uris.local_path(registry.objects)
        if folder is not None:
            return ObjectStore(folder / "objects", sync_names=not mounts.keeps_names(folder))
        bucket = Bucket(registry.objects)
    if bucket is None:
        return NoObjects(root, registry.place)
    database = registry.database
    return BucketObjects(root, bucket, lambda digest: is_used(database, digest))


def _no_fetcher(*_: Any, **__: Any) -> NoReturn:
    raise AssertionError("an offline look-up fetches nothing")

"""The bytes of models: taking them in, sending them away, handing out local copies.

Bytes first, row second: whatever dies in between leaves bytes that nothing refers to, never a row without bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelstore.errors import (
    BlobNotFoundError,
    InvalidUriError,
    ReadOnlyStorageError,
    UsageError,
)
from modelstore.records.entities import ModelRecord
from modelstore.registry.copies import LocalCopies
from modelstore.registry.references import is_used
from modelstore.registry.sources import Source
from modelstore.storage import uris
from modelstore.storage.fingerprints import Fingerprint
from modelstore.storage.objects import object_uri, parse_object_uri, sanitise_filename

if TYPE_CHECKING:
    from modelstore.registry.registry import Registry
    from modelstore.registry.uploads import Uploads

__all__ = ["Snapshot", "Source", "Stored", "Weights"]


@dataclass(slots=True)
class Snapshot:
    """A private copy of the bytes at the moment of the call; `path` is None once it was moved on."""

    path: Path | None
    fingerprint: Fingerprint
    name: str


@dataclass(frozen=True, slots=True)
class Stored:
    """Bytes that are safe: their logical URI, digest and size."""

    uri: str
    digest: str
    size: int

    def fields(self) -> dict[str, Any]:
        """Return what the model's row says of them."""
        return {"uri": self.uri, "digest": self.digest, "size": self.size}


class Weights(LocalCopies):
    """The bytes of one registry's models.

    Args:
        registry: The registry.
    """

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry)
        self._uploads: Uploads | None = None

    # -- names -----------------------------------------------------------------------------------------------------

    def logical(self, uri: str | os.PathLike[str], *, kept: bool = True) -> str:
        """Return the form in which the registry keeps a URI: normalised, and its own objects by digest alone.

        Args:
            uri: A URI or a path.
            kept: It will be written down, so that nothing secret may be in it.

        Raises:
            InvalidUriError: It cannot be understood, or carries credentials.
        """
        if isinstance(uri, str) and uri.startswith("modelstore://"):
            parse_object_uri(uri)
            return uri
        normalised = uris.normalise(uri)
        if kept:
            uris.refuse_secrets(normalised)
        own = self.objects.named(normalised)
        return normalised if own is None else object_uri(*own)

    def described(self, uri: str | None) -> dict[str, Any]:
        """Return what is known of the bytes behind a logical URI without reading them: digest and size of own objects.

        Raises:
            BlobNotFoundError: It names an object that this registry does not have.
        """
        parsed = parse_object_uri(uri) if uri is not None else None
        if parsed is None:
            return {"digest": None, "size": None}
        size = self.objects.size(*parsed)
        if size is None:
            raise BlobNotFoundError(f"This registry has no object {self.objects.uri(*parsed)}", "Check the URI.")
        return {"digest": parsed[0], "size": size}

    def shown(self, uri: str) -> str:
        """Return a URI for messages: as other programs understand it, and without credentials."""
        return uris.redact(self.physical(uri))

    def check_destination(self, uri: str | os.PathLike[str]) -> str:
        """Return an upload destination, normalised, after seeing that this process could write there.

        Raises:
            InvalidUriError: It cannot be understood.
            MissingDriverError: The package for that storage is not installed.
            ReadOnlyStorageError: It cannot be written.
        """
        normalised = uris.refuse_secrets(uris.normalise(uri))
        scheme = uris.scheme(normalised)
        if scheme in ("http", "https", "modelstore"):
            raise InvalidUriError(f"Nothing can be uploaded to {uris.redact(normalised)}", "Name a folder or a bucket.")
        path = uris.local_path(normalised)
        if path is None:
            from modelstore.storage.filesystems import open_filesystem

            open_filesystem(normalised)
            return normalised
        try:
            present = next(p for p in (path, *path.parents) if p.exists())
        except OSError as error:
            raise InvalidUriError(f"{uris.redact(normalised):.200} cannot be used: {error.strerror}") from None
        if not present.is_dir() or not os.access(present, os.W_OK | os.X_OK):
            raise ReadOnlyStorageError(
                f"Could not set destination uri to: {path}: {present} cannot be written", "Check write permissions."
            )
        return normalised

    # -- taking in -------------------------------------------------------------------------------------------------

    @contextmanager
    def snapshot(self, source: Source) -> Iterator[Snapshot]:
        """Copy what the user wants stored, as it is now; what the block does not move on is removed.

        Raises:
            StorageError: It could not be read, or there is no room; nothing is left behind.
        """
        from modelstore.storage.packages import pack
        from modelstore.storage.progress import reporting

        if source.path is not None:
            with reporting(f"storing {source.name}") as progress:
                path, fingerprint = self.objects.snapshot(source.path, progress)
        else:
            path = self.objects.temporary()
            fingerprint = pack(source.members, path)
        snapshot = Snapshot(path, fingerprint, sanitise_filename(source.name))
        try:
            yield snapshot
        finally:
            if snapshot.path is not None:
                with suppress(OSError):
                    snapshot.path.unlink(missing_ok=True)

    def store(self, snapshot: Snapshot, destination: str | None) -> Stored:
        """Put a snapshot where it belongs, and return when it is safe there.

        Args:
            snapshot: The bytes.
            destination: URI; None for the registry's own objects.

        Raises:
            UploadError: The destination did not take them; nothing was changed.
            StorageFullError: There is no room.
        """
        fingerprint, path = snapshot.fingerprint, snapshot.path
        assert path is not None  # noqa: S101 - only a snapshot that is still here is stored
        if destination is None:
            uri = self.objects.put(path, fingerprint, snapshot.name)
            snapshot.path = None
            return Stored(uri, fingerprint.digest, fingerprint.size)
        from modelstore.storage.progress import reporting
        from modelstore.storage.uploads import upload_object

        with reporting(f"uploading {snapshot.name}") as progress:
            sent = upload_object(path, fingerprint, destination, snapshot.name, progress=progress)
        return Stored(sent, fingerprint.digest, fingerprint.size)

    def confirm(self, uri: str | None) -> bool:
        """See, inside the transaction that will refer to it, that an object of the registry is there.

        `release` deletes inside a transaction too: so of two processes, one that stores some bytes again and one
        that frees the last use of them, either the first finds them gone here and stores anew, or the second finds
        them in use.

        Returns:
            False when they are gone.
        """
        parsed = parse_object_uri(uri) if uri is not None else None
        if parsed is None:
            return True
        digest, name = parsed
        if self.objects.remote:
            return self.objects.size(digest, name) is not None
        try:
            status = os.stat(self.objects.path(digest, name))
        except FileNotFoundError:
            return False
        self._remember(str(self.objects.path(digest, name)), digest, status)
        return True

    # -- uploads in the background ---------------------------------------------------------------------------------

    @property
    def uploads(self) -> Uploads:
        """Uploads in the background, and those that an earlier process did not finish."""
        from modelstore.registry.uploads import Uploads

        with self._lock:
            if self._uploads is None:
                self._uploads = Uploads(self._registry)
            return self._uploads

    def supersede(self, model_id: str, before: int | None = None) -> list[Path]:
        """Give up, as part of the caller's transaction, the uploads of a model whose weights are newer now.

        Without this, one that failed would, when it is tried again, bring old weights back.

        Args:
            model_id: The model.
            before: Only those begun before the upload of this number; None for all.

        Returns:
            Snapshots to be deleted when the transaction has ended well.
        """
        with self._registry.database.write() as connection:
            rows = connection.execute(
                "DELETE FROM uploads WHERE model = ? AND (? IS NULL OR id < ?) RETURNING snapshot",
                (model_id, before, before),
            ).fetchall()
        return [self._registry.folder / row[0] for row in rows]

    def wait(
        self, model_id: str | None, *, timeout: float | None = None, count: int | None = None, quiet: bool = False
    ) -> None:
        """Wait for this process's uploads, of one model or of all.

        Args:
            model_id: The model; None for all.
            timeout: Seconds at most; None as long as it takes.
            count: Until so many have finished; None for all.
            quiet: Leave it to another call to tell of failures.

        Raises:
            UploadError: One failed.
            UsageError: This thread is in a transaction, for whose end they wait.
        """
        if self._registry.database.in_transaction:
            if quiet or not self.uploads.begun_here(model_id):
                return
            raise UsageError(
                "Uploads cannot be waited for inside a transaction: they wait for its end",
                "Wait after it, or store with async_enable=False before it.",
            )
        if self._uploads is not None:
            self._uploads.wait(model_id, timeout=timeout, count=count, quiet=quiet)

    # -- freeing ---------------------------------------------------------------------------------------------------

    def release(self, record: ModelRecord) -> int:
        """Delete the bytes that the registry holds for a removed model, when no other model refers to them.

        Uploads of it that have not finished are given up. Bytes outside the registry folder are never deleted: another
        registry may refer to them. Inside a transaction, which may be undone, this is left to its end.

        Returns:
            Bytes freed; 0 inside a transaction.
        """
        if self._registry.database.in_transaction:
            self._registry.database.at_end(well=partial(self.release, record))
            return 0
        for snapshot in self.supersede(record.id):
            snapshot.unlink(missing_ok=True)
        parsed = parse_object_uri(record.uri) if record.uri is not None else None
        if parsed is None:
            return 0
        if self._registry.kind == "shared":
            return 0  # another host may be registering the same bytes: `gc` deletes them when they have rested
        digest = parsed[0]
        with self._registry.database.write() as connection:
            if is_used(self._registry.database, digest):
                return 0
            self.forget(digest)
            connection.execute("DELETE FROM verified WHERE digest = ?", (digest,))
            return self.objects.remove(digest)

    def forget(self, digest: str) -> None:
        """Let this process remember nothing of an object that is about to be deleted."""
        for path in list(self._seen):
            if digest.removeprefix("sha256:") in path:
                self._seen.pop(path, None)

    def close(self) -> None:
        """Wait for uploads and let the cache go."""
        try:
            if self._uploads is not None:
                self._uploads.close()
        finally:
            if self._cache is not None:
                self._cache.close()

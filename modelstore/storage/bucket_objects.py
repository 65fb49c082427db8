"""The objects of a registry in a bucket: under the same names as in a folder, below ``objects`` of its place."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Final, NoReturn

from modelstore.errors import BlobNotFoundError, IntegrityError, InvalidRequestError, StorageError
from modelstore.storage.blobs import open_file
from modelstore.storage.buckets import Bucket, Entry
from modelstore.storage.fingerprints import Fingerprint, Hasher
from modelstore.storage.objects import ObjectStore, StoredObject, object_uri, parse_object_uri, sanitise_filename
from modelstore.storage.uris import basename

__all__ = ["BucketObjects", "NoObjects"]

_YOUNG_S: Final = 3_600.0
"""What was written within this time nobody collects yet."""
_FEW: Final = 16
"""So many objects are asked for one by one; for more, all are listed."""
_AT_A_TIME: Final = 8 << 20


class BucketObjects(ObjectStore):
    """The objects of one registry in a bucket; copies in the making are on this machine.

    Args:
        root: Folder of this machine for copies in the making.
        bucket: The registry's place.
        is_used: Tells whether something in the registry needs a digest.
    """

    remote: ClassVar[bool] = True

    def __init__(self, root: Path, bucket: Bucket, is_used: Callable[[str], bool]) -> None:
        super().__init__(root)
        self._bucket = bucket
        self._is_used = is_used

    # -- writing ---------------------------------------------------------------------------------------------------

    def put(self, snapshot: Path, fingerprint: Fingerprint, filename: str, *, durable: bool = True) -> str:  # noqa: ARG002
        """Send a finished snapshot, which is gone afterwards, and return its logical URI; see `ObjectStore.put`.

        An object that is there already is not sent again, unless it might be collected just now: nothing refers to it,
        and it is not young.

        Raises:
            StorageError: It could not be sent, or is not there as it was sent.
        """
        from modelstore.storage.progress import reporting
        from modelstore.storage.uploads import upload

        name = sanitise_filename(filename)
        digest = fingerprint.digest
        present = next((one for one in self._entries(digest) if one.name == name), None)
        kept = present is not None and present.size == fingerprint.size
        if not kept or not (self._is_used(digest) or self.now() - (present.changed_at if present else 0) < _YOUNG_S):
            with reporting(f"uploading {name}") as progress:
                upload(snapshot, self.uri(digest, name), fingerprint=fingerprint, progress=progress)
        snapshot.unlink()
        return object_uri(digest, name)

    def set_aside(self, digest: str, filename: str, folder: Path) -> Path:
        """Copy what lies under a name into a folder of this machine, and remove it there."""
        folder.mkdir(exist_ok=True)
        target = folder / f"{digest.removeprefix('sha256:')}.{os.urandom(4).hex()}.{filename}"
        self._bucket.download(self._name(digest, filename), target)
        self._bucket.remove([self._name(digest, filename)])
        return target

    def remove(self, digest: str) -> int:
        """Delete an object under all its names and return the bytes that were freed; 0 if it was not there."""
        entries = self._entries(digest)
        self._bucket.remove(f"{_folder(digest)}/{one.name}" for one in entries)
        return sum(one.size for one in entries)

    def discard(self, stored: Sequence[StoredObject]) -> None:
        """Delete objects under the names that `stored` found, all of them at once."""
        self._bucket.remove([f"{_folder(one.digest)}/{name}" for one in stored for name in one.names])

    # -- looking ---------------------------------------------------------------------------------------------------

    def uri(self, digest: str, filename: str) -> str:
        """Return the URI of that object, there or not."""
        return self._bucket.address(self._name(digest, filename))

    def address(self, digest: str, filename: str) -> str | None:
        """Return where a content can be read, preferably under that file name; None when it is not here."""
        names = [one.name for one in self._entries(digest)]
        wanted = sanitise_filename(filename)
        return self.uri(digest, wanted if wanted in names else min(names)) if names else None

    def local(self, digest: str, filename: str) -> Path | None:  # noqa: ARG002
        """Return None: no file of this machine is the object."""
        return None

    def path(self, digest: str, filename: str) -> NoReturn:
        """Refuse: an object in a bucket has no path.

        Raises:
            InvalidRequestError: Always.
        """
        raise InvalidRequestError(f"{self.uri(digest, filename)} has no path", "Ask for a local copy.")

    def find(self, digest: str) -> Path | None:  # noqa: ARG002
        """Return None: no file of this machine is the object."""
        return None

    def named(self, uri: str) -> tuple[str, str] | None:
        """Return digest and file name of what lies at a normalised URI in this store; None for any other URI."""
        head = self._bucket.address("objects/sha256") + "/"
        parts = uri.removeprefix(head).split("/") if uri.startswith(head) else []
        if len(parts) != 3 or len(parts[1]) != 64:
            return None
        return parse_object_uri(object_uri(f"sha256:{parts[1]}", basename(uri)))

    def size(self, digest: str, filename: str | None = None) -> int | None:
        """Return the bytes of an object under that name, or under any for None; None when it is not here."""
        if filename is not None:
            return self._bucket.size(self._name(digest, filename))
        return next((one.size for one in self._entries(digest)), None)

    def sizes(self) -> Callable[[str, str], int | None]:
        """Return a way to ask for the sizes of many, from one listing; what is not in it is asked for by itself."""
        listed = self._tree()

        def ask(digest: str, filename: str) -> int | None:
            entries = listed.get(digest) or self._entries(digest)
            wanted = sanitise_filename(filename)
            found = {one.name: one.size for one in entries}
            return found.get(wanted, next(iter(found.values()), None))

        return ask

    def lacking(self, wanted: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        """Return those digests and file names under which there is no object."""
        pairs = set(wanted)
        if len(pairs) <= _FEW:
            return {(digest, name) for digest, name in pairs if self.size(digest, name) is None}
        present = {(digest, one.name) for digest, entries in self._tree().items() for one in entries}
        return {(digest, name) for digest, name in pairs if (digest, sanitise_filename(name)) not in present}

    def changed_at(self, digest: str) -> float | None:
        """Return when an object was last stored, seconds since 1970; None when there is none."""
        return max((one.changed_at for one in self._entries(digest)), default=None)

    def now(self) -> float:
        """Return the store's own time: a host's clock may be days off."""
        return self._bucket.now(f"tmp/{os.urandom(8).hex()}") or time.time()

    def stored(self, digests: Sequence[str]) -> list[StoredObject]:
        """Return those of these objects that are there."""
        listed = self._bucket.entries_of_many([_folder(digest) for digest in digests])
        return [_stored(digest, entries) for digest, entries in zip(digests, listed, strict=True) if entries]

    def iterate(self) -> Iterator[StoredObject]:
        """Yield every object, in order of digest."""
        for digest, entries in sorted(self._tree().items()):
            yield _stored(digest, entries)

    def damaged(self, digest: str) -> Iterator[tuple[str, str]]:
        """Read an object under all its names, and yield those whose bytes are others, with what is wrong."""
        for one in self._entries(digest):
            uri = self.uri(digest, one.name)
            try:
                found = self._read(uri).digest
            except BlobNotFoundError:
                continue  # removed meanwhile
            except StorageError as error:
                yield one.name, f"{uri} cannot be read ({error})"
                continue
            if found != digest:
                yield one.name, f"{uri} has the digest {found}"

    def verify(self, digest: str) -> Fingerprint:
        """Read the whole object and return its fingerprint; see `ObjectStore.verify`."""
        uri = self.address(digest, "")
        if uri is None:
            raise BlobNotFoundError(f"There is no object {digest} in {self._bucket.address('objects')}")
        found = self._read(uri)
        if found.digest != digest:
            raise IntegrityError(
                f"The object at {uri!r} is damaged: its bytes have the digest {found.digest}.",
                "Remove it and store or fetch the same file again.",
            )
        return found

    def _read(self, uri: str) -> Fingerprint:
        hasher = Hasher()
        with open_file(uri) as file:
            while data := file.read(_AT_A_TIME):
                hasher.update(data)
        return hasher.fingerprint()

    def _entries(self, digest: str) -> list[Entry]:
        return self._bucket.entries(_folder(digest))

    def _tree(self) -> dict[str, list[Entry]]:
        found: dict[str, list[Entry]] = {}
        for path, entry in self._bucket.tree("objects/sha256").items():
            parts = path.split("/")
            if len(parts) == 3 and len(parts[1]) == 64:
                found.setdefault(f"sha256:{parts[1]}", []).append(entry)
        return found

    def _name(self, digest: str, filename: str) -> str:
        return f"{_folder(digest)}/{sanitise_filename(filename)}"


class NoObjects(ObjectStore):
    """The objects of a registry that has no place for any.

    Args:
        root: Folder of this machine for copies in the making.
        place: The registry.
    """

    remote: ClassVar[bool] = True

    def __init__(self, root: Path, place: str) -> None:
        super().__init__(root)
        self._place = place

    def temporary(self) -> NoReturn:
        """Refuse to begin a copy.

        Raises:
            InvalidRequestError: Always.
        """
        raise InvalidRequestError(
            f"The registry at {self._place} has no place for files",
            f"Give it one (modelstore init {self._place} --objects s3://bucket/x), or upload elsewhere: output_uri.",
        )


def _stored(digest: str, entries: Sequence[Entry]) -> StoredObject:
    names, changed_at = tuple(one.name for one in entries), max(one.changed_at for one in entries)
    return StoredObject(digest, names, sum(one.size for one in entries), changed_at)


def _folder(digest: str) -> str:
    hexdigest = digest.removeprefix("sha256:")
    return f"objects/sha256/{hexdigest[:2]}/{hexdigest}"

"""Objects on their way in: unfinished files beside the objects, continued where they end, visible when they are whole.

    objects/tmp/upload-<id>         the beginning of the object, locked by whoever appends to it
    objects/tmp/upload-<id>.json    what it will be: digest, name, size

An id follows from the token, digest and name, so that a client that has forgotten everything finds his upload again.
The digest is taken of the bytes as they arrive, and of those that lie there when an upload is continued.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from modelstore.errors import IntegrityError, InvalidRequestError, NotFoundError, StorageFullError
from modelstore.ids import is_digest
from modelstore.server.answers import RefusedError
from modelstore.storage.claims import claim
from modelstore.storage.failures import translated
from modelstore.storage.fingerprints import Hasher
from modelstore.storage.objects import ObjectStore, object_uri, sanitise_filename
from modelstore.storage.syncing import EarlySync

if TYPE_CHECKING:
    from modelstore.registry import Registry
    from modelstore.server.tokens import Token

__all__ = ["Incoming", "Upload", "Uploads", "checked_name"]

_ID: Final = re.compile(r"[0-9a-f]{32}")
_KEEP_S: Final = 86_400.0
_BLOCK: Final = 1 << 20
_LARGE: Final = 1 << 20
"""Bytes that come at once from which on the disk is worth keeping busy while the rest comes."""
_SAME: Final = 16
"""Uploads of one object by one token that may go on at the same time."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An object on its way in.

    Attributes:
        id: Names it.
        digest: What it must have.
        name: Its file name.
        size: Its length in bytes.
        offset: How many bytes have come.
        complete: Whether the object is stored.
    """

    id: str
    digest: str
    name: str
    size: int
    offset: int
    complete: bool = False


class Uploads:
    """The unfinished uploads of one registry.

    Args:
        registry: The registry.
    """

    def __init__(self, registry: Registry) -> None:
        self._store: ObjectStore = registry.weights.objects

    def begin(self, who: Token, digest: str, name: str, size: int) -> Upload:
        """Return the upload of an object: the one that was begun earlier and that nobody is sending, or a new one.

        Raises:
            InvalidRequestError: The digest, name or size is none.
            StorageFullError: There is no room for it.
        """
        checked_name(digest, name)
        if size < 0:
            raise InvalidRequestError(f"{size} is no size")
        if self._store.size(digest, name) is not None:
            return Upload(_id(who, digest, name, 0), digest, name, size, size, complete=True)
        folder = self._store.temporary().parent
        for number in range(_SAME):
            upload_id = _id(who, digest, name, number)
            path = folder / f"upload-{upload_id}"
            with translated(path, writing=True):
                descriptor = claim(path, create=True)
                if descriptor is None:
                    continue
                try:
                    offset = os.fstat(descriptor).st_size
                    if offset > size:
                        os.ftruncate(descriptor, 0)
                        offset = 0
                    self._check_room(path, size - offset)
                    _describe(path, {"digest": digest, "name": name, "size": size, "token": who.name})
                finally:
                    os.close(descriptor)
            return Upload(upload_id, digest, name, size, offset)
        raise _busy()

    def get(self, who: Token, upload_id: str) -> Upload:
        """Return an upload that was begun.

        Raises:
            NotFoundError: There is none, or it is another's.
        """
        path = self._path(upload_id)
        try:
            record = json.loads(path.with_name(f"{path.name}.json").read_text())
            if record["token"] != who.name:
                raise FileNotFoundError(path)
            offset = path.stat().st_size
            return Upload(upload_id, record["digest"], record["name"], record["size"], offset)
        except (FileNotFoundError, ValueError, KeyError) as error:
            raise NotFoundError(f"There is no upload {upload_id!r}", "Begin it: POST /v1/uploads.") from error

    def proceed(self, who: Token, upload_id: str, offset: int) -> Incoming:
        """Return where the next bytes of an upload go; nobody else sends any while it is open.

        Raises:
            NotFoundError: There is no such upload.
            RefusedError: It does not end at that offset, or somebody else is sending.
        """
        upload = self.get(who, upload_id)
        path = self._path(upload_id)
        with translated(path, writing=True):
            descriptor = claim(path, create=False)
            if descriptor is None:
                raise _busy()
            try:
                found = os.fstat(descriptor).st_size
                if found != offset:
                    raise RefusedError(
                        409,
                        "UploadOffsetMismatch",
                        f"The upload has {found} bytes, and is not continued at {offset}",
                        "Ask for the offset: HEAD.",
                        {"Upload-Offset": str(found)},
                    )
                incoming = Incoming(self._store, path, descriptor, upload.digest, upload.name, upload.size)
                incoming.read_again()
            except BaseException:
                os.close(descriptor)
                raise
        return incoming

    def receive(self, digest: str, name: str, size: int | None) -> Incoming:
        """Return where the bytes of an object go that comes in one piece.

        Raises:
            InvalidRequestError: The digest or name is none.
            StorageFullError: There is no room for it.
        """
        checked_name(digest, name)
        path = self._store.temporary()
        with translated(path, writing=True):
            self._check_room(path, size or 0)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        return Incoming(self._store, path, descriptor, digest, name, size)

    def drop(self, who: Token, upload_id: str) -> None:
        """Forget an upload.

        Raises:
            NotFoundError: There is none.
            RefusedError: Somebody is sending it.
        """
        self.get(who, upload_id)
        path = self._path(upload_id)
        descriptor = claim(path, create=False)
        if descriptor is None:
            raise _busy()
        try:
            _forget(path)
        finally:
            os.close(descriptor)

    def sweep(self) -> None:
        """Remove what was begun long ago and not continued."""
        self._store.clean(_KEEP_S)

    def _path(self, upload_id: str) -> Path:
        if not _ID.fullmatch(upload_id):
            raise NotFoundError(f"There is no upload {upload_id[:64]!r}", "Begin it: POST /v1/uploads.")
        return self._store.root / "tmp" / f"upload-{upload_id}"

    @staticmethod
    def _check_room(path: Path, size: int) -> None:
        room = os.statvfs(path.parent)
        if size > room.f_bavail * room.f_frsize:
            raise StorageFullError(f"There is no room for {size} bytes on the server", "Free some, and try again.")


class Incoming:
    """A file that receives an object.

    Args:
        store: Where the object goes when it is whole.
        path: The file.
        descriptor: Of the file; closed with this.
        digest: What the object must have.
        name: Its file name.
        size: Its length; None where it is not known before.
    """

    def __init__(
        self, store: ObjectStore, path: Path, descriptor: int, digest: str, name: str, size: int | None
    ) -> None:
        self._store, self._path, self._descriptor = store, path, descriptor
        self._digest, self._name, self.size = digest, name, size
        self._hasher = Hasher()
        self._early: EarlySync | None = None

    @property
    def offset(self) -> int:
        """How many bytes have come."""
        return self._hasher.size

    @property
    def whole(self) -> bool:
        """Whether all have come."""
        return self.offset == self.size

    def read_again(self) -> None:
        """Take the digest of what came earlier."""
        while block := os.pread(self._descriptor, _BLOCK, self.offset):
            self._hasher.update(block)

    def append(self, data: bytes | bytearray) -> None:
        """Take in the next bytes.

        Raises:
            InvalidRequestError: There are more than were announced.
            StorageFullError: The disk is full.
        """
        if self.size is not None and self.offset + len(data) > self.size:
            raise InvalidRequestError(f"More than the {self.size} bytes of the object came")
        view = memoryview(data)
        if self._early is None and len(view) >= _LARGE:
            self._early = EarlySync(self._descriptor)
        with translated(self._path, writing=True):
            if self._early is not None:
                self._early.check()
            position = self.offset
            while view:
                written = os.pwrite(self._descriptor, view, position)
                view, position = view[written:], position + written
        self._hasher.update(data)

    def finish(self) -> str:
        """Store the object, durably, and return its URI.

        Raises:
            IntegrityError: The bytes are others than those of the digest; they are gone.
        """
        found = self._hasher.fingerprint()
        if found.digest != self._digest or (self.size is not None and found.size != self.size):
            _forget(self._path)
            raise IntegrityError(
                f"The bytes that came have the digest {found.digest}, not {self._digest}", "Send them again."
            )
        with translated(self._path, writing=True):
            if self._early is not None:
                self._early.finish()
            os.fsync(self._descriptor)
        self._store.put(self._path, found, self._name)
        with suppress(FileNotFoundError):
            self._path.with_name(f"{self._path.name}.json").unlink()
        return object_uri(found.digest, self._name)

    def discard(self) -> None:
        """Remove the file, where it has not become an object."""
        _forget(self._path)

    def close(self) -> None:
        """Let others go on with the file."""
        if self._early is not None:
            self._early.close()
            self._early = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def checked_name(digest: str, name: str) -> None:
    """See that an object can have this digest and file name.

    Raises:
        InvalidRequestError: It cannot.
    """
    if not is_digest(digest):
        raise InvalidRequestError(f"{digest[:100]!r} is no digest", "Write sha256: and 64 lower-case hex digits.")
    if not name or sanitise_filename(name) != name:
        raise InvalidRequestError(f"{name[:200]!r} is no file name that an object can have")


def _id(who: Token, digest: str, name: str, number: int) -> str:
    return hashlib.sha256(f"{who.name}\n{digest}\n{name}\n{number}".encode()).hexdigest()[:32]


def _describe(path: Path, record: dict[str, object]) -> None:
    temporary = path.with_name(f"{path.name}.{os.urandom(6).hex()}.tmp")
    temporary.write_text(json.dumps(record))
    temporary.replace(path.with_name(f"{path.name}.json"))


def _forget(path: Path) -> None:
    for one in (path, path.with_name(f"{path.name}.json")):
        with suppress(FileNotFoundError):
            one.unlink()


def _busy() -> RefusedError:
    return RefusedError(
        503, "UploadBusy", "Another request is sending this object", "Wait for it.", {"Retry-After": "5"}
    )

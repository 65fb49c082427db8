"""What kind a registry is: its format file decides, so that two hosts cannot disagree."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from modelstore.errors import (
    BlobNotFoundError,
    CorruptRegistryError,
    InvalidRequestError,
    NetworkFilesystemError,
    NewerRegistryError,
    ReadOnlyRegistryError,
    RegistryNotFoundError,
    StorageUnavailableError,
)
from modelstore.ids import new_id
from modelstore.registry import mounts

if TYPE_CHECKING:
    from modelstore.storage.buckets import ObjectStorage

__all__ = [
    "FORMAT",
    "FORMAT_FILE",
    "Form",
    "Kind",
    "create_form",
    "open_bucket",
    "open_form",
    "read_form",
    "refuse_remote",
    "whereabouts",
    "write_form",
]

FORMAT_FILE: Final = "modelstore.json"
FORMAT: Final = 1
_LONGEST: Final = 1 << 16
"""Bytes of a format file: what is known to be little is waited for no longer than little takes."""

Kind = Literal["local", "shared"]


class Form(NamedTuple):
    """What the format file of a registry says.

    Attributes:
        kind: "local" or "shared".
        id: The registry's id.
        objects: Where its bytes are, when not beside the journal.
    """

    kind: Kind
    id: str
    objects: str | None = None


def open_form(folder: Path, *, create: bool, shared: bool | None = None, anew: bool = False) -> Form:
    """Return what a registry is, made when there is none.

    Args:
        folder: The registry's folder.
        create: Make it when the folder has none.
        shared: Kind of the one that is made, and that one that exists must have; None takes any, and makes a shared
            one where the folder lies on a network filesystem.
        anew: Make it also where this host knows a shared one that is not there.

    Raises:
        RegistryNotFoundError: There is none, and ``create`` is False.
        StorageUnavailableError: This host knows a shared one that is not there, and ``anew`` is False.
        InvalidRequestError: It is of the other kind, or the path is no folder.
        NetworkFilesystemError: A registry of one machine lies on a network filesystem.
        NewerRegistryError, CorruptRegistryError, ReadOnlyRegistryError: It cannot be opened.
    """
    network = mounts.network_filesystem(folder)
    form = read_form(folder)
    if form is None:
        old = (folder / "registry.db").exists()
        if not old and not anew:
            _refuse_to_replace(folder)
        if not create and not old:
            raise RegistryNotFoundError(f"There is no registry at {folder}", "Check the path, or create it.")
        form = create_form(folder, "shared" if not old and (shared or (shared is None and network)) else "local")
    if shared is not None and shared != (form.kind == "shared"):
        raise InvalidRequestError(
            f"The registry at {folder} is of kind {form.kind!r}", "Choose another folder, or leave the kind out."
        )
    if form.kind == "local" and network is not None:
        raise NetworkFilesystemError(
            f"{folder} lies on a network filesystem ({network}), where SQLite loses writes of concurrent hosts",
            f"Convert it, while nobody uses it: modelstore convert --shared {folder}",
        )
    return form


def _refuse_to_replace(folder: Path) -> None:
    """See that a shared registry, whose folder is not mounted just now, is not begun anew below its mount point.

    Raises:
        StorageUnavailableError: This host knows one there.
    """
    from modelstore.registry.places import known_index

    index = known_index(folder)
    if index is not None:
        raise StorageUnavailableError(
            f"The shared registry at {folder}, which this host knows, is not there",
            "See that its folder is mounted; MODELSTORE_OFFLINE=1 reads what is known here. Should it be gone for good,"
            f" delete {index}.",
        )


def read_form(folder: Path) -> Form | None:
    """Return what a registry is; None when there is none.

    Raises:
        InvalidRequestError: The path is no folder.
        NewerRegistryError, CorruptRegistryError, ReadOnlyRegistryError: It cannot be known.
    """
    path = folder / FORMAT_FILE
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise InvalidRequestError(f"{folder} is no folder", "Name a folder for the registry.") from error
    except OSError as error:
        raise ReadOnlyRegistryError(f"{path} cannot be read ({error.strerror})", "Check its permissions.") from error
    return _parsed(text, str(folder))


def _parsed(text: bytes, place: str) -> Form:
    try:
        record = json.loads(text.decode(errors="replace"))
        kind, version, identity = str(record["kind"]), int(record["format"]), str(record["id"])
        objects = None if record.get("objects") is None else str(record["objects"])
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptRegistryError(f"{FORMAT_FILE} of {place} is damaged", "Restore it from a backup.") from error
    if version <= FORMAT and kind == "local":
        return Form("local", identity)
    if version <= FORMAT and kind == "shared":
        return Form("shared", identity, objects)
    raise NewerRegistryError(
        f"The registry at {place} is of kind {kind!r}, format {version}; this modelstore opens kinds 'local' and"
        f" 'shared' up to format {FORMAT}",
        'Upgrade with: pip install -U "modelstore-local"',
    )


def open_bucket(bucket: ObjectStorage, *, create: bool, shared: bool | None = None, objects: str | None = None) -> Form:
    """Return what a registry in a bucket is, made when there is none; it is always shared.

    Of several hosts that make one at once all get the same, on stores that know how to write only what is not there.
    On others one may go on for a while under an id that is forgotten; nothing is lost by that.

    Args:
        bucket: The registry's place.
        create: Make it when there is none.
        shared: False asks for one of this machine, which none in a bucket is.
        objects: Where the bytes of a registry in a database go; None leaves it as it is.

    Raises:
        RegistryNotFoundError: There is none, and ``create`` is False.
        InvalidRequestError: There is no such bucket, or ``shared`` is False.
        NewerRegistryError, CorruptRegistryError: It cannot be opened.
        ReadOnlyStorageError, StorageUnavailableError: The store refuses, or does not answer.
    """
    if shared is False:
        raise InvalidRequestError(f"A registry in a bucket is always shared: {bucket.uri}", "Choose a folder.")
    try:
        form = _parsed(bucket.read(FORMAT_FILE, 0, _LONGEST), bucket.uri)
        if objects is None or form.objects == objects:
            return form
        if form.objects is not None:
            raise InvalidRequestError(f"The bytes of {bucket.uri} are in {form.objects}", "They cannot be elsewhere.")
        bucket.write(FORMAT_FILE, _text(form._replace(objects=objects)))
        return form._replace(objects=objects)
    except BlobNotFoundError:
        if not create:
            raise RegistryNotFoundError(
                f"There is no registry at {bucket.uri}", "Check the path, or create it."
            ) from None
    try:
        bucket.create(FORMAT_FILE, _text(Form("shared", new_id(), objects)))
        return _parsed(bucket.read(FORMAT_FILE, 0, _LONGEST), bucket.uri)
    except BlobNotFoundError as error:
        raise InvalidRequestError(f"There is no bucket for {bucket.uri}", "Make the bucket first.") from error


def whereabouts(address: str) -> Literal["folder", "bucket", "database", "server"] | None:
    """Return what kind of place an address names; None for one that no registry can be at."""
    scheme = address.partition("://")[0].lower() if "://" in address else "file"
    if scheme == "file":
        return "folder"
    if scheme in ("http", "https"):
        return "server"
    from modelstore.storage import buckets, tables

    if scheme in tables.SCHEMES:
        return "database"
    return "bucket" if buckets.is_bucket(address) else None


def refuse_remote(place: str | os.PathLike[str], message: str, hint: str) -> None:
    """Refuse a place in an object store or behind a server where only a folder will do.

    Raises:
        InvalidRequestError: It is one.
    """
    text = os.fspath(place)
    if whereabouts(text) in ("bucket", "database", "server"):
        raise InvalidRequestError(f"{message}: {text}", hint)


def _text(form: Form) -> bytes:
    record = {"format": FORMAT, "kind": form.kind, "id": form.id, "software": "modelstore"}
    if form.objects is not None:
        record["objects"] = form.objects
    return json.dumps(record, indent=1).encode() + b"\n"


def create_form(folder: Path, kind: Kind) -> Form:
    """Make the folder and its format file; of several processes that do so at once, one file stands.

    Raises:
        InvalidRequestError: The path is no folder.
        ReadOnlyRegistryError: It cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = write_form(folder, Form(kind, new_id()), durable=kind == "shared")
        try:
            os.link(temporary, folder / FORMAT_FILE)  # fails when another process was first, unlike a rename
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    except (NotADirectoryError, FileExistsError) as error:
        raise InvalidRequestError(f"{folder} is no folder", "Name a folder for the registry.") from error
    except OSError as error:
        raise ReadOnlyRegistryError(
            f"A registry cannot be created in {folder} ({error.strerror})",
            "Check the folder's permissions, or name another with MODELSTORE_REGISTRY.",
        ) from error
    form = read_form(folder)
    assert form is not None  # noqa: S101 - it was just written
    return form


def write_form(folder: Path, form: Form, *, durable: bool) -> Path:
    """Write a format file beside its place, and return where; the caller gives it its name."""
    temporary = folder / f"{FORMAT_FILE}.{os.urandom(6).hex()}.tmp"
    with temporary.open("wb") as file:
        file.write(_text(form))
        if durable:
            file.flush()
            os.fsync(file.fileno())
    return temporary

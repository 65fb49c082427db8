"""The small objects below one address of an object store: listed, read, written and removed, each as a whole.

Nothing that was listed is remembered, whatever the driver would like to: what others have written must be seen.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Protocol

from modelstore.errors import BlobNotFoundError, InvalidUriError, ModelStoreError
from modelstore.storage.failures import translated
from modelstore.storage.filesystems import open_filesystem
from modelstore.storage.retries import Patience, retrying
from modelstore.storage.uris import join, normalise, redact, refuse_secrets, scheme

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = ["ATOMIC", "Bucket", "Entry", "ObjectStorage", "Span", "is_bucket"]

ATOMIC: Final = frozenset({"s3", "s3a", "gs", "gcs", "az", "azure", "abfs", "abfss"})
"""Schemes of stores where a write shows the object when it is complete, and not before."""

_FRESH: Final = {"use_listings_cache": False, "skip_instance_cache": False}
_AT_ONCE: Final = 16
_ANSWER_S: Final = 30.0
"""A request that moves little is given up after this; drivers go on for several minutes, and some for half an hour."""
_SLOW: Final = 1 << 18
"""Bytes a second, at the least, that a connection is expected to move."""
_WHOLE: Final = 64 << 20
"""What an object of unknown size is taken to have."""


class Span(NamedTuple):
    """Bytes of one object, from a position to another; None for its end."""

    name: str
    start: int
    end: int | None


class Entry(NamedTuple):
    """One object of a listing.

    Attributes:
        name: Below the folder that was listed.
        size: In bytes.
        changed_at: When it was written, by the store's clock, seconds since 1970; 0.0 where the store does not say.
    """

    name: str
    size: int
    changed_at: float


class ObjectStorage(Protocol):
    """Small objects below one URI; see `Bucket`, whose methods raise what these do."""

    @property
    def uri(self) -> str:
        """Where they are, without credentials."""
        ...

    @property
    def settled_after_s(self) -> float:
        """Seconds for which somebody may still be at a listing that lacks what has been written since; 0 for none."""
        ...

    def entries(self, folder: str) -> list[Entry]:
        """List what is right below a folder; nothing where there is none."""
        ...

    def tree(self, folder: str) -> dict[str, Entry]:
        """List everything below a folder, however deep, by its path from there."""
        ...

    def read(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        """Return an object, or a part of it."""
        ...

    def read_many(self, spans: Sequence[Span]) -> list[bytes | None]:
        """Return parts of many objects; None for those that are not there."""
        ...

    def size(self, name: str) -> int | None:
        """Return the size of an object in bytes; None when there is none."""
        ...

    def download(self, name: str, target: Path) -> None:
        """Copy an object to a local file."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write an object, which appears whole, in place of one of that name; durable when this returns."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Write an object unless there is one of that name; tells whether this call did."""
        ...

    def upload(self, name: str, path: Path) -> None:
        """Copy a local file to an object, which appears whole."""
        ...

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; those that are gone already are no error."""
        ...

    def address(self, name: str) -> str:
        """Return what stands for an object in messages; of a bucket, its URI."""
        ...

    def now(self, probe: str) -> float:
        """Return the storage's own time, seconds since 1970."""
        ...

    def close(self) -> None:
        """Drop connections; they are made again when they are needed."""
        ...


def is_bucket(uri: str) -> bool:
    """Tell whether a URI names an object store that a `Bucket` can be in."""
    return scheme(uri) in ATOMIC | {"memory"}


class Bucket:
    """Everything below one URI; for any number of threads, and for forked children.

    Failures that may pass are tried again for a while. Writing the same bytes twice does no harm, so a write whose
    answer was lost is repeated.

    Args:
        uri: ``s3://bucket/prefix`` or any other object store; ``memory://`` lasts as long as the process.
        patience: How long to go on through failures.

    Raises:
        InvalidUriError: It is no object store, or carries credentials.
        MissingDriverError: The package that speaks this scheme is not installed.
    """

    settled_after_s: ClassVar[float] = 300.0
    """A listing comes page by page, and some stores show what is new a while later."""

    def __init__(self, uri: str, patience: Patience | None = None) -> None:
        whole = refuse_secrets(normalise(uri)).rstrip("/")
        if not is_bucket(whole):
            raise InvalidUriError(f"{redact(whole)!r} is no object store", "Name a bucket: s3://, gs:// or az://.")
        self.uri = whole
        self._patience = patience or Patience(attempts=8, deadline_s=60.0)
        open_filesystem(whole, _FRESH)

    def __repr__(self) -> str:
        return f"Bucket({redact(self.uri)!r})"

    # -- reading ---------------------------------------------------------------------------------------------------

    def entries(self, folder: str) -> list[Entry]:
        """List what is right below a folder; nothing where there is none.

        Raises:
            StorageError: The store does not answer, or refuses to.
        """
        try:
            return _entries(self._ask("ls", folder, detail=True, timeout=4 * _ANSWER_S))
        except BlobNotFoundError:
            return []

    def tree(self, folder: str) -> dict[str, Entry]:
        """List everything below a folder, however deep, by its path from there.

        Raises:
            StorageError: The store does not answer, or refuses to.
        """
        try:
            found = self._ask("find", folder, detail=True)
        except BlobNotFoundError:
            return {}
        root = len(self._key(folder).strip("/")) + 1
        entries = {}
        for path, one in found.items():
            below = path.lstrip("/")[root:]
            entries[below] = Entry(below.rpartition("/")[2], int(one["size"] or 0), _time_of(one))
        return entries

    def read(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        """Return an object, or a part of it.

        Raises:
            BlobNotFoundError: There is none.
            StorageError: It cannot be read.
        """
        seconds = _ANSWER_S + (_WHOLE if end is None else end - start) / _SLOW
        part: dict[str, Any] = {} if start == 0 and end is None else {"start": start, "end": end}
        return bytes(self._ask("cat_file", name, timeout=seconds, **part))

    def read_many(self, spans: Sequence[Span]) -> list[bytes | None]:
        """Return parts of many objects, as many of them at once as is good; None for those that are not there.

        Raises:
            StorageError: One cannot be read.
        """
        fs = self._filesystem()
        if len(spans) == 1 or not getattr(fs, "async_impl", False):
            return [self._read_or_none(span) for span in spans]
        found: Sequence[Any]
        try:
            found = self._driver(
                "cat_ranges",
                [self._key(span.name) for span in spans],
                [span.start for span in spans],
                [span.end for span in spans],
                batch_size=_AT_ONCE,
                on_error="return",
                timeout=_ANSWER_S + sum(_WHOLE if s.end is None else s.end - s.start for s in spans) / _SLOW,
            )
        except TimeoutError as error:
            found = [error] * len(spans)
        pairs = zip(spans, found, strict=True)
        # What failed is asked for again by itself: with patience, and with the error that it deserves.
        return [self._read_or_none(span) if isinstance(one, BaseException) else one for span, one in pairs]

    def _read_or_none(self, span: Span) -> bytes | None:
        try:
            return self.read(span.name, span.start, span.end)
        except BlobNotFoundError:
            return None

    def size(self, name: str) -> int | None:
        """Return the size of an object in bytes; None when there is none.

        Raises:
            StorageError: The store does not answer, or refuses to.
        """
        try:
            info = self._ask("info", name, timeout=_ANSWER_S)
        except BlobNotFoundError:
            return None
        return int(info["size"] or 0) if info["type"] == "file" else None

    def download(self, name: str, target: Path) -> None:
        """Copy an object to a local file.

        Raises:
            BlobNotFoundError: There is none.
            StorageError: It cannot be read, or the file not be written.
        """
        self._ask("get_file", name, os.fspath(target))

    # -- writing ---------------------------------------------------------------------------------------------------

    def write(self, name: str, data: bytes) -> None:
        """Write an object, which appears whole, in place of one of that name; durable when this returns.

        Raises:
            BlobNotFoundError: There is no such bucket.
            StorageError: It failed; the object may appear all the same, even later.
        """
        self._ask("pipe_file", name, data, writing=True, timeout=_ANSWER_S + len(data) / _SLOW)

    def create(self, name: str, data: bytes) -> bool:
        """Write an object unless there is one of that name; tells whether this call did.

        Some stores cannot tell: there, of two that do so at the same moment, the later one wins, and both are told
        that they did.

        Raises:
            BlobNotFoundError: There is no such bucket.
            StorageError: It failed.
        """
        if self.size(name) is not None:
            return False
        try:
            self._ask("pipe_file", name, data, writing=True, mode="create", timeout=_ANSWER_S)
        except ModelStoreError as error:
            if not isinstance(error.__cause__, FileExistsError):
                raise
            return self.read(name) == data  # an answer that was lost, and its repetition
        return True

    def upload(self, name: str, path: Path) -> None:
        """Copy a local file to an object, which appears whole.

        Raises:
            StorageError: It failed.
        """
        with translated(self.address(name), writing=True):
            retrying(lambda: self._driver("put_file", os.fspath(path), self._key(name)), self._patience)

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; those that are gone already are no error.

        Raises:
            StorageError: The store does not let us.
        """
        # Not by the driver's removal of many, which takes names for patterns, and on S3 hides what was refused.
        self._ask_many("rm_file", list(names), writing=True)

    def entries_of_many(self, folders: Sequence[str]) -> list[list[Entry]]:
        """List what is right below each of many folders.

        Raises:
            StorageError: The store does not answer, or refuses to.
        """
        return [_entries(found or ()) for found in self._ask_many("ls", folders, detail=True)]

    # -- the driver ------------------------------------------------------------------------------------------------

    def address(self, name: str) -> str:
        """Return the URI of an object."""
        return join(self.uri, *name.split("/")) if name else self.uri

    def now(self, probe: str) -> float:
        """Return the store's own time, learned from an object that is written and removed; 0.0 where it keeps none.

        Args:
            probe: A name for it, in a folder of its own.
        """
        folder, _, name = probe.rpartition("/")
        self.write(probe, b"?")
        try:
            return next((one.changed_at for one in self.entries(folder) if one.name == name), 0.0)
        finally:
            self.remove([probe])

    def close(self) -> None:
        """Do nothing: fsspec keeps connections for the process."""

    def _ask(self, method: str, name: str, *args: Any, writing: bool = False, **named: Any) -> Any:
        with translated(self.address(name), writing=writing):
            return retrying(lambda: self._driver(method, self._key(name), *args, **named), self._patience)

    def _ask_many(self, method: str, names: Sequence[str], *, writing: bool = False, **named: Any) -> list[Any]:
        """Ask about many, several at once; None for those that are not there."""
        fs = self._filesystem()
        if len(names) < 2 or not getattr(fs, "async_impl", False):
            return [self._ask_or_none(method, name, writing=writing, **named) for name in names]
        found = _together(fs, f"_{method}", [self._key(name) for name in names], named)
        # What failed is asked for again by itself: with patience, and with the error that it deserves.
        return [
            self._ask_or_none(method, name, writing=writing, **named) if isinstance(one, BaseException) else one
            for name, one in zip(names, found, strict=True)
        ]

    def _ask_or_none(self, method: str, name: str, *, writing: bool, **named: Any) -> Any:
        try:
            return self._ask(method, name, writing=writing, timeout=_ANSWER_S, **named)
        except BlobNotFoundError:
            return None

    def _driver(self, method: str, *args: Any, timeout: float | None = None, **named: Any) -> Any:
        """Make one call of the driver; a test lets it fail here."""
        fs = self._filesystem()
        if timeout is not None and getattr(fs, "async_impl", False):
            named["timeout"] = timeout  # of fsspec, which gives the call up
        return getattr(fs, method)(*args, **named)

    def _filesystem(self) -> AbstractFileSystem:
        # Not kept: fsspec has an instance for every thread and process, since its own do not survive a fork.
        return open_filesystem(self.uri, _FRESH)[0]

    def _key(self, name: str) -> str:
        return str(open_filesystem(self.address(name), _FRESH)[1])


def _together(fs: AbstractFileSystem, method: str, keys: Sequence[str], named: Mapping[str, Any]) -> list[Any]:
    """Await one method of an asynchronous driver for many keys; failures are returned."""
    import asyncio

    from fsspec.asyn import sync

    async def run() -> list[Any]:
        free = asyncio.Semaphore(_AT_ONCE)

        async def ask(key: str) -> Any:
            async with free:
                return await asyncio.wait_for(getattr(fs, method)(key, **named), _ANSWER_S)

        return await asyncio.gather(*map(ask, keys), return_exceptions=True)

    answers: list[Any] = sync(fs.loop, run)
    return answers


def _entries(found: Iterable[Mapping[str, Any]]) -> list[Entry]:
    return [
        Entry(str(one["name"]).rstrip("/").rpartition("/")[2], int(one["size"] or 0), _time_of(one))
        for one in found
        if one["type"] == "file"
    ]


def _time_of(info: Mapping[str, Any]) -> float:
    for field in ("LastModified", "mtime", "updated", "last_modified", "created"):
        found = info.get(field)
        if isinstance(found, str):
            found = datetime.fromisoformat(found)
        if isinstance(found, datetime):
            return found.timestamp()
        if isinstance(found, (int, float)):
            return float(found)
    return 0.0

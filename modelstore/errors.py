"""Everything that modelstore raises on purpose, in one tree.

Each class is also the builtin that a caller would catch: a bad argument is a `ValueError`, a missing thing a
`LookupError`, failing storage an `OSError`. Where ClearML raises `ValueError` for a missing thing, ours is one too.

    ModelStoreError
    ├── InvalidRequestError (ValueError)
    │   ├── TagQueryError
    │   ├── WhereSyntaxError
    │   ├── InvalidUriError
    │   ├── InvalidMetadataError
    │   ├── InvalidConfigurationError
    │   ├── NotPackagedError
    │   ├── MissingWeightsError
    │   ├── UnsafeArchiveError
    │   ├── UnreadableWeightsError
    │   └── ModelInUseError
    ├── PublishedModelError (ValueError)
    ├── TaskClosedError (ValueError)
    ├── UsageError (RuntimeError)
    │   └── NotOfferedError (AttributeError)
    ├── NotFoundError (LookupError)
    │   ├── ModelNotFoundError (ValueError)
    │   ├── TaskNotFoundError (ValueError)
    │   ├── ProjectNotFoundError (ValueError)
    │   └── RegistryNotFoundError (ValueError)
    ├── StorageError (OSError)
    │   ├── BlobNotFoundError (FileNotFoundError)
    │   ├── StorageUnavailableError
    │   ├── StorageFullError
    │   ├── DownloadError (ValueError)
    │   ├── UploadError
    │   ├── IntegrityError
    │   ├── ReadOnlyStorageError (PermissionError)
    │   ├── AccessDeniedError (PermissionError)
    │   ├── CacheBusyError (TimeoutError)
    │   └── MissingDriverError
    └── RegistryError (RuntimeError)
        ├── NewerRegistryError
        ├── CorruptRegistryError
        ├── ReadOnlyRegistryError (PermissionError)
        ├── RegistryBusyError (TimeoutError)
        ├── NetworkFilesystemError
        └── InvalidOperationError (ValueError)
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "AccessDeniedError",
    "BlobNotFoundError",
    "CacheBusyError",
    "CorruptRegistryError",
    "DownloadError",
    "IntegrityError",
    "InvalidConfigurationError",
    "InvalidMetadataError",
    "InvalidOperationError",
    "InvalidRequestError",
    "InvalidUriError",
    "MissingDriverError",
    "MissingWeightsError",
    "ModelInUseError",
    "ModelNotFoundError",
    "ModelStoreError",
    "NetworkFilesystemError",
    "NewerRegistryError",
    "NotFoundError",
    "NotOfferedError",
    "NotPackagedError",
    "ProjectNotFoundError",
    "PublishedModelError",
    "ReadOnlyRegistryError",
    "ReadOnlyStorageError",
    "RegistryBusyError",
    "RegistryError",
    "RegistryNotFoundError",
    "StorageError",
    "StorageFullError",
    "StorageUnavailableError",
    "TagQueryError",
    "TaskClosedError",
    "TaskNotFoundError",
    "UnreadableWeightsError",
    "UnsafeArchiveError",
    "UploadError",
    "UsageError",
    "WhereSyntaxError",
]


class ModelStoreError(Exception):
    """The root: catch this to catch everything that modelstore raises on purpose.

    Args:
        message: What happened, and to which object.
        hint: What to do next; empty when there is nothing to do.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        message = self.message
        if not self.hint:
            return message
        return f"{message} {self.hint}" if message.endswith((".", "!", "?")) else f"{message}. {self.hint}"

    def __reduce__(self) -> tuple[Any, ...]:
        # OSError and ImportError rewrite args; the facts are what must survive pickling.
        return (type(self), self._facts())

    def _facts(self) -> tuple[Any, ...]:
        return (self.message, self.hint)


class InvalidRequestError(ModelStoreError, ValueError):
    """An argument is wrong; nothing was touched."""


class TagQueryError(InvalidRequestError):
    """A tag filter list is malformed."""

    def __init__(self, tokens: tuple[object, ...], position: int, reason: str) -> None:
        shown = [f"»{t!r}«" if i == position else repr(t) for i, t in enumerate(tokens)]
        super().__init__(f"{reason} (position {position} of [{', '.join(shown)}])")
        self.tokens, self.position, self.reason = tokens, position, reason

    def _facts(self) -> tuple[Any, ...]:
        return (self.tokens, self.position, self.reason)


class WhereSyntaxError(InvalidRequestError):
    """A textual condition cannot be parsed; the message points at the offending token with a caret."""

    def __init__(self, text: str, position: int, reason: str) -> None:
        super().__init__(f"{reason}\n  {text}\n  {' ' * position}^")
        self.text, self.position, self.reason = text, position, reason

    def _facts(self) -> tuple[Any, ...]:
        return (self.text, self.position, self.reason)


class InvalidUriError(InvalidRequestError):
    """A URI cannot be understood or must not be used as given."""


class InvalidMetadataError(InvalidRequestError):
    """A metadata key, value or type is not acceptable."""


class InvalidConfigurationError(InvalidRequestError):
    """A configuration text cannot be read as a dictionary."""


class NotPackagedError(InvalidRequestError):
    """A package was asked of a model that is a single file."""


class MissingWeightsError(InvalidRequestError):
    """The call needs a model with weights, and this one has none."""


class UnsafeArchiveError(InvalidRequestError):
    """An archive has a member that would be written outside its folder, or is no plain file or folder."""


class UnreadableWeightsError(InvalidRequestError):
    """A file of weights cannot be looked into: its format is not known, or it does not keep to it."""


class ModelInUseError(InvalidRequestError):
    """The model cannot be removed because something refers to it."""


class PublishedModelError(ModelStoreError, ValueError):
    """The model is published: its content cannot change any more."""


class TaskClosedError(ModelStoreError, ValueError):
    """The task is completed, stopped, failed or published, and the call needs a running one."""


class UsageError(ModelStoreError, RuntimeError):
    """The call does not fit the state of this process (a second main task, for instance)."""


class NotOfferedError(UsageError, AttributeError):
    """ClearML has this, and there is nothing like it here; `hasattr` says so too."""


class NotFoundError(ModelStoreError, LookupError):
    """Something that was named does not exist."""


class ModelNotFoundError(NotFoundError, ValueError):
    """No model has that id, or none matches."""


class TaskNotFoundError(NotFoundError, ValueError):
    """No task has that id, or none matches."""


class ProjectNotFoundError(NotFoundError, ValueError):
    """No project has that name."""


class RegistryNotFoundError(NotFoundError, ValueError):
    """There is no registry where one was to be opened."""


class StorageError(ModelStoreError, OSError):
    """Reading or writing bytes failed."""


class BlobNotFoundError(StorageError, FileNotFoundError):
    """Nothing exists at that URI or path."""


class StorageUnavailableError(StorageError):
    """The storage did not answer, or refused, after the retries; the cause is chained."""


class StorageFullError(StorageError):
    """The disk or quota is full; nothing half-written was left behind."""


class DownloadError(StorageError, ValueError):
    """A local copy of a model's weights could not be made."""


class UploadError(StorageError):
    """Weights could not be stored at their destination."""


class IntegrityError(StorageError):
    """Bytes differ from the digest or size recorded for them."""


class ReadOnlyStorageError(StorageError, PermissionError):
    """The storage does not accept writes."""


class AccessDeniedError(StorageError, PermissionError):
    """A server knows no such token, or the token may not do this."""


class CacheBusyError(StorageError, TimeoutError):
    """Another process held the cache's lock for longer than the caller would wait."""


class MissingDriverError(StorageError):
    """The package that speaks to this kind of storage is not installed."""


class RegistryError(ModelStoreError, RuntimeError):
    """The registry cannot do what was asked of it."""


class NewerRegistryError(RegistryError):
    """The registry was written by a newer modelstore than this one."""


class CorruptRegistryError(RegistryError):
    """The registry's database or files are damaged."""


class ReadOnlyRegistryError(RegistryError, PermissionError):
    """The registry's folder or database does not accept writes."""


class RegistryBusyError(RegistryError, TimeoutError):
    """Other processes kept the registry locked for longer than the caller would wait."""


class NetworkFilesystemError(RegistryError):
    """A one-machine registry lies on a network filesystem, where SQLite loses writes."""


class InvalidOperationError(RegistryError, ValueError):
    """An operation from a journal is malformed or not allowed."""

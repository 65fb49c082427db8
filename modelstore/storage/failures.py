"""Foreign failures, told in our own terms: one context manager around every call that leaves modelstore."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final, Self

from modelstore.errors import (
    BlobNotFoundError,
    InvalidRequestError,
    ModelStoreError,
    ReadOnlyStorageError,
    StorageError,
    StorageFullError,
    StorageUnavailableError,
)
from modelstore.storage.uris import redact, redact_text

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["http_status", "is_transient", "translate", "translated"]

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_REFUSED: Final = frozenset({errno.EACCES, errno.EPERM})
_MISSING_CODES: Final = frozenset(
    {"404", "410", "NoSuchKey", "NoSuchBucket", "NotFound", "BlobNotFound", "ContainerNotFound"}
)
_REFUSED_CODES: Final = frozenset({"401", "403", "AccessDenied", "Forbidden", "InvalidAccessKeyId", "Unauthorized"})
_TRANSIENT_CODES: Final = frozenset(
    {
        "InternalError", "RequestTimeout", "RequestTimeTooSkewed", "ServerBusy", "SlowDown", "Throttling",
        "ThrottlingException",
    }
)  # fmt: skip
_TRANSIENT_STATUS: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_PERMANENT_ERRNO: Final = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP}
    | {errno.EINVAL}
    | _FULL
    | _REFUSED
)
# By name, not by import: none of these libraries need be installed, let alone loaded.
_TRANSIENT_CLASSES: Final = frozenset(
    {
        "ClientConnectionError", "ClientOSError", "ClientPayloadError", "ConnectError", "ConnectTimeout",
        "ConnectTimeoutError", "ConnectionClosedError", "ConnectionError", "ConnectionLost", "EndpointConnectionError",
        "FSTimeoutError", "HTTPClientError", "IncompleteRead", "IncompleteReadError", "ReadError", "ReadTimeout",
        "ReadTimeoutError", "RemoteDisconnected", "RemoteProtocolError", "ResponseStreamingError",
        "ServerDisconnectedError", "ServerTimeoutError", "ServiceRequestError", "ServiceResponseError", "TimeoutError",
        "error_temp",
    }
)  # fmt: skip
_CREDENTIAL_CLASSES: Final = frozenset(
    {
        "ClientAuthenticationError", "CredentialRetrievalError", "DefaultCredentialsError", "NoCredentialsError",
        "PartialCredentialsError", "PermissionDenied", "ProfileNotFound", "RefreshError", "TokenRetrievalError",
    }
)  # fmt: skip


class translated:  # noqa: N801 - reads as a statement: with translated(uri): …
    """Turn whatever a library raises while working on ``uri`` into our tree, the original chained.

    Our own errors, and programming errors (`TypeError`, `KeyError`, …), pass as they are.

    Args:
        uri: What is being worked on; shown without its secrets.
        writing: Whether a refusal means that the place does not accept writes.
    """

    # A class, not @contextmanager: this surrounds the hot path of registering a small file.
    __slots__ = ("_uri", "_writing")

    def __init__(self, uri: object, *, writing: bool = False) -> None:
        self._uri, self._writing = uri, writing

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            ours = translate(error, self._uri, writing=self._writing)
            if ours is not error:
                raise ours from error


def translate(error: Exception, uri: object, *, writing: bool = False) -> Exception:
    """Return the error of our tree that tells what ``error`` means for ``uri``; ``error`` itself if it is one."""
    if isinstance(error, ModelStoreError):
        return error
    place = repr(redact(uri))
    number = error.errno if isinstance(error, OSError) else None
    ours: Exception = error
    if _is_missing(error, writing=writing):
        ours = BlobNotFoundError(f"There is nothing at {place}.", "Check the spelling and that it still exists.")
    elif number in _FULL:
        ours = StorageFullError(f"No space is left for {place}.", "Free some space and try again.")
    elif number == errno.EROFS:
        ours = ReadOnlyStorageError(f"{place} is on a read-only filesystem.", "Choose another destination.")
    elif _is_refusal(error):
        ours = _refused(error, place, writing=writing)
    elif isinstance(error, IsADirectoryError):
        ours = InvalidRequestError(f"{place} is a folder, and a file is wanted.", "Store it as a package.")
    elif writing and isinstance(error, NotImplementedError):
        ours = ReadOnlyStorageError(f"{place} can be read but not written to.", "Choose another destination.")
    elif isinstance(error, OSError) or _is_foreign(error):
        ours = StorageUnavailableError(
            f"{place} could not be {'written' if writing else 'read'}: {_reason(error)}.",
            "Try again; if it goes on, check the connection." if is_transient(error) else "",
        )
    return ours


def is_transient(error: BaseException) -> bool:
    """Tell whether trying again may help: lost connections, timeouts, 429 and 5xx; not refusals, full disks or bugs.

    An error of our own tree is judged by its cause.
    """
    if "interpreter shutdown" in str(error):
        return False  # no thread can be begun any more, however often it is tried
    if isinstance(error, ModelStoreError):
        if not isinstance(error, StorageError):
            return False
        return error.__cause__ is not None and is_transient(error.__cause__)
    status = http_status(error)
    if status is not None:
        return status in _TRANSIENT_STATUS or _code(error) in _TRANSIENT_CODES
    if _code(error) in _TRANSIENT_CODES:
        return True
    if any(cls.__name__ in _TRANSIENT_CLASSES for cls in type(error).__mro__):
        return True
    return isinstance(error, OSError) and error.errno is not None and error.errno not in _PERMANENT_ERRNO


def http_status(error: BaseException) -> int | None:
    """Return the HTTP status that a library's error carries, or None."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        response = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return response if isinstance(response, int) else None
    for name in ("status", "status_code", "code"):
        candidate = getattr(error, name, None)
        if isinstance(candidate, int) and 300 <= candidate < 600:
            return candidate
        if isinstance(candidate, str) and candidate.isdigit() and len(candidate) == 3:
            return int(candidate)
    return None


def _code(error: BaseException) -> str:
    """Return a service's own error code (``NoSuchKey``), else its HTTP status as a text, else nothing."""
    response = getattr(error, "response", None)
    if isinstance(response, dict) and response.get("Error", {}).get("Code"):
        return str(response["Error"]["Code"])
    name = getattr(error, "error_code", None)
    if isinstance(name, str):
        return name
    status = http_status(error)
    return "" if status is None else str(status)


def _is_missing(error: Exception, *, writing: bool) -> bool:
    name = type(error).__name__
    if isinstance(error, FileNotFoundError | NotADirectoryError) or _code(error) in _MISSING_CODES:
        return True
    if name == "error_perm":  # FTP has one number, 550, for "no such file" and for "you may not"
        reply = str(error).lower()
        return not writing and reply.startswith("550") and "permission" not in reply and "denied" not in reply
    return name in {"NoSuchFile", "ResourceNotFound", "ResourceNotFoundError", "SFTPNoSuchFile"}


def _is_refusal(error: Exception) -> bool:
    if isinstance(error, PermissionError) or (isinstance(error, OSError) and error.errno in _REFUSED):
        return True
    return _code(error) in _REFUSED_CODES or type(error).__name__ in _CREDENTIAL_CLASSES | {"error_perm"}


def _refused(error: Exception, place: str, *, writing: bool) -> Exception:
    if writing:
        return ReadOnlyStorageError(f"Writing to {place} was refused: {_reason(error)}.", "Check its permissions.")
    return StorageUnavailableError(f"Reading {place} was refused: {_reason(error)}.", "Check your permissions.")


def _is_foreign(error: Exception) -> bool:
    """Tell whether a storage library made this class, as opposed to Python or a caller."""
    return type(error).__module__.partition(".")[0] in {
        "adlfs", "aiobotocore", "aiohttp", "asyncssh", "azure", "boto3", "botocore", "fsspec", "ftplib", "gcsfs",
        "google", "http", "httpx", "httpx2", "huggingface_hub", "obstore", "paramiko", "psycopg", "requests", "s3fs",
        "sshfs", "tarfile", "urllib", "urllib3", "webdav4", "zipfile",
    }  # fmt: skip


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        # Names that cannot be resolved have negative numbers of their own.
        return os.strerror(error.errno) if error.errno > 0 else error.strerror
    text = " ".join(redact_text(error).split())
    if isinstance(error, TimeoutError) and not text:
        return "there was no answer in time"
    return f"{type(error).__name__}{f' ({text[:300]})' if text else ''}".rstrip(".")

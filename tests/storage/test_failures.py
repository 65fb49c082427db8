"""Foreign errors become ours, with their cause, and are told apart by whether trying again may help."""

from __future__ import annotations

import errno
import http.client
import importlib
import socket
from pathlib import Path
from typing import Any

import pytest

from modelstore.errors import (
    BlobNotFoundError,
    InvalidRequestError,
    ModelStoreError,
    ReadOnlyStorageError,
    StorageFullError,
    StorageUnavailableError,
)
from modelstore.storage.failures import http_status, is_transient, translated
from modelstore.storage.retries import Patience, retrying
from modelstore.storage.webclient import HttpStatusError, TruncatedError


class ServiceError(Exception):
    """Shaped as botocore's ClientError is; put into its module below."""

    def __init__(self, code: str, status: int) -> None:
        super().__init__(f"An error occurred ({code})")
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


ServiceError.__module__ = "botocore.exceptions"


class NoCredentialsError(Exception):
    """Named as botocore's."""


NoCredentialsError.__module__ = "botocore.exceptions"


def ftp_error(reply: str, kind: str = "error_perm") -> Exception:
    error: Exception = getattr(importlib.import_module("ftplib"), kind)(reply)
    return error


@pytest.mark.parametrize(
    ("foreign", "writing", "ours"),
    [
        (FileNotFoundError("x"), False, BlobNotFoundError),
        (NotADirectoryError(errno.ENOTDIR, "x"), False, BlobNotFoundError),
        (ServiceError("NoSuchKey", 404), False, BlobNotFoundError),
        (ServiceError("NoSuchBucket", 404), True, BlobNotFoundError),
        (HttpStatusError(404, "Not Found", "http://h", {}), False, BlobNotFoundError),
        (ftp_error("550 No such file."), False, BlobNotFoundError),
        (ftp_error("550 Permission denied."), False, StorageUnavailableError),
        (ftp_error("550 No."), True, ReadOnlyStorageError),
        (ftp_error("530 Login incorrect."), False, StorageUnavailableError),
        (OSError(errno.ENOSPC, "x"), True, StorageFullError),
        (OSError(errno.EDQUOT, "x"), True, StorageFullError),
        (OSError(errno.EROFS, "x"), True, ReadOnlyStorageError),
        (PermissionError(errno.EACCES, "x"), True, ReadOnlyStorageError),
        (PermissionError(errno.EACCES, "x"), False, StorageUnavailableError),
        (ServiceError("AccessDenied", 403), True, ReadOnlyStorageError),
        (NoCredentialsError("x"), False, StorageUnavailableError),
        (IsADirectoryError(errno.EISDIR, "x"), False, InvalidRequestError),
        (NotImplementedError("x"), True, ReadOnlyStorageError),
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), False, StorageUnavailableError),
        (TimeoutError("x"), False, StorageUnavailableError),
        (http.client.IncompleteRead(b""), False, StorageUnavailableError),
        (ServiceError("SlowDown", 503), False, StorageUnavailableError),
    ],
)
def test_foreign_errors_become_ours(foreign: Exception, writing: bool, ours: type[ModelStoreError]) -> None:
    """A caller reacts to what happened, not to which library said so."""
    with pytest.raises(ours) as caught, translated("s3://bucket/key?X-Amz-Signature=s3cret", writing=writing):
        raise foreign

    assert type(caught.value) is ours
    assert caught.value.__cause__ is foreign
    assert "s3://bucket/key" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("error", [TypeError("x"), KeyError("x"), AssertionError("x"), KeyboardInterrupt()])
def test_programming_errors_and_interrupts_stay(error: BaseException) -> None:
    """Hiding those as "storage unavailable" would hide bugs."""
    with pytest.raises(type(error)) as caught, translated("/x"):
        raise error

    assert caught.value is error


def test_our_own_errors_stay_as_they_are() -> None:
    """The innermost knows best."""
    inner = StorageFullError("inner")

    with pytest.raises(StorageFullError) as caught, translated("/x"), translated("/y"):
        raise inner
    assert caught.value is inner


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ConnectionResetError(errno.ECONNRESET, "x"), True),
        (TimeoutError("x"), True),
        (TruncatedError("x"), True),
        (HttpStatusError(503, "", "", {}), True),
        (HttpStatusError(429, "", "", {}), True),
        (HttpStatusError(404, "", "", {}), False),
        (HttpStatusError(403, "", "", {}), False),
        (ServiceError("SlowDown", 503), True),
        (ServiceError("RequestTimeout", 400), True),
        (ServiceError("AccessDenied", 403), False),
        (ftp_error("421 Later", "error_temp"), True),
        (ftp_error("550 No"), False),
        (OSError(errno.ENOSPC, "x"), False),
        (FileNotFoundError(errno.ENOENT, "x"), False),
        (PermissionError(errno.EACCES, "x"), False),
        (TypeError("x"), False),
        (BlobNotFoundError("x"), False),
        (InvalidRequestError("x"), False),
    ],
)
def test_only_what_may_pass_is_tried_again(error: Exception, again: bool) -> None:
    """Asking four times for a file that is not there only makes the user wait."""
    assert is_transient(error) is again


def test_our_errors_are_judged_by_their_cause() -> None:
    """An upload in the background is tried again by those who see only ours."""
    with pytest.raises(StorageUnavailableError) as caught, translated("/x"):
        raise ConnectionResetError(errno.ECONNRESET, "x")

    assert is_transient(caught.value)
    assert not is_transient(StorageUnavailableError("no cause"))


def test_statuses_are_found_in_every_library() -> None:
    """Each has its own attribute."""

    class Azure(Exception):  # noqa: N818
        status_code = 409

    class Google(Exception):  # noqa: N818
        code = "412"

    assert http_status(Azure()) == 409
    assert http_status(Google()) == 412
    assert http_status(ServiceError("x", 500)) == 500
    assert http_status(ValueError()) is None


def failing(*errors: Exception | None) -> Any:
    left = iter(errors)

    def action() -> str:
        error = next(left)
        if error is not None:
            raise error
        return "done"

    return action


def test_a_long_wait_is_no_silent_one(caplog: pytest.LogCaptureFixture) -> None:
    """A minute without a word looks like a program that hangs; once is enough."""
    slept: list[float] = []
    patience = Patience()
    for _ in range(2):
        patience.after(ConnectionResetError(104, "reset"), slept.append)
    assert caplog.text == ""
    patience._since -= 10
    for _ in range(3):
        patience.after(ConnectionResetError(104, "reset"), slept.append)

    assert len(slept) == 5
    assert caplog.text.count("trying again") == 1


QUICK = Patience(attempts=3, first_pause_s=0.001)


def test_passing_failures_are_outlasted() -> None:
    """Two in a row of three allowed."""
    assert retrying(failing(TimeoutError(), TimeoutError(), None), QUICK) == "done"


def test_patience_ends() -> None:
    """With what the last attempt said."""
    with pytest.raises(ConnectionResetError):
        retrying(failing(TimeoutError(), TimeoutError(), ConnectionResetError()), QUICK)
    with pytest.raises(FileNotFoundError):
        retrying(failing(FileNotFoundError(), None), QUICK)


def test_progress_renews_patience() -> None:
    """A line that drops every minute still brings a large file home."""
    patience = Patience(attempts=2, first_pause_s=0.0)
    for _ in range(10):
        assert patience.after(TimeoutError())
        patience.progressed()

    assert patience.after(TimeoutError())
    assert not patience.after(TimeoutError())


def test_pauses_grow_at_random_and_obey_the_server() -> None:
    """Workers that failed together must not come back together; "Retry-After" is a request."""
    pauses: list[float] = []
    patience = Patience(attempts=100, deadline_s=1e9, first_pause_s=1.0, longest_pause_s=8.0)
    for _ in range(50):
        assert patience.after(TimeoutError(), pauses.append)

    assert pauses[0] <= 1.0
    assert max(pauses) <= 8.0
    assert len(set(pauses)) > 40
    assert patience.after(HttpStatusError(503, "", "", {"retry-after": "20"}), pauses.append)
    assert pauses[-1] == 20.0


def test_the_deadline_counts_the_pause_to_come() -> None:
    """Waiting a minute only to give up then helps nobody."""
    slept: list[float] = []
    error = HttpStatusError(503, "", "", {"Retry-After": "30"})

    assert not Patience(deadline_s=10.0).after(error, slept.append)
    assert slept == []


def test_a_path_that_is_a_folder_is_told_as_such(tmp_path: Path) -> None:
    """From the operating system's own words."""
    with pytest.raises(InvalidRequestError, match="folder"), translated(tmp_path):
        tmp_path.open("rb")


def test_a_host_that_nobody_knows_is_told_in_words() -> None:
    """The numbers of the resolver's errors are not those of the system's."""
    with (
        pytest.raises(StorageUnavailableError, match="Name or service not known"),
        translated("https://nowhere.invalid/x"),
    ):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

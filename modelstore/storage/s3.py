"""The S3 dialect: addresses signed by s3fs, bytes over our own connections.

botocore finds the credentials and signs, so that everything users configure for it holds; it does not touch the
bytes, which through it cost several times the processor time of moving them.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Protocol

from modelstore.errors import UploadError
from modelstore.storage.filesystems import open_filesystem
from modelstore.storage.origins import FsspecOrigin, Origin, WebOrigin
from modelstore.storage.retries import Patience
from modelstore.storage.uris import redact
from modelstore.storage.webclient import HttpStatusError, WebClient

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fsspec import AbstractFileSystem

    from modelstore.storage.fingerprints import Progress

__all__ = ["Checkpoint", "abort", "open_s3_origin", "send_to_s3"]

_MEBIBYTE: Final = 1 << 20
_PART_BYTES: Final = 8 * _MEBIBYTE
_MAX_PARTS: Final = 10_000
_CONNECTIONS: Final = 16
_BLOCK_BYTES: Final = 1 << 18  # fits the L2 cache: what was hashed is sent from there
_SIGNED_FOR_S: Final = 3600
_RENEW_AFTER_S: Final = 1800.0


class Checkpoint(Protocol):
    """Where an upload notes how it can be continued by another process.

    Attributes:
        state: What `save` was last given for this upload; None at the beginning.
    """

    @property
    def state(self) -> str | None: ...  # noqa: D102

    def save(self, state: str) -> None:
        """Keep ``state``, durably."""


def open_s3_origin(uri: str, options: Mapping[str, Any]) -> Origin:
    """Return an object in a bucket, read by signed ranges; through s3fs where signing does not do."""
    fs, path = open_filesystem(uri, options)
    if _needs_driver(fs):
        return FsspecOrigin(fs, path)
    return _SignedOrigin(fs, path)


class _SignedOrigin:
    """Ranges of a signed address; the driver's own reading once the server refuses that."""

    def __init__(self, fs: AbstractFileSystem, path: str) -> None:
        self._fs, self._path = fs, path
        self._url, self._signed_at = "", -_RENEW_AFTER_S
        self._lock = threading.Lock()
        self._inner: Origin = WebOrigin(self._address, WebClient())

    def _address(self) -> str:
        with self._lock:
            if time.monotonic() - self._signed_at > _RENEW_AFTER_S or not self._url:
                self._url = self._fs.url(self._path, expires=_SIGNED_FOR_S)
                self._signed_at = time.monotonic()
            return self._url

    def look(self, start: int = 0, *, in_one: bool = False) -> None:
        try:
            self._inner.look(start, in_one=in_one)
        except HttpStatusError as error:
            # 404 is an answer. Others may be about the signature: another region, requester pays, a key of its own.
            if error.status == 404 or error.status >= 500 or isinstance(self._inner, FsspecOrigin):
                raise
            self._inner.close()
            self._inner = FsspecOrigin(self._fs, self._path)
            self._inner.look(start, in_one=in_one)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def send_to_s3(
    path: str,
    fs: AbstractFileSystem,
    key: str,
    *,
    size: int,
    progress: Progress | None,
    checkpoint: Checkpoint | None,
    patience: Patience,
) -> str | None:
    """Send a file in parallel parts, each checked by its MD5, and return the ETag; nothing is visible before the end.

    Raises:
        NotImplementedError: This filesystem needs what only its own driver does; nothing was sent.
        UploadError: The server says that it received other bytes.
    """
    if _needs_driver(fs) or getattr(fs, "s3_additional_kwargs", None):
        raise NotImplementedError
    bucket, name, _ = fs.split_path(key)
    sending = _Sending(path, fs, key, {"Bucket": bucket, "Key": name}, size, progress, patience)
    try:
        return sending.in_one() if size <= 2 * _PART_BYTES else sending.in_parts(checkpoint)
    finally:
        sending.close()


def abort(fs: AbstractFileSystem, key: str, state: str) -> None:
    """Delete the parts of an unfinished upload, by what its checkpoint was given."""
    bucket, name, _ = fs.split_path(key)
    try:
        fs.call_s3("abort_multipart_upload", Bucket=bucket, Key=name, UploadId=json.loads(state)["upload"])
    except FileNotFoundError:
        return  # finished, aborted or expired


def _needs_driver(fs: AbstractFileSystem) -> bool:
    """Tell whether options are in force that signing a URL cannot express."""
    kwargs = getattr(fs, "client_kwargs", None) or {}
    config = getattr(fs, "config_kwargs", None) or {}
    return kwargs.get("verify", True) is not True or bool(
        config.get("proxies") or config.get("client_cert") or getattr(fs, "req_kw", None)
    )


class _Sending:
    def __init__(
        self,
        path: str,
        fs: AbstractFileSystem,
        key: str,
        place: dict[str, str],
        size: int,
        progress: Progress | None,
        patience: Patience,
    ) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._fs, self._key, self._place, self._size = fs, key, place, size
        self._progress, self._patience = progress, patience
        self._client = WebClient()
        self._done = 0
        self._lock = threading.Lock()
        self._part_bytes = max(_PART_BYTES, -(-size // _MAX_PARTS))

    def close(self) -> None:
        self._client.close()
        os.close(self._file)

    def in_one(self) -> str | None:
        return self._put(_Body(self._file, 0, self._size, self._key), client_method="put_object")

    def in_parts(self, checkpoint: Checkpoint | None) -> str | None:
        upload, present = self._resume(checkpoint)
        if upload is None:
            upload = str(self._fs.call_s3("create_multipart_upload", **self._place)["UploadId"])
            if checkpoint is not None:
                checkpoint.save(json.dumps({"upload": upload, "part_bytes": self._part_bytes}))
        count = -(-self._size // self._part_bytes)
        pool = ThreadPoolExecutor(min(_CONNECTIONS, count), "modelstore-upload")
        try:
            tags = list(pool.map(lambda index: self._send_part(upload, index, present), range(count)))
            parts = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]
            answer = self._fs.call_s3(
                "complete_multipart_upload", **self._place, UploadId=upload, MultipartUpload={"Parts": parts}
            )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            self._client.close()
            pool.shutdown()
            if checkpoint is None:  # nobody could continue it, and its parts would be paid for
                self._fs.call_s3("abort_multipart_upload", **self._place, UploadId=upload)
            raise
        pool.shutdown()
        whole = hashlib.md5(b"".join(bytes.fromhex(_plain(tag)) for tag in tags if _is_md5(tag)), usedforsecurity=False)
        found = answer.get("ETag")
        if found and all(map(_is_md5, tags)) and _plain(found) not in {f"{whole.hexdigest()}-{count}"} | _unlike(found):
            raise UploadError(f"The parts of {redact(self._key)!r} were put together wrongly by the server.")
        return str(found) if found else None

    def _resume(self, checkpoint: Checkpoint | None) -> tuple[str | None, dict[int, str]]:
        """Return an unfinished upload and the ETags of the parts that it has already."""
        if checkpoint is None or not checkpoint.state:
            return None, {}
        try:
            state = json.loads(checkpoint.state)
            if state["part_bytes"] != self._part_bytes:
                return None, {}
            present: dict[int, str] = {}
            marker = 0
            while True:
                page = self._fs.call_s3(
                    "list_parts", **self._place, UploadId=state["upload"], PartNumberMarker=marker
                )  # fmt: skip
                present.update({part["PartNumber"]: part["ETag"] for part in page.get("Parts", ())})
                if not page.get("IsTruncated"):
                    return str(state["upload"]), present
                marker = page["NextPartNumberMarker"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None, {}  # aborted, finished or expired meanwhile: begin anew

    def _send_part(self, upload: str, index: int, present: Mapping[int, str]) -> str:
        begin = index * self._part_bytes
        body = _Body(self._file, begin, min(self._part_bytes, self._size - begin), self._key)
        tag = present.get(index + 1)
        if tag is not None and _plain(tag) == body.md5():
            self._count(len(body))
            return tag
        tag = self._put(body, client_method="upload_part", PartNumber=index + 1, UploadId=upload)
        if tag is None:
            raise UploadError(f"The server gave no ETag for a part of {redact(self._key)!r}.")
        return tag

    def _put(self, body: _Body, **signed: Any) -> str | None:
        patience = self._patience.fresh()
        while True:
            try:
                body.seek(0)
                address = self._fs.url(self._key, expires=_SIGNED_FOR_S, **signed)
                headers = {"Content-Length": str(len(body))}
                with self._client.request("PUT", address, headers, body if len(body) else b"") as response:
                    response.read()
                    tag = response.headers.get("ETag")
                    encrypted = str(response.headers.get("x-amz-server-side-encryption", "")).startswith("aws:kms")
                if tag and _is_md5(tag) and not encrypted and _plain(tag) != (digest := body.md5()):
                    raise ConnectionError(f"the server received other bytes than were sent ({tag}, not {digest})")
            except Exception as error:
                if not patience.after(error):
                    raise
            else:
                self._count(len(body))
                return tag

    def _count(self, size: int) -> None:
        with self._lock:
            self._done += size
            if self._progress is not None:
                self._progress(self._done, self._size)


class _Body:
    """A piece of a file, hashed while it is sent, one block in memory at a time."""

    def __init__(self, file: int, begin: int, length: int, key: str) -> None:
        self._file, self._begin, self._length, self._key = file, begin, length, key
        self._block = memoryview(bytearray(min(_BLOCK_BYTES, length)))
        self.seek(0)

    def __len__(self) -> int:
        return self._length

    def seek(self, position: int) -> None:
        """Begin anew: there is no other use of it here."""
        self._done, self._md5 = position, hashlib.md5(usedforsecurity=False)

    def read(self, _: int = -1) -> memoryview:
        """Return the next block, which the next call overwrites; an empty one at the end."""
        room = self._block[: self._length - self._done]
        count = os.preadv(self._file, [room], self._begin + self._done) if len(room) else 0
        if len(room) and not count:
            raise UploadError(f"The file for {redact(self._key)!r} became shorter while it was being sent.")
        self._done += count
        self._md5.update(room[:count])
        return room[:count]

    def md5(self) -> str:
        """Return the MD5 of all of it, reading what has not been read yet."""
        while self._done < self._length:
            self.read()
        return self._md5.hexdigest()


def _plain(tag: str) -> str:
    return tag.strip('"').lower()


def _is_md5(tag: str) -> bool:
    plain = _plain(tag)
    return len(plain) == 32 and not set(plain) - set("0123456789abcdef")


def _unlike(found: str) -> set[str]:
    """Return ``found`` itself if it is not of the form MD5-count, which an encrypting server need not follow."""
    digest, dash, _ = _plain(found).partition("-")
    return set() if dash and _is_md5(digest) else {_plain(found)}

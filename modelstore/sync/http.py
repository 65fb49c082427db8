"""A registry behind a modelstore server, as a side of an exchange."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from modelstore.errors import (
    InvalidOperationError,
    InvalidRequestError,
    NewerRegistryError,
    NotFoundError,
    RegistryError,
    RegistryNotFoundError,
)
from modelstore.index.ingest import Ingested
from modelstore.records.operations import Operation
from modelstore.registry.references import Reference
from modelstore.storage.fingerprints import Progress
from modelstore.storage.retries import Patience
from modelstore.storage.transfer import Address, download
from modelstore.storage.uris import local_path
from modelstore.storage.webclient import Response
from modelstore.sync.actors import Scribe
from modelstore.sync.client import FAILURES, Client, lines_of
from modelstore.sync.partners import Filters, Knowledge, Objects, Parcel
from modelstore.sync.wire import (
    OLDEST,
    REGISTRY,
    SPEAKS,
    heads_line,
    knowledge_record,
    read_knowledge,
    read_parcels,
    read_reference,
)

__all__ = ["HttpPartner"]

_PIECE_BYTES: Final = 8 << 20
"""What is sent of a parcel at once, as far as its transactions allow."""
_AT_ONCE_BYTES: Final = 4 << 20
"""Objects up to this size go in one request; larger ones in one that can be continued."""
_ON_THE_WAY_BYTES: Final = 16 << 20
"""What is sent and may not have arrived: buffers hold less."""
_SILENCE_S: Final = 60.0
_HASHED_PER_S: Final = 50 << 20
"""A server that continues an upload reads what it has; slower than this it is given up."""


class HttpPartner:
    """A registry behind a server; the token comes from the environment or the file of tokens.

    Args:
        url: The server's address.

    Attributes:
        who: Name and role of the token.

    Raises:
        RegistryNotFoundError: No modelstore server answers there.
        NewerRegistryError: It takes only clients of newer versions than this.
        RegistryError: It is of a version that is too old for this client.
        AccessDeniedError: It wants another token.
        StorageUnavailableError: It cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self._client = Client(url)
        self._known: tuple[str, Knowledge] | None = None
        self._reached: dict[str, int] = {}  # of uploads that were cut off: how far the server had them
        try:
            info = self._client.get("/v1/registry")
            with self._client.understanding():
                self._check_version(info)
                self._id, self._body_bytes = str(info["id"]), int(info["limits"]["body_bytes"])
                you = info["you"]
                self._own = None if you["role"] != "write" else Scribe(you["name"], tuple(you["actors"]))
                self.who = str(you["name"]), str(you["role"])
        except NotFoundError as error:
            self.close()
            raise RegistryNotFoundError(error.message, error.hint) from error
        except BaseException:
            self.close()
            raise

    def _check_version(self, info: Mapping[str, Any]) -> None:
        software = f"The server at {self.uri} is modelstore {info.get('version', '')}"
        if int(info.get("oldest", 1)) > SPEAKS:
            raise NewerRegistryError(
                f"{software} and takes clients from version {info['oldest']} of its interface on, not {SPEAKS}",
                'Upgrade modelstore on this machine: pip install -U "modelstore-local".',
            )
        if int(info.get("api", 1)) < OLDEST:
            raise RegistryError(
                f"{software} and speaks version {info['api']} of its interface; this client needs {OLDEST}",
                "Upgrade modelstore on the server, or use the client that fits it.",
            )

    @property
    def id(self) -> str:
        """The registry's id."""
        return self._id

    @property
    def uri(self) -> str:
        """The server's address."""
        return self._client.url

    def knowledge(self) -> Knowledge:
        """Return what it has now: the same object as before where that is the same."""
        before = self._known
        headers, record = self._client.get_if_new("/v1/journal/heads", None if before is None else before[0])
        if headers.get(REGISTRY.lower(), self._id) != self._id:
            raise RegistryNotFoundError(
                f"{self.uri} has another registry than when this process began",
                "Begin anew to work with that; what was made here is in the index of the first.",
            )
        if record is None and before is not None:
            return before[1]
        knowledge = read_knowledge(record)
        self._known = (headers["etag"], knowledge) if "etag" in headers else None
        return knowledge

    def parcels(self, known: Knowledge, upto: Knowledge) -> Iterator[Parcel]:
        """Yield what the other side has not; a line that is cut off is taken up again behind what has arrived."""
        patience = Patience()
        while True:
            try:
                for parcel in self._stream(known, upto):
                    before, known = known, known.with_parcel(parcel)
                    if known != before:
                        patience.progressed()
                    yield parcel
                return
            except FAILURES as error:
                self._client.wait(error, patience)

    def _stream(self, known: Knowledge, upto: Knowledge) -> Iterator[Parcel]:
        question = {"known": knowledge_record(known), "upto": knowledge_record(upto)}
        body = json.dumps(question, separators=(",", ":")).encode()
        headers = {"Content-Type": "application/json"}
        with self._client.request("POST", "/v1/journal/pull", headers, body) as response:
            yield from read_parcels(lines_of(response))

    def takes(self, operation: Operation) -> bool:
        """Tell whether the token may bring an operation: with the role write, only what its own actors have made."""
        return self._own is None or self._own.writes_as(operation.actor)

    def take_in(self, parcel: Parcel) -> Ingested:
        """Take a parcel in; a large one in pieces that end where transactions do, the heads with the last."""
        new = known = 0
        entities: set[str] = set()
        for count, body in _bodies(parcel, min(_PIECE_BYTES, self._body_bytes * 3 // 4)):
            if len(body) > self._body_bytes:
                raise InvalidRequestError(
                    f"A transaction of {count} changes has {len(body)} bytes, and {self.uri} takes"
                    f" {self._body_bytes} at once",
                    "Let the server take more: modelstore serve --max-body.",
                )
            done = self._client.push("/v1/journal/push", body)
            with self._client.understanding():
                new, known = new + int(done["new"]), known + int(done["known"])
                entities.update(done["entities"])
        return Ingested(new, known, frozenset(entities))

    def select(self, filters: Filters) -> set[str]:
        """Return the ids of the models that match, and of what is around them."""
        answer = self._client.post("/v1/select", {"filters": dict(filters)})
        with self._client.understanding():
            return set(answer["entities"])

    def needs(self, which: Objects, entities: set[str] | None) -> list[Reference]:
        """Return the bytes that it refers to, wants and has not."""
        question = {"which": which, "entities": None if entities is None else sorted(entities)}
        answer = self._client.post("/v1/objects/missing", question)
        with self._client.understanding():
            return [read_reference(one) for one in answer["objects"]]

    def address(self, need: Reference) -> Address | None:
        """Return the URL of its bytes, and the token to read them with; None when the server has them not."""
        if self.size_of(need.digest, need.name) is None:
            return None
        return Address(self.uri + self.path_of(need.digest, need.name), {"headers": self.headers})

    @property
    def headers(self) -> dict[str, str]:
        """What goes with every request: the token."""
        return dict(self._client.headers)

    @staticmethod
    def path_of(digest: str, name: str) -> str:
        """Return where below the server's address an object is."""
        return f"/v1/objects/{digest}/{quote(name, safe='')}"

    def size_of(self, digest: str, name: str) -> int | None:
        """Return the bytes of an object, of that name or another; None when the server has it not."""

        def look() -> Mapping[str, str]:
            with self._client.request("HEAD", self.path_of(digest, name)) as response:
                return dict(response.headers)

        try:
            headers = self._client.tried(look)
        except NotFoundError:
            return None
        with self._client.understanding():
            told = {name.lower(): value for name, value in headers.items()}
            if digest not in told.get("etag", digest):
                raise ValueError(digest)
            return int(told["content-length"])

    def store(self, need: Reference, address: Address, progress: Progress | None = None) -> int:
        """Send the bytes that are at an address."""
        path = local_path(address.uri)
        if path is not None:
            return self._send(need, path, progress)
        with tempfile.TemporaryDirectory(prefix="modelstore-") as folder:
            target = Path(folder, "object")
            download(address.uri, target, storage_options=address.options)
            return self._send(need, target, progress)

    def close(self) -> None:
        """Drop the connections."""
        self._client.close()

    # -- sending bytes -------------------------------------------------------------------------------------------------

    def _send(self, need: Reference, path: Path, progress: Progress | None) -> int:
        size = path.stat().st_size
        if size <= _AT_ONCE_BYTES:
            data = path.read_bytes()
            url = self.path_of(need.digest, need.name)
            kind = {"Content-Type": "application/octet-stream"}

            self._client.tried(lambda: self._check_stored(need, self._client.request("PUT", url, kind, data)))
            return size
        patience = Patience()
        web = self._client.connection(_SILENCE_S + size / _HASHED_PER_S)
        try:
            while True:
                try:
                    self._continue(need, path, size, progress, patience, web)
                    return size
                except FAILURES as error:
                    self._client.wait(error, patience)
        finally:
            web.close()

    def _begin(self, need: Reference, size: int, web: Any) -> tuple[str, int] | None:
        """Return where an upload goes on, and from where in the object on; None when the server has the object."""
        question = {"digest": need.digest, "name": need.name, "size": size}
        # On the connection of what follows: behind a balancer another one may lead to another host.
        upload = self._client.post("/v1/uploads", question, web=web)
        with self._client.understanding():
            if upload["complete"] is True:
                return None
            return f"/v1/uploads/{upload['id']}", range(size + 1)[int(upload["offset"])]

    def _continue(
        self, need: Reference, path: Path, size: int, progress: Progress | None, patience: Patience, web: Any
    ) -> None:
        """Send what the server has not yet got of an object."""
        begun = self._begin(need, size, web)
        if begun is None:
            return
        where, offset = begun
        if offset > self._reached.get(need.digest, 0):
            self._reached[need.digest] = offset
            patience.progressed()

        def noted(done: int, total: int | None) -> None:
            if done - offset > _ON_THE_WAY_BYTES:
                patience.progressed()
            if progress is not None:
                progress(done, total)

        def send(method: str, where: str, offset: int, headers: Mapping[str, str]) -> Response:
            with path.open("rb") as file:
                rest = _Rest(file, offset, size, noted)
                length = {"Content-Length": str(size - offset)}
                return self._client.request(method, where, {**headers, **length}, rest, web=web)

        headers = {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        try:
            with send("PATCH", where, offset, headers) as response, self._client.understanding():
                if int(response.headers["Upload-Offset"]) != size:
                    raise ValueError(size)
        except InvalidOperationError as error:  # what was sent before has arrived meanwhile: ask again how much that is
            raise ConnectionResetError(str(error)) from error
        except NotFoundError:  # there even each request goes to another host: what goes in one can go to any
            kind = {"Content-Type": "application/octet-stream"}
            self._check_stored(need, send("PUT", self.path_of(need.digest, need.name), 0, kind))

    def _check_stored(self, need: Reference, response: Response) -> None:
        """See that it was a modelstore server that took the bytes: the caller may delete his own now."""
        answer = self._client.answered(response)
        with self._client.understanding():
            if answer["digest"] != need.digest:
                raise ValueError(need.digest)


class _Rest:
    """The end of a file, as a body that can be sent again from its beginning."""

    def __init__(self, file: Any, offset: int, size: int, progress: Progress) -> None:
        self._file, self._offset, self._size, self._progress = file, offset, size, progress
        file.seek(offset)

    def read(self, count: int) -> bytes:
        position = self._file.tell()
        self._progress(position, self._size)
        data: bytes = self._file.read(min(count, self._size - position))
        return data

    def seek(self, position: int) -> None:
        self._file.seek(self._offset + position, os.SEEK_SET)


def _bodies(parcel: Parcel, limit: int) -> Iterator[tuple[int, bytes]]:
    """Yield a parcel in pieces of so many bytes, which end where its transactions do, and how many operations each has.

    Only the last says something about heads: until it has arrived, the receiver may not believe that he has all.
    """
    left = Counter(operation.batch for operation in parcel.operations)  # the receiver may have others of them already
    ready: list[bytes] = []
    size = 0
    transaction: list[bytes] = []
    unfinished: set[str] = set()
    for operation in parcel.operations:
        transaction.append(operation.to_json().encode() + b"\n")
        if operation.batch is not None:
            left[operation.batch] -= 1
            (unfinished.add if left[operation.batch] else unfinished.discard)(operation.batch)
        if not unfinished:
            length = sum(map(len, transaction))
            if ready and size + length > limit:
                yield len(ready), b"".join(ready)
                ready, size = [], 0
            ready += transaction
            size += length
            transaction = []
    yield len(ready), b"".join(ready) + heads_line(parcel.heads).encode()

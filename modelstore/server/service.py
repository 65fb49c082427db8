"""What a worker has to answer with, and one request as the endpoints see it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from tempfile import SpooledTemporaryFile
from typing import IO, Final, TypeVar

import anyio
import msgspec
from anyio import to_thread
from starlette.requests import ClientDisconnect, Request

from modelstore.registry import Registry, open_registry
from modelstore.server.answers import RefusedError
from modelstore.server.board import Board
from modelstore.server.failures import Failures
from modelstore.server.settings import Settings, is_loopback
from modelstore.server.tokens import Token, Tokens
from modelstore.server.told import Told
from modelstore.server.uploads import Uploads
from modelstore.storage.failures import translated
from modelstore.sync import RegistryPartner

__all__ = ["Call", "Service"]

T = TypeVar("T")

logger = logging.getLogger("modelstore.server")

# Each has threads of its own, so that none can take those of the others: writers wait for each other, bytes for disks.
_READERS: Final = 8
_WRITERS: Final = 2
_MOVERS: Final = 8
_SWEEP_S: Final = 3600.0
_IN_MEMORY: Final = 1 << 20


class Service:
    """One worker's registry, tokens, counters and threads.

    Args:
        settings: How the server was started; with a board.

    Raises:
        ModelStoreError: The registry cannot be opened.
    """

    def __init__(self, settings: Settings) -> None:
        assert settings.board is not None  # noqa: S101 - `serve` makes one
        self.settings = settings
        self.registry: Registry = open_registry(settings.registry, create=False)
        self.partner = RegistryPartner(self.registry)
        self.told = Told(self.partner)
        self.tokens = Tokens(self.registry)
        self.uploads = Uploads(self.registry)
        self.board = Board(settings.board)
        self.failures = Failures(settings.board)
        self.local = is_loopback(settings.host)
        self._readers = anyio.CapacityLimiter(_READERS)
        self._writers = anyio.CapacityLimiter(_WRITERS)
        self._movers = anyio.CapacityLimiter(_MOVERS)

    @property
    def open_to_all(self) -> bool:
        """Whether this machine may ask anything without a token."""
        return self.local and not self.tokens.wanted

    async def read(self, work: Callable[[], T]) -> T:
        """Return what reading the registry brings, from a thread."""
        return await to_thread.run_sync(work, limiter=self._readers)

    async def write(self, work: Callable[[], T]) -> T:
        """Return what writing the registry brings, from a thread."""
        return await to_thread.run_sync(work, limiter=self._writers)

    async def move(self, work: Callable[[], T]) -> T:
        """Return what reading or writing files brings, from a thread."""
        return await to_thread.run_sync(work, limiter=self._movers)

    async def sweep(self) -> None:
        """Remove what cut-off uploads left, now and each hour."""
        while True:
            try:
                await self.move(self.uploads.sweep)
            except Exception:  # the next hour may bring a better disk
                logger.exception("leftovers of uploads could not be removed")
            await asyncio.sleep(_SWEEP_S)

    def close(self) -> None:
        """Close everything."""
        self.registry.close()
        self.board.close()
        self.failures.close()


class Call:
    """One request, by somebody who may make it.

    Attributes:
        request: As it came.
        service: The worker's.
        who: The token that it came with.
    """

    __slots__ = ("request", "service", "who")

    def __init__(self, request: Request, service: Service, who: Token) -> None:
        self.request, self.service, self.who = request, service, who

    @property
    def registry(self) -> Registry:
        """The registry."""
        return self.service.registry

    def path(self, name: str) -> str:
        """Return a part of the path."""
        return str(self.request.path_params[name])

    async def body(self) -> IO[bytes]:
        """Return the whole body as a file at its beginning, which the caller closes; a large one is not in memory.

        So that what many clients are sending at once costs room on the disk, until a thread is free for each.

        Raises:
            RefusedError: It is larger than the server takes.
            StorageFullError: There is no room for it.
        """
        limit = self.service.settings.max_body
        announced = self.request.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > limit:
            raise _too_large(limit)
        folder = self.registry.private  # other temporary folders may be in memory, too
        file = SpooledTemporaryFile(_IN_MEMORY, dir=str(folder))  # noqa: SIM115 - the caller closes it
        try:
            size = 0
            async for block in self.blocks():
                size += len(block)
                if size > limit:
                    raise _too_large(limit)
                with translated(folder, writing=True):
                    file.write(block)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    async def blocks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives.

        Raises:
            RefusedError: The client is silent for too long.
        """
        stream = self.request.stream()
        while True:
            try:
                async with asyncio.timeout(self.service.settings.silence_s):
                    block = await anext(stream)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise RefusedError(408, "Timeout", "The rest of the request did not come") from None
            except ClientDisconnect:
                raise RefusedError(400, "CutOff", "The request was cut off") from None
            if block:
                self.service.board.add("received_bytes", len(block))
                yield block

    async def json(self, form: type[T]) -> T:
        """Return the body, read as JSON of a form.

        Raises:
            RefusedError: It is something else.
        """
        if not self.request.headers.get("content-type", "").lower().startswith("application/json"):
            raise RefusedError(415, "UnsupportedMediaType", "The body must be JSON", "Content-Type: application/json")
        with await self.body() as file:
            data = file.read()
        try:
            return msgspec.json.decode(data, type=form)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise RefusedError(400, "InvalidRequestError", f"The body cannot be read: {error}") from error

    def count(self, what: str, amount: float = 1) -> None:
        """Count something."""
        self.service.board.add(what, amount)


def _too_large(limit: int) -> RefusedError:
    return RefusedError(
        413,
        "InvalidRequestError",
        f"The body is larger than {limit} bytes",
        "Send less at once, or let the server take more: modelstore serve --max-body.",
    )

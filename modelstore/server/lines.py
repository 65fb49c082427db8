"""Connections that cost nothing but what they are worth: who sends no request, or takes no answer, is hung up on.

uvicorn waits for ever for the first byte, for the rest of the headers and for the rest of a body that nobody reads any
more, keeps headers of any size, and keeps a connection open while something of an answer could not be delivered.
Whoever reaches the port could take every connection and all the memory that there is, without a token.
"""

from __future__ import annotations

import sys
from asyncio import TimerHandle, Transport
from fcntl import ioctl
from termios import TIOCOUTQ
from typing import Any, Final

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["Line", "LineConfig"]

_HEAD_BYTES: Final = 1 << 16
"""Most bytes of the first line and the headers of one request."""


class LineConfig(Config):
    """What uvicorn is told.

    Attributes:
        silence_s: How long a client has for the headers of a request, for the rest of one that was answered already,
            and for taking what waits for it.
    """

    silence_s: float = 60.0


class Line(HttpToolsProtocol):
    """One connection."""

    def __init__(self, config: LineConfig, *arguments: Any, **options: Any) -> None:
        super().__init__(config, *arguments, **options)
        self._silence_s = config.silence_s
        self._deadline: TimerHandle | None = None
        self._taking: TimerHandle | None = None
        self._in_head = self._in_request = False
        self._head_bytes = 0

    # -- what comes in: a deadline runs while a request begins, and while the rest of an answered one is thrown away --

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Wait for the first request, but not for ever."""
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Take in bytes, but no endless headers."""
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES:
                self.send_400_response("The headers are too large.")
                return
        super().data_received(data)
        if not self._in_request and not self._busy and self._deadline is None and self.timeout_keep_alive_task is None:
            self._expect()  # empty lines in front of a request are none

    def on_message_begin(self) -> None:
        """Note that a request begins."""
        super().on_message_begin()
        self._in_head = self._in_request = True
        self._head_bytes = 0
        self._expect()

    def on_headers_complete(self) -> None:
        """Note that the headers are there; how long the body may take is the application's business."""
        self._in_head = False
        self._relax()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that the request is complete."""
        self._in_request = False
        self._relax()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Throw away what is left of the request, but not for ever."""
        super().on_response_complete()
        if self._in_request and not self._in_head:
            self._expect()

    # -- what goes out ---------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """Note that the client does not take what there is."""
        super().pause_writing()
        self._await_taking()

    def resume_writing(self) -> None:
        """Note that it does."""
        super().resume_writing()
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything."""
        self._relax()
        super().connection_lost(exc)
        if self._taking is not None:
            self._taking.cancel()

    # -- deadlines -------------------------------------------------------------------------------------------------

    @property
    def _busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _await_taking(self) -> None:
        self._taking = self.loop.call_later(self._silence_s, self._untaken, self._waiting())

    def _waiting(self) -> int:
        """Return how many bytes the client has not taken, here and in the kernel, which holds megabytes."""
        here = self.transport.get_write_buffer_size()
        try:
            answer = ioctl(self.transport.get_extra_info("socket").fileno(), TIOCOUTQ, b"\0" * 4)
        except (OSError, AttributeError):  # not of this system, or gone
            return here
        return here + int.from_bytes(answer, sys.byteorder)

    def _untaken(self, before: int) -> None:
        if self._waiting() < before:  # slow, but not silent
            self._await_taking()
        else:
            self.transport.abort()  # `close` would wait until everything has been delivered

    def _expect(self) -> None:
        self._relax()
        self._deadline = self.loop.call_later(self._silence_s, self._overdue)

    def _relax(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _overdue(self) -> None:
        if self._busy:  # with the request before this one: nothing is read meanwhile
            self._expect()
        else:
            self.transport.abort()

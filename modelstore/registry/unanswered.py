"""What was sent last and may not have been answered: beside an index, for whoever writes next.

A request can still be on its way when the process that made it is dead, or was told that it failed. If it arrives
after all, its stamps are taken, and what the same writer has made since claims that everything before is known. So
that writer is left, and what arrives late is somebody else's like any other.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from modelstore.index import ops

__all__ = ["Unanswered", "leave"]


class Unanswered:
    """The stamp of the last change that was sent; read and written inside write transactions alone.

    Args:
        path: A file of this host.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self, stamp: str) -> None:
        """Note a change that is about to be sent; "" takes back one that was surely refused."""
        self._path.write_text(stamp)

    def settle(self, connection: Any) -> None:
        """Leave the writer of a change that was sent, and that the index does not have."""
        with suppress(FileNotFoundError):
            stamp = self._path.read_text()
            if stamp and ops.get(connection, stamp) is None:
                leave(connection, stamp[16:])


def leave(connection: Any, writer: str) -> None:
    """Never go on as a writer of this host; part of a transaction."""
    connection.execute(
        "UPDATE writers SET fingerprint = 'left:' || id WHERE id = ? AND fingerprint NOT LIKE 'left:%'", (writer,)
    )

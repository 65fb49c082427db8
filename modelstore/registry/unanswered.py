"""What was sent and may not have been answered: beside an index, for whoever writes next.

A request can still be on its way when the process that made it is dead, or was told that it failed. If it arrives
after all, its stamps are taken, and what the same writer has made since claims that everything before is known. So
that writer is left, and what arrives late is somebody else's like any other.

The transaction in which he is left may fail as well, and then he is not. So what was sent stays noted until it has
arrived, or until a later transaction finds that he was left.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelstore.index import ops
from modelstore.storage.failures import translated

__all__ = ["Unanswered", "leave"]


class Unanswered:
    """The stamps of changes that were sent; read and written inside write transactions alone.

    Args:
        path: A file of this host.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._doubtful: list[str] = []

    def settle(self, connection: Any) -> None:
        """Leave the writers of changes that were sent, and that the index does not have; begins a transaction."""
        try:
            stamps = self._path.read_text().split()
        except FileNotFoundError:
            stamps = []
        lacking = [stamp for stamp in stamps if not ops.contains(connection, stamp)]
        self._doubtful = [stamp for stamp in lacking if leave(connection, stamp[16:])]

    def note(self, *stamps: str) -> None:
        """Note a change that is about to be sent, by the transaction that `settle` began.

        Args:
            stamps: The last of each writer of whom something is in it.
        """
        self._write([*self._doubtful, *stamps])

    def take_back(self) -> None:
        """Forget the change that was noted last: it was surely refused."""
        self._write(self._doubtful)

    def _write(self, stamps: list[str]) -> None:
        text = "\n".join(stamps)
        with translated(self._path, writing=True):
            if not self._doubtful:  # a kill loses nothing then
                self._path.write_text(text)
                return
            making = self._path.with_name(f"{self._path.name}.new")
            making.write_text(text)
            making.replace(self._path)


def leave(connection: Any, writer: str) -> bool:
    """Never go on as a writer of this host, part of a transaction; tells whether he was one until now."""
    done = connection.execute(
        "UPDATE writers SET fingerprint = 'left:' || id WHERE id = ? AND fingerprint NOT LIKE 'left:%'", (writer,)
    )
    return bool(done.rowcount)

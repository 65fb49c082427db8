"""Having the disk write a file while more of it is on its way, so that syncing it at the end takes little."""

from __future__ import annotations

import errno
import os
import threading
from typing import Final

__all__ = ["EarlySync"]

_fdatasync: Final = getattr(os, "fdatasync", os.fsync)  # macOS has no such thing
_CANNOT: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP})
_PAUSE_S: Final = 0.03


class EarlySync:
    """A thread that syncs a growing file again and again, until it is closed; the last bytes stay the caller's to sync.

    The kernel tells an error of the disk once, to whoever syncs first: so whoever appends asks `check`, and
    `finish` at the end.

    Args:
        descriptor: Of the file; stays open until this is closed.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._over = threading.Event()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._sync, name="modelstore-sync", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """See whether what was appended can still reach the disk.

        Raises:
            OSError: It cannot.
        """
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Stop; waits for what is being written."""
        self._over.set()
        self._thread.join()

    def finish(self) -> None:
        """Stop, and see whether all that was synced has reached the disk.

        Raises:
            OSError: It has not.
        """
        self.close()
        self.check()

    def _sync(self) -> None:
        synced = os.fstat(self._descriptor).st_size
        while not self._over.wait(_PAUSE_S):
            size = os.fstat(self._descriptor).st_size
            if size == synced:
                continue
            try:
                _fdatasync(self._descriptor)
            except OSError as error:
                if error.errno not in _CANNOT:  # else it is the caller's to find out
                    self._error = error
                return
            synced = size

"""Files that one process at a time works on, and that the next continues: claimed by a lock that ends with the process.

The lock saves work, no more: whoever writes into such a file takes the digest of all of it before anybody sees it.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

__all__ = ["claim"]


def claim(path: Path, *, create: bool) -> int | None:
    """Open a file that nobody else claims until it is closed; None where somebody does.

    Raises:
        FileNotFoundError: There is none, and ``create`` is False.
        OSError: It cannot be opened.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    while True:
        descriptor = os.open(path, flags, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(path, descriptor):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # it became an object, or was dropped, since it was opened


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False

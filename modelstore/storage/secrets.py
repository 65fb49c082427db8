"""Files that only their owner may read, replaced as a whole."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["replace_privately"]


def replace_privately(path: Path, text: str) -> None:
    """Give a file another content, durably: whoever reads sees the old or the new one, and nobody else anything.

    Raises:
        OSError: It failed; the file is as it was.
    """
    temporary = path.with_name(f"{path.name}.{os.urandom(6).hex()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise

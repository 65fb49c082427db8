"""Extracted archives: what a folder held when it was complete, and whether it still does.

    trees/sha256/ab/<64 hex digits of the archive>/content/…      read-only files
                                                  /manifest.json  {"files": {"a/b.txt": [size, mtime_ns, xxh3]}, …}

The pair is made in `partial/` and moved into place by one rename. Files that somebody adds later are no damage; one
that is missing or differs is.
"""

from __future__ import annotations

import json
import os
import stat
import time
from typing import TYPE_CHECKING, Any, Final

from modelstore.cache.layout import sync_file, sync_folder
from modelstore.errors import UnsafeArchiveError
from modelstore.storage.fingerprints import hash_file

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["is_whole", "seal"]

_MANY: Final = 256
"""From so many files on, one sync of everything is cheaper than one per file."""


def seal(folder: str) -> int:
    """Make what was extracted into ``folder/content`` read-only, durable and checkable; return its bytes.

    Raises:
        UnsafeArchiveError: There is something in it that is neither a file nor a folder.
    """
    content = os.path.join(folder, "content")
    past = time.time_ns() - 2_000_000_000
    files: dict[str, list[Any]] = {}
    for name, path, info in _walk(content, content):
        if not stat.S_ISREG(info.st_mode):
            raise UnsafeArchiveError(f"The archive holds {name!r}, which is neither a file nor a folder.")
        os.chmod(path, info.st_mode & 0o555)
        # In the past: a later write in place then always changes it, however coarse the filesystem's clock.
        os.utime(path, ns=(past, past))
        files[name] = [info.st_size, os.stat(path).st_mtime_ns, hash_file(path).xxh3]
    manifest = os.path.join(folder, "manifest.json")
    with open(manifest, "w", encoding="utf-8") as file:
        json.dump({"format": 1, "files": files}, file)
    if len(files) < _MANY:
        for name in files:
            sync_file(os.path.join(content, name))
        sync_file(manifest)
    else:
        os.sync()
    sync_folder(folder)
    return sum(entry[0] for entry in files.values())


def is_whole(folder: str, *, verify: bool = False) -> bool:
    """Tell whether every file is as it was when sealed, by size and modification time; with ``verify`` by its bytes."""
    try:
        with open(os.path.join(folder, "manifest.json"), encoding="utf-8") as file:
            files = json.load(file)["files"]
        content = os.path.join(folder, "content")
        if not os.path.isdir(content):
            return False
        for name, (size, mtime_ns, xxh3) in files.items():
            path = os.path.join(content, name)
            info = os.lstat(path)
            if not stat.S_ISREG(info.st_mode) or info.st_size != size:
                return False
            # A copied or restored cache has other times, and then the bytes decide.
            if (verify or info.st_mtime_ns != mtime_ns) and hash_file(path).xxh3 != xxh3:
                return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False  # unreadable is not whole: it is extracted again
    return True


def _walk(root: str, folder: str) -> Iterator[tuple[str, str, os.stat_result]]:
    for entry in sorted(os.scandir(folder), key=lambda found: found.name):
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(root, entry.path)
        else:
            yield os.path.relpath(entry.path, root), entry.path, entry.stat(follow_symlinks=False)

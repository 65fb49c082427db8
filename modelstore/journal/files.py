"""The calls that a journal in a folder makes, and nothing else: one place for a test to let a filesystem sin."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

__all__ = ["Files", "TailError"]


_TICK_S: Final = 0.011


class TailError(Exception):
    """A file is longer than the caller believes."""


class Files:
    """A folder's files, as this host sees them. Every method raises what the system raises.

    What a network filesystem keeps from another host for a while is not asked of it: whether a name exists, and what
    `stat` says of a name. Listing a folder, and opening a file, ask the server.

    Args:
        sync_names: Whether folders must be synced for their names to be durable.
        by_time: Whether other hosts notice a change of a folder only when its time is another.
    """

    def __init__(self, *, sync_names: bool = True, by_time: bool = False) -> None:
        self._sync_names = sync_names
        self._by_time = by_time

    def names(self, folder: Path) -> list[str]:
        """List a folder."""
        return os.listdir(folder)

    def make_folder(self, folder: Path) -> None:
        """Make a folder and those above it; one that exists is no error."""
        folder.mkdir(parents=True, exist_ok=True)

    def create(self, path: Path) -> None:
        """Create an empty file, which must not exist."""
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))

    def rename(self, old: Path, new: Path) -> None:
        """Rename, replacing what is there."""
        os.rename(old, new)

    def remove(self, path: Path) -> None:
        """Remove a file."""
        os.unlink(path)

    def sync_folder(self, folder: Path) -> None:
        """Make names durable."""
        if not self._sync_names:
            return
        with self._opened(folder, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
            os.fsync(descriptor)

    def show_change(self, folder: Path) -> None:
        """Have other hosts list a folder anew whose names were just changed.

        A client of NFS 3 keeps a listing while the folder's ctime is the same, and the clock of a server may tick only
        each 10 ms: what another host listed within the same tick, and without this change, would stay. So the folder
        is touched in a later tick. (The time that one may choose, mtime, is not looked at.)
        """
        if self._by_time:
            self.pause(_TICK_S)
            self.touch(folder)

    def pause(self, seconds: float) -> None:
        """Let the server's clock go on."""
        time.sleep(seconds)

    def touch(self, folder: Path) -> None:
        """Give a folder the server's time."""
        os.utime(folder)

    def write(self, path: Path, start: int, chunks: Iterable[bytes], *, create: bool, cut: bool = False) -> None:
        """Make the file's bytes from ``start`` on those given, and durable.

        Args:
            path: The file.
            start: Where the file ends.
            chunks: What to write.
            create: Make the file; one that exists is no error.
            cut: Drop what the file has behind ``start``.

        Raises:
            OSError: It failed; bytes behind ``start`` may be anything.
            EOFError: The file ends before ``start``.
            TailError: It ends behind it, and ``cut`` is False; nothing was changed.
        """
        with self._opened(path, os.O_WRONLY | (os.O_CREAT if create else 0)) as descriptor:
            size = os.fstat(descriptor).st_size
            if size < start:
                raise EOFError(f"{path} has {size} bytes, and {start} were announced")
            if size > start and not cut:
                raise TailError(f"{path} has {size} bytes, and ends at {start}")
            if size > start:
                os.ftruncate(descriptor, start)
            for data in chunks:
                view = memoryview(data)
                while view:
                    written = self.pwrite(descriptor, view, start)
                    view, start = view[written:], start + written
            os.fsync(descriptor)

    def pwrite(self, descriptor: int, data: memoryview, offset: int) -> int:
        """Write once; returns how many bytes were taken."""
        return os.pwrite(descriptor, data, offset)

    def read(self, path: Path, start: int, end: int, at_a_time: int) -> Iterator[bytes]:
        """Yield the bytes between two positions.

        Raises:
            EOFError: The file ends before ``end``.
        """
        with self._opened(path, os.O_RDONLY) as descriptor:
            while start < end:
                data = os.pread(descriptor, min(at_a_time, end - start), start)
                if not data:
                    raise EOFError(f"{path} ends at {start}, and {end} were announced")
                yield data
                start += len(data)

    def age(self, path: Path, probe: Path) -> float:
        """Return how many seconds ago a file got its name, by the clock of whoever keeps the files.

        Args:
            path: The file.
            probe: A name for a file that is made and removed to learn the time there.
        """
        with self._opened(path, os.O_RDONLY) as descriptor:
            then = os.fstat(descriptor).st_ctime
        with self._opened(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as descriptor:
            os.write(descriptor, b"?")
            os.fsync(descriptor)
            now = os.fstat(descriptor).st_ctime
        self.remove(probe)
        return now - then

    @contextmanager
    def _opened(self, path: Path, flags: int) -> Iterator[int]:
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
        with ExitStack() as failed:
            failed.callback(os.close, descriptor)
            yield descriptor
            failed.pop_all()
        os.close(descriptor)  # a network filesystem reports a failed write here

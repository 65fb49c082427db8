"""What is still in memory is written when the process ends or forks, however its end comes about short of a kill."""

from __future__ import annotations

import logging
import os
import sys
import weakref
from typing import Protocol

from modelstore.errors import ModelStoreError
from modelstore.registry.ending import at_the_end

__all__ = ["Writer", "watch"]

logger = logging.getLogger("modelstore")


class Writer(Protocol):
    """Something that holds what is still to be written."""

    def flush(self) -> None:
        """Write it."""

    def after_fork(self) -> None:
        """Forget it: this process is a child, and its parent writes it."""


_writers: weakref.WeakSet[Writer] = weakref.WeakSet()
_children: set[int] = set()


def watch(writer: Writer) -> None:
    """Have a writer write before forks and at the end of this process, also of one that multiprocessing began."""
    _writers.add(writer)
    _watch_multiprocessing()


def _watch_multiprocessing() -> None:
    # Its children leave without calling what is registered with atexit.
    multiprocessing = sys.modules.get("multiprocessing.process")
    if multiprocessing is None or multiprocessing.parent_process() is None or os.getpid() in _children:
        return
    from multiprocessing.util import Finalize

    Finalize(None, _write_all, exitpriority=0)
    _children.add(os.getpid())


def _write_all() -> None:
    for writer in list(_writers):
        try:
            writer.flush()
        except ModelStoreError as error:
            logger.error("What was reported last could not be written: %s", error)  # noqa: TRY400 - one line


def _begin_child() -> None:
    for writer in list(_writers):
        writer.after_fork()


at_the_end(_write_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_write_all, after_in_child=_begin_child)

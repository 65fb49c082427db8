"""The state of this process: which registry the SDK classes use, and which task is the current one."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar, Token
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from modelstore import config
from modelstore.errors import TaskNotFoundError
from modelstore.registry import Registry as _Registry

if TYPE_CHECKING:
    from modelstore.sdk.task import Task

__all__ = [
    "MAIN_TASK",
    "Registry",
    "current_registry",
    "current_task",
    "forget_default",
    "open_registry",
    "state",
    "transaction",
]


MAIN_TASK: Final = "_MODELSTORE_MAIN_TASK"
"""Variable that tells processes started by this one which its main task is."""


class Registry(_Registry):
    """A registry that, as a context manager, is the one that the SDK classes use inside its block.

    Objects made inside the block belong to it. At the end of the block, tasks that were begun there are closed (as
    failed when an exception leaves it), and so is the registry.
    """

    __doc__ = (_Registry.__doc__ or "") + (
        "\n    Inside a `with` block it is also the registry of the SDK classes, for the block's thread and for threads"
        "\n    that have no block of their own while the main thread is in this one. Tasks begun in it end with it.\n"
    )

    def __enter__(self) -> Self:
        self.__dict__.setdefault("_tokens", []).append(_selected.set(self))
        if threading.current_thread() is threading.main_thread():
            state.blocks.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        token: Token[Registry | None] = self.__dict__["_tokens"].pop()
        with suppress(ValueError):  # left in another context than it was entered in, which therefore still has it
            _selected.reset(token)
        if self in state.blocks:
            state.blocks.remove(self)
        self._end(None if error is None else f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Close the tasks begun here, wait for this process's uploads and close the database.

        Later use raises `RegistryError`.

        Raises:
            UploadError: An upload failed; everything is closed all the same.
        """
        self._end(None)

    def _end(self, reason: str | None) -> None:
        try:
            for task in [t for t in state.owned if t._registry is self and t._owner_pid == os.getpid()]:
                if reason is not None:
                    task.mark_failed(status_reason="exception", status_message=reason[:10_000])
                task.close()
        finally:
            super().close()


_selected: ContextVar[Registry | None] = ContextVar("modelstore_registry", default=None)


class _State:
    """What there is one of in a process.

    Attributes:
        lock: Held while any of it changes.
        defaults: Registries that were used outside of all blocks, by what they were opened by; usually one.
        blocks: Registries whose blocks the main thread is in, the innermost last.
        main_tasks: The current task of each registry, at most one each.
        owned: Tasks that this process began and closes at its end.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.defaults: dict[str, Registry] = {}
        self.blocks: list[Registry] = []
        self.main_tasks: list[Task] = []
        self.owned: list[Task] = []

    def forget(self, task_id: str) -> None:
        """Let a task be current no longer, nor be closed at the end of the process."""
        with self.lock:
            for task in self.owned:
                if task.id == task_id:
                    undone = partial(self._remember, task, main=task in self.main_tasks)
                    task._registry.database.at_end(undone=undone)
            self.main_tasks = [task for task in self.main_tasks if task.id != task_id]
            self.owned = [task for task in self.owned if task.id != task_id]

    def _remember(self, task: Task, *, main: bool) -> None:
        """Take back that a task was forgotten: the transaction that ended it was undone."""
        with self.lock:
            self.owned.append(task)
            if main:
                self.main_tasks.append(task)


state = _State()


def current_registry() -> Registry:
    """Return the registry that the SDK classes use here: that of the innermost `with` block, else the default one.

    A thread without a block of its own is in that of the main thread. The default one is `MODELSTORE_REGISTRY` or the
    user's data folder, opened at first use.
    """
    selected = _selected.get()
    if selected is not None:
        return selected
    if state.blocks and threading.current_thread() is not threading.main_thread():
        return state.blocks[-1]
    uri = config.registry_uri()
    with state.lock:
        found = state.defaults.get(uri)
        if found is None:
            found = state.defaults[uri] = Registry(uri)
        return found


@contextmanager
def transaction() -> Iterator[Registry]:
    """Make several changes as one, in the registry that is used here: others see all of them or none.

    Registering, tagging, publishing, editing, removing, through whatever class. They are durable when the block ends;
    when it raises, or the process dies in it, none was made: objects show what is there, an `OutputModel` that was
    registered in the block is a draft again, with the same id when it is registered another time, and no file was
    deleted. A block inside another is part of that.

    Others who want to write wait for the end of the block: bytes are better stored before it begins. What is sent in
    the background is sent after its end, and cannot be published before that. Uploads that this process began before
    are waited for first. Scalars and plots are no part of it; they are written soon after.

    Yields:
        The registry.

    Raises:
        ReadOnlyRegistryError: The registry cannot be written.
        RegistryBusyError: Others kept it locked too long.
    """
    registry = current_registry()
    registry.weights.wait(None, quiet=True)
    with registry.transaction():
        yield registry


def current_task() -> Task | None:
    """Return the task that `Task.init` began in the registry that is used here; None without one.

    In a process that `multiprocessing` started, however it did, that is the one of the process that started it, until
    this one begins its own.
    """
    if not state.main_tasks:
        return _starters_task()
    folder = current_registry().folder
    return next((task for task in state.main_tasks if task._registry.folder == folder), None)


def _starters_task() -> Task | None:
    multiprocessing = sys.modules.get("multiprocessing")
    task_id, _, place = os.environ.get(MAIN_TASK, "").partition("@")
    if not task_id or multiprocessing is None or multiprocessing.parent_process() is None:
        return None
    if _selected.get() is None and not state.blocks and place != config.registry_uri():
        return None  # its registry is not the one that would be opened here
    from modelstore.registry.tasks import OPEN_STATUSES
    from modelstore.sdk.task import Task

    registry = current_registry()
    try:
        record = registry.tasks.get(task_id)
    except TaskNotFoundError:  # it is in another registry
        return None
    if record.status not in OPEN_STATUSES:
        return None
    with state.lock:
        state.main_tasks.append(Task(registry, record))
    return state.main_tasks[-1]


def forget_default() -> None:
    """Close the default registry, so that the next use opens it anew; also those that were the default before.

    Raises:
        UploadError: An upload failed; all are closed all the same.
    """
    with state.lock, ExitStack() as closing:
        for registry in state.defaults.values():
            closing.callback(registry.close)
        state.defaults = {}


def open_registry(
    uri: str | os.PathLike[str] | None = None,
    *,
    create: bool = True,
    cache: str | os.PathLike[str] | None = None,
    actor: str | None = None,
    shared: bool | None = None,
    offline: bool | None = None,
) -> Registry:
    """Open a registry. Use it as a context manager to have the SDK classes work on it and to close it at the end.

    Args:
        uri: Folder of the registry (path or `file://` URI); None takes `MODELSTORE_REGISTRY` or the user's data folder.
        create: Make the registry when the folder has none.
        cache: Folder of local copies of remote weights; None takes `MODELSTORE_CACHE` or the user's cache folder.
        actor: Who makes the changes; None takes `MODELSTORE_ACTOR` or user@host.
        shared: True for a registry that several hosts use at once through one folder, False for one of this machine;
            None takes what it is, and makes a new one shared where its folder lies on a network filesystem.
        offline: Read what this host knows of a shared registry, without looking for what others have written; writing
            is an error then. None takes `MODELSTORE_OFFLINE`.

    Returns:
        The registry, safe to share between threads and with forked children.

    Raises:
        RegistryNotFoundError: There is none, and ``create`` is False.
        InvalidRequestError: The URI is of no kind that this version can open, or of another than asked.
        NewerRegistryError: A newer modelstore wrote it.
        CorruptRegistryError: Its database or format file is damaged.
        ReadOnlyRegistryError: It must be created, and the folder cannot be written.
        NetworkFilesystemError: A registry of one machine lies on a network filesystem.
        StorageUnavailableError: A shared registry that this host knows is not there: its folder is not mounted.
    """
    return Registry(uri, create=create, cache=cache, actor=actor, shared=shared, offline=offline)

"""The state of this process: which registry the SDK classes use, and which task is the current one."""

from __future__ import annotations

import os
import threading
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Self

from modelstore import config
from modelstore.registry import Registry as _Registry

if TYPE_CHECKING:
    from modelstore.sdk.task import Task

__all__ = ["Registry", "current_registry", "forget_default", "open_registry", "state"]


class Registry(_Registry):
    """A registry that, as a context manager, is the one that the SDK classes use inside its block.

    Objects made inside the block belong to it; after the block it is closed.
    """

    __doc__ = (_Registry.__doc__ or "") + "\n\n    Inside a `with` block it is also the registry of the SDK classes.\n"

    def __enter__(self) -> Self:
        self.__dict__.setdefault("_tokens", []).append(_selected.set(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _selected.reset(self.__dict__["_tokens"].pop())
        self.close()


_selected: ContextVar[Registry | None] = ContextVar("modelstore_registry", default=None)


class _State:
    """What there is one of in a process."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.default: Registry | None = None
        self.default_uri: str | None = None
        self.main_task: Task | None = None
        self.main_pid: int | None = None
        self.default_upload_uri: str | None = None


state = _State()


def current_registry() -> Registry:
    """Return the registry that the SDK classes use here: that of the innermost `with` block, else the default one.

    The default one is `MODELSTORE_REGISTRY` or the user's data folder, opened at first use.
    """
    selected = _selected.get()
    if selected is not None:
        return selected
    uri = config.registry_uri()
    with state.lock:
        if state.default is None or state.default_uri != uri:
            state.default = Registry(uri)
            state.default_uri = uri
        return state.default


def forget_default() -> None:
    """Close the default registry, so that the next use opens it anew."""
    with state.lock:
        if state.default is not None:
            state.default.close()
        state.default = None
        state.default_uri = None


def open_registry(
    uri: str | os.PathLike[str] | None = None,
    *,
    create: bool = True,
    cache: str | os.PathLike[str] | None = None,
    actor: str | None = None,
) -> Registry:
    """Open a registry. Use it as a context manager to have the SDK classes work on it and to close it at the end.

    Args:
        uri: Folder of the registry (path or `file://` URI); None takes `MODELSTORE_REGISTRY` or the user's data folder.
        create: Make the registry when the folder has none.
        cache: Folder of local copies of remote weights; None takes `MODELSTORE_CACHE` or the user's cache folder.
        actor: Who makes the changes; None takes `MODELSTORE_ACTOR` or user@host.

    Returns:
        The registry, safe to share between threads and with forked children.

    Raises:
        RegistryNotFoundError: There is none, and ``create`` is False.
        InvalidRequestError: The URI is of no kind that this version can open.
        NewerRegistryError: A newer modelstore wrote it.
        CorruptRegistryError: Its database or format file is damaged.
        ReadOnlyRegistryError: It must be created, and the folder cannot be written.
        NetworkFilesystemError: The folder lies on a network filesystem.
    """
    return Registry(uri, create=create, cache=cache, actor=actor)

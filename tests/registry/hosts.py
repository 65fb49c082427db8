"""What the tests of registries that hosts share have in common: several indexes, which stand for hosts."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import pytest

from modelstore.index.contents import check_copies, read_index
from modelstore.registry import Registry

__all__ = ["Hosts", "contents"]

P = TypeVar("P", str, Path)


class Hosts(Generic[P]):
    """Opens a registry as different hosts do: each with an index and a cache of its own; closes them at the end.

    Args:
        place: The registry.
        own: Folder for what the hosts have to themselves.
        monkeypatch: Sets the place of the index.
        options: How each opens it.
    """

    def __init__(self, place: P, own: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        self.place: P = place
        self._own, self._monkeypatch, self._options = own, monkeypatch, options
        self.opened: list[Registry] = []

    def __call__(self, name: str, **options: Any) -> Registry:
        self.be(name)
        registry = Registry(self.place, cache=self._own / name / "cache", **(self._options | options))
        self.opened.append(registry)
        return registry

    def be(self, name: str) -> None:
        """Let what this process opens next be opened on a host."""
        self._monkeypatch.setenv("MODELSTORE_INDEX", str(self._own / name / "index"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for registry in self.opened:
            registry.close()


def contents(registry: Registry) -> Any:
    """Return everything that a registry's index says, after seeing that it agrees with itself."""
    registry.refresh()
    check_copies(registry.database.connection)
    return read_index(registry.database.connection)

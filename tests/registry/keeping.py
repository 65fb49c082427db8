"""What the tests of housekeeping share."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

from modelstore.records.entities import ModelRecord
from modelstore.registry import Registry
from modelstore.registry.registration import register_files
from modelstore.testing import faults

__all__ = ["age", "digest_of", "killed_at", "object_files", "register"]


def register(registry: Registry, content: bytes, name: str = "net", **fields: object) -> ModelRecord:
    """Register a model with these bytes."""
    path = registry.folder.parent / f"{name}.pt"
    path.write_bytes(content)
    return register_files(registry, path, name=name, **fields)  # type: ignore[arg-type]


def digest_of(content: bytes) -> str:
    """Return the digest of bytes as the registry writes it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def object_files(folder: Path) -> list[Path]:
    """Return every stored file of a registry."""
    return sorted(p for p in (folder / "objects" / "sha256").rglob("*") if p.is_file())


def age(registry: Registry, days: float = 2) -> None:
    """Let everything that is stored have been stored some days ago."""
    then = time.time() - days * 86_400
    for path in sorted((registry.folder / "objects").rglob("*"), reverse=True):
        os.utime(path, (then, then))


def killed_at(step: str, work: Callable[[], object]) -> bool:
    """Do something in a child that is killed at a step; tells whether it came to that."""

    def child() -> None:
        faults.install(f"{step}=kill")
        work()

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode in (0, -9), process.exitcode
    return process.exitcode == -9

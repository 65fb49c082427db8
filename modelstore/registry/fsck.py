"""Checking all of a registry, and repairing what can be: the index from the journal, bytes from any other copy.

Nothing is ever lost by a repair: the journal is only read, the index is made anew in one transaction, and bytes that
are not what they should be are moved to `quarantine/`, whether there is something better or not.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from modelstore.errors import ModelStoreError
from modelstore.index import ops, reader
from modelstore.registry import checks, doctor
from modelstore.registry.checks import Finding
from modelstore.registry.references import Reference, references
from modelstore.storage import uris
from modelstore.storage.transfer import Address

if TYPE_CHECKING:
    from modelstore.registry.registry import Registry

__all__ = ["Checkup", "fsck"]

logger = logging.getLogger("modelstore")


@dataclass(slots=True)
class Checkup:
    """What a check found.

    Attributes:
        findings: What is wrong, after the repair if there was one; the worst first.
        repaired: What was repaired and how, in words.
        operations: How many operations the journal has.
        objects: How many objects are referred to.
    """

    findings: list[Finding]
    repaired: list[str] = field(default_factory=list)
    operations: int = 0
    objects: int = 0

    @property
    def damaged(self) -> bool:
        """Whether something is damaged or lost."""
        return any(finding.severity == "error" for finding in self.findings)


def fsck(registry: Registry, *, deep: bool = False, repair: bool = False) -> Checkup:
    """Check the database, the journal, the index and the objects, and repair them; see `Registry.fsck`."""
    findings = _findings(registry, deep=deep)
    repaired: list[str] = []
    if repair:
        with registry.database.write():
            pass  # refuses where nothing can be written
        repaired = _repair(registry, findings)
        if repaired:
            findings = _findings(registry, deep=deep)
    damaged = any(finding.part == "database" for finding in findings)
    return Checkup(
        findings,
        repaired,
        0 if damaged else ops.count(registry.database.connection),
        0 if damaged else len({one.digest for one in references(registry.database)}),
    )


def _findings(registry: Registry, *, deep: bool) -> list[Finding]:
    findings = list(checks.database(registry, deep=deep))
    if not findings:
        registry.refresh()
        findings.extend(checks.journal(registry))
        if not any(f.severity == "error" for f in findings):
            findings.extend(checks.index(registry))
        for found in (checks.objects(registry, deep=deep), checks.leftovers(registry), doctor.uploads(registry)):
            findings.extend(found)
    return checks.by_severity(findings)


def _repair(registry: Registry, findings: list[Finding]) -> list[str]:
    done: list[str] = []
    if any(finding.part == "index" for finding in findings):
        sys.audit("modelstore.step", "fsck.repair.1")
        done.append(f"made the index anew from {registry.rebuild():,} operations")
    with ExitStack() as stack:
        copies = _Copies(registry, stack)
        names: dict[str, set[str]] = {}
        for one in references(registry.database):
            names.setdefault(one.digest, set()).add(one.name)
        for finding in findings:
            if finding.digest is not None:
                wanted = sorted(names.get(finding.digest, ()))
                done.extend(_repair_object(registry, finding.digest, wanted, copies))
    return done


def _repair_object(registry: Registry, digest: str, names: list[str], copies: _Copies) -> Iterator[str]:
    """Put damaged files of an object aside, and bring it back from wherever it is."""
    # 1. damaged files go to the quarantine    2. a good copy arrives beside the objects    3. it is published
    # A kill leaves a missing object, which the next run brings back (tests/registry/test_fsck.py kills at each).
    store = registry.weights.objects
    for name, _ in store.damaged(digest):
        sys.audit("modelstore.step", "fsck.repair.2")
        yield f"put {name} of {digest} aside, into {store.set_aside(digest, name, registry.folder / 'quarantine')}"
    missing = sorted(name for _, name in store.lacking((digest, name) for name in names))
    if not missing or (store.size(digest) is not None and len(missing) < len(names)):
        return
    for address in copies.of(digest):
        try:
            for name in missing:
                sys.audit("modelstore.step", "fsck.repair.3")
                address.fetch(store, digest, name)
        except ModelStoreError as error:
            logger.warning("%s is no copy of %s: %s", uris.redact(address.uri), digest, error)
            continue
        yield f"brought {digest} back from {uris.redact(address.uri)}"
        return


class _Other(Protocol):
    """Another registry, as far as it matters here."""

    def address(self, need: Reference) -> Address | None: ...

    def close(self) -> None: ...


class _Copies:
    """Where other copies of objects may be, the nearest first; remotes are opened when it comes to that."""

    def __init__(self, registry: Registry, stack: ExitStack) -> None:
        self._registry, self._stack = registry, stack
        self._others: list[_Other] | None = None

    def of(self, digest: str) -> Iterator[Address]:
        """Yield addresses, none of which is known to be good."""
        present = self._registry.weights.objects.address(digest, "copy")
        if present is not None:
            yield Address(present)
        for upload in reader.uploads(self._registry.database):
            if f"sha256:{upload.changes.get('sha256')}" == digest:
                yield Address(str(self._registry.folder / upload.snapshot))
        cached = self._cached(digest)
        if cached is not None:
            yield Address(str(cached))
        rows = self._registry.database.all(
            "SELECT DISTINCT uri FROM models WHERE digest = ? AND uri NOT LIKE 'modelstore:%'", (digest,)
        )
        yield from (Address(row[0]) for row in rows)
        for other in self._remotes():
            with suppress(ModelStoreError):  # gone since it was reached
                found = other.address(Reference(digest, "copy", None, "", "copy"))
                if found is not None:
                    yield found

    def _cached(self, digest: str) -> Path | None:
        if not self._registry.cache_folder.is_dir():
            return None
        try:
            uri = f"modelstore://{digest.replace(':', '/')}/copy"
            found = self._registry.weights.cache.fetch(uri, _nothing, expected=digest, filename="copy", offline=True)
        except ModelStoreError:
            return None
        return found.path

    def _remotes(self) -> list[_Other]:
        if self._others is None:
            self._others = []
            for remote in self._registry.remotes.all():
                with suppress(ModelStoreError):  # out of reach today; what it might have is told as not repaired
                    other = self._registry.contact(remote.uri)
                    self._others.append(self._stack.enter_context(closing(other)))
        return self._others


def _nothing(*_: Any, **__: Any) -> NoReturn:
    raise AssertionError("an offline look-up fetches nothing")

"""What is wrong with a registry, what it means, and what to do about it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from modelstore.index import reader
from modelstore.registry import checks, mounts
from modelstore.registry.checks import Finding
from modelstore.storage import uris

if TYPE_CHECKING:
    from modelstore.registry.registry import Registry

__all__ = ["Finding", "examine", "uploads"]


def examine(registry: Registry, *, deep: bool) -> list[Finding]:
    """Return what is wrong, the worst first; nothing is changed.

    Args:
        registry: The registry.
        deep: Read every stored byte, and fold the whole journal once more for comparison.
    """
    findings = list(checks.database(registry, deep=deep))
    if not findings:
        registry.refresh()
    if deep and not findings:
        findings.extend(checks.journal(registry))
        if not any(f.severity == "error" for f in findings):
            findings.extend(checks.index(registry))
    if not any(f.severity == "error" for f in findings):
        findings.extend(checks.objects(registry, deep=deep))
        findings.extend(checks.foreign(registry, deep=deep))
        for look in (checks.leftovers, uploads, _conflicts, _doubles, _tasks):
            findings.extend(look(registry))
    return checks.by_severity(findings)


def uploads(registry: Registry) -> Iterator[Finding]:
    """Find uploads that nobody is at, or whose bytes are gone."""
    from modelstore.registry.uploads import is_alive

    for upload in reader.uploads(registry.database):
        if not (registry.folder / upload.snapshot).exists():
            yield Finding(
                "error",
                f"The bytes of upload {upload.id} of model {upload.model} are missing",
                "The upload cannot be finished.",
                f"Give it up with `modelstore uploads --cancel {upload.id}` and store the file again.",
            )
        elif upload.status == "failed" or not is_alive(upload):
            why = f"failed: {upload.error}" if upload.status == "failed" else "its process is gone"
            yield Finding(
                "warning",
                f"Upload {upload.id} of {upload.model} to {uris.redact(upload.destination)} is unfinished ({why})",
                "The model does not have these weights yet; they are safe in the registry folder.",
                "Send them with `modelstore uploads --resume`.",
            )


def _conflicts(registry: Registry) -> Iterator[Finding]:
    rows = registry.database.all("SELECT entity, key FROM conflicts WHERE agree = 0 ORDER BY entity, key")
    if rows:
        yield Finding(
            "warning",
            f"{len(rows)} edits were made without knowing of each other, the first of {rows[0][1]!r} on {rows[0][0]}",
            "The latest of each stands; the others are in the history.",
            "`modelstore conflicts` shows them; settle each with `modelstore resolve`.",
        )


def _doubles(registry: Registry) -> Iterator[Finding]:
    rows = registry.database.all(
        "SELECT uri, count(*), min(id), max(id) FROM models WHERE state = 0 AND uri IS NOT NULL"
        " AND uri NOT LIKE 'modelstore://%' GROUP BY uri HAVING count(*) > 1 ORDER BY count(*) DESC LIMIT 20"
    )
    for uri, count, first, last in rows:
        yield Finding(
            "note",
            f"{count} models have the same weights URI {uris.redact(uri)}, {first} and {last} among them",
            "Looking it up gives the one that was registered first.",
            "Archive or remove those that are not wanted.",
        )


def _tasks(registry: Registry) -> Iterator[Finding]:
    host = os.uname().nodename
    gone = [
        task
        for task in registry.tasks.find(statuses=["in_progress"])
        if task.runtime.get("host") == host
        and isinstance(pid := task.runtime.get("pid"), int)
        and not mounts.process_is_alive(pid)
    ]
    if gone:
        last = f"Task {gone[0].name!r} ({gone[0].id})"
        others = f" and {len(gone) - 1} more are" if len(gone) > 1 else " is"
        yield Finding(
            "note",
            f"{last}{others} in progress, but the processes are gone",
            "They were killed; what they had registered is whole.",
            "Nothing; or mark each as stopped: Task.get_task(ID).mark_stopped(). They are in"
            " `modelstore tasks --status in_progress`.",
        )

"""What is wrong with a registry, what it means, and what to do about it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from modelstore.errors import IntegrityError, ModelStoreError
from modelstore.index import reader
from modelstore.index.contents import check_copies, read_index
from modelstore.index.database import Database
from modelstore.index.ingest import ingest
from modelstore.registry import mounts
from modelstore.storage import uris
from modelstore.storage.objects import parse_object_uri

if TYPE_CHECKING:
    from modelstore.registry.registry import Registry

__all__ = ["Finding", "examine"]

_GRACE_S: Final = 86_400.0
"""What is younger may belong to a process that is at work right now."""

_BATCH: Final = 5_000

_PLOT_FILES: Final = (
    "SELECT p.digest, p.title, p.series, p.entity FROM plots AS p LEFT JOIN models AS m ON m.id = p.entity"
    " WHERE p.digest IS NOT NULL AND m.state IS NOT 2"
)
"""Stored files of plots, but those of removed models."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that deserves attention.

    Attributes:
        severity: "error": something is damaged or lost; "warning": something waits for somebody; "note": nothing is
            wrong, but it is good to know.
        what: What was found, and where.
        means: What that means for the user.
        todo: What to do about it.
    """

    severity: Literal["error", "warning", "note"]
    what: str
    means: str
    todo: str


def examine(registry: Registry, *, deep: bool) -> list[Finding]:
    """Return what is wrong, the worst first; nothing is changed.

    Args:
        registry: The registry.
        deep: Read every stored byte, and fold the whole journal once more for comparison.
    """
    findings = list(_database(registry, deep=deep))
    if not any(f.severity == "error" for f in findings):
        findings.extend(_weights(registry, deep=deep))
        for look in (_plots, _orphans, _uploads, _conflicts, _doubles, _tasks):
            findings.extend(look(registry))
    order = {"error": 0, "warning": 1, "note": 2}
    return sorted(findings, key=lambda finding: order[finding.severity])


def _database(registry: Registry, *, deep: bool) -> Iterator[Finding]:
    pragma = "integrity_check" if deep else "quick_check"
    try:
        rows = [row[0] for row in registry.database.all(f"PRAGMA {pragma}(10)")]
    except ModelStoreError as error:
        rows = [str(error)]
    if rows != ["ok"]:
        yield Finding(
            "error",
            f"The database {registry.database.path} is damaged: {rows[0]}",
            "Some models may be unreadable.",
            f"Restore a copy of the folder; copies made before upgrades are in {registry.folder / 'backups'}.",
        )
    elif deep:
        yield from _fold(registry)


def _fold(registry: Registry) -> Iterator[Finding]:
    """Fold the journal into an empty index and compare."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="modelstore-doctor-") as folder:
        fresh = Database(Path(folder) / "registry.db", Path(folder) / "backups")
        try:
            with registry.database.snapshot():
                after = 0
                while batch := list(registry.operations(after, _BATCH)):
                    with fresh.write() as connection:
                        ingest(connection, (operation for _, operation in batch))
                    after = batch[-1][0]
                same = read_index(fresh.connection) == read_index(registry.database.connection)
                try:
                    if not registry.database.read_only:
                        check_copies(registry.database.connection)
                    reason = ""
                except AssertionError as error:
                    same, reason = False, f" ({error})"
        finally:
            fresh.close()
    if not same:
        yield Finding(
            "error",
            f"The index differs from what the journal says{reason}",
            "Queries may give wrong answers; nothing is lost, since the journal has everything.",
            "Run `modelstore rebuild`.",
        )


def _weights(registry: Registry, *, deep: bool) -> Iterator[Finding]:
    rows = registry.database.all(
        "SELECT id, name, uri, digest, size FROM models WHERE state < 2 AND uri IS NOT NULL ORDER BY key"
    )
    looked_at: set[str] = set()
    for model_id, name, uri, digest, size in rows:
        parsed = parse_object_uri(uri) if uri.startswith("modelstore://") else None
        path = registry.weights.objects.path(*parsed) if parsed else uris.local_path(uri)
        if path is None or uri in looked_at:
            continue
        looked_at.add(uri)
        found = path if path.exists() else parsed and registry.weights.objects.find(parsed[0])
        if not found:
            yield Finding(
                "error" if parsed else "warning",
                f"The weights of model {name!r} ({model_id}) are missing: {path}",
                "No local copy of them can be had.",
                "Restore the file from a backup, or remove the model." if parsed else "Bring the file back.",
            )
            continue
        damage = _damage(registry, Path(found), digest, size, deep=deep)
        if damage:
            yield Finding(
                "error",
                f"The weights of model {name!r} ({model_id}) are damaged: {damage}",
                "They are not the bytes that were stored, and will not be handed out.",
                "Restore the file from a backup, or register the model anew.",
            )


def _damage(registry: Registry, path: Path, digest: str | None, size: int | None, *, deep: bool) -> str:
    if path.is_dir():
        return ""
    actual = path.stat().st_size
    if size is not None and actual != size:
        return f"{path} has {actual} bytes instead of {size}"
    if deep and digest is not None:
        try:
            registry.weights.check_file(path, digest, verify=True)
        except IntegrityError as error:
            return error.message
    return ""


def _plots(registry: Registry) -> Iterator[Finding]:
    """Find reported pictures and large figures whose files are gone."""
    missing = [
        row for row in registry.database.all(_PLOT_FILES) if registry.weights.objects.find(row["digest"]) is None
    ]
    if missing:
        first = missing[0]
        yield Finding(
            "error",
            f"The files of {len(missing)} plots are missing, the first {first['title']!r} / {first['series']!r} of"
            f" {first['entity']} ({first['digest']})",
            "They cannot be shown; everything else that was reported is there.",
            "Restore objects/ from a backup.",
        )


def _orphans(registry: Registry) -> Iterator[Finding]:
    used = {row[0] for row in registry.database.all("SELECT digest FROM models WHERE state < 2 AND digest IS NOT NULL")}
    used |= {row["digest"] for row in registry.database.all(_PLOT_FILES)}
    limit = time.time() - _GRACE_S
    orphans = [o for o in registry.weights.objects.iterate() if o.digest not in used and o.changed_at < limit]
    if orphans:
        total = sum(o.size for o in orphans)
        yield Finding(
            "note",
            f"{len(orphans)} stored objects ({total:,} bytes) belong to no model, the first {orphans[0].digest}",
            "They are left from removed models or from processes that were killed while storing.",
            f"They can be deleted from {registry.weights.objects.root}.",
        )
    temporary = registry.weights.objects.root / "tmp"
    known = {u.snapshot for u in reader.uploads(registry.database)}
    left = [p for p in _files(temporary) if p.stat().st_mtime < limit]
    left += [
        p for p in _files(registry.folder / "uploads") if f"uploads/{p.name}" not in known and p.stat().st_mtime < limit
    ]
    if left:
        yield Finding(
            "note",
            f"{len(left)} unfinished copies are left, the first {left[0]}",
            "A process was killed while it stored a file; no model refers to them.",
            "Delete them.",
        )


def _files(folder: Path) -> list[Path]:
    try:
        return [p for p in folder.iterdir() if p.is_file()]
    except FileNotFoundError:
        return []


def _uploads(registry: Registry) -> Iterator[Finding]:
    from modelstore.registry.uploads import is_alive

    for upload in reader.uploads(registry.database):
        if upload.status == "failed" or not is_alive(upload):
            why = f"failed: {upload.error}" if upload.status == "failed" else "its process is gone"
            yield Finding(
                "warning",
                f"Upload {upload.id} of {upload.model} to {uris.redact(upload.destination)} is unfinished ({why})",
                "The model does not have these weights yet; they are safe in the registry folder.",
                "Send them with `modelstore uploads --resume`.",
            )
        elif not (registry.folder / upload.snapshot).exists():
            yield Finding(
                "error",
                f"The bytes of upload {upload.id} of model {upload.model} are missing",
                "The upload cannot be finished.",
                f"Give it up with `modelstore uploads --cancel {upload.id}` and store the file again.",
            )


def _conflicts(registry: Registry) -> Iterator[Finding]:
    rows = registry.database.all("SELECT entity, key FROM conflicts WHERE agree = 0 ORDER BY entity, key")
    if rows:
        yield Finding(
            "warning",
            f"{len(rows)} edits were made without knowing of each other, the first of {rows[0][1]!r} on {rows[0][0]}",
            "The latest of each stands; the others are in the history.",
            "Look at `modelstore history` and set the value that is right.",
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
    for task in registry.tasks.find(statuses=["in_progress"]):
        pid = task.runtime.get("pid")
        if task.runtime.get("host") == host and isinstance(pid, int) and not mounts.process_is_alive(pid):
            yield Finding(
                "note",
                f"Task {task.name!r} ({task.id}) is in progress, but its process {pid} is gone",
                "It was killed; what it had registered is whole.",
                "Nothing; or mark it as stopped.",
            )

"""Looking for what is wrong with a registry, part by part; `doctor` and `fsck` choose among these."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from modelstore.errors import IntegrityError, InvalidOperationError, ModelStoreError, StorageUnavailableError
from modelstore.index import ops, reader
from modelstore.index.contents import check_copies, read_index
from modelstore.index.database import Database
from modelstore.index.ingest import ingest
from modelstore.records.operations import check_operation
from modelstore.registry.past import left_behind
from modelstore.registry.references import Reference, is_used, references, used
from modelstore.storage import uris

if TYPE_CHECKING:
    from modelstore.registry.registry import Registry
    from modelstore.storage.objects import StoredObject

__all__ = [
    "GRACE_S",
    "Finding",
    "by_severity",
    "database",
    "foreign",
    "index",
    "journal",
    "leftovers",
    "objects",
    "unfinished",
    "within",
]

GRACE_S: Final = 86_400.0
"""What is younger may belong to a process that is at work right now."""

_BATCH: Final = 5_000
_MOST: Final = 20
"""So many broken operations are told one by one."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that deserves attention.

    Attributes:
        severity: "error": something is damaged or lost; "warning": something waits for somebody; "note": nothing is
            wrong, but it is good to know.
        what: What was found, and where.
        means: What that means for the user.
        todo: What to do about it.
        part: Where: "database", "journal", "index", "object", or "" for anything else.
        digest: The object that it is about, where it is about one that can be brought back.
    """

    severity: Literal["error", "warning", "note"]
    what: str
    means: str
    todo: str
    part: str = ""
    digest: str | None = None


def by_severity(findings: list[Finding]) -> list[Finding]:
    """Return findings with the worst first."""
    return sorted(findings, key=lambda finding: ("error", "warning", "note").index(finding.severity))


def database(registry: Registry, *, deep: bool) -> Iterator[Finding]:
    """Have SQLite look at its file."""
    pragma = "integrity_check" if deep else "quick_check"
    try:
        rows = [row[0] for row in registry.database.all(f"PRAGMA {pragma}(10)")]
    except ModelStoreError as error:
        rows = [str(error.__cause__ or error)]
    if rows != ["ok"]:
        yield Finding(
            "error",
            f"The database {registry.database.path} is damaged: {rows[0]}",
            "Some models may be unreadable.",
            f"Restore a backup; copies made before upgrades are in {registry.folder / 'backups'}.",
            "database",
        )


def journal(registry: Registry) -> Iterator[Finding]:
    """Read every operation: each obeys the format, those made here are in order, and their transactions whole."""
    own = {row[0]: "" for row in registry.database.all("SELECT id FROM writers")}
    batches: Counter[tuple[str, int]] = Counter()
    broken: list[str] = []
    disorder: list[str] = []
    for row in ops.rows(registry.database.connection):
        stamp = str(row["stamp"])
        try:
            operation = ops.operation_from_row(row)
            check_operation(operation)
        except (InvalidOperationError, ValueError, TypeError) as error:
            broken.append(f"number {row['seq']} ({stamp[:32]!r}): {error}")
            continue
        writer = stamp[16:]
        if writer not in own:
            continue
        if stamp <= own[writer]:
            disorder.append(stamp)
        own[writer] = max(stamp, own[writer])
        if operation.batch is not None:
            batches[operation.batch, operation.batch_size] += 1
    yield from _broken(broken)
    yield from _disorder(registry, disorder)
    halves = [batch for (batch, size), count in batches.items() if count != size]
    if halves and not registry.database.one("SELECT 1 FROM strays LIMIT 1"):
        yield Finding(
            "error",
            f"{len(halves)} transactions are not whole, the first {halves[0]}",
            "Operations are missing from the journal; what they changed is lost here.",
            "Restore a backup, or sync with a registry that has them.",
            "journal",
        )


def _broken(broken: list[str]) -> Iterator[Finding]:
    for text in broken[:_MOST]:
        yield Finding(
            "error",
            f"An operation of the journal cannot be read: {text}",
            "What it changed is lost here, and the index cannot be made anew.",
            "Restore a backup, or make a new registry and `modelstore pull` from one that has it.",
            "journal",
        )
    if len(broken) > _MOST:
        yield Finding(
            "error", f"{len(broken) - _MOST} more operations cannot be read", "As above.", "As above.", "journal"
        )


def _disorder(registry: Registry, stamps: list[str]) -> Iterator[Finding]:
    """Operations made here came in order; those that came back from elsewhere, after a restoration say, need not."""
    if stamps and not registry.database.one("SELECT 1 FROM strays LIMIT 1"):
        yield Finding(
            "note",
            f"{len(stamps)} operations made here arrived out of order, the first {stamps[0]}",
            "They came back from elsewhere, after an older copy had been restored. Order of arrival means nothing.",
            "Nothing.",
            "journal",
        )


def index(registry: Registry) -> Iterator[Finding]:
    """Fold the journal into an empty index and compare, in copies: others go on writing, and nothing here changes."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="modelstore-check-") as name, ExitStack() as stack:
        folder = Path(name)
        registry.database.copy_to(folder / "copy.db")
        copy = stack.enter_context(closing(Database(folder / "copy.db", folder, create=False)))
        fresh = stack.enter_context(closing(Database(folder / "fresh.db", folder)))
        after = 0
        while batch := list(ops.read(copy.connection, after, _BATCH)):
            with fresh.write() as connection:
                ingest(connection, (operation for _, operation in batch))
            after = batch[-1][0]
        same, reason = _compared(copy, fresh)
    if not same:
        yield Finding(
            "error",
            f"The index differs from what the journal says{reason}",
            "Queries may give wrong answers; nothing is lost, since the journal has everything.",
            "Run `modelstore rebuild`.",
            "index",
        )


def _compared(copy: Database, fresh: Database) -> tuple[bool, str]:
    try:
        with copy.write() as connection:
            check_copies(connection)
        return read_index(fresh.connection) == read_index(copy.connection), ""
    except (AssertionError, LookupError, ValueError) as error:  # what it is made of contradicts itself
        return False, f" ({error})"


def objects(registry: Registry, *, deep: bool) -> Iterator[Finding]:
    """See that every object that is referred to is there and has its size; ``deep`` reads every stored byte."""
    store = registry.weights.objects
    damaged: set[str] = set()
    needed: dict[str, list[Reference]] = {}
    for one in references(registry.database):
        needed.setdefault(one.digest, []).append(one)
    sizes = store.sizes()
    if deep:
        for stored in store.iterate():
            reason = next((reason for _, reason in store.damaged(stored.digest)), "")
            if reason:
                damaged.add(stored.digest)
                yield _damaged(stored.digest, needed.get(stored.digest, []), reason)
    for digest, users in needed.items():
        path = store.uri(digest, users[0].name)
        try:
            actual = sizes(digest, users[0].name)
        except PermissionError as error:
            yield _forbidden(users, error)
            continue
        if actual is None:
            if not is_used(registry.database, digest):
                continue  # removed since we asked
            yield Finding(
                "error",
                f"The {_users(users)} {_are(users)} missing: {path}",
                "No local copy of them can be had.",
                "`modelstore fsck --repair` looks for another copy; else restore a backup, or remove the model.",
                "object",
                digest,
            )
            continue
        size = next((one.size for one in users if one.size is not None), None)
        if digest not in damaged and size is not None and actual != size:
            yield _damaged(digest, users, f"{path} has {actual} bytes instead of {size}")


def _users(users: list[Reference]) -> str:
    return users[0].what + (f" and {len(users) - 1} more" if len(users) > 1 else "")


def _are(users: list[Reference]) -> str:
    return "are" if len(users) > 1 or users[0].what.startswith("weights") else "is"


def _forbidden(users: list[Reference], error: PermissionError) -> Finding:
    return Finding(
        "error",
        f"The {_users(users)} cannot be read: {error.strerror}: {error.filename}",
        "No local copy of them can be had by this user.",
        "Check the permissions of the folder and of those above it.",
        "object",
    )


def _damaged(digest: str, users: list[Reference], reason: str) -> Finding:
    if not users:
        return Finding(
            "warning",
            f"An object that nothing refers to is damaged: {reason}",
            "Whoever stores the same bytes again would get these.",
            "`modelstore fsck --deep --repair` puts it aside.",
            "object",
            digest,
        )
    return Finding(
        "error",
        f"The {_users(users)} {_are(users)} damaged: {reason}",
        "They are not the bytes that were stored, and will not be handed out.",
        "`modelstore fsck --deep --repair` looks for another copy; else restore a backup, or register the model anew.",
        "object",
        digest,
    )


def foreign(registry: Registry, *, deep: bool) -> Iterator[Finding]:
    """Look at weights that are files of this machine outside the registry."""
    rows = registry.database.all(
        "SELECT id, name, uri, digest, size FROM models WHERE state < 2 AND uri LIKE 'file:%' GROUP BY uri ORDER BY key"
    )
    for model_id, name, uri, digest, size in rows:
        path = uris.local_path(uri)
        if path is None:
            continue
        if not path.exists():
            yield Finding(
                "warning",
                f"The weights of model {name!r} ({model_id}) are missing: {path}",
                "No local copy of them can be had.",
                "Bring the file back.",
            )
            continue
        reason = _changed(registry, path, digest, size, deep=deep)
        if reason:
            yield Finding(
                "error",
                f"The weights of model {name!r} ({model_id}) are damaged: {reason}",
                "They are not the bytes that were stored, and will not be handed out.",
                "Restore the file from a backup, or register the model anew.",
            )


def _changed(registry: Registry, path: Path, digest: str | None, size: int | None, *, deep: bool) -> str:
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


def _orphans(registry: Registry, limit: float) -> list[StoredObject]:
    needed = used(registry.database)
    return [o for o in registry.weights.objects.iterate() if o.digest not in needed and o.changed_at < limit]


def leftovers(registry: Registry) -> Iterator[Finding]:
    """Find objects that nothing refers to, and copies that killed processes did not finish."""
    limit = time.time() - GRACE_S
    try:
        orphans = _orphans(registry, limit)
    except StorageUnavailableError as error:
        yield Finding("warning", error.message, "What else is stored could not be looked at.", error.hint, "object")
        return
    if orphans:
        total = sum(o.size for o in orphans)
        yield Finding(
            "note",
            f"{len(orphans)} stored objects ({total:,} bytes) belong to no model, the first {orphans[0].digest}",
            "They are of removed models, were replaced by newer weights, or a process was killed while storing.",
            "`modelstore gc` deletes what nobody will ask for any more; `gc --dry-run` lists it.",
        )
    left = list(unfinished(registry, limit))
    if left:
        yield Finding(
            "note",
            f"{len(left)} unfinished copies are left, the first {left[0][0]}",
            "A process was killed while it stored a file; no model refers to them.",
            "`modelstore gc` deletes them.",
        )
    looks = list(left_behind(registry))
    if looks:
        yield Finding(
            "note",
            f"{len(looks)} temporary folders are left, the first {looks[0][0]}",
            "A process was killed while it looked at what was.",
            "`modelstore gc` deletes them, and so does the next look.",
        )


def unfinished(registry: Registry, limit: float) -> Iterator[tuple[Path, int]]:
    """Yield copies in the making that were last written to before a time and that nothing will finish, with sizes."""
    known = {u.snapshot for u in reader.uploads(registry.database)}
    folders = (registry.weights.objects.root / "tmp", registry.weights.uploads.folder)
    for folder in folders:
        for path in _files(folder):
            try:
                status = os.stat(path)
            except FileNotFoundError:
                continue  # its owner published it
            if status.st_mtime < limit and within(registry, path) not in known:
                yield path, status.st_size


def within(registry: Registry, path: Path) -> str:
    """Return a path as it is written below the registry's folder; one that is elsewhere as a whole."""
    return str(path.relative_to(registry.folder) if path.is_relative_to(registry.folder) else path)


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.is_file())
    except FileNotFoundError:
        return []

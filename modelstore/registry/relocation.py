"""Weights that were moved elsewhere: addresses are rewritten by their beginning, the bytes are not touched.

A published model's URI is part of what was published and never changes. Where its bytes are to be found today is
another matter: that is kept beside the journal, in `redirects.json`, and followed when they are read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from modelstore.errors import BlobNotFoundError, CorruptRegistryError, IntegrityError, InvalidRequestError
from modelstore.index.ops import last_stamp
from modelstore.journal import Draft
from modelstore.records.entities import UploadRecord
from modelstore.registry.uploads import is_alive
from modelstore.storage import uris
from modelstore.storage.failures import translated

if TYPE_CHECKING:
    from modelstore.registry.registry import Registry

__all__ = ["Move", "Redirects", "Relocation", "relocate", "relocated"]

_CHECKS_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class Move:
    """One address that was, or would be, rewritten.

    Attributes:
        kind: ``model``, ``published model``, ``task``, ``project`` or ``upload``.
        id: Of the model, task or project; the number of the upload.
        name: Its name.
        old: The address before.
        new: The address after.
    """

    kind: str
    id: str
    name: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Relocation:
    """What `relocate` did, or would do.

    Attributes:
        moves: Every address that begins with the old one.
        under_way: Numbers of uploads to the old place that live processes are at; they are left alone.
        dry_run: True when nothing was touched.
    """

    moves: tuple[Move, ...]
    under_way: tuple[int, ...]
    dry_run: bool


class Redirects:
    """Where the weights of published models were moved, oldest move first: ``redirects.json`` of a registry folder.

    A move is of what was published by then: what is published later at the old place is there. Unless whoever
    published it, on another machine, did not know of the move; so where there is nothing, the new place is tried.
    Safe for threads and processes: read again when the file has changed, replaced as a whole.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "redirects.json"
        self._seen: tuple[int, int, int] | None = None
        self._moves: list[tuple[str, str, str]] = []

    def __bool__(self) -> bool:
        """Tell whether there was any move.

        Raises:
            CorruptRegistryError: The file is damaged.
        """
        return bool(self._read())

    def __call__(self, uri: str, published: str | None) -> str:
        """Return where the bytes behind a published URI are today.

        Args:
            uri: As it was published.
            published: Stamp of the publication; None to follow all moves.

        Raises:
            CorruptRegistryError: The file is damaged.
        """
        for old, new, last in self._read():
            if published is None or published <= last:
                uri = relocated(uri, old, new) or uri
        return uri

    def formerly(self, uri: str) -> list[str]:
        """Return the addresses that may lead to ``uri`` today, the latest first; when they were published decides."""
        found = {uri: None}
        for old, new, _ in reversed(self._read()):
            found |= {former: None for one in found if (former := relocated(one, new, old)) is not None}
        return list(found)[1:]

    def add(self, old: str, new: str, last: str) -> None:
        """Note a move; as part of a transaction of the registry, which keeps other writers out.

        Args:
            old: The place before.
            new: The place after.
            last: The greatest stamp in the journal.
        """
        moves = self._read()
        draft = self._path.with_name(f"redirects.{os.urandom(6).hex()}.tmp")
        with translated(self._path, writing=True):
            with draft.open("w", encoding="utf-8") as file:
                json.dump({"format": 1, "moves": [*moves, (old, new, last)]}, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)

    def _read(self) -> list[tuple[str, str, str]]:
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            return []
        looks = (status.st_mtime_ns, status.st_ino, status.st_size)
        if looks != self._seen:
            try:
                found = json.loads(self._path.read_bytes())["moves"]
                moves = [(str(old), str(new), str(last)) for old, new, last in found]
            except (ValueError, KeyError, TypeError) as error:
                raise CorruptRegistryError(
                    f"{self._path} is damaged", "Restore it from a backup, or remove it and relocate again."
                ) from error
            self._moves, self._seen = moves, looks
        return self._moves


def relocated(uri: str, old: str, new: str) -> str | None:
    """Return ``uri`` with ``new`` in place of ``old`` at its beginning, whole components only; None if it has not.

    In a chain, each link is looked at.

    Example:
        >>> (
        ...     relocated("s3://a/models/x.pt", "s3://a/models", "gs://b"),
        ...     relocated("s3://a/models2/x", "s3://a/models", ""),
        ... )
        ('gs://b/x.pt', None)
        >>> relocated("zip://x.pt::s3://a/y.zip", "s3://a/", "s3://b/")
        'zip://x.pt::s3://b/y.zip'
    """
    head, tail = old.rstrip("/"), new.rstrip("/")
    links = uris.split_chain(uri)
    moved = [tail + link[len(head) :] if link == head or link.startswith(f"{head}/") else link for link in links]
    return None if moved == links else "::".join(moved)


def relocate(registry: Registry, old: str, new: str, *, check: bool = False, dry_run: bool = False) -> Relocation:
    """Rewrite every address that begins with ``old``, in one transaction; bytes are neither moved nor copied.

    Models, the destinations of tasks, projects and unfinished uploads. Each rewritten model is an edit in its history;
    digests stay, and what is read from the new place is compared with them. Models that were removed keep their URI.
    Published models keep theirs too, and are read from the new place all the same (`Redirects`).

    Args:
        registry: The registry.
        old: URI or path of a folder, bucket or single object.
        new: What stands in its place.
        check: First see that every model's weights are at the new place, with the size that they should have.
        dry_run: Only tell.

    Raises:
        InvalidRequestError: The two are the same, or an address is not acceptable.
        BlobNotFoundError: ``check``, and some weights are not there; nothing was changed.
        IntegrityError: ``check``, and some have another size there; nothing was changed.
    """
    before, after = (_address(registry, uri).rstrip("/") for uri in (old, new))
    if before == after:
        raise InvalidRequestError(f"The old and the new place are the same: {before}")
    plan = _Plan(registry, before, after)
    if check:
        plan.see_new_places()
    if dry_run:
        return plan.result(dry_run=True)
    if not registry.in_folder and any(move.kind == "published model" for move in plan.result(dry_run=True).moves):
        raise InvalidRequestError(
            "Published models keep their address, and where it leads today is noted in the registry's folder, for all;"
            f" {registry.place} has none",
            "Copy their weights back to where they were published. `relocate --dry-run` lists them.",
        )
    with registry.transaction():
        plan = _Plan(registry, before, after)  # others may have written since
        plan.carry_out()
    return plan.result(dry_run=False)


def _address(registry: Registry, uri: str) -> str:
    address = registry.weights.logical(uri)
    if address.startswith("modelstore:") or (uris.local_path(address) or Path("/")).is_relative_to(registry.folder):
        raise InvalidRequestError(
            f"{uris.redact(uri)!r} is inside the registry's own folder, which may be moved without telling it."
        )
    if address == "file:///":
        raise InvalidRequestError("The root of the disk is no place for weights.", "Name a folder.")
    if len(uris.split_chain(address)) > 1:
        raise InvalidRequestError(f"{address!r} is a chain.", "Give the address of the archive, or of its folder.")
    return address


class _Plan:
    """What is to be rewritten, as the registry stands at this moment."""

    def __init__(self, registry: Registry, old: str, new: str) -> None:
        self._registry, self._old, self._new = registry, old, new
        self.moves = list(self._models())
        self.moves += self._rows("task", "SELECT id, name, output_uri FROM tasks WHERE output_uri IS NOT NULL")
        self.moves += self._rows("project", "SELECT id, name, output_uri FROM projects WHERE output_uri IS NOT NULL")
        pending = [one for one in registry.weights.uploads.pending() if self._moved(one.destination)]
        self.under_way = tuple(one.id for one in pending if _under_way(one))
        self.moves += [self._upload(one) for one in pending if one.id not in self.under_way]

    def result(self, *, dry_run: bool) -> Relocation:
        return Relocation(tuple(self.moves), self.under_way, dry_run)

    def _moved(self, uri: str) -> str | None:
        return relocated(uri, self._old, self._new)

    def _models(self) -> Iterator[Move]:
        redirects = self._registry.weights.redirects
        rows = self._registry.database.all(
            "SELECT m.id, m.name, m.uri, o.stamp FROM models AS m LEFT JOIN ops AS o ON o.seq = m.published_op"
            " WHERE m.state < 2 AND m.uri IS NOT NULL ORDER BY m.key"
        )
        for identity, name, uri, published in rows:
            address = redirects(uri, published) if published else uri
            moved = self._moved(address)
            if moved is not None:
                yield Move("published model" if published else "model", identity, name or "", address, moved)

    def _rows(self, kind: str, statement: str) -> Iterator[Move]:
        for identity, name, uri in self._registry.database.all(statement):
            moved = self._moved(uri)
            if moved is not None:
                yield Move(kind, identity, name or "", uri, moved)

    def _upload(self, one: UploadRecord) -> Move:
        moved = self._moved(one.destination)
        assert moved is not None  # noqa: S101 - it was among those that move
        return Move("upload", str(one.id), str(one.changes.get("filename", "")), one.destination, moved)

    def carry_out(self) -> None:
        drafts = []
        with self._registry.database.write() as connection:
            for move in self.moves:
                if move.kind == "published model":
                    continue
                if move.kind == "upload":
                    connection.execute(
                        "UPDATE uploads SET destination = ?, changes = json_remove(changes, '$.checkpoint')"
                        " WHERE id = ?",
                        (move.new, int(move.id)),
                    )
                    continue
                field = "uri" if move.kind == "model" else "output_uri"
                drafts.append(Draft(move.kind, move.id, "edit", {field: move.new}))  # type: ignore[arg-type]
            last = last_stamp(connection)
            for move in self.moves:  # what was seen there is expected here
                connection.execute("UPDATE OR REPLACE verified SET path = ? WHERE path = ?", (move.new, move.old))
        if last is not None and any(move.kind.endswith("model") for move in self.moves):
            self._registry.weights.redirects.add(self._old, self._new, last)
        if drafts:
            self._registry.commit(drafts)

    def see_new_places(self) -> None:
        """Ask the new place for each model's weights."""
        from concurrent.futures import ThreadPoolExecutor

        models = [move for move in self.moves if move.kind.endswith("model")]
        with ThreadPoolExecutor(_CHECKS_AT_ONCE, "modelstore-relocate") as pool:
            problems = [problem for problem in pool.map(self._problem, models) if problem is not None]
        if not problems:
            return
        missing = [problem for problem in problems if isinstance(problem, BlobNotFoundError)]
        kind: Callable[..., Exception] = BlobNotFoundError if missing else IntegrityError
        raise kind(
            f"The weights of {len(problems)} of {len(models)} models are not at the new place, first: {problems[0]}",
            "Copy them there first.",
        )

    def _problem(self, move: Move) -> BlobNotFoundError | IntegrityError | None:
        from modelstore.storage.blobs import stat

        size = self._registry.models.get(move.id).size
        try:
            found = stat(move.new)
        except BlobNotFoundError as error:
            return error
        if size is None or found.size is None or found.size == size:
            return None
        return IntegrityError(f"{uris.redact(move.new)} has {found.size} bytes and should have {size}")


def _under_way(upload: UploadRecord) -> bool:
    return upload.status == "pending" and (is_alive(upload) or upload.pid == os.getpid())

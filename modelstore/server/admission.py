"""Which operations a server lets in: nobody writes another's, and nobody rewrites what is there.

A writer (half of a stamp) belongs to the first token that brought operations of its own actor with it; the row that
says so is written in the transaction that takes them in. Heads are believed where they can be: a head hides what comes
before it from every later exchange, so only he may raise one to whom the writer belongs, or who may pass on anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from modelstore.errors import AccessDeniedError, InvalidOperationError, InvalidUriError
from modelstore.ids import is_digest, now_ms
from modelstore.index import ops
from modelstore.index.ingest import Ingested
from modelstore.records.operations import Operation
from modelstore.server.tokens import Token
from modelstore.storage.objects import parse_object_uri, sanitise_filename
from modelstore.sync import Parcel

if TYPE_CHECKING:
    from modelstore.registry import Registry

__all__ = ["RewritingError", "take_in"]

_BOUND: Final = "writer-token:"


class RewritingError(InvalidOperationError):
    """An operation is there already, and was another."""


def take_in(registry: Registry, parcel: Parcel, who: Token, max_ahead_ms: int) -> Ingested:
    """Take a parcel in, durably and as a whole, if every operation of it may be brought by whoever brings it.

    Args:
        registry: The registry.
        parcel: Checked as `Operation.from_json` does.
        who: Brings it.
        max_ahead_ms: How far in the future an operation may have been made.

    Raises:
        AccessDeniedError: An operation is another's.
        RewritingError: One is there already, and was another.
        InvalidOperationError: One is not acceptable from anybody.
    """
    with registry.database.write() as connection:
        new = _new(connection, parcel.operations)
        latest = now_ms() + max_ahead_ms
        for operation in new:
            _check(operation, latest)
        _check_kinds(connection, new)
        if who.role != "admin":
            _check_owner(connection, new, who)
        heads = _believed(connection, parcel, who)
        done = registry.ingest(new, heads, checked=True)
    return replace(done, known=len(parcel.operations) - done.new)


def _new(connection: Any, operations: Iterable[Operation]) -> list[Operation]:
    """Return the operations that are not known; those that are must be what they were."""
    found: dict[str, Operation] = {}
    for operation in operations:
        known = found.get(operation.stamp) or ops.get(connection, operation.stamp)
        if known is None:
            found[operation.stamp] = operation
        elif known != operation:
            raise RewritingError(
                f"The operation {operation.stamp} is there already, and was another",
                "What was written is never changed. Was a registry's folder edited by hand, or a clock set back?",
            )
    return list(found.values())


def _check(operation: Operation, latest: int) -> None:
    if operation.ms > latest:
        raise InvalidOperationError(
            f"The operation {operation.stamp} was made in the future",
            "Set the clock of the machine that made it, and register what it made anew.",
        )
    changes = operation.changes
    try:
        uri = changes.get("uri")
        if uri is not None:
            parse_object_uri(uri)
    except InvalidUriError as error:
        raise InvalidOperationError(f"The operation {operation.stamp} names an object badly: {error}") from error
    digest = changes.get("digest")
    if digest is not None and not is_digest(digest):
        raise InvalidOperationError(f"The operation {operation.stamp} has the digest {digest[:100]!r}, which is none")
    plot = changes.get("plot") if operation.action == "report" else None
    if plot is not None and "name" in plot and sanitise_filename(plot["name"]) != plot["name"]:
        raise InvalidOperationError(f"The operation {operation.stamp} has a file name that no object can have")


def _check_kinds(connection: Any, new: list[Operation]) -> None:
    """See that no entity is a model for one and a task for another: ids are random, so that is no accident."""
    kinds: dict[str, str] = {}
    for operation in new:
        entity = operation.entity
        if entity not in kinds:
            row = connection.execute("SELECT entity_kind FROM ops WHERE entity = ? LIMIT 1", (entity,)).fetchone()
            kinds[entity] = operation.kind if row is None else row[0]
        if kinds[entity] != operation.kind:
            raise InvalidOperationError(
                f"The operation {operation.stamp} is on the {operation.kind} {entity}, which is a {kinds[entity]} here"
            )


def _check_owner(connection: Any, new: list[Operation], who: Token) -> None:
    writers = set()
    for operation in new:
        if not who.writes_as(operation.actor):
            raise AccessDeniedError(
                f"The token {who.name!r} may not bring operations of {operation.actor!r}",
                f"Write as {who.name}@… (MODELSTORE_ACTOR), give the token --actor, or let an admin push.",
            )
        writer = operation.stamp[16:]
        if operation.batch is not None and operation.batch[16:] != writer:
            raise AccessDeniedError(f"The operation {operation.stamp} claims to be of another's transaction")
        writers.add(writer)
    for writer in writers:
        _bind(connection, writer, who)


def _bind(connection: Any, writer: str, who: Token) -> None:
    owner = _owner(connection, writer)
    if owner == who.name:
        return
    if owner is not None or _is_anothers(connection, writer, who):
        raise AccessDeniedError(
            f"The writer {writer} belongs to {'somebody else' if owner is None else repr(owner)}",
            "A token of that name, or an admin, can push what was made there.",
        )
    connection.execute("INSERT INTO registry_info VALUES (?,?)", (_BOUND + writer, who.name))


def _owner(connection: Any, writer: str) -> str | None:
    row = connection.execute("SELECT value FROM registry_info WHERE key = ?", (_BOUND + writer,)).fetchone()
    return None if row is None else str(row[0])


def _is_anothers(connection: Any, writer: str, who: Token) -> bool:
    """Tell whether a writer that is bound to no token is this registry's own, or has written as somebody else."""
    if connection.execute("SELECT 1 FROM writers WHERE id = ?", (writer,)).fetchone():
        return True
    if not connection.execute(
        "SELECT 1 FROM heads WHERE writer = ? UNION ALL SELECT 1 FROM strays WHERE substr(stamp, 17) = ? LIMIT 1",
        (writer, writer),
    ).fetchone():
        return False
    actors = connection.execute("SELECT DISTINCT actor FROM ops WHERE substr(stamp, 17) = ?", (writer,)).fetchall()
    return not all(who.writes_as(row[0]) for row in actors)


def _believed(connection: Any, parcel: Parcel, who: Token) -> Mapping[str, str]:
    """Return the heads that the registry may note when the parcel has arrived."""
    brought = {operation.stamp for operation in parcel.operations}
    heads: dict[str, str] = {}
    for writer, stamp in parcel.heads.items():
        if who.role != "admin" and _owner(connection, writer) != who.name:
            continue
        if stamp not in brought and not ops.contains(connection, stamp):
            raise InvalidOperationError(f"The head {stamp} is of an operation that has not arrived")
        if who.role == "admin" or _is_whole(connection, parcel, writer):
            heads[writer] = stamp
    return heads


def _is_whole(connection: Any, parcel: Parcel, writer: str) -> bool:
    """Tell whether all is here of the transactions that a writer's operations before a new head claim to be of.

    Who passes them on never splits a transaction, and would gather in memory all that comes after such a one.
    """
    strays = connection.execute("SELECT stamp FROM strays WHERE substr(stamp, 17) = ?", (writer,)).fetchall()
    arrived = [ops.get(connection, row[0]) for row in strays]
    found = {o.stamp: o for o in (*arrived, *parcel.operations) if o is not None and o.stamp[16:] == writer}
    here = Counter(operation.batch for operation in found.values())
    return all(o.batch is None or here[o.batch] >= o.batch_size for o in found.values())

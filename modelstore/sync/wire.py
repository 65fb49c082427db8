"""How what registries tell each other is written on the wire: JSON, and operations as lines of it.

A parcel is its operations, each as in any journal, and a line `{"heads": {…}}`. A stream of parcels ends with
`{"end": true}`; without that line it was cut off. What went wrong after the stream began is a line `{"error": {…}}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from modelstore.errors import InvalidOperationError, StorageUnavailableError
from modelstore.ids import is_digest, is_stamp
from modelstore.records.operations import Operation
from modelstore.registry.references import Reference
from modelstore.sync.partners import Knowledge, Parcel

__all__ = [
    "END",
    "OLDEST",
    "REGISTRY",
    "SPEAKS",
    "VERSION",
    "heads_line",
    "knowledge_record",
    "parcel_lines",
    "read_knowledge",
    "read_parcel",
    "read_parcels",
    "read_reference",
    "reference_record",
]

SPEAKS: Final = 1
"""Version of what is said. It grows when whoever speaks an older one would misunderstand, or would be misunderstood:
fields that may be left out, or passed over, are no new version."""
OLDEST: Final = 1
"""Oldest version in which the other side is understood."""
VERSION: Final = "Modelstore-Api"
"""Header in which a client says which version it speaks; without it he speaks the first."""
REGISTRY: Final = "Modelstore-Registry"
"""Header in which a server says whose heads it tells; without it they are of the registry that it has ever had."""

END: Final = '{"end":true}\n'
_MARKS: Final = ('{"heads"', '{"error"', '{"end"')


def knowledge_record(knowledge: Knowledge) -> dict[str, Any]:
    """Return what a registry has as JSON values."""
    return {"heads": dict(knowledge.heads), "strays": sorted(knowledge.strays)}


def read_knowledge(record: Any) -> Knowledge:
    """Read what `knowledge_record` made.

    Raises:
        InvalidOperationError: It is something else.
    """
    try:
        strays = frozenset(record["strays"])
        knowledge = Knowledge(_heads(record["heads"]), strays)
    except (TypeError, KeyError) as error:
        raise InvalidOperationError("What the other side says it has cannot be read") from error
    if not all(map(is_stamp, strays)):
        raise InvalidOperationError("What the other side says it has is no list of stamps")
    return knowledge


def parcel_lines(parcel: Parcel) -> Iterator[str]:
    """Yield the lines of a parcel."""
    for operation in parcel.operations:
        yield operation.to_json() + "\n"
    yield heads_line(parcel.heads)


def heads_line(heads: Mapping[str, str]) -> str:
    """Return the line that ends a parcel."""
    return json.dumps({"heads": dict(heads)}, separators=(",", ":")) + "\n"


def read_parcel(lines: Iterable[bytes]) -> Parcel:
    """Read one parcel that stands alone, checked; heads may be missing.

    Raises:
        InvalidOperationError: Something in it breaks the format.
    """
    found = list(read_parcels([*lines, b'{"heads":{}}\n', END.encode()]))
    operations = [operation for parcel in found for operation in parcel.operations]
    heads: dict[str, str] = {}
    for parcel in found:
        heads.update(parcel.heads)
    return Parcel(operations, heads, checked=True)


def read_parcels(lines: Iterable[bytes]) -> Iterator[Parcel]:
    """Yield the parcels of a stream, checked, each when it is complete.

    Raises:
        InvalidOperationError: Something in it breaks the format; what was yielded before is whole.
        StorageUnavailableError: The sender could not go on.
        ConnectionError: The stream was cut off.
    """
    operations: list[Operation] = []
    for line in lines:
        text = _text(line)
        if not text.startswith(_MARKS):
            if text.strip():
                operations.append(Operation.from_json(text))
            continue
        mark = _mark(text)
        if "heads" in mark:
            yield Parcel(operations, _heads(mark["heads"]), checked=True)
            operations = []
        elif "error" in mark:
            raise StorageUnavailableError(f"The other side could not go on: {mark['error']}")
        else:
            return
    raise ConnectionResetError("the stream of operations was cut off")


def reference_record(reference: Reference) -> dict[str, Any]:
    """Return what needs an object as JSON values."""
    return {name: getattr(reference, name) for name in ("digest", "name", "size", "entity", "what")}


def read_reference(record: Any) -> Reference:
    """Read what `reference_record` made.

    Raises:
        InvalidOperationError: It is something else.
    """
    try:
        found = Reference(*(record[name] for name in ("digest", "name", "size", "entity", "what")))
    except (TypeError, KeyError) as error:
        raise InvalidOperationError("What the other side lacks cannot be read") from error
    if not is_digest(found.digest) or not isinstance(found.name, str):
        raise InvalidOperationError("What the other side lacks has no digest")
    return found


def _text(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise InvalidOperationError("A line of operations is no UTF-8") from error


def _mark(text: str) -> dict[str, Any]:
    try:
        mark: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidOperationError(f"Not a line of operations: {text[:200]!r}") from error
    return mark


def _heads(heads: Any) -> dict[str, str]:
    if not isinstance(heads, Mapping):
        raise InvalidOperationError("Heads are no object of writers")
    for writer, stamp in heads.items():
        if not is_stamp(stamp) or stamp[16:] != writer:
            raise InvalidOperationError(f"The head of {str(writer)[:40]!r} is no stamp of that writer")
    return dict(heads)

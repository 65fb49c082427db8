"""What a download is told and what it tells; nothing that loads anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from modelstore.errors import IntegrityError
from modelstore.storage.fingerprints import Fingerprint
from modelstore.storage.uris import redact

__all__ = ["Download", "Resumable", "check_size"]


@dataclass(frozen=True, slots=True)
class Download:
    """What came.

    Attributes:
        fingerprint: Of the bytes in the file.
        etag: What identified the content at its origin; None if nothing did.
        received_bytes: How many of them came over the network this time.
    """

    fingerprint: Fingerprint
    etag: str | None
    received_bytes: int


class Resumable(Protocol):
    """What is known about an unfinished file, and where it is noted.

    Attributes:
        etag: Of the object whose beginning the file holds; None when it holds nothing.
        total_bytes: That object's length, if known.
    """

    @property
    def etag(self) -> str | None:
        """See above."""

    @property
    def total_bytes(self) -> int | None:
        """See above."""

    def begin(self, etag: str | None, total_bytes: int | None) -> None:
        """Note what the file will be the beginning of; called before its first byte."""


def check_size(uri: object, expected: int | None, found: int | None) -> None:
    """Refuse another size than expected; None on either side is no size.

    Raises:
        IntegrityError: They differ.
    """
    if expected is not None and found is not None and expected != found:
        raise IntegrityError(
            f"{redact(uri)!r} has {found} bytes, not the {expected} recorded for it.",
            "It was changed or damaged where it is kept.",
        )

"""What storages call the version of an object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["etag_of"]


def etag_of(info: Mapping[str, Any]) -> str | None:
    """Return what identifies the content of an object among what its driver tells about it, or None."""
    for key in ("ETag", "etag", "e_tag", "generation", "md5Hash", "content_md5", "blob_id", "sha"):
        value = info.get(key)
        if isinstance(value, str | int) and value != "":
            return str(value)
    return None

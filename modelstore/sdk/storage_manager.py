"""`StorageManager`: local copies of any URI, without a model."""

from __future__ import annotations

import logging
from os import PathLike

from modelstore.errors import ModelStoreError
from modelstore.records.entities import ModelRecord
from modelstore.registry.sources import Source, user_path
from modelstore.sdk._context import Registry, current_registry
from modelstore.storage.uris import redact

__all__ = ["StorageManager"]

logger = logging.getLogger("modelstore")


class StorageManager:
    """Files at any URI: fetch them into the cache, send them somewhere."""

    @classmethod
    def get_local_copy(
        cls,
        remote_url: str | PathLike[str],
        cache_context: str | None = None,
        extract_archive: bool = True,
        name: str | None = None,
        force_download: bool = False,
    ) -> str | None:
        """Return the path of a complete local copy of what is at a URI.

        Args:
            remote_url: Any URI that fsspec knows, or a path.
            cache_context: Accepted for compatibility; there is one cache.
            extract_archive: Return the folder with its content when it is an archive by its name.
            name: Accepted for compatibility.
            force_download: Fetch it again, although a copy is there.

        Returns:
            Path of the file or folder; None when it could not be had (the reason is logged).
        """
        _ = cache_context, name
        try:
            return fetch(current_registry(), remote_url, extract=extract_archive, force=force_download)
        except ModelStoreError as error:
            logger.error("No local copy of %s: %s", redact(remote_url), error)
            return None

    @classmethod
    def upload_file(
        cls, local_file: str | PathLike[str], remote_url: str, wait_for_upload: bool = True, retries: int | None = None
    ) -> str:
        """Send a file to a URI and return the URI when it is there.

        Args:
            local_file: The file.
            remote_url: Where to, file name included.
            wait_for_upload: Accepted for compatibility; the call always waits.
            retries: Accepted for compatibility; passing failures are retried for a while anyway.

        Raises:
            InvalidRequestError: It is no file, or the URI cannot be understood.
            StorageError: It could not be sent.
        """
        _ = wait_for_upload, retries
        from modelstore.storage.uploads import upload
        from modelstore.storage.uris import normalise

        path = user_path(local_file)
        Source.file(path, None)  # says what is wrong with it
        upload(path, normalise(remote_url))
        return remote_url


def fetch(registry: Registry, url: str | PathLike[str], *, extract: bool = False, force: bool = False) -> str:
    """Return the path of a complete local copy of what is at a URI.

    Raises:
        ModelStoreError: It could not be had.
    """
    uri = registry.weights.logical(url, kept=False)
    return str(registry.weights.local_copy(_nameless(uri), extract=extract, force=force))


def _nameless(uri: str) -> ModelRecord:
    return ModelRecord(
        0, "", 0, uri, None, None, None, None, None, None, uri, None, None, False, {}, None, None, (), (), False, 0, 0
    )

"""Weights of models: local copies, reading in place, looking into pickles."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import IO, TYPE_CHECKING

from modelstore.errors import ModelStoreError

if TYPE_CHECKING:
    from modelstore.records.entities import ModelRecord
    from modelstore.sdk._context import Registry
    from modelstore.storage.scanning import ScanReport

__all__ = ["ModelWeights"]

logger = logging.getLogger("modelstore")


class ModelWeights:
    """The part of the model classes that is about the bytes."""

    _registry: Registry
    _model_id: str | None

    def _record(self) -> ModelRecord:
        raise NotImplementedError

    def get_local_copy(
        self,
        extract_archive: bool | None = None,
        raise_on_error: bool = False,
        force_download: bool = False,
    ) -> str | None:
        """Return the path of a complete, verified, read-only local copy of the weights.

        Any number of processes may ask at once; remote weights are downloaded once. Weights that the registry holds on
        this machine are handed out in place. Other local files that were registered by URI are handed out as they are.

        Args:
            extract_archive: True unpacks an archive and returns the folder; False returns the file; None unpacks
                packages only.
            raise_on_error: Raise instead of returning None.
            force_download: Fetch remote weights again, although a copy is there.

        Returns:
            Path of the file or folder; None when there are no weights, or they could not be had and
            ``raise_on_error`` is False (the reason is logged).

        Raises:
            DownloadError: They could not be had; the cause is chained. Only with ``raise_on_error``.
        """
        return self._local(extract_archive, raise_on_error, force_download)

    def get_weights(
        self, raise_on_error: bool = False, force_download: bool = False, extract_archive: bool = False
    ) -> str | None:
        """Return the path of a local copy of the weights file; see `get_local_copy`.

        Raises:
            DownloadError: It could not be had. Only with ``raise_on_error``.
        """
        return self._local(extract_archive, raise_on_error, force_download)

    def get_weights_package(
        self,
        return_path: bool = False,
        raise_on_error: bool = False,
        force_download: bool = False,
        extract_archive: bool = True,
    ) -> str | list[Path] | None:
        """Return the files of a package.

        Args:
            return_path: Return the folder instead of what is in it.
            raise_on_error: Raise instead of returning None.
            force_download: Fetch it again, although a copy is there.
            extract_archive: False returns the archive itself, as a path or as a list of one.

        Returns:
            Paths of what the folder holds on its first level, sorted; or the folder; None when it could not be had.

        Raises:
            NotPackagedError: The model is a single file.
            DownloadError: It could not be had. Only with ``raise_on_error``.
        """
        if not self._is_package():
            from modelstore.errors import NotPackagedError

            raise NotPackagedError("Model is not packaged", "Use get_weights() or get_local_copy().")
        path = self._local(extract_archive, raise_on_error, force_download)
        if path is None or return_path:
            return path
        return sorted(Path(path).iterdir()) if extract_archive else [Path(path)]

    def open(self, member: str | None = None) -> IO[bytes]:
        """Return a seekable binary file over the weights, without downloading them as a whole.

        Bytes that are here already, in the registry or the cache, are verified and used; otherwise what is read is what
        the storage sends, block by block, all of one version. To be closed, or used as a context manager.

        Args:
            member: Name of a file in a package, such as "tokenizer/vocab.txt"; None for the weights as a whole.

        Raises:
            BlobNotFoundError: There are no weights, or no such member.
            IntegrityError: The bytes that are here are not what was stored; while reading: they were replaced.
            StorageError: They could not be had otherwise.
        """
        return self._registry.weights.open(self._settled(), member)

    def scan(self) -> ScanReport:
        """Return what loading the weights would import, found without loading or executing anything.

        They are fetched and verified first: what was looked at is what `get_local_copy` hands out.

        Raises:
            StorageError: They could not be had.
        """
        return self._registry.weights.scan(self._settled())

    def _settled(self) -> ModelRecord:
        """Return the row as it is once this process's uploads for it have ended, well or not."""
        if self._model_id is not None:
            self._registry.weights.wait(self._model_id, quiet=True)
        return self._record()

    def _is_package(self) -> bool:
        return self._record().package

    def _local(self, extract: bool | None, raise_on_error: bool, force: bool) -> str | None:
        from modelstore.errors import DownloadError

        record = self._settled()
        if record.uri is None:
            if raise_on_error:
                raise DownloadError(f"The model {record.name!r} ({record.id or 'not registered'}) has no weights yet")
            return None
        try:
            path = self._registry.weights.local_copy(record, extract=extract, force=force)
        except ModelStoreError as error:
            message = (
                f"Could not retrieve a local copy of model weights {record.id}, failed downloading "
                f"{self._registry.weights.shown(record.uri)}: {error}"
            )
            if raise_on_error:
                raise DownloadError(message) from error
            logger.error(message)
            return None
        return str(path)

"""Where this host keeps its private index of a shared registry."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from modelstore import config
from modelstore.errors import NetworkFilesystemError, ReadOnlyRegistryError, RegistryNotFoundError
from modelstore.registry import mounts

__all__ = ["known_index", "known_registry", "private_folder"]


def known_registry(location: Path | str) -> str:
    """Return the beginning of the id of the registry that this host last opened at a place that cannot be asked now.

    Raises:
        RegistryNotFoundError: It never opened any there.
    """
    index = known_index(location)
    if index is None:
        raise RegistryNotFoundError(
            f"This host knows nothing of a registry at {location}", "Open it once without MODELSTORE_OFFLINE."
        )
    return index.name[17:]


def known_index(location: Path | str) -> Path | None:
    """Return the private folder of the registry that this host last opened at a place; None when it opened none."""
    name = _place(location)
    folders = (config.index_folder(), _fallback() / "index")
    found = [one for folder in folders for one in folder.glob(f"{name}-*") if (one / "registry.db").exists()]
    return max(found, key=lambda one: one.stat().st_mtime, default=None)


def private_folder(location: Path | str, registry: str) -> Path:
    """Return the folder of this user's private index of a shared registry, made when it is missing.

    It lies on a local disk: where the user's home does not, in `/var/tmp`.

    Args:
        location: The registry's folder, or the URI of its bucket or server.
        registry: The registry's id.

    Raises:
        NetworkFilesystemError: `MODELSTORE_INDEX` names a network filesystem.
        ReadOnlyRegistryError: No folder can be written, or the one in `/var/tmp` belongs to somebody else.
    """
    name = f"{_place(location)}-{registry[:16]}"
    given = config.index_folder()
    network = mounts.network_filesystem(given)
    if network is not None and config.sources()["index"] == "MODELSTORE_INDEX":
        raise NetworkFilesystemError(
            f"MODELSTORE_INDEX names {given}, which lies on a network filesystem ({network})",
            "Name a folder on a local disk.",
        )
    if network is None:
        try:
            return _made(given / name)
        except OSError:
            if config.sources()["index"] == "MODELSTORE_INDEX":
                raise ReadOnlyRegistryError(f"{given} cannot be written", "Check MODELSTORE_INDEX.") from None
    own = _fallback()
    try:
        own.mkdir(mode=0o700, exist_ok=True)
        if own.is_symlink() or own.stat().st_uid != os.getuid():
            raise ReadOnlyRegistryError(f"{own} belongs to somebody else", "Set MODELSTORE_INDEX to a local folder.")
        return _made(own / "index" / name)
    except OSError as error:
        raise ReadOnlyRegistryError(
            f"No local folder for the index can be written ({error})", "Set MODELSTORE_INDEX to a local folder."
        ) from error


def _place(location: Path | str) -> str:
    text = os.path.realpath(location) if isinstance(location, Path) else location
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:16]


def _fallback() -> Path:
    return Path(f"/var/tmp/modelstore-{os.getuid()}")  # noqa: S108 - its owner is checked


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} cannot be written")
    return folder

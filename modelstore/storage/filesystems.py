"""The fsspec filesystem behind a URI: ClearML's spellings understood, drivers named when they are missing."""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
from typing import TYPE_CHECKING, Any, Final

from modelstore.errors import InvalidUriError, MissingDriverError
from modelstore.storage.failures import translated
from modelstore.storage.uris import local_path, normalise, redact, scheme, split_chain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fsspec import AbstractFileSystem

__all__ = ["EXTRAS", "drivers", "open_filesystem", "split_remote"]

EXTRAS: Final[Mapping[str, tuple[str, str]]] = {
    "s3": ("s3", "s3fs"),
    "s3a": ("s3", "s3fs"),
    "gs": ("gs", "gcsfs"),
    "gcs": ("gs", "gcsfs"),
    "az": ("azure", "adlfs"),
    "azure": ("azure", "adlfs"),
    "abfs": ("azure", "adlfs"),
    "abfss": ("azure", "adlfs"),
    "adl": ("azure", "adlfs"),
    "sftp": ("ssh", "sshfs"),
    "ssh": ("ssh", "sshfs"),
    "webdav": ("webdav", "webdav4"),
    "webdavs": ("webdav", "webdav4"),
    "dav": ("webdav", "webdav4"),
    "davs": ("webdav", "webdav4"),
}
"""Scheme to the extra that brings its driver, and the driver's module."""

_BUILT_IN: Final = ("file", "memory", "http", "https", "ftp", "zip", "tar")
_WEB_OPTIONS: Final = frozenset({"headers", "client_kwargs"})
_ARCHIVES: Final = frozenset({"zip", "tar", "libarchive"})
_CACHES: Final = frozenset({"simplecache", "filecache", "blockcache", "cached"})
_NO_STORAGE: Final = frozenset({"data", "dir", "generic"}) | _CACHES
_ALIASES: Final = {"azure": "az", "abfss": "abfs", "gcs": "gs", "davs": "webdav", "dav": "webdav", "webdavs": "webdav"}
_S3_WITH_HOST: Final = re.compile(r"s3a?://([^/]+:\d+)/([^/]+(?:/.*)?)", re.DOTALL)
_AZURE_WITH_HOST: Final = re.compile(
    r"(?:azure|az|abfss?)://([^./]+)\.(?:blob|dfs)\.core\.windows\.net(?::\d+)?/([^/]+(?:/.*)?)", re.DOTALL
)


def open_filesystem(
    uri: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None
) -> tuple[AbstractFileSystem, str]:
    """Return the filesystem that holds ``uri`` and the path of ``uri`` in it.

    Credentials come from where the driver itself looks for them: its environment variables and configuration files.
    Nothing is sent yet, except by drivers that connect when they are made (``ftp``, ``sftp``).

    Args:
        uri: Anything that `normalise` takes. ClearML's ``s3://host:port/bucket/key`` and
            ``azure://account.blob.core.windows.net/container/blob`` work as well.
        storage_options: The driver's own parameters; they win over what the URI says.

    Raises:
        InvalidUriError: The scheme is unknown, or the URI is not acceptable.
        MissingDriverError: The package that speaks this scheme is not installed; the hint says which extra does.
        StorageUnavailableError: The driver could not connect.
    """
    whole = normalise(uri)
    options = dict(storage_options or {})
    links = split_chain(whole)
    if len(links) > 1:
        return _open_chain(links, options)
    name = scheme(whole)
    if name == "file":
        path = local_path(uri)
        return _filesystem("file", {}), str(path)
    protocol, rest, implied = split_remote(whole)
    if protocol not in EXTRAS and protocol not in _BUILT_IN:
        implied = {**_read_by_driver(protocol, whole), **implied}
    _prepare(protocol, options)
    fs = _filesystem(protocol, {**implied, **options}, shown=whole)
    with translated(whole):
        return fs, str(fs._strip_protocol(rest))  # noqa: SLF001 - fsspec's own way to get the path


def split_remote(uri: str) -> tuple[str, str, dict[str, Any]]:
    """Return the driver's scheme, the URI as that driver understands it, and the options that the URI implies.

    Example:
        >>> split_remote("s3://minio:9000/bucket/key")
        ('s3', 's3://bucket/key', {'endpoint_url': 'http://minio:9000'})
    """
    name = scheme(uri)
    if match := _S3_WITH_HOST.fullmatch(uri):
        return "s3", f"s3://{match[2]}", {"endpoint_url": f"http://{match[1]}"}
    if match := _AZURE_WITH_HOST.fullmatch(uri):
        return "az", f"az://{match[2]}", {"account_name": match[1]}
    protocol = _ALIASES.get(name, name)
    rest = uri.partition("://")[2]
    if protocol == "webdav":
        # webdav4 wants the server as an option, and paths relative to it.
        host, _, path = rest.partition("/")
        secure = name in {"davs", "webdavs"}
        return "webdav", path, {"base_url": f"{'https' if secure else 'http'}://{host}"}
    if protocol in {"ftp", "sftp", "ssh"}:
        return protocol, uri, _host_options(rest)
    return protocol, f"{protocol}://{rest}", {}


def drivers() -> dict[str, str]:
    """Return each well-known scheme with ``ready``, or with the command that makes it so."""
    state = dict.fromkeys(_BUILT_IN, "ready")
    for name, (extra, module) in EXTRAS.items():
        state[name] = "ready" if _installed(module) else _install(extra)
    return state


def _host_options(rest: str) -> dict[str, Any]:
    user, _, place = rest.partition("/")[0].rpartition("@")
    host, colon, port = place.rpartition(":")
    if not colon or not port.isdigit():
        host, port = place, ""
    options: dict[str, Any] = {"host": host.strip("[]")}
    if user:
        options["username"] = user
    if port:
        options["port"] = int(port)
    return options


def _open_chain(links: list[str], options: dict[str, Any]) -> tuple[AbstractFileSystem, str]:
    """Open ``zip://inner::s3://bucket/outer.zip``: each archive is read out of what holds it.

    fsspec's own way does not decode file URIs, takes ClearML's spellings for bucket names, and its caches hand out
    files that are not complete.
    """
    *outer, last = links
    fs, path = open_filesystem(last, options.get(scheme(last)))
    for link in reversed(outer):
        protocol, _, inner = link.partition("://")
        if protocol in _CACHES:
            continue  # ours is above
        _known(protocol, link)
        if protocol not in _ARCHIVES:
            raise InvalidUriError(f"{redact(link)!r} cannot be read out of another URI.", "Archives can: zip, tar.")
        from modelstore.storage.reading import open_remote

        with translated(last):
            fs = _filesystem(protocol, {"fo": open_remote(fs, path, last), **options.get(protocol, {})}, shown=last)
        path = inner
    return fs, path


def _prepare(protocol: str, options: dict[str, Any]) -> None:
    if protocol == "gs" and (os.environ.get("STORAGE_EMULATOR_HOST") or options.get("endpoint_url")):
        # gcsfs asks about each bucket over gRPC, which an emulator does not answer: 60 s per bucket. Read at import.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    if protocol == "s3":
        # Its default of 10 parts of 50 MiB in memory comes to more than half a gigabyte.
        options.setdefault("max_concurrency", 4)
        if _installed("s3fs"):
            import inspect

            from s3fs import S3FileSystem

            # Compare the ETag of every answer that an open file brings: not every server heeds If-Match.
            if "local_expiry_check" in inspect.signature(S3FileSystem).parameters:
                options.setdefault("local_expiry_check", True)


def _filesystem(protocol: str, options: dict[str, Any], *, shown: str = "") -> AbstractFileSystem:
    _known(protocol, shown or protocol)
    if protocol in {"http", "https"} and not (options.keys() - _WEB_OPTIONS and _installed("aiohttp")):
        # fsspec's own takes a server that does not answer for a file that is not there.
        from modelstore.storage.webfiles import WebFileSystem

        return WebFileSystem(**options)
    import fsspec

    try:
        with translated(shown or protocol):
            return fsspec.filesystem(protocol, **options)
    except ImportError as error:
        raise _missing(protocol, error) from error
    except TypeError as error:
        raise InvalidUriError(
            f"{redact(shown or protocol)!r} does not say all that the driver of {protocol}:// needs: {error}.",
            f"fsspec reads its arguments from the environment too, as FSSPEC_{protocol.upper()}_<ARGUMENT>.",
        ) from error


def _read_by_driver(protocol: str, uri: str) -> dict[str, Any]:
    """Return the arguments that a driver which we know nothing of finds in a URI: ``github://org:repo@ref/path``."""
    _known(protocol, uri)
    import fsspec

    try:
        with translated(uri):
            driver = fsspec.get_filesystem_class(protocol)
            return dict(driver._get_kwargs_from_urls(uri))  # noqa: SLF001 - as fsspec.url_to_fs does
    except ImportError as error:
        raise _missing(protocol, error) from error


def _known(protocol: str, shown: str) -> None:
    if protocol in _BUILT_IN or protocol in EXTRAS:
        return
    if protocol == "modelstore":
        raise InvalidUriError(f"{shown!r} is an object of a registry.", "Ask that registry for it.")
    if protocol in _NO_STORAGE:
        raise InvalidUriError(f"{redact(shown)!r} names no storage.", "Name the one that it stands in front of.")
    import fsspec

    known = {*_BUILT_IN, *EXTRAS, *fsspec.available_protocols()}
    if protocol not in known:
        near = difflib.get_close_matches(protocol, sorted(known), n=3, cutoff=0.5)
        hint = f"Near it are: {', '.join(f'{one}://' for one in near)}." if near else "For a path, leave it out."
        raise InvalidUriError(f"{redact(shown)!r} has the unknown scheme {protocol!r}.", hint)


def _missing(protocol: str, error: ImportError) -> MissingDriverError:
    extra = EXTRAS.get(protocol, ("", ""))[0]
    message = f"The driver for {protocol}:// is not installed"
    return MissingDriverError(message, f"Run: {_install(extra)}" if extra else f"{error}.")


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # a broken installation, or one that forbids it
        return False


def _install(extra: str) -> str:
    return f'pip install "modelstore-local[{extra}]"'

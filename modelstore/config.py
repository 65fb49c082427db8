"""Settings: an argument wins over the environment, the environment over the default.

| variable | means | default |
|---|---|---|
| `MODELSTORE_REGISTRY` | the registry that the SDK classes use (folder or URI) | `registry` in the data directory |
| `MODELSTORE_CACHE` | folder of local copies of remote weights | `cache` in the cache directory |
| `MODELSTORE_HOME` | parent of both, in place of the user's data and cache directories | |
| `MODELSTORE_DEFAULT_OUTPUT_URI` | where weights go by default (also `CLEARML_DEFAULT_OUTPUT_URI`) | the registry |
| `MODELSTORE_ACTOR` | who makes changes | user@host |
| `MODELSTORE_INDEX` | local folder of the indexes of shared registries | `index` in the state directory |
| `MODELSTORE_OFFLINE` | 1 to read what is known of a shared registry, without asking for news | 0 |
| `MODELSTORE_CACHE_MAX_BYTES` | bound of the cache | from the free space |
| `MODELSTORE_TOKEN` | token for servers | what the file of tokens has for the address |
| `MODELSTORE_TOKENS` | file of tokens, which only its owner may read | `tokens` in the configuration directory |
| `MODELSTORE_PLAIN_HTTP` | 1 to send tokens to other machines over `http://`, where others may read them | 0 |
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from modelstore.errors import InvalidRequestError

__all__ = [
    "actor",
    "cache_folder",
    "cache_max_bytes",
    "default_output_uri",
    "index_folder",
    "offline",
    "plain_http",
    "registry_uri",
    "sources",
    "token",
    "tokens_file",
]

# Setting to the variables that decide it, the stronger first.
_VARIABLES: Final = {
    "registry": ("MODELSTORE_REGISTRY", "MODELSTORE_HOME"),
    "cache": ("MODELSTORE_CACHE", "MODELSTORE_HOME"),
    "index": ("MODELSTORE_INDEX", "MODELSTORE_HOME"),
    "cache_max_bytes": ("MODELSTORE_CACHE_MAX_BYTES",),
    "default_output_uri": ("MODELSTORE_DEFAULT_OUTPUT_URI", "CLEARML_DEFAULT_OUTPUT_URI"),
    "actor": ("MODELSTORE_ACTOR",),
}


def registry_uri() -> str:
    """Return the folder or URI of the registry that the SDK classes use."""
    return os.environ.get("MODELSTORE_REGISTRY") or str(_place("MODELSTORE_REGISTRY", "registry", "user_data_dir"))


def cache_folder() -> Path:
    """Return the folder that keeps local copies of remote weights."""
    given = os.environ.get("MODELSTORE_CACHE")
    if given:
        return Path(given).expanduser()
    home = os.environ.get("MODELSTORE_HOME")
    if home:
        return Path(home).expanduser() / "cache"
    import platformdirs

    return Path(platformdirs.user_cache_dir("modelstore", appauthor=False))


def index_folder() -> Path:
    """Return the folder of this host's private indexes of shared registries."""
    return _place("MODELSTORE_INDEX", "index", "user_state_dir").absolute()


def offline() -> bool:
    """Tell whether shared registries are read as they are known here, without asking their home."""
    return os.environ.get("MODELSTORE_OFFLINE", "") not in {"", "0"}


def plain_http() -> bool:
    """Tell whether tokens may go to other machines in the clear."""
    return os.environ.get("MODELSTORE_PLAIN_HTTP", "") not in {"", "0"}


def cache_max_bytes() -> int | None:
    """Return the bound of the cache in bytes; None lets the free space decide.

    Raises:
        InvalidRequestError: The variable is no whole number.
    """
    given = os.environ.get("MODELSTORE_CACHE_MAX_BYTES")
    if not given:
        return None
    try:
        return max(int(given), 0)
    except ValueError:
        raise InvalidRequestError(
            f"MODELSTORE_CACHE_MAX_BYTES is {given!r}, which is no number of bytes", "Give a whole number."
        ) from None


def default_output_uri() -> str | None:
    """Return where weights go when neither model nor task says; None for the registry itself."""
    return os.environ.get("MODELSTORE_DEFAULT_OUTPUT_URI") or os.environ.get("CLEARML_DEFAULT_OUTPUT_URI") or None


def actor() -> str:
    """Return who makes the changes of this process: "user@host" unless the environment says otherwise."""
    given = os.environ.get("MODELSTORE_ACTOR")
    if given:
        return given
    user = os.environ.get("USER") or os.environ.get("LOGNAME")
    if not user:
        try:
            import pwd

            user = pwd.getpwuid(os.getuid()).pw_name
        except (ImportError, KeyError):
            user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    return f"{user}@{os.uname().nodename if hasattr(os, 'uname') else 'localhost'}"


def token() -> str | None:
    """Return the token that servers are given, where the environment has one."""
    return os.environ.get("MODELSTORE_TOKEN") or None


def tokens_file() -> Path:
    """Return the file that has the tokens of servers by address."""
    return _place("MODELSTORE_TOKENS", "tokens", "user_config_dir")


def _place(variable: str, name: str, directory: str) -> Path:
    """Return what a variable names, else what has a name in `MODELSTORE_HOME` or in one of the user's directories."""
    given = os.environ.get(variable)
    if given:
        return Path(given).expanduser()
    home = os.environ.get("MODELSTORE_HOME")
    if home:
        return Path(home).expanduser() / name
    import platformdirs

    return Path(getattr(platformdirs, directory)("modelstore", appauthor=False)) / name


def sources() -> dict[str, str]:
    """Return where each setting comes from: the name of the variable that decides it, or "default"."""
    return {
        setting: next((name for name in variables if os.environ.get(name)), "default")
        for setting, variables in _VARIABLES.items()
    }

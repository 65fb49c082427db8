"""Tokens for servers: from the environment, or from a file that only its owner can read; never in a URI.

`MODELSTORE_TOKEN` is for every server that this process talks to. The file `tokens` in the user's configuration folder
(`MODELSTORE_TOKENS` names another) has a line for each server: its address and the token, with a space between.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from modelstore import config
from modelstore.errors import AccessDeniedError, InvalidRequestError
from modelstore.storage.secrets import replace_privately
from modelstore.storage.uris import normalise

__all__ = ["forget_token", "save_token", "token_for"]


def token_for(url: str) -> str | None:
    """Return the token for a server; None where there is none.

    Args:
        url: The server's address.

    Raises:
        AccessDeniedError: Others can read the file of tokens.
    """
    given = config.token()
    return given if given is not None else _read(config.tokens_file()).get(_address(url))


def save_token(url: str, token: str) -> Path:
    """Keep the token for a server in the file, in place of an older one; returns the file.

    Raises:
        InvalidRequestError: It is no token.
        AccessDeniedError: Others can read the file of tokens.
    """
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidRequestError("That is no token", "`modelstore token create` on the server prints one.")
    path = config.tokens_file()
    _write(path, _read(path) | {_address(url): token})
    return path


def forget_token(url: str) -> bool:
    """Drop the token for a server from the file; returns whether there was one."""
    path = config.tokens_file()
    tokens = _read(path)
    if tokens.pop(_address(url), None) is None:
        return False
    _write(path, tokens)
    return True


def _address(url: str) -> str:
    return normalise(url).rstrip("/")


def _read(path: Path) -> dict[str, str]:
    try:
        with path.open(encoding="utf-8") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise AccessDeniedError(f"Others can read the tokens in {path}", f"Run: chmod 600 {path}")
            lines = file.read().splitlines()
    except FileNotFoundError:
        return {}
    pairs = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    return {_address(pair[0]): pair[1] for pair in pairs if len(pair) == 2}


def _write(path: Path, tokens: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_privately(path, "".join(f"{address} {token}\n" for address, token in sorted(tokens.items())))

"""Who may ask a server for what: tokens, kept as hashes where every worker looks at them.

A token has 256 random bits, so its plain SHA-256 gives nothing away, and guessing one is hopeless however often it is
tried. What is bound to a token is bound to its name: who gets a new token of the same name goes on where he was.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from modelstore.errors import CorruptRegistryError, InvalidRequestError, NotFoundError
from modelstore.ids import now_ms, to_datetime
from modelstore.storage.buckets import Span
from modelstore.storage.secrets import replace_privately
from modelstore.sync.actors import Scribe

if TYPE_CHECKING:
    from modelstore.registry import Registry
    from modelstore.storage.buckets import ObjectStorage

__all__ = ["ANYBODY", "ROLES", "Role", "Token", "Tokens"]

Role = Literal["read", "write", "admin"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_PREFIX: Final = "mst_"
_EVER: Final = "tokens/ever"
"""Says that there was a token once."""
_REMEMBERED_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Token:
    """A token, without its secret.

    Attributes:
        name: Whose it is.
        role: "read", "write" (operations of its own actors, and bytes) or "admin" (passes on anybody's).
        actors: Patterns of further actors that it may write as.
        created: Milliseconds since 1970.
        sha256: Of the secret.
    """

    name: str
    role: Role
    actors: tuple[str, ...] = ()
    created: int = 0
    sha256: str = ""

    @property
    def created_at(self) -> datetime | None:
        """When it was made (aware, UTC)."""
        return to_datetime(self.created)

    def may(self, role: Role) -> bool:
        """Tell whether it may do what a role may."""
        return ROLES.index(self.role) >= ROLES.index(role)

    def writes_as(self, actor: str) -> bool:
        """Tell whether operations of an actor are its own."""
        return Scribe(self.name, self.actors).writes_as(actor)


ANYBODY: Final = Token("", "admin")
"""Who asks a server without tokens, which only this machine reaches."""


class Tokens:
    """The tokens of one server's registry.

    Args:
        registry: The registry.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._kept: _File | _Shelf = (
            _File(registry.private / "tokens.json") if registry.bucket is None else _Shelf(registry.bucket)
        )

    @property
    def wanted(self) -> bool:
        """Whether there were ever tokens: then nobody gets in without, even when all were revoked."""
        return self._kept.exists()

    def all(self) -> list[Token]:
        """Return the tokens, by name.

        Raises:
            CorruptRegistryError: The file cannot be read: then nobody is let in.
        """
        return sorted(self._kept.current().values(), key=lambda token: token.name)

    def create(self, name: str, role: Role, actors: tuple[str, ...] = ()) -> str:
        """Make a token and return its secret, which is kept nowhere.

        Raises:
            InvalidRequestError: The name is none, or taken; the role is unknown.
        """
        if not _NAME.fullmatch(name):
            raise InvalidRequestError(
                f"{name!r} is no name for a token", "Use letters, digits, '_', '.' and '-', at most 64."
            )
        if role not in ROLES:
            raise InvalidRequestError(f"Unknown role {role!r}", f"Use one of {', '.join(ROLES)}.")
        secret = _PREFIX + secrets.token_urlsafe(32)
        with self._registry.database.write(private=True):  # one at a time
            if not self._kept.add(Token(name, role, tuple(actors), now_ms(), _hash(secret))):
                raise InvalidRequestError(f"There is a token {name!r} already", "Revoke it first, or choose a name.")
        return secret

    def revoke(self, name: str) -> None:
        """Let a token open nothing any more.

        Every worker knows with its next request; of a registry in a bucket or database, which servers on several hosts
        may serve, all know within two seconds.

        Raises:
            NotFoundError: There is none of that name.
        """
        with self._registry.database.write(private=True):
            if not self._kept.drop(name):
                raise NotFoundError(f"There is no token {name!r}", "`modelstore token ls` lists them.")

    def find(self, secret: str) -> Token | None:
        """Return the token with that secret; None where there is none."""
        digest = _hash(secret)
        found = None
        for known, token in self._kept.current().items():
            if hmac.compare_digest(known, digest):
                found = token
        return found


class _File:
    """Tokens in a file of the server's host."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[tuple[int, int, int] | None, dict[str, Token]] = (None, {})

    def exists(self) -> bool:
        return self._path.exists()

    def current(self) -> dict[str, Token]:
        """Return the tokens by their hashes; read again when the file looks different."""
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            return {}
        looks = (status.st_mtime_ns, status.st_ino, status.st_size)
        if self._seen[0] != looks:
            self._seen = (looks, self._load())
        return self._seen[1]

    def add(self, token: Token) -> bool:
        """Keep a token; False when there is one of that name."""
        tokens = self._load()
        if any(one.name == token.name for one in tokens.values()):
            return False
        self._store([*tokens.values(), token])
        return True

    def drop(self, name: str) -> bool:
        """Keep a token no longer; False when there is none of that name."""
        tokens = self._load()
        left = [token for token in tokens.values() if token.name != name]
        if len(left) == len(tokens):
            return False
        self._store(left)
        return True

    def _load(self) -> dict[str, Token]:
        try:
            records = json.loads(self._path.read_text(encoding="utf-8"))["tokens"]
            found = [_token(one) for one in records]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorruptRegistryError(
                f"{self._path} cannot be read", "Restore it, or make the tokens anew."
            ) from error
        return {token.sha256: token for token in found}

    def _store(self, tokens: list[Token]) -> None:
        record = {"format": 1, "tokens": [asdict(token) for token in tokens]}
        replace_privately(self._path, json.dumps(record, indent=1))


class _Shelf:
    """Tokens beside the journal of a registry in a bucket or database, an object each: for servers on several hosts."""

    def __init__(self, storage: ObjectStorage) -> None:
        self._storage = storage
        self._looked_at = -_REMEMBERED_S
        self._seen: tuple[bool, dict[str, Token]] = (False, {})

    def exists(self) -> bool:
        return self._look()[0]

    def current(self) -> dict[str, Token]:
        """Return the tokens by their hashes, as they were a moment ago."""
        return self._look()[1]

    def _look(self) -> tuple[bool, dict[str, Token]]:
        """Return whether there was ever a token, and those of a moment ago: one listing for many requests."""
        if time.monotonic() - self._looked_at >= _REMEMBERED_S:
            self._seen, self._looked_at = self._load(), time.monotonic()
        return self._seen

    def add(self, token: Token) -> bool:
        """Keep a token; False when there is one of that name."""
        self._storage.write(_EVER, b"1")
        text = json.dumps(asdict(token), indent=1).encode()
        added = self._storage.create(f"tokens/{token.name}.json", text)
        self._looked_at = -_REMEMBERED_S
        return added

    def drop(self, name: str) -> bool:
        """Keep a token no longer; False when there is none of that name."""
        there = self._storage.size(f"tokens/{name}.json") is not None
        self._storage.remove([f"tokens/{name}.json"])
        self._looked_at = -_REMEMBERED_S
        return there

    def _load(self) -> tuple[bool, dict[str, Token]]:
        names = [f"tokens/{entry.name}" for entry in self._storage.entries("tokens")]
        texts = self._storage.read_many([Span(name, 0, None) for name in names if name.endswith(".json")])
        try:
            found = [_token(json.loads(text)) for text in texts if text is not None]
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptRegistryError(
                f"A token at {self._storage.address('tokens')} cannot be read", "Revoke it, and make it anew."
            ) from error
        return _EVER in names, {token.sha256: token for token in found}


def _token(record: Any) -> Token:
    return Token(**{**record, "actors": tuple(record["actors"])})


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()

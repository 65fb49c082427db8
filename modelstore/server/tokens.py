"""Who may ask a server for what: tokens, kept as hashes in a file that every worker looks at with every request.

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
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal, get_args

from modelstore.errors import CorruptRegistryError, InvalidRequestError, NotFoundError
from modelstore.ids import now_ms, to_datetime
from modelstore.sync.actors import Scribe

if TYPE_CHECKING:
    from modelstore.registry import Registry

__all__ = ["ANYBODY", "ROLES", "Role", "Token", "Tokens"]

Role = Literal["read", "write", "admin"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_PREFIX: Final = "mst_"


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
        self._path = registry.private / "tokens.json"
        self._seen: tuple[tuple[int, int, int] | None, dict[str, Token]] = (None, {})

    @property
    def wanted(self) -> bool:
        """Whether there were ever tokens: then nobody gets in without, even when all were revoked."""
        return self._path.exists()

    def all(self) -> list[Token]:
        """Return the tokens, by name.

        Raises:
            CorruptRegistryError: The file cannot be read: then nobody is let in.
        """
        return sorted(self._current().values(), key=lambda token: token.name)

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
            tokens = self._load()
            if any(token.name == name for token in tokens.values()):
                raise InvalidRequestError(f"There is a token {name!r} already", "Revoke it first, or choose a name.")
            self._store([*tokens.values(), Token(name, role, tuple(actors), now_ms(), _hash(secret))])
        return secret

    def revoke(self, name: str) -> None:
        """Let a token open nothing any more; every worker knows with its next request.

        Raises:
            NotFoundError: There is none of that name.
        """
        with self._registry.database.write(private=True):
            tokens = self._load()
            left = [token for token in tokens.values() if token.name != name]
            if len(left) == len(tokens):
                raise NotFoundError(f"There is no token {name!r}", "`modelstore token ls` lists them.")
            self._store(left)

    def find(self, secret: str) -> Token | None:
        """Return the token with that secret; None where there is none."""
        digest = _hash(secret)
        found = None
        for known, token in self._current().items():
            if hmac.compare_digest(known, digest):
                found = token
        return found

    # -- the file ------------------------------------------------------------------------------------------------------

    def _current(self) -> dict[str, Token]:
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            return {}
        looks = (status.st_mtime_ns, status.st_ino, status.st_size)
        if self._seen[0] != looks:
            self._seen = (looks, self._load())
        return self._seen[1]

    def _load(self) -> dict[str, Token]:
        try:
            records = json.loads(self._path.read_text(encoding="utf-8"))["tokens"]
            found = [Token(**{**one, "actors": tuple(one["actors"])}) for one in records]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorruptRegistryError(
                f"{self._path} cannot be read", "Restore it, or make the tokens anew."
            ) from error
        return {token.sha256: token for token in found}

    def _store(self, tokens: list[Token]) -> None:
        temporary = self._path.with_name(f"{self._path.name}.{os.urandom(6).hex()}.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump({"format": 1, "tokens": [asdict(token) for token in tokens]}, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        except BaseException:
            with suppress(FileNotFoundError):
                temporary.unlink()
            raise


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()

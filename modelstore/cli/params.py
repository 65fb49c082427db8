"""From words of the command line to values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import CompletionItem

from modelstore.errors import InvalidRequestError, ModelStoreError
from modelstore.records.literals import literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    TextType = click.ParamType[str]
    NumberType = click.ParamType[int]
    TimeType = click.ParamType[float]
else:
    TextType = NumberType = TimeType = click.ParamType  # generic in recent versions only

__all__ = ["BYTES", "DURATION", "MODEL", "ModelName", "pairs", "tag_tokens", "typed"]

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgtp])(i?)b?|b)?", re.IGNORECASE)
_POWERS: Final = {"k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_TIME: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw]?)", re.IGNORECASE)
_SECONDS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_OFFERED: Final = 50


class ModelName(TextType):
    """A model: its id, the beginning of one, or its name; completed from the registry."""

    name = "model"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the models whose id or name begins like that, the newest first; none where there is no registry."""
        _ = param
        from modelstore.cli.session import session_of
        from modelstore.registry import open_registry
        from modelstore.registry.lookup import beginning_with

        try:
            with open_registry(session_of(ctx).uri, create=False) as registry:
                found = beginning_with(registry, incomplete, _OFFERED)
        except ModelStoreError:
            return []  # a shell that waits for completions has no place for errors
        return [CompletionItem(text, help=name) for text, name in found]


MODEL: Final = ModelName()


class _Bytes(NumberType):
    """A number of bytes: `500000`, `500MB`, `20GiB`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{value!r} is no size; write 500000, 500MB or 20GiB", param, ctx)
        power = _POWERS[match[2].lower()] if match[2] else 0
        return int(float(match[1]) * (1024 if match[3] else 1000) ** power)


BYTES: Final = _Bytes()


class _Duration(TimeType):
    """A length of time: `90`, `15m`, `24h`, `30d`, `2w`; in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        if isinstance(value, (int, float)):
            return float(value)
        match = _TIME.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{value!r} is no length of time; write 90s, 15m, 24h or 30d", param, ctx)
        return float(match[1]) * _SECONDS[match[2].lower()]


DURATION: Final = _Duration()


def pairs(words: Iterable[str], what: str) -> dict[str, str]:
    """Return ``KEY=VALUE`` words as a dictionary.

    Raises:
        UsageError: One has no key or no ``=``, or two have one key.
    """
    found: dict[str, str] = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator or not key:
            raise click.UsageError(f"{what} is written KEY=VALUE, not {word!r}")
        if key in found:
            raise click.UsageError(f"{what} {key!r} is given twice")
        found[key] = value
    return found


def typed(words: Mapping[str, str]) -> dict[str, Any]:
    """Return values as what they look like: JSON where it is JSON, text otherwise.

    So ``0.9`` is a number, ``true`` a truth value, ``[1, 2]`` a list, ``007`` and ``v2`` are text; ``"0.9"`` with its
    quotes is text as well.
    """
    import json

    values: dict[str, Any] = {}
    for key, word in words.items():
        try:
            values[key] = json.loads(word)
        except (ValueError, RecursionError):
            values[key] = word
    return values


def tag_tokens(words: Sequence[str]) -> list[str] | None:
    """Return a tag query: each word is one token, or a list of tokens as JSON or Python writes it.

    Raises:
        InvalidRequestError: A word begins and ends like a list and is none.
    """
    tokens: list[str] = []
    for word in words:
        text = word.strip()
        if text.startswith("[") and text.endswith("]"):
            tokens.extend(_listed(text))
        else:
            tokens.append(word)
    return tokens or None


def _listed(text: str) -> list[Any]:
    import json

    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        try:
            value = literal(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            value = None
    if not isinstance(value, list):
        raise InvalidRequestError(f"{text!r:.200} is no list of tags", 'Write it as in \'["a", "b"]\'.')
    return value

"""Cut the text of a condition into tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from modelstore.errors import WhereSyntaxError

__all__ = ["Token", "TokenKind", "refuse", "tokenize"]

TokenKind = Literal["text", "number", "time", "word", "symbol", "end"]

_TOKEN: Final = re.compile(
    r"""
    (?P<space>\s+)
  | (?P<time>\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?)?(?![\w.]))
  | (?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)(?P<unit>[A-Za-z]*)(?![\w.])
  | (?P<word>[^\W\d]\w*(?:\.[^\W\d]\w*)*)
  | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
  | (?P<symbol>==|!=|<=|>=|&&|\|\||[-+]inf\b|[=<>!(),.])
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE: Final = re.compile(r"""\\(?:(["'\\nrt])|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))""")
_PLAIN: Final = {"n": "\n", "r": "\r", "t": "\t"}
_UNITS: Final = {
    unit: factor**power
    for factor, units in (
        (1000, ("b", "kb", "mb", "gb", "tb", "pb")),
        (1024, ("", "kib", "mib", "gib", "tib", "pib")),
    )
    for power, unit in enumerate(units)
}


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the text.

    Attributes:
        kind: What it is.
        text: As written.
        position: Where it begins, in characters.
        value: What a text or number stands for.
    """

    kind: TokenKind
    text: str
    position: int
    value: str | int | float = ""


def refuse(text: str, position: int, reason: str) -> WhereSyntaxError:
    """Return the error that points at a position; the text is shown on one line, so that the caret fits."""
    return WhereSyntaxError("".join(c if c.isprintable() else " " for c in text), position, reason)


def tokenize(text: str) -> list[Token]:
    """Cut a condition into tokens; the last one is of kind "end".

    Raises:
        WhereSyntaxError: Something in it is no token.
    """
    tokens: list[Token] = []
    position = 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise refuse(text, position, _nothing(text[position:]))
        kind, written = found.lastgroup, found.group()
        if kind in ("number", "unit"):
            tokens.append(Token("number", written, position, _number(text, position, found)))
        elif kind == "text":
            tokens.append(Token("text", written, position, _unquoted(text, position, written)))
        elif kind == "symbol" and written in ("-inf", "+inf"):
            tokens.append(Token("number", written, position, float(written)))
        elif kind in ("time", "word", "symbol"):
            tokens.append(Token(kind, written, position))  # type: ignore[arg-type]
        position = found.end()
    return [*tokens, Token("end", "", len(text))]


def _nothing(rest: str) -> str:
    if rest[0] in "\"'":
        return "This quote is not closed"
    if rest[0].isdigit():
        return "This is neither a number nor a date"
    return f"{rest[0]!r} is not understood here"


def _number(text: str, position: int, found: re.Match[str]) -> int | float:
    digits, unit = found["number"], found["unit"].lower()
    if unit not in _UNITS:
        raise refuse(text, position, f"Unknown unit {found['unit']!r}; sizes are written 10MB or 10MiB")
    try:
        number: int | float = int(digits)
    except ValueError:
        try:
            number = float(digits)
        except ValueError:  # more digits than int() takes, which float() would have taken
            raise refuse(text, position, "The number is too long") from None
    return number * _UNITS[unit] if unit else number


def _unquoted(text: str, position: int, written: str) -> str:
    def replace(found: re.Match[str]) -> str:
        plain, short, long = found.groups()
        if plain:
            return _PLAIN.get(plain, plain)
        code = int(short or long, 16)
        if code > 0x10FFFF or 0xD800 <= code < 0xE000:
            raise refuse(text, position, f"{found.group()} is no character")
        return chr(code)

    # Other backslashes stay: '\d+' is the regular expression it looks like.
    return _ESCAPE.sub(replace, written[1:-1])

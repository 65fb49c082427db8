"""Words: what full-text search looks for, and where one text is found in others.

Text is cut into words here and nowhere else, by the index too, so that what the index finds and what `mentions` says
cannot differ. Case and accents make no difference, compatibility forms neither (``ﬁ`` is ``fi``). Punctuation
separates words; so do ``_`` and ``-``, since names are written with them. A Chinese or Japanese character is a word of
its own, as these scripts have no spaces, and so is a symbol such as an emoji.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["BREAK", "MAX_WORDS", "Phrase", "document", "mentions", "occurs", "phrases"]

BREAK: Final = "\x1f"
"""Between the fields of one text: no phrase goes across it."""

MAX_WORDS: Final = 64
"""Words that one search may have."""

_LONGEST: Final = 64
"""Characters of a word that count: a digest in hex fits."""

_BREAK_WORD: Final = "¶"  # by itself a separator, so no text and no question has it as a word
_PART: Final = re.compile(r'"([^"]*)"?|([^\s"]+)')
_CURLY: Final = str.maketrans("“”„", '"""')
_ALONE: Final = ((0x3040, 0x30FF), (0x3400, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))


class _Classes(dict[int, str]):
    """For each character what stands for it: itself, itself alone, a space, or nothing; found out once."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        if unicodedata.combining(character) or category == "Cf" or 0xFE00 <= code <= 0xFE0F:
            found = ""  # accents, joiners, variation selectors
        elif category == "So" or any(first <= code <= last for first, last in _ALONE):
            found = f" {character} "
        else:
            found = character if category[0] in "LNM" or category == "Co" else " "
        self[code] = found
        return found


_classes: Final = _Classes({ord(BREAK): f" {_BREAK_WORD} "})


def _words(text: str) -> list[str]:
    if not text.isascii():
        text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return [word[:_LONGEST] for word in text.lower().translate(_classes).split()]


def document(fields: Iterable[str]) -> list[str]:
    """Return the words of several texts, in order, with a mark between one text and the next."""
    return _words(BREAK.join(fields))


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words that must follow one another; the last may be the beginning of a word, unless it was quoted."""

    words: tuple[str, ...]
    whole: bool


@lru_cache(maxsize=256)
def phrases(text: str) -> tuple[Phrase, ...]:
    """Return what a search asks for, all of which must be found; nothing where it has no word.

    Args:
        text: As people type it: words, parts of words, and phrases in double quotes.
    """
    found: dict[Phrase, None] = {}
    for quoted, plain in _PART.findall(text.translate(_CURLY).replace(BREAK, " ")):
        words = tuple(_words(quoted or plain))
        if words:
            found[Phrase(words, bool(quoted))] = None
    return tuple(found)


def occurs(phrase: Phrase, words: Sequence[str]) -> bool:
    """Tell whether a phrase is found among the words of a text."""
    *firsts, last = phrase.words
    size = len(phrase.words)
    for start in range(len(words) - size + 1):
        end = words[start + size - 1]
        if (end == last or (not phrase.whole and end.startswith(last))) and [
            *words[start : start + size - 1]
        ] == firsts:
            return True
    return False


def mentions(text: str, fields: Iterable[str]) -> bool:
    """Tell whether everything that a search asks for is found in a model's texts; in which of them does not matter."""
    words = document(fields)
    return all(occurs(phrase, words) for phrase in phrases(text))

"""Lists of tags: two ways of reading one notation.

`page` is what ClearML's documentation says and the reading used everywhere; `clearml-server` is what ClearML's own
server does with the same list, used where a real ClearML client is answered. They differ: the server has three
buckets in place of groups.
"""

from __future__ import annotations

import difflib
from typing import Final, Literal

from modelstore.errors import TagQueryError
from modelstore.query.tree import (
    MAX_TERMS,
    HasTag,
    Node,
    Not,
    Untagged,
    all_of,
    any_of,
    negate,
)

__all__ = ["OPERATORS", "Dialect", "parse_tags"]

Dialect = Literal["page", "clearml-server"]

OPERATORS: Final = {
    "__$and": "and",
    "__$all": "and",
    "__$or": "or",
    "__$any": "or",
    "__$not": "not",
    "__$nop": "nop",
}
"""The words with a meaning of their own. No tag begins with ``__$``."""

_PREFIX: Final = "__$"


def parse_tags(tags: object, *, dialect: Dialect = "page") -> Node | None:
    """Read a list of tags with operators.

    Args:
        tags: A list or tuple of strings, such as ``["a", "b", "__$not", "c"]``; None and the empty list ask nothing.
        dialect: Which reading. "clearml-server" also takes None among the tags ("or has no tags") and a bare string.

    Returns:
        The condition; None where the list asks nothing, as lists of operators alone do.

    Raises:
        TagQueryError: The list is malformed; the error names the position.
    """
    if tags is None:
        return None
    if dialect == "clearml-server":
        return _ServerReading(_tokens([tags] if isinstance(tags, str) else tags)).read()
    if isinstance(tags, str):
        raise TagQueryError((tags,), 0, f"a list of tags is needed, not a bare string: write [{tags!r}]")
    return _read_page(_tokens(tags))


def _tokens(tags: object) -> tuple[object, ...]:
    if not isinstance(tags, (list, tuple)):
        raise TagQueryError((tags,), 0, f"a list of tags is needed, not {type(tags).__name__}")
    if len(tags) > MAX_TERMS:
        raise TagQueryError((*tags[:3], "…"), 3, f"more than {MAX_TERMS} tags")
    return tuple(tags)


def _read_page(tokens: tuple[object, ...]) -> Node | None:
    """Query = term* (operator term*)*; operator = and | or | nop; term = tag | "-" tag | not tag."""
    default = _default_operator(tokens)
    groups: list[tuple[str, list[Node]]] = [(default, [])]
    position = 0
    while position < len(tokens):
        word = _word(tokens, position)
        operator = _operator(tokens, position, word)
        if operator == "not":
            groups[-1][1].append(Not(HasTag(_negated(tokens, position))))
            position += 1
        elif operator is not None:
            groups.append((default if operator == "nop" else operator, []))
        elif word.startswith("-"):
            if word == "-":
                raise TagQueryError(tokens, position, "a dash alone excludes nothing: write '-tag', or '__$not', '-'")
            groups[-1][1].append(Not(HasTag(word[1:])))
        else:
            groups[-1][1].append(HasTag(word))
        position += 1
    joined = [all_of(terms) if operator == "and" else any_of(terms) for operator, terms in groups if terms]
    if not joined:
        return None
    return all_of(joined) if default == "and" else any_of(joined)


def _default_operator(tokens: tuple[object, ...]) -> str:
    first = tokens[0] if tokens else None
    if not isinstance(first, str):
        return "or"
    return "and" if OPERATORS.get(first) in ("and", "not") or first.startswith("-") else "or"


def _word(tokens: tuple[object, ...], position: int) -> str:
    token = tokens[position]
    if not isinstance(token, str):
        raise TagQueryError(tokens, position, f"a tag is a string, not {type(token).__name__}")
    if not token:
        raise TagQueryError(tokens, position, "a tag is not empty")
    try:
        token.encode()
    except UnicodeEncodeError:
        raise TagQueryError(tokens, position, "a tag is valid Unicode") from None
    return str(token)


def _operator(tokens: tuple[object, ...], position: int, word: str) -> str | None:
    if not word.startswith(_PREFIX):
        return None
    if word in OPERATORS:
        return OPERATORS[word]
    begun = next((known for known in OPERATORS if word.startswith(known)), None)
    near = difflib.get_close_matches(word, OPERATORS, 1)
    if begun is not None:
        hint = f"did you forget a comma, {begun!r}, {word[len(begun) :]!r}?"
    elif near:
        hint = f"did you mean {near[0]!r}?"
    else:
        hint = f"operators are {', '.join(OPERATORS)}, and no tag begins with {_PREFIX}"
    raise TagQueryError(tokens, position, f"unknown operator {word!r}: {hint}")


def _negated(tokens: tuple[object, ...], position: int) -> str:
    """Return the tag after a `__$not`, which is taken literally, dash and all."""
    if position + 1 == len(tokens):
        raise TagQueryError(tokens, position, "'__$not' at the end: a tag must follow it")
    word = _word(tokens, position + 1)
    if _operator(tokens, position + 1, word) is not None:
        raise TagQueryError(tokens, position, f"'__$not' before {word!r}: a tag must follow it")
    return word


class _ServerReading:
    """Terms fall into three buckets, any of, all of and none of, whatever stands between them."""

    def __init__(self, tokens: tuple[object, ...]) -> None:
        self._tokens = tokens
        self._any: list[Node] = []
        self._all: list[Node] = []
        self._none: list[Node] = []
        self._untagged = False
        self._join: str | None = None  # the first operator, or "and" where a term comes first
        self._context = "or"
        self._dash_excludes = True

    def read(self) -> Node | None:
        negated_at: int | None = None
        for position, token in enumerate(self._tokens):
            operator = self._operator(position, token)
            if operator == "nop":
                negated_at, self._context, self._dash_excludes = None, "or", True
                self._join = self._join or "and"
            elif negated_at is not None and (operator is not None or token is None):
                self._refuse(position, "Value is expected after", "field=tags, operator=__$not")
            elif operator == "not":
                negated_at = position
            elif operator is not None:
                self._join, self._context, self._dash_excludes = self._join or operator, operator, False
            else:
                self._take(position, token, negated=negated_at is not None)
                negated_at = None
        if negated_at is not None:
            self._refuse(negated_at, "Value is expected after", "operator=__$not")
        return self._result()

    def _operator(self, position: int, token: object) -> str | None:
        if not isinstance(token, str) or not token.startswith(_PREFIX):
            return None
        if token not in OPERATORS:
            self._refuse(position, "Unsupported operator", f"field=tags, operator={token}")
        return OPERATORS[token]

    def _take(self, position: int, token: object, *, negated: bool) -> None:
        self._join = self._join or "and"
        if token is None:
            self._untagged = True
        elif not isinstance(token, str):
            self._refuse(position, "invalid value type, string expected", f"field=tags, value={token}")
        elif negated:
            self._none.append(HasTag(token))
        elif self._dash_excludes and token.startswith("-"):
            if len(token) == 1:
                self._refuse(position, "Value is expected after", "field=tags, operator=-")
            self._none.append(HasTag(token[1:]))
        else:
            (self._all if self._context == "and" else self._any).append(HasTag(token))

    def _result(self) -> Node | None:
        parts: list[Node] = []
        if self._any:
            parts.append(any_of(self._any))
        if self._all:
            parts.append(all_of(self._all))
        if self._none:
            parts.append(negate(any_of(self._none)))
        if not parts:
            return Untagged() if self._untagged else None
        node = any_of(parts) if self._join == "or" else all_of(parts)
        return any_of([node, Untagged()]) if self._untagged else node

    def _refuse(self, position: int, what: str, facts: str) -> None:
        # The server's own words: a ClearML client shows them to people who know them.
        raise TagQueryError(self._tokens, position, f"Invalid value for fields ({what}): {facts}")

"""Conditions written as text: ``accuracy > 0.9 and tag('prod') and not framework == "ONNX"``.

    condition   = conjunction { ("or" | "||") conjunction }
    conjunction = negation { ("and" | "&&") negation }
    negation    = { "not" | "!" } primary
    primary     = "(" condition ")" | "tag" "(" text ")" | text | "exists" "(" target ")" | "search" "(" text ")"
                | "untagged" | "true" | "false" | comparison
    comparison  = target operator value | target ["not"] "in" "(" [value {"," value}] ")"
                | target ["not"] ("contains" | "matches") text | flag
    operator    = "==" | "=" | "!=" | "<" | "<=" | ">" | ">="
    target      = "meta" "(" text ")" [".text"] | "field" "(" text ")"
                | "metric" "(" text "," text ")" [".last" | ".min" | ".max"] | name
    value       = text | number [unit] | time | "true" | "false" | "inf" | "nan"

Words are case-insensitive. A name alone is a field of the model where there is one of that name, else a metadata
key; a flag is one of the fields `archived`, `package`, `published` standing alone. Text alone is a tag.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Final

from modelstore.errors import InvalidRequestError, WhereSyntaxError
from modelstore.query.expressions import Search
from modelstore.query.fields import FIELDS, Kind, check_text, constant
from modelstore.query.tokens import Token, refuse, tokenize
from modelstore.query.tree import (
    FALSE,
    MAX_DEPTH,
    TRUE,
    Compare,
    FieldTarget,
    HasTag,
    MetaTarget,
    MetricTarget,
    Node,
    Not,
    Op,
    Stat,
    Target,
    TextTarget,
    Untagged,
    all_of,
    any_of,
)

__all__ = ["parse_where"]

_OPERATORS: Final[dict[str, Op]] = {"==": "==", "=": "==", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_FUNCTIONS: Final = ("tag", "meta", "field", "metric", "exists", "search")
_VALUES: Final = {"true": True, "false": False, "inf": float("inf"), "nan": float("nan")}
_STATS: Final[dict[str, Stat]] = {"last": "last", "min": "min", "max": "max", "mean": "mean"}


def parse_where(text: str, fields: Mapping[str, Kind] = FIELDS) -> Node:
    """Read a condition written as text.

    Args:
        text: Such as ``accuracy > 0.9 and (tag('prod') or created >= 2026-03-01)``.
        fields: The fields that names alone may stand for.

    Raises:
        WhereSyntaxError: It cannot be read; the message has a caret under the offending place.
        InvalidRequestError: It is no string.
    """
    if not isinstance(text, str):
        raise InvalidRequestError(f"A condition is text, not {text!r}")
    try:
        return _Parser(text, fields).parse()
    except WhereSyntaxError:
        raise
    except InvalidRequestError as error:  # too deep or too many terms, which no one place is to blame for
        raise refuse(text, 0, str(error)) from error


class _Parser:
    def __init__(self, text: str, fields: Mapping[str, Kind]) -> None:
        self._text = text
        self._fields = fields
        self._tokens = tokenize(text)
        self._next = 0
        self._depth = 0

    def parse(self) -> Node:
        if self._peek().kind == "end":
            raise self._error("The condition is empty")
        node = self._condition()
        if self._peek().kind != "end":
            raise self._error(f"and, or, or the end is expected before {self._peek().text!r}")
        return node

    # One function per production.

    def _condition(self) -> Node:
        """Condition = conjunction { ("or" | "||") conjunction }."""
        parts = [self._conjunction()]
        while self._take("or", "||"):
            parts.append(self._conjunction())
        return any_of(parts) if len(parts) > 1 else parts[0]

    def _conjunction(self) -> Node:
        """Conjunction = negation { ("and" | "&&") negation }."""
        parts = [self._negation()]
        while self._take("and", "&&"):
            parts.append(self._negation())
        return all_of(parts) if len(parts) > 1 else parts[0]

    def _negation(self) -> Node:
        """Negation = { "not" | "!" } primary."""
        negations = 0
        while self._take("not", "!"):
            negations += 1
            if negations > MAX_DEPTH:
                raise self._error("Too many negations")
        node = self._primary()
        for _ in range(negations):
            node = Not(node)
        return node

    def _primary(self) -> Node:
        """Primary = "(" condition ")" | tag(…) | text | exists(…) | search(…) | constant | comparison."""
        token = self._peek()
        if self._take("("):
            return self._parenthesised()
        if token.kind == "text":
            self._next += 1
            return HasTag(self._checked(token, check_text, token.value, "A tag"))
        if token.kind == "word":
            name = token.text.lower()
            if self._calls("tag"):
                tag = self._string("a tag in quotes")
                self._expect(")")
                return HasTag(self._checked(self._tokens[self._next - 2], check_text, tag, "A tag"))
            if self._calls("search"):
                asked: Node = self._checked(self._peek(), Search, self._string("what to search for in quotes"))
                self._expect(")")
                return asked
            if self._calls("exists"):
                target = self._target()
                self._expect(")")
                return Compare(target, "exists")
            constants: dict[str, Node] = {"true": TRUE, "false": FALSE, "untagged": Untagged()}
            if name in constants and not self._compares(1):
                self._next += 1
                return constants[name]
        return self._comparison()

    def _parenthesised(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._error("Too many parentheses within one another")
        node = self._condition()
        self._expect(")")
        self._depth -= 1
        return node

    def _comparison(self) -> Node:
        """Comparison = target operator value | target ["not"] ("in" | "contains" | "matches") … | flag."""
        target = self._target()
        if self._peek().text == "!=":
            self._next += 1
            return Not(self._compare(target, "=="))
        if self._peek().text in _OPERATORS:
            operator = _OPERATORS[self._peek().text]
            self._next += 1
            return self._compare(target, operator)
        if self._is("not") and self._compares(1):
            self._next += 1
            return Not(self._worded(target))
        if self._compares(0):
            return self._worded(target)
        if isinstance(target, FieldTarget) and self._fields[target.name] == "flag":
            return Compare(target, "==", value=True)
        raise self._error("==, !=, <, <=, >, >=, in, contains or matches is expected here")

    def _worded(self, target: Target) -> Node:
        token = self._peek()
        self._next += 1
        word = token.text.lower()
        if word == "in":
            return self._member(target)
        operator: Op = "contains" if word == "contains" else "matches"
        return self._made(target, operator, self._string("text in quotes"), self._tokens[self._next - 1])

    def _member(self, target: Target) -> Node:
        self._expect("(")
        first = self._peek()
        values: list[Any] = []
        while not self._take(")"):
            if values:
                self._expect(",")
            values.append(self._value())
        return self._made(target, "in", values, first)

    def _compare(self, target: Target, operator: Op) -> Node:
        token = self._peek()
        return self._made(target, operator, self._value(), token)

    def _target(self) -> Target:
        """Target = meta(text)[.text] | field(text) | metric(text, text)[.last | .min | .max] | name."""
        token = self._peek()
        if token.kind != "word":
            raise self._error("A field, a metadata key, tag('…') or ( is expected here")
        if self._calls("meta"):
            key = self._checked(self._peek(), check_text, self._string("a metadata key in quotes"), "A metadata key")
            self._expect(")")
            return TextTarget(key) if self._attribute("text") else MetaTarget(key)
        if self._calls("field"):
            token = self._peek()
            name = self._string("a field in quotes")
            self._expect(")")
            return self._field(name, token)
        if self._calls("metric"):
            return self._metric()
        if self._tokens[self._next + 1].text == "(":
            near = difflib.get_close_matches(token.text.lower(), _FUNCTIONS, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_FUNCTIONS)}"
            raise self._error(f"Unknown function {token.text!r}; {hint}")
        if token.text.lower() in ("and", "or", "not", "in", "contains", "matches"):
            raise self._error(f"A condition is expected before {token.text!r}; for a key of that name write meta('…')")
        self._next += 1
        return FieldTarget(token.text) if token.text in self._fields else MetaTarget(token.text)

    def _metric(self) -> Target:
        title = self._checked(self._peek(), check_text, self._string("a title in quotes"), "A title")
        self._expect(",")
        series = self._checked(self._peek(), check_text, self._string("a series in quotes"), "A series")
        self._expect(")")
        stat = self._attribute(*_STATS)
        return MetricTarget(title, series, _STATS[stat] if stat else "last")

    def _value(self) -> Any:
        """Value = text | number | time | "true" | "false" | "inf" | "nan"."""
        token = self._peek()
        self._next += 1
        if token.kind in ("text", "number"):
            return token.value
        if token.kind == "time":
            return token
        if token.kind == "word" and token.text.lower() in _VALUES:
            return _VALUES[token.text.lower()]
        self._next -= 1
        if token.kind == "word":
            raise self._error(f"A value is expected here; text goes in quotes: '{token.text}'")
        raise self._error("A value is expected here: text in quotes, a number, a date, true or false")

    # What the productions share.

    def _made(self, target: Target, operator: Op, value: Any, at: Token) -> Node:
        times = isinstance(target, FieldTarget) and self._fields[target.name] == "time"
        for member in value if isinstance(value, list) else [value]:
            if isinstance(member, Token) and not times:
                raise refuse(self._text, member.position, "Only created and updated compare with dates")
        value = [_plain(v) for v in value] if isinstance(value, list) else _plain(value)
        return Compare(target, operator, self._checked(at, constant, target, operator, value))

    def _field(self, name: str, at: Token) -> FieldTarget:
        if name not in self._fields:
            near = difflib.get_close_matches(name, self._fields, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(self._fields)}"
            raise refuse(self._text, at.position, f"There is no field {name!r}; {hint}")
        return FieldTarget(name)

    def _checked(self, at: Token, check: Any, *facts: Any) -> Any:
        try:
            return check(*facts)
        except WhereSyntaxError:
            raise
        except InvalidRequestError as error:
            raise refuse(self._text, at.position, str(error)) from error

    def _peek(self) -> Token:
        return self._tokens[self._next]

    def _is(self, *words: str) -> bool:
        token = self._peek()
        return token.kind in ("word", "symbol") and token.text.lower() in words

    def _take(self, *words: str) -> bool:
        taken = self._is(*words)
        self._next += taken
        return taken

    def _expect(self, symbol: str) -> None:
        if not self._take(symbol):
            raise self._error(f"{symbol!r} is expected here")

    def _calls(self, name: str) -> bool:
        """Take ``name (``, if that comes next."""
        called = self._is(name) and self._tokens[self._next + 1].text == "("
        self._next += 2 * called
        return called

    def _compares(self, ahead: int) -> bool:
        """Tell whether the token that many places ahead begins the operator of a comparison."""
        token = self._tokens[min(self._next + ahead, len(self._tokens) - 1)]
        if token.kind == "symbol":
            return token.text == "!=" or token.text in _OPERATORS
        return token.kind == "word" and token.text.lower() in ("in", "contains", "matches")

    def _attribute(self, *names: str) -> str | None:
        if not self._take("."):
            return None
        if not self._is(*names):
            raise self._error(f"{' or '.join(names)} is expected after the dot")
        self._next += 1
        return self._tokens[self._next - 1].text.lower()

    def _string(self, what: str) -> str:
        token = self._peek()
        if token.kind != "text":
            raise self._error(f"{what[0].upper()}{what[1:]} is expected here")
        self._next += 1
        return str(token.value)

    def _error(self, reason: str) -> WhereSyntaxError:
        return refuse(self._text, self._peek().position, reason)


def _plain(value: Any) -> Any:
    return value.text if isinstance(value, Token) else value

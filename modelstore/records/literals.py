"""Python literals in what others wrote, read as data."""

from __future__ import annotations

import re
import threading
import warnings
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import ast

__all__ = ["literal", "parse_literal"]

# Python reads unknown escapes, and numbers that run into words, with a warning to whoever runs the program.
_DOUBTFUL: Final = re.compile(r"\\|\d[A-Za-z]")
_lock = threading.Lock()


def parse_literal(text: str) -> ast.Expression:
    """Return the tree of an expression; what Python would only warn of is an error.

    Raises:
        SyntaxError, ValueError, MemoryError, RecursionError: It is none.
    """
    import ast

    if not _DOUBTFUL.search(text):
        return ast.parse(text.strip(), mode="eval")
    with _lock, warnings.catch_warnings():  # which several threads must not do at once
        warnings.simplefilter("error")
        return ast.parse(text.strip(), mode="eval")


def literal(text: str) -> Any:
    """Return the value of a literal; nothing is executed.

    Raises:
        SyntaxError, ValueError, TypeError, MemoryError, RecursionError: It is none.

    Example:
        >>> literal("{'shape': (2, 3)}")
        {'shape': (2, 3)}
    """
    import ast

    return ast.literal_eval(parse_literal(text))

"""What goes wrong: exit codes, and one line about it on standard error."""

from __future__ import annotations

import os
import sys
from typing import Final

import click

from modelstore import errors
from modelstore.cli.output import plain, styled

__all__ = ["CODES", "FAILURE", "INTERRUPTED", "NOBODY_READS", "SUSPECT", "USAGE", "exit_code", "report"]

FAILURE: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
DAMAGED: Final = 4
SUSPECT: Final = 5
INTERRUPTED: Final = 130
NOBODY_READS: Final = 141

CODES: Final[dict[type[BaseException], int]] = {
    errors.ModelStoreError: FAILURE,
    errors.InvalidRequestError: USAGE,
    # Nothing is wrong with the words of these; the model or the archive is not in the state that is needed.
    errors.NotPackagedError: FAILURE,
    errors.MissingWeightsError: FAILURE,
    errors.UnsafeArchiveError: FAILURE,
    errors.UnreadableWeightsError: FAILURE,
    errors.ModelInUseError: FAILURE,
    errors.NotFoundError: NOT_FOUND,
    errors.BlobNotFoundError: NOT_FOUND,
    errors.IntegrityError: DAMAGED,
    errors.CorruptRegistryError: DAMAGED,
    OSError: FAILURE,
}
"""Error class to exit code; a class that is not listed has that of its nearest ancestor."""

_SPELLINGS: Final = (
    ("Give it some with update_weights(), or publish with require_weights=False.", "Add --allow-empty to publish it."),
    ("Remove it with force=True to drop those links.", "Add --force to remove it and drop those links."),
    ("Remove it with force=True.", "Add --force to remove it."),
    ("Check the path, or create it.", "Registering a model makes one; --registry names another."),
    ("Give keep_best and by together.", "Give --keep-best and --by together."),
    ("Choose another path, or overwrite it.", "Choose another path, or add --overwrite."),
)
"""Advice to people who write Python, and what it is here."""


def exit_code(error: BaseException) -> int:
    """Return the exit code for an error."""
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


def report(error: BaseException, command: str = "") -> int:
    """Write one line about an error to standard error, and return the exit code.

    A condition that cannot be read takes three lines: its text and a caret follow. With `MODELSTORE_TRACEBACK=1` the
    traceback comes first.

    Args:
        error: Of our tree, of click, or an `OSError`.
        command: Command whose help may be of use, for mistakes in its usage.
    """
    if os.environ.get("MODELSTORE_TRACEBACK", "") not in ("", "0"):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, click.ClickException):
        text, code = error.format_message(), error.exit_code
        dash = "; what begins with a dash is written behind --" if isinstance(error, click.NoSuchOption) else ""
        hint = f" (see `{command} --help`{dash})" if command and isinstance(error, click.UsageError) else ""
        _write(f"{plain(text).rstrip('.')}{hint}")
        return code
    if isinstance(error, errors.WhereSyntaxError):
        head, *rest = str(error).split("\n")
        _write("\n".join([plain(head), *map(plain, rest)]))
    elif isinstance(error, OSError) and not isinstance(error, errors.ModelStoreError):
        where = f": {error.filename}" if error.filename else ""
        _write(plain(f"{error.strerror or error}{where}"))
    else:
        _write(plain(_adapted(str(error))))
    return exit_code(error)


def _adapted(text: str) -> str:
    for python, here in _SPELLINGS:
        text = text.replace(python, here)
    return text


def _write(text: str) -> None:
    prefix = styled("error:", "red", sys.stderr)
    sys.stderr.write(f"modelstore: {prefix} {text}\n")

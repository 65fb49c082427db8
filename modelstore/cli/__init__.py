"""The commands `modelstore` and `mstore`: what the registry can do, for people and for scripts.

Nothing is decided here. Commands turn words into calls of the layers below, and answers into tables or JSON.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Words after the program's name; None takes those of the process.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 damaged, 130 interrupted, 141 nobody reads.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # whoever started this program closed it
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - it is open until the end
    try:
        from modelstore.cli.app import cli

        return cli.run(None if arguments is None else list(arguments), prog_name=_program())
    except KeyboardInterrupt:  # before click was in charge, or after
        return 130


def _program() -> str:
    name = sys.argv[0].replace("\\", "/").rpartition("/")[2].removesuffix(".exe") if sys.argv else ""
    return "mstore" if name == "mstore" else "modelstore"

"""The program: its commands, and the one place where errors become exit codes."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NoReturn

import click

from modelstore import __version__
from modelstore.cli import (
    caching,
    changing,
    comparing,
    failures,
    finding,
    inspecting,
    keeping,
    relocating,
    scanning,
    serving,
    showing,
    syncing,
    time,
    upkeep,
)
from modelstore.cli.output import plain, utf8_or_escaped
from modelstore.cli.session import registry_option
from modelstore.errors import ModelStoreError

__all__ = ["SECTIONS", "Program", "cli"]

SECTIONS: Final[dict[str, tuple[click.Command, ...]]] = {
    "Find": (
        finding.ls,
        showing.show,
        comparing.compare,
        time.history,
        time.diff,
        finding.explain,
        finding.sql,
        finding.projects,
        finding.tasks,
    ),
    "Register and change": (
        changing.register,
        changing.tag,
        changing.meta,
        changing.publish,
        changing.archive,
        changing.unarchive,
        changing.rm,
        changing.restore,
        time.undo,
        upkeep.prune,
    ),
    "Weights": (showing.get, inspecting.inspect, scanning.scan, keeping.uploads, relocating.relocate, caching.cache),
    "Other registries": (
        syncing.sync,
        syncing.push,
        syncing.pull,
        syncing.remote,
        syncing.conflicts,
        syncing.resolve,
        upkeep.export,
        upkeep.import_,
    ),
    "Server": (serving.serve, serving.token),
    "Registry": (
        keeping.demo,
        keeping.init,
        keeping.convert,
        keeping.compact,
        keeping.where,
        keeping.doctor,
        upkeep.fsck,
        upkeep.gc,
        upkeep.backup,
        upkeep.recover,
        upkeep.move,
        keeping.rebuild,
        keeping.completion,
    ),
}

_EPILOG: Final = """\
\b
Exit codes:
  0    done
  1    failed
  2    wrong usage: an unknown option, a malformed query or value, an ambiguous name
  3    not found: a model, task, project, file or registry
  4    damaged: bytes that differ from their digest, a broken database
  5    suspect: `scan` found an import that can run anything
  130  interrupted by ctrl-C
  141  whoever read the output went away

\b
Environment:
  MODELSTORE_REGISTRY    the registry to use, a folder or URI
  MODELSTORE_CACHE       the folder of local copies of remote weights
  MODELSTORE_INDEX       the folder of this host's indexes of shared registries
  MODELSTORE_OFFLINE=1   read what is known of a shared registry without asking its folder
  MODELSTORE_ACTOR       who makes changes [default: user@host]
  MODELSTORE_PROGRESS=0  no progress bars
  MODELSTORE_TRACEBACK=1 tracebacks with errors, for reporting a bug
  NO_COLOR=1             no colours
"""


class _NobodyReadsError(Exception):
    """Whoever read the output went away."""


class Program(click.Group):
    """The group of all commands."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> NoReturn:
        """Run a command line and exit."""
        sys.exit(self.run(args, *rest, **extra))

    def run(self, args: Sequence[str] | None, *rest: Any, **extra: Any) -> int:
        """Run a command line and return its exit code."""
        extra["standalone_mode"] = False
        utf8_or_escaped()
        try:
            with _warnings_shown():
                result = super().main(args, *rest, **extra)
            sys.stdout.flush()  # here, where it can still fail in good order
        except click.Abort:
            sys.stderr.write("modelstore: interrupted\n")
            return failures.INTERRUPTED
        except click.ClickException as error:
            context = getattr(error, "ctx", None)
            return failures.report(error, context.command_path if context is not None else "")
        except ModelStoreError as error:
            return failures.report(error)
        except _NobodyReadsError:
            _abandon_output()
            return failures.NOBODY_READS
        except OSError as error:
            _abandon_output()
            return failures.NOBODY_READS if error.errno == errno.EPIPE else failures.report(error)
        return result if isinstance(result, int) else 0

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _NobodyReadsError from error  # click would make a plain failure of it

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands by what they are for."""
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                width = formatter.width - 6 - max(len(name) for name in self.commands)
                formatter.write_dl([(one.name or "", one.get_short_help_str(width)) for one in commands])


def _abandon_output() -> None:
    """Let what is still buffered go nowhere: at the end of the process Python would fail on it once more."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        return  # standard output is no file, as in a test


_DRIVERS: Final = ("adlfs", "aiobotocore", "azure", "botocore", "fsspec", "gcsfs", "google", "s3fs")


class _Line(logging.Formatter):
    """One line, as `note` and errors are."""

    def format(self, record: logging.LogRecord) -> str:
        """Return it."""
        return f"modelstore: {record.levelname.lower()}: {plain(record.getMessage())}"


@contextmanager
def _warnings_shown() -> Iterator[None]:
    """Write what the layers below warn of as lines of this program; their errors are raised and reported as such.

    Drivers print tracebacks of failures that are tried again, or reported by us.
    """
    silence = logging.NullHandler()
    for name in _DRIVERS:
        logging.getLogger(name).addHandler(silence)
    handler = logging.StreamHandler()
    handler.setFormatter(_Line())
    handler.setLevel(logging.WARNING)
    logger = logging.getLogger("modelstore")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        for name in _DRIVERS:
            logging.getLogger(name).removeHandler(silence)


@click.group(cls=Program, epilog=_EPILOG, context_settings={"max_content_width": 120})
@click.version_option(__version__, prog_name="modelstore", message="%(prog)s %(version)s")
@registry_option
def cli() -> None:
    """A model registry in a folder: register models, find them again, get their weights.

    MODEL arguments are an id, the beginning of one (4 digits or more), or a name. Lists have --json.
    """


def _keep_lines(command: click.Command) -> None:
    r"""Let examples in help texts stay as they are written: raw docstrings hold ``\b`` as two characters."""
    if command.help is not None:
        command.help = command.help.replace("\\b\n", "\b\n")
    if isinstance(command, click.Group):
        for one in command.commands.values():
            _keep_lines(one)


for _commands in SECTIONS.values():
    for _command in _commands:
        cli.add_command(_command)
_keep_lines(cli)

"""The help texts and docs/cli.md: complete, and true."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from modelstore.cli.app import SECTIONS, cli
from tests.cli.conftest import Run

_ROOT = Path(__file__).parent.parent.parent
_PAGE = _ROOT / "docs" / "cli.md"


def _commands(group: click.Group = cli, above: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield f"{above}{name}", command
        if isinstance(command, click.Group):
            yield from _commands(command, f"{above}{name} ")


_ALL = dict(_commands())


def test_every_command_is_in_a_section_of_the_help() -> None:
    """One that is in none would work and never be found."""
    assert {one.name for commands in SECTIONS.values() for one in commands} == set(cli.commands)


@pytest.mark.parametrize("name", _ALL)
def test_every_command_and_option_explains_itself(name: str) -> None:
    """In the list in a few words, in its own help in full."""
    command = _ALL[name]
    result = CliRunner().invoke(cli, [*name.split(), "--help"])

    assert result.exit_code == 0
    assert command.help
    assert len(command.help) > 20
    assert command.short_help
    assert len(command.short_help) <= 60
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts}"


@pytest.mark.parametrize("name", _ALL)
def test_examples_stay_on_lines_of_their_own(name: str) -> None:
    """As they are written, without the mark that says so."""
    text = CliRunner().invoke(cli, [*name.split(), "--help"]).stdout

    assert "\\b" not in text
    for example in re.findall(r"^ {4}(modelstore .*)$", _ALL[name].help or "", re.MULTILINE):
        assert f"    {example}\n" in text


def test_the_help_fits_into_a_terminal() -> None:
    """80 columns, and no summary cut off."""
    text = CliRunner().invoke(cli, ["--help"]).stdout

    assert "..." not in text.replace("COMMAND [ARGS]...", "")


@pytest.mark.parametrize("name", _ALL)
def test_every_command_and_option_is_in_the_documentation(name: str) -> None:
    """The page is read where the program is not installed."""
    page = _PAGE.read_text()
    begin = page.index(f"### `{name}`")
    section = page[begin : page.find("\n### ", begin + 1) if "\n### " in page[begin + 1 :] else None]
    for parameter in _ALL[name].params:
        if isinstance(parameter, click.Option) and parameter.name not in ("registry", "as_json"):
            for option in (*parameter.opts, *parameter.secondary_opts):
                assert option in section, f"{name} {option}"
    if any(parameter.name == "as_json" for parameter in _ALL[name].params):
        assert "`--json`" in section, name


def test_the_documentation_has_no_command_that_is_not_there() -> None:
    """What was renamed must not live on there."""
    assert set(re.findall(r"^### `(.+)`$", _PAGE.read_text(), re.MULTILINE)) == set(_ALL)


def test_the_documentation_has_the_exit_codes_of_the_help() -> None:
    """Both are promises, so they are the same."""
    text = CliRunner().invoke(cli, ["--help"]).stdout
    codes = re.findall(r"^    (\d+) ", text, re.MULTILINE)

    assert codes == ["0", "1", "2", "3", "4", "5", "130", "141"]
    assert re.findall(r"^\| (\d+) \|", _PAGE.read_text(), re.MULTILINE) == codes


def test_the_session_in_the_documentation_runs_and_prints_what_it_says(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an empty folder, line by line; ids and times are anybody's."""
    monkeypatch.chdir(tmp_path)
    Path("net.pt").write_bytes(bytes(1536))
    (block,) = re.findall(r"```console\n(.*?)```", _PAGE.read_text(), re.DOTALL)
    steps = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    assert len(steps) > 8
    for step in steps:
        command, _, expected = step.partition("\n")
        written = run(*_words(command)).stdout
        assert _anonymous(written) == _anonymous(expected), command


def _words(command: str) -> list[str]:
    import shlex

    program, *words = shlex.split(command, comments=True)
    assert program == "modelstore"
    return words


def _anonymous(text: str) -> str:
    text = re.sub(r"\b[0-9a-f]{32}\b", "ID", text)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", text)
    text = re.sub(r"\S+@\S+", "ACTOR", text)
    text = re.sub(r"(file://)?/\S+/objects/", "OBJECTS/", text)
    return "\n".join(re.sub(r" {2,}", "  ", line).rstrip() for line in text.strip().splitlines())

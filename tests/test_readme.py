"""The README runs: every block of Python and shell, from top to bottom, and what it says comes true."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from modelstore.sdk import _context

_ROOT = Path(__file__).parent.parent
_TEXT = (_ROOT / "README.md").read_text()
_FENCE = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)
_RUNNABLE = ("python", "bash")
_OWN = "a script of its own"  # which has the imports that it needs


@dataclass(frozen=True)
class _Block:
    """A fenced block with the comment in front of it, and the line where its code begins."""

    language: str
    code: str
    mark: str
    line: int


def _blocks() -> list[_Block]:
    return [
        _Block(m["language"], m["code"], m["mark"] or "", _TEXT.count("\n", 0, m.start("code")) + 1)
        for m in _FENCE.finditer(_TEXT)
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, where `modelstore` is a command of this very interpreter."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name, arguments in (("modelstore", "-m modelstore"), ("python", "")):
        (bin_folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        (bin_folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(_ROOT))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def fresh_process(own_surroundings: None) -> Iterator[None]:
    """Blocks share a process, as in a notebook; nothing of it outlives the test."""
    yield
    for task in [*_context.state.main_tasks, *_context.state.owned]:
        _context.state.forget(task.id)
    _context.forget_default()


def test_every_block_runs_and_prints_what_the_readme_says(folder: Path, fresh_process: None) -> None:
    """People copy from the README: a block that fails, or prints something else, costs each of them an hour."""
    names: dict[str, object] = {"__name__": "__readme__"}
    printed = ""
    ran = 0
    for block in _blocks():
        if block.mark == "prints":
            assert printed == block.code, f"README.md:{block.line}"
        elif block.language in _RUNNABLE and block.mark in ("", _OWN):
            used: dict[str, object] = {"__name__": "__readme__"} if block.mark else names
            printed = _run(block, used)
            names |= used
            ran += 1

    assert ran >= 15


def _run(block: _Block, names: dict[str, object]) -> str:
    where = f"README.md:{block.line}"
    if block.language == "bash":
        printed = ""
        for line in block.code.splitlines():
            done = subprocess.run(["bash", "-euo", "pipefail", "-c", line], capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{where}: {done.stderr}"
            assert done.stdout or "modelstore ls" not in line, f"{where}: {line} finds nothing"
            printed += done.stdout
        return printed
    code = compile("\n" * (block.line - 1) + block.code, str(_ROOT / "README.md"), "exec", dont_inherit=True)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, names)  # noqa: S102 - running it is the test
    return out.getvalue()


def test_what_is_not_run_says_why() -> None:
    """A block that is silently left out is a block that rots."""
    left_out = [b for b in _blocks() if b.language in _RUNNABLE and b.mark not in ("", _OWN)]

    assert left_out
    for block in left_out:
        reason = block.mark.partition("not run: ")[2]
        assert len(reason.split()) >= 4, f"README.md:{block.line}: why is this block not run?"


def test_every_claim_about_output_follows_a_block_that_runs() -> None:
    """Otherwise the output of some earlier block would be compared."""
    blocks = _blocks()
    for before, block in pairwise(blocks):
        if block.mark == "prints":
            assert before.language in _RUNNABLE, f"README.md:{block.line}"
            assert before.mark in ("", _OWN), f"README.md:{block.line}"


def _tag_rows() -> list[tuple[str, str]]:
    return re.findall(r"^\| `(\[.*\])` \| `(.+)` \|$", _TEXT, re.MULTILINE)


def test_the_table_of_tag_lists_has_all_the_documented_forms() -> None:
    """The parametrised test below is worth nothing when the table cannot be found."""
    assert len(_tag_rows()) >= 8


@pytest.mark.parametrize(("tags", "formula"), _tag_rows())
def test_a_tag_list_is_read_as_the_table_says(tags: str, formula: str) -> None:
    """The table is the promise that people write queries by."""
    from modelstore.query import explain, parse_tags

    node = parse_tags(ast.literal_eval(tags))

    assert node is not None
    assert explain(node) == formula


def test_every_link_leads_somewhere() -> None:
    """A link to a heading or file that was renamed is noticed by readers only."""
    headings = {
        re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower()).replace(" ", "-")
        for line in _TEXT.splitlines()
        if line.startswith("#")
    }
    for target in re.findall(r"\]\(([^)]+)\)", _TEXT):
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif "://" not in target:
            assert (_ROOT / target).exists(), target


def _settings(text: str) -> set[str]:
    return set(re.findall(r"^\| `(MODELSTORE_\w+)` \|", text, re.MULTILINE))


def test_the_settings_are_those_of_the_code() -> None:
    """A variable that is documented and not read, or the reverse, cannot be found by trying."""
    package = _ROOT / "modelstore"
    source = "".join(p.read_text() for p in package.rglob("*.py") if package / "testing" not in p.parents)
    aliases = {"MODELSTORE_DISABLE_PROGRESS_BARS"}

    assert _settings(_TEXT) == set(re.findall(r'"(MODELSTORE_\w+)"', source)) - aliases


def test_the_commands_are_those_of_the_command_line() -> None:
    """The overview names every command, and no command that does not exist."""
    done = subprocess.run([sys.executable, "-m", "modelstore", "--help"], capture_output=True, text=True, check=True)
    offered = set(re.findall(r"^  ([a-z][a-z-]*)(?:  |$)", done.stdout.partition("Exit codes:")[0], re.MULTILINE))
    section = _TEXT.partition("## The command line")[2].partition("\n## ")[0]
    named = {
        name for row in re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE) for name in re.findall(r"`([\w-]+)`", row)
    }

    assert named == offered


def test_the_extras_are_those_of_the_package() -> None:
    """An extra that does not exist installs nothing but a warning."""
    import tomllib

    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    section = _TEXT.partition("## Where weights can live")[2].partition("\n## ")[0]
    named = set(re.findall(r"\| `([a-z0-9]+)` \|$", section, re.MULTILINE))

    assert named == {"s3", "gs", "azure", "ssh", "webdav", "http"}
    assert named <= set(project["optional-dependencies"])


def test_the_first_screen_tells_the_name_and_the_two_commands() -> None:
    """Who comes here for the other project of that name must see it at once."""
    first = "\n".join(_TEXT.splitlines()[:32])

    assert "modelstore-local" in first
    assert "cannot be" in first
    assert "make demo" in first
    assert "make test" in first

"""The program as shells and scripts meet it: exit codes, the two outputs, signals, start-up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from modelstore import __version__, errors
from modelstore.cli.failures import CODES, exit_code
from modelstore.registry import Registry
from tests.cli.conftest import Program, Run

_ROOT = Path(__file__).parent.parent.parent
_EXPECTED_CODES: dict[type[errors.ModelStoreError], int] = {
    errors.ModelStoreError: 1,
    errors.InvalidRequestError: 2,
    errors.TagQueryError: 2,
    errors.WhereSyntaxError: 2,
    errors.InvalidUriError: 2,
    errors.InvalidMetadataError: 2,
    errors.InvalidConfigurationError: 2,
    errors.NotPackagedError: 1,
    errors.MissingWeightsError: 1,
    errors.UnsafeArchiveError: 1,
    errors.ModelInUseError: 1,
    errors.PublishedModelError: 1,
    errors.NotFoundError: 3,
    errors.ModelNotFoundError: 3,
    errors.TaskNotFoundError: 3,
    errors.ProjectNotFoundError: 3,
    errors.RegistryNotFoundError: 3,
    errors.StorageError: 1,
    errors.BlobNotFoundError: 3,
    errors.StorageUnavailableError: 1,
    errors.StorageFullError: 1,
    errors.DownloadError: 1,
    errors.IntegrityError: 4,
    errors.ReadOnlyStorageError: 1,
    errors.CacheBusyError: 1,
    errors.MissingDriverError: 1,
    errors.RegistryError: 1,
    errors.NewerRegistryError: 1,
    errors.CorruptRegistryError: 4,
    errors.ReadOnlyRegistryError: 1,
    errors.RegistryBusyError: 1,
}


def _one_line(text: str) -> str:
    assert text.startswith("modelstore: error: ")
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize(("kind", "code"), _EXPECTED_CODES.items(), ids=lambda one: getattr(one, "__name__", str(one)))
def test_every_kind_of_error_has_its_exit_code(kind: type[errors.ModelStoreError], code: int) -> None:
    """Scripts branch on these numbers: they may not move."""
    facts: dict[type[errors.ModelStoreError], tuple[Any, ...]] = {
        errors.TagQueryError: (("a",), 0, "reason"),
        errors.WhereSyntaxError: ("text", 0, "reason"),
    }

    assert exit_code(kind(*facts.get(kind, ("what happened",)))) == code


def test_an_error_class_made_tomorrow_has_an_exit_code_too() -> None:
    """The table is looked up along the ancestors, and the root is in it."""
    assert errors.ModelStoreError in CODES
    assert all(issubclass(getattr(errors, name), errors.ModelStoreError) for name in errors.__all__)


def test_success_is_zero_and_writes_to_standard_output_only(program: Program, weights: Path) -> None:
    """A script takes the id from standard output."""
    done = program("register", weights)

    assert done.returncode == 0
    assert len(done.stdout.strip()) == 32
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["frobnicate"], 2),
        (["ls", "--nonsense"], 2),
        (["show"], 2),
        (["ls", "--limit", "0"], 2),
        (["ls", "--tags", "__$notc"], 2),
        (["ls", "--order-by", "beauty"], 2),
        (["ls", "--metadata", "novalue"], 2),
        (["ls", "--name-regex", "("], 2),
        (["ls", "--project", "never/made"], 3),
        (["show", "nothing-of-that-name"], 3),
        (["get", "0123456789abcdef"], 3),
        (["register", "no/such/file.pt"], 3),
        (["register", "no/such/file.pt", "--tag", "__$and"], 2),
        (["register", "https://user:secret@host/net.pt"], 2),
        (["uploads", "--cancel", "7"], 3),
        (["sql", "select * from nowhere"], 2),
        (["--registry", "gopher://host/x", "ls"], 2),
    ],
)
def test_a_mistake_is_one_line_on_standard_error_with_its_exit_code(
    program: Program, run: Run, weights: Path, words: list[str], code: int
) -> None:
    """No traceback, nothing on standard output, no secrets."""
    run("register", weights)
    done = program(*words)

    assert done.returncode == code
    assert done.stdout == ""
    assert "secret" not in _one_line(done.stderr)


def test_without_arguments_the_program_explains_itself(program: Program) -> None:
    """Somebody who types the bare name wants to know what there is."""
    done = program()

    assert "Usage: modelstore" in done.stdout + done.stderr
    assert "register" in done.stdout + done.stderr


def test_a_mistake_in_the_usage_names_the_help_that_would_have_helped(program: Program) -> None:
    """The command's, not the program's."""
    assert "modelstore cache prune --help" in _one_line(program("cache", "prune", "--max-bytes", "lots").stderr)


def test_looking_into_a_registry_that_is_not_there_does_not_make_one(program: Program, tmp_path: Path) -> None:
    """A mistyped path must not look like an empty registry."""
    for words in (["ls"], ["show", "x"], ["rm", "x"], ["doctor"], ["rebuild"], ["projects"], ["tag", "x", "+y"]):
        done = program("--registry", tmp_path / "typo", *words)

        assert done.returncode == 3, words
        assert "There is no registry" in _one_line(done.stderr)
    assert not (tmp_path / "typo").exists()


def test_the_registry_can_be_named_before_and_behind_the_command(
    program: Program, run: Run, weights: Path, tmp_path: Path
) -> None:
    """Both are what people type; the later wins, as with any option."""
    there = tmp_path / "elsewhere"
    model = run("register", weights, "--registry", there).stdout.strip()

    assert program("--registry", there, "ls", "-q").stdout.strip() == model
    assert program("ls", "-q", "--registry", there).stdout.strip() == model
    assert program("ls", "-q", MODELSTORE_REGISTRY=str(there)).stdout.strip() == model


def test_a_condition_that_cannot_be_read_shows_a_caret_under_the_place(
    program: Program, run: Run, weights: Path
) -> None:
    """The one error of three lines: a position is worth more than a number of a column."""
    run("register", weights)
    done = program("ls", "--where", "accuracy >> 3")

    head, text, caret = done.stderr.rstrip("\n").split("\n")
    assert done.returncode == 2
    assert head.startswith("modelstore: error: ")
    assert text[len(caret) - 1 :] == "> 3"
    assert caret.endswith("^")


def test_bytes_that_changed_are_exit_code_four(program: Program, run: Run, weights: Path) -> None:
    """The one failure that a cron job must never take for a hiccup."""
    run("register", weights)
    stored = Path(run("get", "net").stdout.strip())
    stored.chmod(0o600)
    stored.write_bytes(b"WEIGHTS of a small net")
    done = program("get", "net", "--verify")

    assert done.returncode == 4
    assert "sha256:" in _one_line(done.stderr)
    assert program("doctor", "--deep").returncode == 4


def test_a_damaged_database_is_exit_code_four(program: Program, run: Run, weights: Path, tmp_path: Path) -> None:
    """Found out at the first look, and said so in one line."""
    there = tmp_path / "damaged"
    run("register", weights, "--registry", there)
    for name in ("registry.db-wal", "registry.db-shm"):
        (there / name).unlink(missing_ok=True)
    (there / "registry.db").write_bytes(b"this is no database, whatever its name says" * 100)
    done = program("ls", "--registry", there)

    assert done.returncode == 4
    assert "damaged" in _one_line(done.stderr)


def test_the_traceback_is_there_for_whoever_asks(program: Program) -> None:
    """For a report of a bug; the line and the exit code stay."""
    done = program("--registry", "gopher://x", "ls", MODELSTORE_TRACEBACK="1")

    assert "Traceback" in done.stderr
    assert done.stderr.rstrip("\n").split("\n")[-1].startswith("modelstore: error: ")
    assert done.returncode == 2


def test_a_reader_that_goes_away_is_no_error_to_speak_of(registry: Registry) -> None:
    """`modelstore ls | head` is everyday use."""
    with registry.transaction():
        for number in range(3_000):
            registry.models.create(name=f"a model with a name that is not short, number {number}")
    process = subprocess.Popen(
        [sys.executable, "-m", "modelstore", "ls"],
        env=os.environ | {"PYTHONPATH": str(_ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    complaint = process.stderr.read()
    process.stderr.close()

    assert process.wait(30) == 141
    assert complaint == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_an_output_that_is_full_is_one_line_and_a_failure(run: Run, weights: Path) -> None:
    """A list cut off by a full disk must not pass for a whole one."""
    run("register", weights)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "modelstore", "ls"],
            env=os.environ | {"PYTHONPATH": str(_ROOT)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert done.returncode == 1
    _one_line(done.stderr)


@pytest.mark.parametrize(
    ("words", "closing", "code"), [("ls", ">&-", 0), ("ls --limit x", "2>&-", 2), ("show nobody", ">&- 2>&-", 3)]
)
def test_outputs_may_be_closed(run: Run, weights: Path, words: str, closing: str, code: int) -> None:
    """As services and `cron` jobs start programs; the exit code still tells."""
    run("register", weights)
    done = subprocess.run(
        ["sh", "-c", f'exec "{sys.executable}" -m modelstore {words} {closing}'],
        env=os.environ | {"PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_a_disk_without_room_is_no_damage(run: Run, weights: Path) -> None:
    """ "Restore it from a backup" would be the worst advice; a limit on files stands for the full disk."""
    run("register", weights)
    limited = """
        import resource, signal, sys
        from modelstore.cli import main
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        sys.exit(main())
    """
    for words in (["ls"], ["tag", "net", "a"], ["doctor"]):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(limited), *words],
            env=os.environ | {"PYTHONPATH": str(_ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )

        assert done.returncode == 1
        _one_line(done.stderr)
        assert "no room left" in done.stderr
    assert run("ls", "-q").stdout


@pytest.mark.parametrize("words", [["show"], ["restore"], ["push"], ["ls", "--name"], ["tasks", "--project"]])
def test_words_that_are_no_text_are_one_line(program: Program, run: Run, weights: Path, words: list[str]) -> None:
    """Names of files may be any bytes; names of models are not."""
    run("register", weights)
    done = program(*words, "\udcff")

    assert done.returncode in (2, 3)
    _one_line(done.stderr)


def test_a_name_that_begins_with_a_dash_is_told_where_to_go(program: Program) -> None:
    """The message of an unknown option alone would not help."""
    done = program("get", "-dash")

    assert done.returncode == 2
    assert "behind --" in done.stderr


def test_an_interrupt_ends_a_long_query_with_130_and_without_a_traceback(run: Run, weights: Path) -> None:
    """SQLite runs in C; without help ctrl-C would wait for its end."""
    run("register", weights)
    endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"
    process = subprocess.Popen(
        [sys.executable, "-c", _ANNOUNCING, "sql", endless],
        env=os.environ | {"PYTHONPATH": str(_ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        assert process.stderr.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        output, complaint = process.communicate(timeout=30)
    finally:
        process.kill()  # it would run for ever

    assert process.returncode == 130
    assert output == ""
    assert complaint.strip() == "modelstore: interrupted"


# Says when the statement has begun: its first step of many opcodes has been made.
_ANNOUNCING = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
from modelstore.index import readonly
def announce(go_on=readonly._continue, said=[]):
    if not said:
        said.append(print("running", file=sys.stderr, flush=True))
    return go_on()
readonly._continue = announce
from modelstore.cli import main
sys.exit(main())
"""


def test_both_programs_and_both_modules_are_the_same(program: Program) -> None:
    """`modelstore`, `mstore`, `python -m modelstore`, `python -m modelstore.cli`."""
    import tomllib

    scripts = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]["scripts"]

    assert scripts == {"modelstore": "modelstore.cli:main", "mstore": "modelstore.cli:main"}
    for module in ("modelstore", "modelstore.cli"):
        assert program("--version", module=module).stdout == f"modelstore {__version__}\n"


def test_help_says_what_the_exit_codes_mean(program: Program) -> None:
    """Whoever writes a script looks there."""
    text = program("--help").stdout

    for code in ("0 ", "1 ", "2 ", "3 ", "4 ", "130", "141"):
        assert f"\n    {code}" in text


_HEAVY = {"fsspec", "sqlite_utils", "filelock", "xxhash", "numpy", "asyncio", "sklearn", "tqdm"}


@pytest.mark.parametrize(
    "words", [["--help"], ["ls"], ["ls", "--json"], ["show", "net"], ["get", "net"], ["tag", "net"], ["explain", "a"]]
)
def test_looking_starts_without_the_heavy_libraries(run: Run, weights: Path, words: list[str]) -> None:
    """Shell prompts and loops call it: what is not needed is not loaded."""
    run("register", weights)
    script = (
        "import sys\nfrom modelstore.cli import main\ncode = main()\n"
        f"print(sorted({_HEAVY!r} & set(sys.modules)), file=sys.stderr)\nsys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        env=os.environ | {"PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0
    assert done.stderr == "[]\n"


def test_json_is_all_that_standard_output_gets(program: Program, run: Run) -> None:
    """Also where there is something to remark."""
    run("register", "s3://bucket/net.onnx")
    done = program("register", "s3://bucket/net.onnx", "--json")

    assert json.loads(done.stdout)["name"] == "net"
    assert "registered already" in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1"])
def test_any_name_can_be_written_whatever_the_output_speaks(run: Run, encoding: str) -> None:
    """An emoji in one name must not end the listing of all."""
    run("register", "s3://bucket/x", "--name", "模型 🐍 ñ")
    table, listed = (
        subprocess.run(
            [sys.executable, "-m", "modelstore", "ls", *words],
            env=os.environ | {"PYTHONPATH": str(_ROOT), "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
            capture_output=True,
            check=True,
        )
        for words in ([], ["--json"])
    )

    assert table.stdout.decode(encoding).count("\n") == 2
    assert json.loads(listed.stdout.decode(encoding))[0]["name"] == "模型 🐍 ñ"


def test_what_a_terminal_would_obey_is_escaped(program: Program, run: Run) -> None:
    """A comment from somebody else's registry must not be able to repaint the screen."""
    run("register", "s3://bucket/x", "--comment", "a\x1b[2Jb\u202ec", "--metadata", "k=\x1b]0;title\x07")
    shown = program("show", "x").stdout

    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "\x07" not in shown
    assert "a\\x1b[2Jb\\u202ec" in shown


def test_colours_are_for_terminals_without_no_color(program: Program, run: Run, weights: Path) -> None:
    """A pipe gets none; a terminal does, unless it is told not to."""
    run("register", weights)

    assert "\x1b" not in program("ls").stdout
    assert "\x1b[1mID" in _on_a_terminal("ls")
    assert "\x1b" not in _on_a_terminal("ls", NO_COLOR="1")
    assert "\x1b" not in _on_a_terminal("ls", TERM="dumb")


@pytest.mark.parametrize("columns", [200, 80, 50, 20])
def test_a_table_fits_into_the_terminal(run: Run, weights: Path, columns: int) -> None:
    """A wrapped table is none; what matters least goes first."""
    run("register", weights, "--name", "a name that goes on " * 9, "--project", "deep/er/and/deeper", "--tag", "t" * 99)
    lines = _on_a_terminal("ls", columns=columns, NO_COLOR="1").splitlines()

    assert [len(line) <= columns for line in lines] == [True, True]
    assert lines[0].startswith("ID            NAME")


@pytest.mark.parametrize(("words", "said"), [(["ls", "--name", "x"], "no models match"), (["remote", "ls"], "no reg")])
def test_a_person_is_told_that_there_is_nothing(run: Run, weights: Path, words: list[str], said: str) -> None:
    """An empty answer on a terminal looks like a program that does not work; scripts get nothing."""
    run("register", weights)

    assert said in _on_a_terminal(*words, stderr=None)
    assert run(*words).output == ""


def _on_a_terminal(*words: str, columns: int = 100, stderr: int | None = subprocess.DEVNULL, **environment: str) -> str:
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    known = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS")}
    process = subprocess.Popen(
        [sys.executable, "-m", "modelstore", *words],
        env=known | {"PYTHONPATH": str(_ROOT), "TERM": "xterm"} | environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs if stderr is None else stderr,
    )
    os.close(theirs)
    written = b""
    try:
        while block := os.read(ours, 65536):
            written += block
    except OSError:
        pass  # how Linux says that the other end was closed
    finally:
        os.close(ours)

    assert process.wait(30) == 0
    return written.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_serve_both_programs(run: Run, shell: str) -> None:
    """Whichever of the two names somebody types."""
    script = run("completion", shell).stdout

    assert "_MODELSTORE_COMPLETE" in script
    assert "_MSTORE_COMPLETE" in script


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("modelstore pub", "publish"), ("modelstore ls --ord", "--order-by"), ("modelstore show ne", "net")],
)
def test_a_shell_completes_commands_options_and_models(
    program: Program, run: Run, weights: Path, typed: str, offered: str
) -> None:
    """Names, where no id begins like that."""
    run("register", weights)
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    done = program(_MODELSTORE_COMPLETE="bash_complete", **words)

    assert f"plain,{offered}" in done.stdout.splitlines()


def test_completion_without_a_registry_offers_nothing_and_says_nothing(program: Program) -> None:
    """A shell that waits for completions has no place for errors."""
    done = program(_MODELSTORE_COMPLETE="bash_complete", COMP_WORDS="modelstore show x", COMP_CWORD="2")

    assert (done.stdout.strip(), done.stderr) == ("", "")

"""The demonstration does what it shows: two processes, one registry, the same predictions."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import modelstore
from modelstore import Model, demo
from modelstore.sdk import _context

_ROOT = Path(__file__).parent.parent


def _run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "modelstore.demo", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(_ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


@pytest.fixture(autouse=True)
def fresh_process() -> Iterator[None]:
    """The second process of the demonstration works on the default registry; here it is none."""
    yield
    _context.forget_default()


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[subprocess.CompletedProcess[str]]]:
    """The demonstration, run twice in one folder, with settings of a user that it must not touch."""
    pytest.importorskip("sklearn", reason="the demonstration needs scikit-learn")
    folder = tmp_path_factory.mktemp("demo")
    foreign = {
        "MODELSTORE_REGISTRY": str(folder / "mine"),
        "MODELSTORE_CACHE": str(folder / "my-cache"),
        "MODELSTORE_DEFAULT_OUTPUT_URI": str(folder / "my-bucket"),
    }
    return folder, [_run(folder, **foreign) for _ in range(2)]


Ran = tuple[Path, list[subprocess.CompletedProcess[str]]]


def test_it_ends_well_twice_in_one_folder(ran: Ran) -> None:
    """A newcomer runs it again; the models of the first run must not confuse the second."""
    for done in ran[1]:
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    assert "at least 0.9: 2, the newest is taken" in ran[1][1].stdout


def test_the_second_process_measures_what_the_first_had_published(ran: Ran) -> None:
    """This is the point of a registry, so it is looked at from outside, too."""
    import joblib

    folder, runs = ran
    shown = re.findall(r"model      ([0-9a-f]{32})", runs[1].stdout)
    assert len(shown) == 2
    assert shown[0] == shown[1]
    with modelstore.open(folder / "modelstore-demo", create=False, cache=folder / "cache"):
        model = Model(shown[0])
        network = joblib.load(model.get_local_copy(raise_on_error=True))
        images, truth = demo._digits().test
        accuracy = float((network.predict(images) == truth).mean())

        assert model.published
        assert model.tags == ["best", "demo", "digits"]
        assert model.labels == {str(digit): digit for digit in range(10)}
        assert model.config_dict["layers"] == [64, 64, 10]
        assert model.get_metadata_casted("accuracy") == pytest.approx(accuracy, abs=1e-12)
        assert accuracy > 0.95


def test_every_better_epoch_is_in_the_history(ran: Ran) -> None:
    """It says that it stored so many snapshots; they must all have been registered, one after the other."""
    folder, runs = ran
    stored = re.findall(r"epoch +(\d+)  ([\d.]+)  better: stored [\d,]+ bytes as (sha256:[0-9a-f]+)", runs[0].stdout)
    (model_id,) = set(re.findall(r"model      ([0-9a-f]{32})", runs[0].stdout))
    with modelstore.open(folder / "modelstore-demo", create=False):
        digests = [entry.new for entry in Model(model_id).history() if entry.key == "digest"]

    assert len(stored) >= 5
    assert [digest[:19] for digest in digests] == [short for _, _, short in stored]
    assert [float(value) for _, value, _ in stored] == sorted(float(value) for _, value, _ in stored)


def test_it_shows_four_digits_with_predictions(ran: Ran) -> None:
    """People look before they read."""
    lines = ran[1][0].stdout.splitlines()
    (caption,) = [n for n, line in enumerate(lines) if line.startswith("     predicted")]
    picture = lines[caption - 8 : caption]

    assert lines[caption].count("predicted") == 4
    assert all(line and set(line) <= set(demo._SHADES) for line in picture)


def test_it_leaves_the_users_registry_cache_and_bucket_alone(ran: Ran) -> None:
    """A demonstration that writes into somebody's team bucket is not run twice."""
    folder, _ = ran

    assert [path.name for path in folder.iterdir()] == ["modelstore-demo"]


def test_the_registry_has_nothing_wrong_afterwards(ran: Ran) -> None:
    """What the demonstration leaves behind is what a newcomer looks at first."""
    with modelstore.open(ran[0] / "modelstore-demo", create=False) as registry:
        findings = [finding for finding in registry.check(deep=True) if finding.severity != "note"]

        assert findings == []


def test_the_commands_that_it_recommends_work(ran: Ran, tmp_path: Path) -> None:
    """They are the first thing a newcomer types."""
    _, runs = ran
    advice = runs[1].stdout.partition("4. Try next")[2]
    lines = [line.strip() for line in advice.splitlines() if line.startswith("     ")]
    (export,) = [line for line in lines if line.startswith("export ")]
    name, _, value = export.removeprefix("export ").partition("=")
    environment = os.environ | {name: shlex.split(value)[0], "PYTHONPATH": str(_ROOT)}
    commands = [shlex.split(line) for line in lines if re.match(r"\S*(modelstore|python\S*) ", line)]
    code = "\n".join(line for line in lines if line.startswith(("from ", "Model.")))

    assert len(commands) >= 4
    for command in [*commands, [sys.executable, "-c", code]]:
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stderr)


def test_in_a_pipe_it_writes_plain_text(ran: Ran) -> None:
    """Control characters make a log unreadable."""
    for done in ran[1]:
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", done.stdout)
        assert done.stdout.isascii()


def test_on_a_terminal_progress_shows_in_place_and_leaves_no_trace() -> None:
    """Epochs that bring nothing are shown while they last, and replaced by what comes next."""
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    progress = demo._Progress(terminal, 4)
    progress.show(1, "0.5")
    progress.keep(2, "0.6")
    progress.show(4, "0.4")
    progress.end()
    screen = [line.rpartition("\r\033[K")[2] for line in terminal.getvalue().split("\n")]

    assert "[#####...............]" in terminal.getvalue()
    assert "[####################]" in terminal.getvalue()
    assert screen == ["   epoch  2  0.6", ""]


def test_without_scikit_learn_it_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The package does not depend on it, so this is what `pip install modelstore-local` alone leads to."""
    monkeypatch.setitem(sys.modules, "sklearn", None)
    code = demo.main(["--registry", str(tmp_path / "registry")])
    said = capsys.readouterr()

    assert code == 1
    assert said.out == ""
    assert "pip install" in said.err
    assert "scikit-learn" in said.err
    assert not (tmp_path / "registry").exists()


def test_a_registry_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    """A traceback would be the newcomer's first impression."""
    pytest.importorskip("sklearn", reason="the demonstration needs scikit-learn")
    (tmp_path / "file").write_text("no folder")
    done = _run(tmp_path, "--registry", "file")

    assert done.returncode == 1
    assert done.stderr.startswith("demo: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("given", ["s3://bucket/registry", "file://elsewhere/registry", " "])
def test_a_registry_that_is_no_folder_is_wrong_usage(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The command line passes on whatever follows --registry."""
    with pytest.raises(SystemExit) as stopped:
        demo.main(["--registry", given])

    assert stopped.value.code == 2
    assert "--registry" in capsys.readouterr().err


def test_a_file_uri_is_a_folder_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything else that takes a registry takes one."""
    pytest.importorskip("sklearn", reason="the demonstration needs scikit-learn")
    demo.main(["--registry", (tmp_path / "a registry").as_uri(), "--measured", "0.5"])

    assert (tmp_path / "a registry" / "modelstore.json").exists()
    assert "No projects" in capsys.readouterr().err


def test_a_second_process_that_finds_another_accuracy_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ran: Ran
) -> None:
    """The comparison must be able to fail, or it shows nothing."""
    registry = str(ran[0] / "modelstore-demo")

    assert demo.main(["--registry", registry, "--measured", "0.5"]) == 1
    assert "measured 0.5" in capsys.readouterr().err
    assert demo.main(["--registry", str(tmp_path / "empty"), "--measured", "0.5"]) == 1


def test_it_puts_the_environment_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`modelstore demo` may be called from a program that goes on afterwards."""
    pytest.importorskip("sklearn", reason="the demonstration needs scikit-learn")
    monkeypatch.setenv("MODELSTORE_DEFAULT_OUTPUT_URI", "s3://mine/models")
    before = dict(os.environ)
    demo.main(["--registry", str(tmp_path / "empty"), "--measured", "0.5"])

    assert dict(os.environ) == before

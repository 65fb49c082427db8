"""`where`, `doctor`, `rebuild`, `uploads`, `cache`, `demo`: the registry and the machine around it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from modelstore import __version__, config
from modelstore.registry import Registry
from tests.cli.conftest import Json, Program, Run

_ROOT = Path(__file__).parent.parent.parent


def test_where_works_before_there_is_a_registry_and_makes_none(run: Run, run_json: Json, tmp_path: Path) -> None:
    """The first question of somebody whose registry seems to be empty."""
    answer = run_json("where")

    assert (answer["exists"], answer["database"]) == (False, None)
    assert answer["registry"] == str(tmp_path / "modelstore-home" / "registry")
    assert "not there yet" in run("where").stdout
    assert not Path(answer["registry"]).exists()


def test_where_keeps_its_keys(run_json: Json, register: Callable[..., str]) -> None:
    """Scripts ask it for the folder."""
    register("s3://b/x")
    answer = run_json("where")

    assert list(answer) == [
        "registry", "exists", "problem", "id", "database", "schema_version", "supported_schema_version", "cache",
        "cache_max_bytes", "default_output_uri", "actor", "version", "python", "sqlite", "sources",
    ]  # fmt: skip
    assert answer["exists"]
    assert answer["problem"] is None
    assert answer["schema_version"] == answer["supported_schema_version"]
    assert answer["version"] == __version__


def test_where_says_which_variable_decides(run_json: Json, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of several that could, the one that did."""
    assert run_json("where")["sources"]["registry"] == "MODELSTORE_REGISTRY"
    monkeypatch.delenv("MODELSTORE_REGISTRY")
    assert run_json("where")["sources"]["registry"] == "MODELSTORE_HOME"
    monkeypatch.setenv("CLEARML_DEFAULT_OUTPUT_URI", "s3://user:secret@b/x")
    monkeypatch.setenv("MODELSTORE_ACTOR", "ci")
    answer = run_json("where", "--registry", tmp_path / "other")

    assert answer["sources"] == {
        "registry": "--registry",
        "cache": "MODELSTORE_CACHE",
        "index": "MODELSTORE_HOME",
        "cache_max_bytes": "default",
        "default_output_uri": "CLEARML_DEFAULT_OUTPUT_URI",
        "actor": "MODELSTORE_ACTOR",
    }
    assert (answer["actor"], answer["registry"]) == ("ci", str(tmp_path / "other"))
    assert "secret" not in answer["default_output_uri"]


@pytest.mark.parametrize(
    ("variable", "value", "setting", "read"),
    [
        ("MODELSTORE_REGISTRY", "/r", "registry", config.registry_uri),
        ("MODELSTORE_CACHE", "/c", "cache", config.cache_folder),
        ("MODELSTORE_CACHE_MAX_BYTES", "7", "cache_max_bytes", config.cache_max_bytes),
        ("MODELSTORE_DEFAULT_OUTPUT_URI", "s3://d", "default_output_uri", config.default_output_uri),
        ("MODELSTORE_INDEX", "/i", "index", config.index_folder),
        ("MODELSTORE_ACTOR", "me", "actor", config.actor),
    ],
)
def test_a_setting_comes_from_the_variable_that_is_named_for_it(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, setting: str, read: Callable[[], object]
) -> None:
    """Two lists of variables in one module must agree."""
    for name in ("MODELSTORE_REGISTRY", "MODELSTORE_CACHE", "MODELSTORE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert config.sources()[setting] == "default"
    monkeypatch.setenv(variable, value)

    assert config.sources()[setting] == variable
    assert str(read()) == value


def test_where_works_on_a_registry_that_cannot_be_opened(run: Run, run_json: Json, tmp_path: Path) -> None:
    """Just then one wants to know where it is."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "modelstore.json").write_text("{")
    answer = run_json("where", "--registry", tmp_path / "broken")

    assert answer["exists"]
    assert "damaged" in answer["problem"]


def test_a_healthy_registry_has_nothing_wrong(
    run: Run, run_json: Json, register: Callable[..., str], weights: Path
) -> None:
    """Shallow and deep."""
    register(weights)

    assert run("doctor").stdout.startswith("Nothing is wrong")
    assert run_json("doctor", "--deep") == []


def test_the_doctor_tells_what_it_means_and_what_to_do(
    run: Run, run_json: Json, register: Callable[..., str], weights: Path
) -> None:
    """And exits with 4, for whoever runs it every night."""
    register(weights)
    Path(run("get", "net").stdout.strip()).unlink()
    (finding,) = run_json("doctor", code=4)
    text = run("doctor", code=4).stdout

    assert list(finding) == ["severity", "what", "means", "todo"]
    assert finding["severity"] == "error"
    assert all(finding[key] in text for key in ("what", "means", "todo"))


def test_notes_are_no_failure(run: Run, run_json: Json, registry: Registry) -> None:
    """One file registered twice is worth a word, not an alarm."""
    for _ in range(2):
        registry.models.create(name="twin", uri="s3://b/x")

    assert [f["severity"] for f in run_json("doctor", code=0)] == ["note"]


def test_killed_tasks_are_one_note_however_many(run_json: Json, registry: Registry) -> None:
    """A cluster that kills jobs would bury everything else."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    runtime = {"host": os.uname().nodename, "pid": ended.pid}
    for n in range(3):
        registry.tasks.create(name=f"killed {n}", status="in_progress", runtime=runtime)

    (finding,) = run_json("doctor")
    assert "and 2 more are in progress" in finding["what"]
    assert "mark_stopped" in finding["todo"]
    assert len(run_json("tasks", "--status", "in_progress")) == 3


def test_rebuild_says_how_much_it_folded(run: Run, run_json: Json, register: Callable[..., str]) -> None:
    """And changes nothing that can be seen."""
    register("s3://b/x", "--tag", "t", "--metadata", "a=1")
    before = run_json("ls")

    assert run_json("rebuild") == {"operations": 1}
    assert run("rebuild").stdout == "1 operations folded\n"
    assert run_json("ls") == before


# uploads

_INTERRUPTED = """
import os, sys
from pathlib import Path
from modelstore.registry import open_registry
from modelstore.registry.sources import Source

registry = open_registry()
model = registry.models.create(name="sent")
with registry.weights.snapshot(Source.file(Path(sys.argv[1]), None)) as snapshot:
    registry.weights.uploads.adopt(snapshot)
    with registry.transaction():
        registry.weights.uploads.enqueue(model.id, snapshot, sys.argv[2], {})
    os._exit(0)  # killed between writing the upload down and sending it
"""


@pytest.fixture
def interrupted(weights: Path, tmp_path: Path) -> Path:
    """An upload that a process left behind; returns its destination."""
    destination = tmp_path / "share"
    subprocess.run([sys.executable, "-c", _INTERRUPTED, str(weights), destination.as_uri()], check=True, cwd=_ROOT)
    return destination


def test_uploads_that_a_process_left_are_listed_and_sent(run: Run, run_json: Json, interrupted: Path) -> None:
    """From any later process."""
    (pending,) = run_json("uploads")
    assert list(pending) == [
        "id", "model", "filename", "size", "destination", "status", "attempts", "error", "host", "pid", "created",
    ]  # fmt: skip
    assert (pending["filename"], pending["size"], pending["destination"]) == ("net.pt", 22, interrupted.as_uri())
    assert "net.pt" in run("uploads").stdout
    assert "upload" in run("show", "sent").stdout
    assert run_json("uploads", "--resume") == {"sent": [pending["id"]]}

    assert run_json("uploads") == []
    assert run_json("show", "sent")["url"].startswith(interrupted.as_uri())
    assert Path(run("get", "sent", "--verify").stdout.strip()).read_bytes() == b"weights of a small net"


def test_an_upload_can_be_given_up(run: Run, run_json: Json, registry: Registry, interrupted: Path) -> None:
    """And is then gone with its bytes."""
    (pending,) = run_json("uploads")

    assert run("uploads", "--cancel", str(pending["id"])).stdout == "1 upload cancelled\n"
    assert run_json("uploads") == []
    assert list((registry.folder / "uploads").iterdir()) == []
    run("uploads", "--cancel", str(pending["id"]), code=3)
    run("uploads", "--resume", "--cancel", "1", code=2)


def test_a_model_removed_with_an_upload_gives_it_up(run: Run, run_json: Json, interrupted: Path) -> None:
    """The dry run says so."""
    (pending,) = run_json("uploads")

    assert run_json("rm", "sent", "--dry-run")["uploads"] == [pending["id"]]
    assert f"upload {pending['id']} is given up" in run("rm", "sent").stdout
    assert run_json("uploads") == []


# cache


@pytest.fixture
def cached(run: Run, tmp_path: Path) -> str:
    """A model whose unpacked weights are in the cache; left there by a process that has ended."""
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "a.txt").write_text("aaaa")
    run("register", tmp_path / "bundle")
    script = "from modelstore.cli import main; raise SystemExit(main(['get', 'bundle']))"
    done = subprocess.run([sys.executable, "-c", script], cwd=_ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_cache_tells_what_it_holds(run: Run, run_json: Json, cached: str, tmp_path: Path) -> None:
    """For people and for programs."""
    info, (entry,) = run_json("cache", "info"), run_json("cache", "ls")

    assert list(info) == [
        "folder", "objects", "trees", "bytes", "limit_bytes", "free_bytes", "partial_bytes", "quarantine_bytes",
        "in_use", "pinned",
    ]  # fmt: skip
    assert (info["folder"], info["trees"]) == (str(tmp_path / "modelstore-home" / "cache"), 1)
    assert list(entry) == [
        "digest", "kind", "size", "names", "uris", "created_at", "last_used_at", "in_use", "pinned",
    ]  # fmt: skip
    assert "1 unpacked" in run("cache", "info").stdout
    assert entry["digest"] in run("cache", "ls").stdout


def test_the_cache_is_cleared_and_a_dry_run_only_tells(run: Run, run_json: Json, cached: str) -> None:
    """To the byte."""
    told = run_json("cache", "clear", "--dry-run")
    assert Path(cached).exists()
    assert told["dry_run"]
    assert told["freed_bytes"] > 0
    assert run_json("cache", "prune")["trees"] == []
    assert run_json("cache", "clear") == told | {"dry_run": False}

    assert list(told) == ["objects", "trees", "freed_bytes", "in_use", "dry_run"]
    assert not Path(cached).exists()
    assert run("cache", "prune", "--max-bytes", "0").stdout == "freed 0 B\n"


def test_changed_bytes_in_the_cache_are_found(run: Run, run_json: Json, cached: str) -> None:
    """Exit code 4, and what was wrong is no longer handed out."""
    assert run_json("cache", "verify")["corrupt"] == []
    path = Path(cached) / "a.txt"
    path.chmod(0o600)
    path.write_text("bbbb")
    report = run_json("cache", "verify", code=4)

    assert list(report) == ["checked", "corrupt", "missing", "found"]
    assert len(report["corrupt"]) == 1
    assert (Path(run("get", "bundle").stdout.strip()) / "a.txt").read_text() == "aaaa"


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("500", 500), ("1k", 1000), ("1.5kB", 1500), ("20GiB", 20 << 30), ("3 MB", 3_000_000), ("2Ti", 2 << 40)],
)
def test_sizes_are_written_as_people_write_them(text: str, number: int) -> None:
    """Powers of 1000 and of 1024 are told apart, as on disks and in memory."""
    from modelstore.cli.params import BYTES

    assert BYTES.convert(text, None, None) == number


@pytest.mark.parametrize("text", ["", "lots", "-1", "1X", "1e9", "GB"])
def test_a_size_that_is_none_is_refused(run: Run, text: str) -> None:
    """Rather than pruned to zero."""
    run("cache", "prune", "--max-bytes", text, code=2)


# demo


def test_the_demo_is_started_in_the_registry_that_is_named(program: Program, tmp_path: Path) -> None:
    """Without scikit-learn it says what to install; with it, it runs (tests/test_demo.py)."""
    script = tmp_path / "sklearn.py"
    script.write_text("raise ImportError('not here')")
    done = program("demo", "--registry", tmp_path / "demo", PYTHONPATH=f"{tmp_path}:{_ROOT}")

    assert done.returncode == 1
    assert "scikit-learn" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "demo").exists()

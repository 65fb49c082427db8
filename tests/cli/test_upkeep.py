"""`fsck`, `gc`, `prune`, `backup`, `recover`, `export`, `import`, `move`: what keeps a registry in order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Json, Run
from tests.registry.keeping import object_files


@pytest.fixture
def registry_folder(tmp_path: Path) -> Path:
    """Where the registry of these tests is."""
    return tmp_path / "modelstore-home" / "registry"


def test_fsck_counts_what_it_checked(run: Run, run_json: Json, register: Callable[..., str], weights: Path) -> None:
    """And says that nothing is damaged."""
    register(weights)

    assert run("fsck", "--deep").stdout == "1 operations and 1 objects checked: nothing is damaged\n"
    assert run_json("fsck") == {"operations": 1, "objects": 1, "repaired": [], "findings": []}


def test_fsck_fails_on_damage_and_says_what_it_repaired(
    run: Run, run_json: Json, register: Callable[..., str], weights: Path, tmp_path: Path, registry_folder: Path
) -> None:
    """For whoever runs it every night."""
    register(weights)
    (stored,) = object_files(registry_folder)
    stored.unlink()
    (finding,) = run_json("fsck", code=4)["findings"]
    lost = run("fsck", "--repair", code=4).stdout
    run("register", weights, "--name", "copy", "--destination", tmp_path / "share")
    found = run("fsck", "--repair").stdout

    assert finding["severity"] == "error"
    assert finding["todo"] in lost
    assert lost.endswith("something is damaged or lost\n")
    assert found.startswith("repaired: brought sha256:")
    assert stored.read_bytes() == weights.read_bytes()


def test_gc_says_what_goes_and_what_stays(
    run: Run, run_json: Json, register: Callable[..., str], weights: Path
) -> None:
    """Bytes of a removed model stay for a while."""
    register(weights)
    run("rm", "net", "--keep-weights")
    young = run("gc").stdout
    former = run("gc", "--grace", "0").stdout
    told = run_json("gc", "--grace", "0", "--keep-former", "0s", "--dry-run")
    done = run_json("gc", "--grace", "0", "--keep-former", "0")

    assert young == "freed 0 B; kept 1 object (22 B) stored lately\n"
    assert former == "freed 0 B; kept 1 object (22 B) of removed models or former weights\n"
    assert told.pop("dry_run")
    assert not done.pop("dry_run")
    assert told == done
    assert [one["why"] for one in done["garbage"]] == ["former"]
    assert "were freed, and are gone" in run("restore", "net").stderr


def test_lengths_of_time_that_are_none_are_refused(run: Run) -> None:
    """Before anything is looked at."""
    for wrong in ("soon", "-1d", "1y", ""):
        assert "no length of time" in run("gc", "--grace", wrong, code=2).stderr


def test_prune_says_what_goes_what_stays_and_why(
    run: Run, run_json: Json, register: Callable[..., str], weights: Path
) -> None:
    """The dry run first; without a rule nothing at all."""
    for number in range(3):
        weights.write_bytes(b"x" * (number + 1))
        register(weights, "--name", f"net{number}", "--project", "p", "--metadata", f"iou=0.{number}")
    rules = ("prune", "--project", "p", "--keep-best", "1", "--by", "-metadata.iou")
    told = run(*rules, "--dry-run").stdout
    done = run_json(*rules)

    assert "would free 3 B" in told
    assert told.endswith("2 would be removed, 1 kept (1 best)\n")
    assert [one["name"] for one in done["models"]] == ["net1", "net0"]
    assert (done["freed_bytes"], done["kept"]) == (3, {"best": 1})
    assert "Without a rule" in run("prune", "--project", "p", code=2).stderr


def test_a_backup_is_recovered(
    run: Run, run_json: Json, register: Callable[..., str], weights: Path, tmp_path: Path
) -> None:
    """And nothing is overwritten unasked."""
    register(weights)
    text = run("backup", tmp_path / "b").stdout
    run("backup", tmp_path / "b", code=2)
    written = run_json("backup", tmp_path / "b", "--overwrite")
    done = run_json("recover", tmp_path / "b", tmp_path / "again")
    run("recover", tmp_path / "b", tmp_path / "again", code=2)
    run("recover", weights, tmp_path / "third", code=4)

    assert text.startswith(f"wrote {tmp_path / 'b'}: 1 operations, 1 objects, ")
    assert done == written | {"path": str(tmp_path / "again")}
    assert run("get", "net", "--registry", tmp_path / "again").stdout.strip().startswith(str(tmp_path / "again"))


def test_models_travel_in_a_file(
    run: Run, run_json: Json, register: Callable[..., str], weights: Path, tmp_path: Path
) -> None:
    """Into a registry that is made for them; twice changes nothing."""
    model = register(weights)
    run("register", "s3://bucket/net.onnx", "--name", "away")
    done = run("export", "net", "away", tmp_path / "m")
    first = run_json("import", tmp_path / "m", "--registry", tmp_path / "other")
    again = run("import", tmp_path / "m", "--registry", tmp_path / "other").stdout

    assert done.stdout.startswith(f"wrote {tmp_path / 'm'}: 2 models, 2 operations, 1 objects, ")
    assert "weights of 1 models are not in the registry" in done.stderr
    assert (first["operations"], first["objects"], first["models"][0]) == (2, 1, model)
    assert again.startswith("2 models: 0 operations and 0 objects were new")
    assert run("get", "net", "--registry", tmp_path / "other").stdout


def test_a_registry_is_moved(run: Run, run_json: Json, weights: Path, tmp_path: Path) -> None:
    """Models are found there, and no more where they were."""
    run("register", weights, "--name", "net", "--registry", tmp_path / "old")
    done = run_json("move", tmp_path / "new", "--registry", tmp_path / "old")

    assert done == {"folder": str(tmp_path / "new")}
    assert run("get", "net", "--registry", tmp_path / "new").stdout
    run("ls", "--registry", tmp_path / "old", code=3)

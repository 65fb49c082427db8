"""`get`: a path to use, and copies of one's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from modelstore.registry import Registry
from modelstore.registry.export import copy_to
from tests.cli.conftest import Json, Run


@pytest.mark.skipif(sys.platform == "darwin", reason="names of files are UTF-8 there")
def test_a_path_that_is_no_utf8_is_printed_as_it_is(tmp_path: Path, weights: Path) -> None:
    """`python predict.py --weights "$(modelstore get net)"` must find the file."""
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    folder = os.fsencode(tmp_path) + b"/r\xff"
    command: list[str | bytes | Path] = [sys.executable, "-m", "modelstore", "--registry", folder]
    subprocess.run([*command, "register", weights], env=environment, check=True, capture_output=True)
    done = subprocess.run([*command, "get", "net"], env=environment, check=True, capture_output=True)

    assert Path(os.fsdecode(done.stdout.rstrip(b"\n"))).read_bytes() == weights.read_bytes()


def test_get_prints_a_path_and_nothing_else(
    run: Run, run_json: Json, register: Callable[..., str], weights: Path
) -> None:
    """`--weights "$(modelstore get net)"`."""
    model = register(weights)
    path = Path(run("get", "net").stdout.removesuffix("\n"))

    assert path.read_bytes() == weights.read_bytes()
    assert run_json("get", "net") == {"id": model, "path": str(path), "digest": run_json("show", model)["digest"]}


def test_a_copy_of_ones_own_may_be_changed(
    run: Run, register: Callable[..., str], weights: Path, tmp_path: Path
) -> None:
    """And changes nothing in the registry."""
    register(weights)
    copy = Path(run("get", "net", "--to", tmp_path / "new" / "mine.pt").stdout.strip())
    copy.write_bytes(b"changed")

    assert copy == tmp_path / "new" / "mine.pt"
    run("get", "net", "--verify")


def test_a_copy_into_a_folder_keeps_its_name(
    run: Run, register: Callable[..., str], weights: Path, tmp_path: Path
) -> None:
    """As `cp` does."""
    register(weights)
    (tmp_path / "there").mkdir()

    assert run("get", "net", "--to", tmp_path / "there").stdout.strip() == str(tmp_path / "there" / "net.pt")


def test_nothing_is_overwritten_unless_asked(
    run: Run, register: Callable[..., str], weights: Path, tmp_path: Path
) -> None:
    """What lies there may be the only copy of something."""
    register(weights)
    target = tmp_path / "precious"
    target.write_text("precious")

    assert "--overwrite" in run("get", "net", "--to", target, code=2).stderr
    assert target.read_text() == "precious"
    run("get", "net", "--to", target, "--overwrite")
    assert target.read_bytes() == weights.read_bytes()


@pytest.fixture
def package(tmp_path: Path, register: Callable[..., str]) -> Path:
    """A folder that is registered as a package."""
    folder = tmp_path / "bundle"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "sub" / "b.txt").write_text("b")
    register(folder)
    return folder


def _content(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_a_package_is_copied_as_a_folder(run: Run, package: Path, tmp_path: Path) -> None:
    """Under the name that it had, inside a folder that exists; else under the name that is given."""
    (tmp_path / "there").mkdir()
    inside = Path(run("get", "bundle", "--to", tmp_path / "there").stdout.strip())
    named = Path(run("get", "bundle", "--to", tmp_path / "new" / "name").stdout.strip())

    assert (inside, named) == (tmp_path / "there" / "bundle", tmp_path / "new" / "name")
    assert _content(inside) == _content(named) == {"a.txt": "a", "sub/b.txt": "b"}
    (named / "a.txt").write_text("may be changed")


def test_a_folder_is_replaced_whole(run: Run, package: Path, tmp_path: Path) -> None:
    """What was in the former one does not mix with what is in the new one."""
    former = tmp_path / "there" / "bundle"
    former.mkdir(parents=True)
    (former / "old.txt").write_text("old")

    run("get", "bundle", "--to", tmp_path / "there", code=2)
    run("get", "bundle", "--to", tmp_path / "there", "--overwrite")
    assert _content(former) == {"a.txt": "a", "sub/b.txt": "b"}
    assert os.listdir(tmp_path / "there") == ["bundle"]


def test_a_package_can_be_left_packed(run: Run, package: Path) -> None:
    """To be sent on as one file."""
    assert run("get", "bundle", "--no-extract").stdout.strip().endswith("/bundle.zip")


def test_a_file_never_replaces_a_folder(run: Run, register: Callable[..., str], weights: Path, tmp_path: Path) -> None:
    """--overwrite is about the thing of that name, not about a tree that stands in its place."""
    register(weights)
    (tmp_path / "there" / "net.pt").mkdir(parents=True)

    run("get", "net", "--to", tmp_path / "there", "--overwrite", code=2)
    assert (tmp_path / "there" / "net.pt").is_dir()


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """Here a member that leads nowhere, after others were copied."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_text("a")
    (source / "dangling").symlink_to("nowhere")
    (tmp_path / "out").mkdir()
    with pytest.raises(FileNotFoundError):
        copy_to(source, tmp_path / "out" / "copy")

    assert os.listdir(tmp_path / "out") == []


def test_links_to_folders_stay_links(tmp_path: Path) -> None:
    """A link to / in somebody's folder does not copy the disk."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "up").symlink_to("..")
    copy = copy_to(source, tmp_path / "copy")

    assert os.readlink(copy / "up") == ".."


def test_weights_that_are_nowhere_are_not_found(run: Run, registry: Registry, tmp_path: Path) -> None:
    """No weights yet, and a file that went away: both are said, neither is a traceback."""
    registry.models.create(name="empty")
    run("register", (tmp_path / "gone.pt").as_uri())

    assert "no weights yet" in run("get", "empty", code=3).stderr
    assert "Nothing exists" in run("get", "gone", code=3).stderr


def test_verifying_without_a_digest_says_that_there_is_nothing_to_compare(run: Run, weights: Path) -> None:
    """Silence would be taken for a yes."""
    run("register", weights.as_uri())

    assert "no digest" in run("get", "net", "--verify").stderr

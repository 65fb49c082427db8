"""`kill -9` at every numbered step: what is left is whole, and the next process gets what it asks for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import modelstore.cache
from modelstore.cache import Cache
from modelstore.testing import faults
from modelstore.testing.cache_origin import FolderOrigin, check_bytes, check_folder, damage, extract_copy
from modelstore.testing.cache_soak import STEPS

Spawn = Callable[..., "subprocess.Popen[str]"]

URI = "s3://bucket/net.pt"
CONTENT = bytes(range(256)) * 40

_WORK = {
    "fetch": "cache.fetch(arguments[0], origin)",
    "publish": "cache.fetch(arguments[0], origin)",
    "evict": "cache.release(cache.fetch(arguments[0], origin).digest)\ncache.clear()",
    "extract": "f = cache.fetch(arguments[0], origin)\ncache.extracted(f.digest, f.path, extract_copy)",
    "quarantine": "from modelstore.testing.cache_origin import damage\n"
    "damage(cache.fetch(arguments[0], origin).path)\ncache.fetch(arguments[0], origin)",
    "rebuild": "cache.fetch(arguments[0], origin)",
}


def _numbered() -> list[str]:
    """Return all steps that the cache's source announces."""
    source = "".join(path.read_text() for path in Path(modelstore.cache.__file__).parent.glob("*.py"))
    return sorted(set(re.findall(r'step\("(cache\.[a-z]+\.\d)"\)', source)))


def test_the_soak_knows_every_step() -> None:
    """A step that nobody is killed at proves nothing."""
    assert sorted(step for step in STEPS if step.startswith("cache.")) == _numbered()


@pytest.mark.parametrize("step", _numbered())
def test_killed_at_any_step_nothing_half_is_left(spawn: Spawn, cache: Cache, origin: FolderOrigin, step: str) -> None:
    """The file is wholly there or not at all; the next process works on; the totals are right; nothing is lost."""
    origin.put(URI, CONTENT)
    child = spawn(_WORK[step.split(".")[1]], URI, plan=f"{step}=kill")
    child.communicate(timeout=30)
    assert child.returncode == -9, "the step was not reached"
    check_folder(cache.folder, corrupted=[file.parent.name for file in _damaged(cache)])

    file = cache.fetch(URI, origin)
    tree = cache.extracted(file.digest, file.path, extract_copy)
    check_bytes(file, CONTENT)
    assert (tree / "a" / "copy").read_bytes() == CONTENT
    cache.release(file.digest)
    cache.clear()
    check_folder(cache.folder)
    left = [path for path in cache.folder.rglob("*") if path.is_file() and path.stat().st_size >= len(CONTENT)]
    assert {path.name for path in left} <= {"cache.db", "cache.db-wal", "cache.db-shm", "reserve"}


def _damaged(cache: Cache) -> list[Path]:
    return [path for path in cache.folder.glob("objects/sha256/*/*/*") if path.read_bytes() != CONTENT]


@pytest.mark.parametrize("step", [name for name in _numbered() if name.split(".")[1] in {"fetch", "publish"}])
def test_killed_after_the_download_it_is_not_repeated_where_the_digest_is_known(
    spawn: Spawn, cache: Cache, origin: FolderOrigin, step: str
) -> None:
    """From the rename on, the bytes are found; before it, they are fetched once more."""
    digest = origin.put(URI, CONTENT)
    spawn("cache.fetch(arguments[0], origin)", URI, plan=f"{step}=kill").communicate(timeout=30)
    before = origin.bytes_read()
    check_bytes(cache.fetch(URI, origin, expected=digest), CONTENT)

    renamed = step in {f"cache.publish.{n}" for n in (5, 6, 7, 8)}
    downloaded = step not in {"cache.fetch.1", "cache.fetch.2"}
    # What was downloaded and not yet in its place is continued from its last byte: nothing is read again either.
    assert origin.bytes_read() - before == (0 if renamed or downloaded else len(CONTENT))


@pytest.mark.parametrize("step", [name for name in _numbered() if name.split(".")[1] == "publish"])
@pytest.mark.parametrize("error", ["eio", "enospc"])
def test_a_failure_at_any_step_of_publication_leaves_nothing_half(
    cache: Cache, origin: FolderOrigin, step: str, error: str
) -> None:
    """A full disk is tried once more after evicting; anything else is told."""
    origin.put(URI, CONTENT)
    (fault,) = faults.parse(f"{step}={error}")
    with faults.inject(step, fault.action):
        try:
            check_bytes(cache.fetch(URI, origin), CONTENT)
        except OSError:
            assert error == "eio"
        else:
            assert error == "enospc"
    check_folder(cache.folder)
    assert list((cache.folder / "partial").iterdir()) == []

    check_bytes(cache.fetch(URI, origin), CONTENT)
    check_folder(cache.folder)


def _soak(kills: int, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "modelstore.testing.cache_soak", "--kills", str(kills), *arguments],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


@pytest.mark.parametrize("arguments", [(), ("--no-locks",)])
def test_kills_at_random_are_survived(arguments: tuple[str, ...]) -> None:
    """Two processes at a time fetch, force, damage, extract, evict and lose the index, until one is killed."""
    figures = _soak(20, *arguments)

    assert " 0 wrong files" in figures


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("arguments", [(), ("--no-locks",)])
def test_a_thousand_kills_are_survived(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """The same, a thousand times, with another order at every run."""
    seed = str(int.from_bytes(os.urandom(3)))
    figures = _soak(1000, *arguments, "--seed", seed)
    with capsys.disabled():
        print(f"\nseed {seed}: {figures.strip()}")

    assert " 0 wrong files" in figures


def test_damage_is_not_survived_unnoticed(cache: Cache, origin: FolderOrigin) -> None:
    """The checks that the soak relies on do find what they look for."""
    origin.put(URI, CONTENT)
    file = cache.fetch(URI, origin)
    check_folder(cache.folder)
    damage(file.path)

    with pytest.raises(AssertionError, match="torn"):
        check_folder(cache.folder)
    with pytest.raises(AssertionError):
        check_bytes(file)

"""A soak of the download cache: processes killed at every step of their work, a thousand times and more.

python -m modelstore.testing.cache_soak --kills 1000
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from modelstore.cache import Cache
from modelstore.errors import ModelStoreError
from modelstore.testing import faults
from modelstore.testing.cache_origin import FolderOrigin, check_bytes, check_folder, damage, extract_copy

__all__ = ["STEPS", "SoakFigures", "soak"]


@dataclass
class SoakFigures:
    """What a soak went through."""

    kills: int = 0
    rounds: int = 0
    downloads: int = 0
    resumed_bytes: int = 0
    wrong_bytes: int = 0
    steps: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        steps = ", ".join(f"{name} {count}" for name, count in sorted(self.steps.items()))
        return (
            f"{self.kills} kills in {self.rounds} rounds, {self.wrong_bytes} wrong files, {self.downloads} downloads, "
            f"{self.resumed_bytes} bytes not fetched again; killed at: {steps}"
        )


STEPS = [
    "origin.block",
    *(f"cache.fetch.{n}" for n in (1, 2, 3)),
    *(f"cache.publish.{n}" for n in range(1, 9)),
    *(f"cache.evict.{n}" for n in range(1, 6)),
    *(f"cache.extract.{n}" for n in range(1, 6)),
    *(f"cache.quarantine.{n}" for n in (1, 2)),
    *(f"cache.rebuild.{n}" for n in (1, 2)),
    "random",
]
"""Where a soak kills; ``random`` is a signal from outside at some moment."""


def soak(folder: Path, kills: int, *, seed: int = 0, locking: bool = True) -> SoakFigures:
    """Kill processes at every step of their work on one cache, again and again; after each, check what is left.

    Every round two children work on the cache: each fetches, forces, verifies, extracts, damages a file, deletes the
    index, prunes and clears at random, until one is killed at a step drawn for it. What a child is handed it reads back
    at once and once more at its end. Needs `os.fork`; the calling process must have one thread only.

    Returns:
        The figures.

    Raises:
        AssertionError: The invariant does not hold.
    """
    rng = random.Random(seed)  # noqa: S311
    contents = {f"mem://origin/{n}/weights-{n % 4}.bin": _content(rng, n) for n in range(6)}
    private = {f"mem://origin/private-{n}/weights.bin": rng.randbytes(5000) for n in range(2)}
    origin = FolderOrigin(folder / "origin", block_bytes=2048)
    damaged = [origin.put(uri, content) for uri, content in private.items()]
    for uri, content in contents.items():
        origin.put(uri, content)
    figures = SoakFigures()
    while figures.kills < kills:
        steps = [STEPS[(figures.rounds * 2 + k) % len(STEPS)] for k in range(2)]
        children = [
            _start(folder, contents | {own: private[own]}, own, step, rng.randrange(1 << 30), locking=locking)
            for own, step in zip(private, steps, strict=True)
        ]
        figures.rounds += 1
        for child, step in zip(children, steps, strict=True):
            if step == "random":
                time.sleep(rng.random() * 0.05)
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if os.WIFSIGNALED(status):
                figures.kills += 1
                figures.steps[step] += 1
            elif os.WEXITSTATUS(status):
                figures.wrong_bytes += 1
                raise AssertionError(f"a child failed (step {step}, round {figures.rounds}, seed {seed})")
        check_folder(folder / "cache", corrupted=damaged, index_lost=True)
        if figures.rounds % 50 == 0 and rng.random() < 0.5:
            shutil.rmtree(folder / "cache")
    figures.downloads, figures.resumed_bytes = origin.reads(), origin.bytes_resumed()
    return figures


def _content(rng: random.Random, number: int) -> bytes:
    # One empty, two alike, the rest of several blocks.
    return b"" if number == 0 else rng.randbytes(3000 + 4000 * (number // 2))


def _start(folder: Path, contents: dict[str, bytes], own: str, step: str, seed: int, *, locking: bool) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        if step != "random":
            faults.install(f"{step}#{1 if 'rebuild' in step else 1 + seed % 2}=kill")
        _work(folder, contents, own, random.Random(seed), locking=locking)  # noqa: S311
        code = 0
    except BaseException:  # noqa: BLE001 - a process's top
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def _work(folder: Path, contents: dict[str, bytes], own: str, rng: random.Random, *, locking: bool) -> None:
    cache = Cache(folder / "cache", max_bytes=rng.choice([0, 20_000, 1 << 30]), min_free_bytes=0, locking=locking)
    origin = FolderOrigin(folder / "origin", block_bytes=2048)
    paths: list[Path] = []
    actions = ["fetch", "fetch", "fetch", "force", "verify", "extract", "damage", "index", "prune", "clear"]
    for _ in range(rng.randrange(6, 14)):
        uri, action = rng.choice(list(contents)), rng.choice(actions)
        if action in {"fetch", "force", "verify"}:
            file = cache.fetch(uri, origin, force_download=action == "force", verify=action == "verify")
            check_bytes(file, contents[uri])
            paths.append(file.path)
        elif action == "extract":
            file = cache.fetch(uri, origin)
            tree = cache.extracted(file.digest, file.path, extract_copy)
            assert (tree / "a" / "copy").read_bytes() == contents[uri]
            paths += [file.path, tree / "a" / "copy"]
        elif action == "damage":
            # Of a URI that the other child does not use: it could not be told that its bytes went wrong on purpose.
            damage(cache.fetch(own, origin).path)
            check_bytes(cache.fetch(own, origin), contents[own])
        elif action == "index" and rng.random() < 0.3:
            (folder / "cache" / "cache.db").unlink(missing_ok=True)
        elif action in {"prune", "clear"}:
            cache.prune(0 if action == "clear" else rng.choice([5000, None]))
    for path in paths:
        assert path.exists(), f"{path} was evicted while it was held"


def main(arguments: list[str] | None = None) -> int:
    """Run a soak from the command line and print its figures."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-locks", action="store_true")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="modelstore-soak-"))
    started = time.monotonic()
    try:
        figures = soak(folder, options.kills, seed=options.seed, locking=not options.no_locks)
    except ModelStoreError as error:
        print(error, file=sys.stderr)  # noqa: T201 - its output
        return 1
    print(f"{figures} ({time.monotonic() - started:.1f} s)")  # noqa: T201
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

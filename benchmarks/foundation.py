"""The everyday jobs of one person on one machine, each beside its peers and beside its limit."""

from __future__ import annotations

import filecmp
import itertools
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.arena import SCRIPTS, Arena, Bar, Outcome
from benchmarks.measure import ContenderFailedError, Series, Worker, in_turns, median, run_process, settle

__all__ = ["JOBS"]

OURS = "modelstore"
BY_HAND = "by hand"
CLASSES = "modelstore: the four classes"
COPY = "cp, then flushed"
HASH = "sha256 alone"
NEW_IN_MLFLOW = "mlflow, a new model"
PEER_IMPORTS = {"clearml": "from clearml import InputModel, Model, OutputModel, Task"}
REGISTRARS = ("mlflow", "bentoml")
MIB = 2**20


def _ratio(top: Series | None, bottom: Series | None) -> float | None:
    """Return the median turn-by-turn ratio, or None where one of the two did not run."""
    if top is None or bottom is None or not top.values or not bottom.values:
        return None
    return top.ratio_to(bottom)


def importing(arena: Arena) -> Outcome:
    """Time fresh interpreters that import and end, and take off what the same interpreter needs to do nothing."""
    home = arena.folder("import")
    statements = {
        OURS: (arena.python, "import modelstore"),
        CLASSES: (arena.python, "from modelstore import InputModel, Model, OutputModel, Task"),
        "sqlite3 alone": (arena.python, "import sqlite3"),
    }
    for peer in (*REGISTRARS, "clearml"):
        if python := arena.peers.get(peer):
            statements[peer] = (python, PEER_IMPORTS.get(peer, f"import {peer}"))
    contenders: dict[str, Callable[[], float]] = {}
    for name, (python, statement) in statements.items():
        contenders[_bare(name)] = partial(_wall, arena, home, python, "-c", "pass")
        contenders[name] = partial(_wall, arena, home, python, "-c", statement)
    raw = in_turns(contenders, arena.turns(15))
    net = _over_bare(raw, list(statements))
    bare = raw[_bare(OURS)]
    bare.name = "bare interpreter"
    ours = net[OURS]
    # `import modelstore` alone loads next to nothing, so what a script really imports is judged as well.
    whole = net[CLASSES]
    bars = []
    for words, series in (("import modelstore", ours), ("import of the four classes", whole)):
        bars.append(Bar(f"{words}, over a bare interpreter", _milliseconds(series), 60, unit="ms"))
        for peer in ("clearml", "mlflow"):
            ratio = _ratio(net.get(peer), series)
            bars.append(Bar(f"{peer} / {words}, both over their bare interpreter", ratio, 10, at_least=True))
    notes = [
        "Every figure but the first is over the bare interpreter.",
        "`import modelstore` loads each part at its first use; clearml is imported for the same four classes.",
    ]
    return Outcome("Import", [bare, *net.values()], bars, notes)


def _bare(name: str) -> str:
    return f"bare interpreter of {name}"


def _over_bare(raw: dict[str, Series], names: list[str]) -> dict[str, Series]:
    """Take off, turn by turn, what the same interpreter needs to do nothing."""
    return {name: raw[name] if raw[name].failure else raw[name].minus(raw[_bare(name)], name) for name in names}


def _wall(arena: Arena, home: Path, python: Path, *arguments: str | Path) -> float:
    return run_process([python, *arguments], arena.env(home), home)[0]


def _milliseconds(series: Series) -> float | None:
    return series.median * 1000 if series.values else None


def first_use(arena: Arena) -> Outcome:
    """Time a fresh process that finds an empty folder and leaves the first registered model."""

    def run(name: str, python: Path) -> float:
        home = arena.folder(f"first-{name}")
        weights = home / "weights.bin"
        weights.write_bytes(os.urandom(1024))
        settle()
        seconds, out = run_process([python, SCRIPTS / f"first_use_{name}.py", weights, home], arena.env(home), home)
        if not out.strip():
            raise ContenderFailedError("it printed nothing")
        shutil.rmtree(home)
        return seconds

    contenders = {OURS: partial(run, "ours", arena.python), BY_HAND: partial(run, "by_hand", arena.python)}
    contenders |= {peer: partial(run, peer, arena.peers[peer]) for peer in REGISTRARS if peer in arena.peers}
    series = in_turns(contenders, arena.turns(9))
    ours = series[OURS]
    bars = [
        Bar(
            "empty folder to first registered model, whole process", ours.median if ours.values else None, 0.5, unit="s"
        ),
    ]
    notes = ["Whole processes, from the start of the interpreter to its end."]
    notes += _ratio_notes(series, ("mlflow", "bentoml", BY_HAND))
    return Outcome("First use in an empty folder, to the first registered model", list(series.values()), bars, notes)


def _ratio_notes(series: dict[str, Series], names: tuple[str, ...]) -> list[str]:
    notes = []
    for name in names:
        ratio = _ratio(series.get(name), series[OURS])
        if ratio is not None:
            notes.append(f"{name} / modelstore: {ratio:.3g}×")
    return notes


@dataclass(frozen=True)
class Seat:
    """A contender's running worker and the folder that holds all it stores."""

    worker: Worker
    home: Path


def _seat(stack: ExitStack, arena: Arena, module: str, python: Path | None = None, **start: Any) -> Seat:
    home = arena.folder(module)
    if module != "ours":
        start["folder"] = str(home)
    return Seat(stack.enter_context(arena.worker(module, home, python, **start)), home)


def _peer_seats(stack: ExitStack, arena: Arena) -> dict[str, Seat]:
    """Seat the peers that can register a file without a server: ClearML cannot, offline."""
    return {peer: _seat(stack, arena, f"{peer}_peer", arena.peers[peer]) for peer in REGISTRARS if peer in arena.peers}


def register_small(arena: Arena) -> Outcome:
    """Time registrations of new models with 1 KiB files in a process that has already registered one."""
    size, count = 1024, 20
    numbers = itertools.count(0, count)
    with ExitStack() as stack:
        seats = {OURS: _seat(stack, arena, "ours"), BY_HAND: _seat(stack, arena, "by_hand")}
        seats["by hand, nothing flushed"] = _seat(stack, arena, "by_hand", durable=False)
        seats |= _peer_seats(stack, arena)

        def run(seat: Seat, job: str) -> float:
            settle()
            first = next(numbers)
            return median(seat.worker.ask(job, folder=str(seat.home), first=first, count=count, size=size))

        contenders = {name: partial(run, seat, "register") for name, seat in seats.items()}
        if "mlflow" in seats:
            contenders[NEW_IN_MLFLOW] = partial(run, seats["mlflow"], "register_new")
        series = in_turns(contenders, arena.turns(15))
    ours = series[OURS]
    bars = [
        Bar("modelstore / the same by hand, as durable", _ratio(ours, series[BY_HAND]), 3),
        Bar("mlflow, a new model / modelstore", _ratio(series.get(NEW_IN_MLFLOW), ours), 5, at_least=True),
        Bar("bentoml / modelstore", _ratio(series.get("bentoml"), ours), 1, at_least=True),
    ]
    notes = [
        f"Each value is the median of {count} registrations in one turn.",
        "modelstore makes a new model each time, as `mlflow, a new model` does; `mlflow` adds versions to one model.",
        *_ratio_notes(series, ("mlflow",)),
        *_flushes(arena, size),
    ]
    return Outcome("Register a model with a 1 KiB file", list(series.values()), bars, notes)


def _flushes(arena: Arena, size: int) -> list[str]:
    """Count flushes per registration, where strace is there to count them: who would survive a power cut?"""
    if shutil.which("strace") is None:
        return ["Flushes were not counted: strace is not installed."]
    pythons = {"ours": arena.python, "by_hand": arena.python}
    pythons |= {f"{peer}_peer": arena.peers[peer] for peer in REGISTRARS if peer in arena.peers}
    notes = []
    for module, python in pythons.items():
        counts = [_count_flushes(arena, module, python, registrations, size) for registrations in (5, 25)]
        notes.append(f"Flushes (fsync, fdatasync) per registration, {module}: {(counts[1] - counts[0]) / 20:.3g}")
    return notes


def _count_flushes(arena: Arena, module: str, python: Path, registrations: int, size: int) -> int:
    home = arena.folder(f"flushes-{module}")
    log = home / "strace"
    prefix = ["strace", "-f", "-qq", "-o", str(log), "-e", "trace=fsync,fdatasync"]
    start = {} if module == "ours" else {"folder": str(home)}
    with arena.worker(module, home, python, prefix, **start) as worker:
        worker.ask("register", folder=str(home), first=0, count=registrations, size=size)
        # Before it ends: closing the database flushes too, and belongs to no registration.
        return len(re.findall(r"\b(?:fsync|fdatasync)\(", log.read_text()))


def register_large(arena: Arena) -> Outcome:
    """Time the registration of a large file, of which the page cache holds every byte."""
    size = 32 * MIB if arena.quick else 1024 * MIB
    source = arena.folder("large") / "weights.bin"
    _write_random(source, size)
    turn = itertools.count()
    peaks: dict[str, Series] = {}

    def register(name: str, seat: Seat) -> float:
        number = next(turn)
        _renew(source, number)
        answer = seat.worker.ask("register_file", path=str(source), name=f"large-{number}")
        memory = peaks.setdefault(name, Series(f"{name}: memory over baseline", "MiB"))
        memory.values.append(answer["peak_mib"])
        _take_large(seat.home, source)
        return float(answer["seconds"])

    def limit(seat: Seat, job: str, **arguments: str) -> float:
        _renew(source, next(turn))
        seconds = float(seat.worker.ask(job, source=str(source), **arguments))
        if job == "copy":
            _take_large(seat.home, source)
        return seconds

    with ExitStack() as stack:
        seats = {OURS: _seat(stack, arena, "ours")} | _peer_seats(stack, arena)
        for seat in seats.values():
            # The first registration of a process loads libraries; that is no part of what memory a file takes.
            seat.worker.ask("register", folder=str(seat.home), first=0, count=2, size=1024)
        by_hand = _seat(stack, arena, "by_hand")
        contenders: dict[str, Callable[[], float]] = {
            name: partial(register, name, seat) for name, seat in seats.items()
        }
        contenders[COPY] = partial(limit, by_hand, "copy", target=str(by_hand.home / "copy.bin"))
        contenders[HASH] = partial(limit, by_hand, "sha256")
        series = in_turns(contenders, arena.turns(7))
    source.unlink()
    notes = [f"{size // MIB} MiB, wholly in the page cache, another content each time; the disk is idle before each."]
    bars = _judge_large(arena, series, peaks.get(OURS), notes)
    return Outcome(f"Register a {size // MIB} MiB file", [*series.values(), *peaks.values()], bars, notes)


def _judge_large(arena: Arena, series: dict[str, Series], memory: Series | None, notes: list[str]) -> list[Bar]:
    """Judge against the slower of copying and hashing: they can overlap. With reflinks there is nothing to copy."""
    ours, hashing = series[OURS], series[HASH]
    slower = Series("the slower of cp + flush and sha256")
    slower.values = [max(pair) for pair in zip(series[COPY].values, hashing.values, strict=True)]
    peak = max(memory.values) if memory is not None and memory.values else None
    bars = [
        Bar("modelstore / the slower of cp + flush and hashing, in the same turn", _ratio(ours, slower), 1.25),
        Bar("memory over baseline, at its highest", peak, 64, unit="MiB"),
    ]
    if _reflinks(arena):
        notes.append("This filesystem has reflinks: nothing needs to be copied, the limit is hashing alone.")
        bars[0] = Bar("modelstore / hashing alone, the filesystem having reflinks", _ratio(ours, hashing), 1.25)
    else:
        notes.append("This filesystem has no reflinks: the bytes are really copied.")
    return bars


def _write_random(path: Path, size: int) -> None:
    block = os.urandom(MIB)
    with path.open("wb") as file:
        for number in range(size // MIB):
            file.write(number.to_bytes(8, "big") + block[8:])


def _renew(path: Path, number: int) -> None:
    """Make the content new, so that nobody can answer from what is stored already; then let the disk come to rest."""
    with path.open("r+b") as file:
        file.write(b"turn" + number.to_bytes(8, "big"))
    settle()


def _take_large(home: Path, source: Path) -> None:
    """Remove what was stored, so that the disk does not fill up; who stored nothing, or something else, has failed."""
    stored = [
        path
        for path in home.rglob("*")
        if path.is_file() and not path.is_symlink() and path.stat().st_size == source.stat().st_size
    ]
    if len(stored) != 1 or not filecmp.cmp(stored[0], source, shallow=False):
        raise ContenderFailedError(f"{len(stored)} files of that size are stored, or the bytes differ")
    stored[0].chmod(0o600)
    stored[0].unlink()


def _reflinks(arena: Arena) -> bool:
    folder = arena.folder("reflink")
    (folder / "a").write_bytes(b"x" * 4096)
    try:
        run_process(["cp", "--reflink=always", folder / "a", folder / "b"], arena.env(folder), folder)
    except ContenderFailedError:
        return False
    return True


def reopen(arena: Arena) -> Outcome:
    """Time a fresh process that opens a registry of 1,000 models, asks for a tag, and has the newest one's file."""
    count = 50 if arena.quick else 1000
    pythons = {OURS: arena.python, BY_HAND: arena.python}
    pythons |= {peer: arena.peers[peer] for peer in REGISTRARS if peer in arena.peers}
    homes = {name: _filled(arena, name, python, count) for name, python in pythons.items()}
    arena.filled = homes[OURS], count
    settle()

    def run(name: str) -> float:
        home = homes[name]
        script = SCRIPTS / f"reopen_{ {OURS: 'ours', BY_HAND: 'by_hand'}.get(name, name) }.py"
        seconds, out = run_process([pythons[name], script, home], arena.env(home), home)
        if Path(out.splitlines()[-1]).stat().st_size != 1024:
            raise ContenderFailedError(f"what it printed is no model's file: {out}")
        return seconds

    contenders: dict[str, Callable[[], float]] = {name: partial(run, name) for name in homes}
    contenders |= {_bare(name): partial(_wall, arena, homes[name], pythons[name], "-c", "pass") for name in homes}
    net = _over_bare(in_turns(contenders, arena.turns(15)), list(homes))
    ours = net[OURS]
    bars = [
        Bar("import, open, query, local path: over a bare interpreter", _milliseconds(ours), 150, unit="ms"),
        Bar("mlflow / modelstore", _ratio(net.get("mlflow"), ours), 10, at_least=True),
    ]
    notes = ["Over a bare interpreter.", "BentoML has no query by label; it lists all models and looks through them."]
    notes += _ratio_notes(net, ("bentoml", BY_HAND))
    title = f"A fresh process on a registry of {count:,} models: one query by tag, local path of the newest"
    return Outcome(title, list(net.values()), bars, notes)


def _filled(arena: Arena, name: str, python: Path, count: int) -> Path:
    """Return the home of a contender that has registered ``count`` models."""
    if name == BY_HAND:
        home = arena.folder("by-hand")
        _fill_by_hand(home, count)
        return home
    with ExitStack() as stack:
        seat = _seat(stack, arena, "ours" if name == OURS else f"{name}_peer", python)
        seat.worker.ask("fill", folder=str(seat.home), count=count)
        return seat.home


def _fill_by_hand(home: Path, count: int) -> None:
    connection = sqlite3.connect(home / "registry.db")
    connection.execute("CREATE TABLE models (id INTEGER PRIMARY KEY, name TEXT, uri TEXT, updated INTEGER)")
    connection.execute("CREATE TABLE tags (tag TEXT, model INTEGER, PRIMARY KEY (tag, model)) WITHOUT ROWID")
    for number in range(count):
        path = home / f"{number}.bin"
        path.write_bytes(os.urandom(1024))
        connection.execute("INSERT INTO models VALUES (?, ?, ?, ?)", (number, f"model-{number}", str(path), number))
        tags = ("common", f"group-{number % 20}", f"only-{number}")
        connection.executemany("INSERT INTO tags VALUES (?, ?)", [(tag, number) for tag in tags])
    connection.commit()
    connection.close()


def properties(arena: Arena) -> Outcome:
    """Count the SQL statements behind the properties of every model that one query returned."""
    if arena.filled is None:
        reopen(arena)
    if arena.filled is None:
        raise ContenderFailedError("no registry to ask")
    home, count = arena.filled
    with arena.worker("ours", home, trace=True) as worker:
        few = worker.ask("properties", count=10)["list_statements"]
        answers = [worker.ask("properties", count=count) for _ in range(arena.turns(7))]
    listing = Series("SQL statements for the list", "statements", [answer["list_statements"] for answer in answers])
    reading = Series("SQL statements for the properties", "statements", [a["read_statements"] for a in answers])
    with arena.worker("ours", home) as worker:
        answers = [worker.ask("properties", count=count) for _ in range(arena.turns(7))]
    seconds = [
        Series("the query", "s", [answer["list_seconds"] for answer in answers]),
        Series("reading the properties", "s", [answer["read_seconds"] for answer in answers]),
    ]
    bars = [
        Bar("SQL statements for the properties of all", max(reading.values), 0, unit="statements"),
        Bar("SQL statements for a list of all beyond those for 10", max(listing.values) - few, 0, unit="statements"),
    ]
    title = f"Eleven properties of {count:,} models returned by one query"
    return Outcome(title, [listing, reading, *seconds], bars)


JOBS: dict[str, Callable[[Arena], Outcome]] = {
    "import": importing,
    "first-use": first_use,
    "register-small": register_small,
    "register-large": register_large,
    "reopen": reopen,
    "properties": properties,
}

"""Finding models among a thousand, a hundred thousand and a million, beside plain SQL and MLflow's registry."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import catalogue
from benchmarks.arena import Arena, Bar, Outcome
from benchmarks.measure import ContenderFailedError, Series, Worker, in_turns
from benchmarks.shapes import COUNTS, LIMIT, SHAPES, Shape
from modelstore.index.schema import SCHEMA_VERSION
from modelstore.registry.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BULK_JOBS", "JOBS", "SIZES", "fill", "home_of"]

OURS = "modelstore"
BY_HAND = "by hand"
SIZES = (1_000, 100_000, 1_000_000)
MLFLOW_AT = 100_000
STEP = 50_000
_MLFLOW_KINDS = ("models", "versions")


def home_of(arena: Arena, what: str, total: int) -> Path:
    """Return the folder that keeps a filled registry from one run to the next: it takes minutes to fill."""
    key = hashlib.sha256(Path(catalogue.__file__).read_bytes() + str(SCHEMA_VERSION).encode()).hexdigest()[:12]
    return arena.scratch.parent / "query" / f"{what}-{total}-{key}"


def _filled(arena: Arena, total: int) -> Path:
    """Return the home of a registry with so many models, filled when it is not there."""
    home = home_of(arena, "ours", total)
    if not (home / "done").exists():
        fill(arena, home, total)
        _finish(arena, home, total)
    return home


def fill(arena: Arena, home: Path, total: int) -> None:
    """Make a registry with so many models in a home, in place of what there is."""
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    with arena.worker("bulk_ours", home, folder=str(home / "registry")) as worker:
        worker.ask("append", first=0, count=total, total=total)
        worker.ask("close")


def _finish(arena: Arena, home: Path, total: int) -> None:
    with arena.worker("query_ours", home, total=total) as worker:
        worker.ask("report", folder=str(home / "registry"))
    (home / "done").touch()


def _sizes(arena: Arena) -> tuple[int, ...]:
    return (1_000, 5_000, 10_000) if arena.quick else SIZES


@contextmanager
def _seated(arena: Arena, total: int) -> Iterator[tuple[Worker, Worker]]:
    home = _filled(arena, total)
    folder = str(home / "registry")
    with ExitStack() as stack:
        ours = stack.enter_context(arena.worker("query_ours", home, total=total))
        yield ours, stack.enter_context(arena.worker("query_by_hand", home, total=total, folder=folder))


def _in_ms(series: dict[str, Series]) -> dict[str, Series]:
    for one in series.values():
        one.unit = "ms"
        one.values = [1000 * value for value in one.values]
    return series


def _ours(name: str) -> str:
    return f"{name}: {OURS}"


def _hand(name: str) -> str:
    return f"{name}: {BY_HAND}"


def newest(which: int, arena: Arena) -> Outcome:
    """Time every shape at one size; who answers otherwise than plain SQL has failed."""
    total = _sizes(arena)[which]
    with _seated(arena, total) as (ours, by_hand):
        contenders: dict[str, Callable[[], float]] = {}
        for name in SHAPES:
            if ours.ask("answer", shape=name) != by_hand.ask("answer", shape=name):
                raise ContenderFailedError(f"{name}: modelstore and plain SQL find different models")
            contenders[_ours(name)] = partial(ours.ask, "newest", shape=name)
            contenders[_hand(name)] = partial(by_hand.ask, "newest", shape=name)
        series = _in_ms(in_turns(contenders, arena.turns(5)))
    bars = [
        Bar(name, series[_ours(name)].median, 50 if shape.worst else 10, unit="ms") for name, shape in SHAPES.items()
    ]
    notes = [
        f"{LIMIT} models with their tags and metadata, as objects; by hand: as rows, without metadata.",
        "By hand: EXISTS for each tag on the tables and indexes of the registry, planned by SQLite.",
    ]
    return Outcome(f"The newest {LIMIT} of {total:,} models", list(series.values()), bars, notes)


def against_mlflow(arena: Arena) -> Outcome:
    """Time what MLflow can say at all on the same models."""
    if "mlflow" not in arena.peers:
        raise ContenderFailedError("mlflow is not installed: make bench-peers")
    total = 2_000 if arena.quick else MLFLOW_AT
    home = home_of(arena, "mlflow", total)
    home.mkdir(parents=True, exist_ok=True)
    shapes = [shape for shape in SHAPES.values() if shape.mlflow]
    with ExitStack() as stack:
        ours, _ = stack.enter_context(_seated(arena, total))
        python = arena.peers["mlflow"]
        mlflow = stack.enter_context(arena.worker("query_mlflow", home, python, folder=str(home), total=total))
        contenders: dict[str, Callable[[], float]] = {}
        for shape in shapes:
            _compare(ours, mlflow, shape)
            contenders[_ours(shape.name)] = partial(ours.ask, "newest", shape=shape.name)
            for kind in _MLFLOW_KINDS:
                contenders[_mlflow(shape.name, kind)] = partial(mlflow.ask, "newest", shape=shape.name, kind=kind)
        contenders[_ours("get by id")] = partial(ours.ask, "get")
        contenders[f"get by name: {_MLFLOW}"] = partial(mlflow.ask, "get")
        series = _in_ms(in_turns(contenders, arena.turns(5)))
    bars = []
    for shape in shapes:
        faster = Series("the faster")
        faster.values = [
            min(pair)
            for pair in zip(*(series[_mlflow(shape.name, kind)].values for kind in _MLFLOW_KINDS), strict=True)
        ]
        ratio = faster.ratio_to(series[_ours(shape.name)])
        bars.append(Bar(f"{shape.name}: the faster search of mlflow / {OURS}", ratio, 30, at_least=True))
    notes = [
        "MLflow's tables are filled directly. Each model is a registered model and a version of it, with tags on both.",
        "MLflow has no OR, no groups, and no NOT that finds what lacks a tag: of the other questions it can ask none.",
    ]
    title = f"The newest {LIMIT} of {total:,} models, {OURS} and MLflow"
    return Outcome(title, list(series.values()), bars, notes)


_MLFLOW = "mlflow"


def _mlflow(name: str, kind: str) -> str:
    return f"{name}: {_MLFLOW}, {kind}"


def _compare(ours: Worker, mlflow: Worker, shape: Shape) -> None:
    """See that MLflow finds the same models, so that the same work is timed."""
    expected = ours.ask("answer", shape=shape.name)
    for kind in _MLFLOW_KINDS:
        if mlflow.ask("answer", shape=shape.name, kind=kind) != expected:
            raise ContenderFailedError(f"{shape.name}: mlflow's search for {kind} finds other models")


_COMPARISONS: dict[str, tuple[dict[str, Any], str, list[Any]]] = {
    "metadata above what a thousandth has": ({"where": "accuracy > 0.9998"}, "metadata", ["accuracy", 0.9998]),
    "metadata above what half have": ({"where": "accuracy > 0.8"}, "metadata", ["accuracy", 0.8]),
    "metadata equal to a text": ({"metadata": {"dataset": "set-3"}}, "text", ["dataset", "set-3"]),
    "metadata equal to a rare text": ({"metadata": {"dataset": "set-490"}}, "text", ["dataset", "set-490"]),
    "metric above what a thousandth has": ({"where": "metric('val', 'iou') > 0.999"}, "metric", ["val", "iou", 0.999]),
    "metric above what a sixth have": ({"where": "metric('val', 'iou') > 0.5"}, "metric", ["val", "iou", 0.5]),
}
_ORDERS = {
    "first created": ("created", "m.created"),
    "name": ("name", "m.name"),
    "highest accuracy": (
        "-metadata.accuracy",
        "(SELECT d.number FROM metadata AS d WHERE d.model = m.key AND d.key = 'accuracy') DESC",
    ),
    "lowest accuracy": (
        "metadata.accuracy",
        "(SELECT d.number FROM metadata AS d WHERE d.model = m.key AND d.key = 'accuracy')",
    ),
    "highest iou": (
        "-metrics.val.iou",
        "(SELECT s.last FROM metrics AS s WHERE s.model = m.key AND s.title = 'val' AND s.series = 'iou') DESC",
    ),
}


def lookups(which: int, arena: Arena) -> Outcome:
    """Time look-ups, comparisons, counts and other orders at one size."""
    total = _sizes(arena)[which]
    contenders: dict[str, Callable[[], float]] = {}
    with _seated(arena, total) as (ours, by_hand):
        for name, job in (("get by id", "get"), ("get by URL", "get_by_url")):
            contenders[_ours(name)] = partial(ours.ask, job)
            contenders[_hand(name)] = partial(by_hand.ask, job)
        for name, (options, condition, values) in _COMPARISONS.items():
            if ours.ask("chosen", **options) != by_hand.ask("chosen", condition=condition, values=values):
                raise ContenderFailedError(f"{name}: {OURS} and plain SQL find different models")
            contenders[_ours(name)] = partial(ours.ask, "selected", **options)
            contenders[_hand(name)] = partial(by_hand.ask, "selected", condition=condition, values=values)
        for name, (order, by) in _ORDERS.items():
            contenders[_ours(f"by {name}")] = partial(ours.ask, "selected", order_by=order)
            contenders[_hand(f"by {name}")] = partial(by_hand.ask, "ordered", by=by)
        for name in COUNTS:
            if ours.ask("counted", shape=name) != by_hand.ask("counted", shape=name):
                raise ContenderFailedError(f"{name}: modelstore and plain SQL count differently")
            contenders[_ours(f"count of {name}")] = partial(ours.ask, "count", shape=name)
            contenders[_hand(f"count of {name}")] = partial(by_hand.ask, "count", shape=name)
        series = _in_ms(in_turns(contenders, arena.turns(5)))
    bars = [Bar(name, series[_ours(name)].median, 0.2, unit="ms") for name in ("get by id", "get by URL")]
    bars += [Bar(name, series[_ours(name)].median, 20, unit="ms") for name in _COMPARISONS]
    bars += [Bar(f"by {name}", series[_ours(f"by {name}")].median, 20, unit="ms") for name in _ORDERS]
    bars += [Bar(f"count of {name}", series[_ours(f"count of {name}")].median, 100, unit="ms") for name in COUNTS]
    notes = [
        f"Comparisons and orders: {LIMIT} models. Every model has an accuracy and a data set, every third an iou.",
    ]
    return Outcome(f"Look-ups, comparisons, orders and counts among {total:,} models", [*series.values()], bars, notes)


def growing(arena: Arena) -> Outcome:
    """Let both fill a registry side by side, step by step; the larger one is kept for the other jobs."""
    total, step = (10_000, 2_000) if arena.quick else (SIZES[-1], STEP)
    home, hand = arena.folder("bulk-ours"), arena.folder("bulk-by-hand")
    Registry(hand / "registry").close()
    series = {name: Series(f"{name}: per model", "µs") for name in (OURS, BY_HAND)}
    peaks = {name: Series(f"{name}: memory over baseline", "MiB") for name in series}
    with ExitStack() as stack:
        workers = {
            OURS: stack.enter_context(arena.worker("bulk_ours", home, folder=str(home / "registry"))),
            BY_HAND: stack.enter_context(arena.worker("bulk_by_hand", hand, folder=str(hand / "registry"))),
        }
        for first in range(0, total, step):
            for name in sorted(workers, reverse=bool(first // step % 2)):
                taken = workers[name].ask("append", first=first, count=step, total=total)
                series[name].values.append(taken["seconds"] / step * 1e6)
                peaks[name].values.append(taken["peak_mib"])
        for worker in workers.values():
            worker.ask("close")
    _same_rows(home / "registry", hand / "registry")
    whole = [sum(series[name].values) * step / 1e6 for name in series]
    bars = [
        Bar(f"{total:,} models: {BY_HAND} / {OURS}", whole[1] / whole[0], 0.4, at_least=True),
        Bar("memory at the end / after the first step", peaks[OURS].values[-1] / peaks[OURS].values[0], 1.1),
    ]
    notes = [
        f"Both fill an empty registry in transactions of 10,000, in turns of {step:,} models; a value is one turn's.",
        f"All: {OURS} {whole[0]:.0f} s, {BY_HAND} {whole[1]:.0f} s.",
        "By hand: the very tables, indexes and triggers, the journal included, row for row; nothing is checked.",
    ]
    kept = home_of(arena, "ours", total)
    if not (kept / "done").exists():
        shutil.rmtree(kept, ignore_errors=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        os.rename(home, kept)
        _finish(arena, kept, total)
    return Outcome(f"Registering {total:,} models", [*series.values(), *peaks.values()], bars, notes)


_TABLES = ("ops", "models", "tags", "model_tags", "tag_walk", "bitmaps", "metadata", "projects", "items")


def _same_rows(ours: Path, by_hand: Path) -> None:
    counts = []
    for folder in (ours, by_hand):
        with Registry(folder) as registry:
            rows = [registry.database.one(f"SELECT count(*) FROM {table}") for table in _TABLES]
            counts.append([0 if row is None else row[0] for row in rows])
    if counts[0] != counts[1]:
        raise ContenderFailedError(f"they wrote different numbers of rows: {json.dumps(counts)}")


JOBS: dict[str, Callable[[Arena], Outcome]] = {
    "newest-1k": partial(newest, 0),
    "newest-100k": partial(newest, 1),
    "newest-1m": partial(newest, 2),
    "mlflow": against_mlflow,
    "lookups-1k": partial(lookups, 0),
    "lookups-100k": partial(lookups, 1),
    "lookups-1m": partial(lookups, 2),
}
BULK_JOBS: dict[str, Callable[[Arena], Outcome]] = {"bulk": growing}

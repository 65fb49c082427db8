"""Figures as a page to read and as data to compare with later."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.arena import Bar, Outcome
from benchmarks.measure import Series

__all__ = ["as_markdown", "save"]


def _quantity(value: float, unit: str) -> str:
    if unit == "s":
        return f"{value * 1000:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"
    if unit == "×":
        return f"{value:.3g}×"
    return f"{value:.4g} {unit}"


def _row(series: Series) -> str:
    if not series.values:
        return f"| {series.name} | did not run: {series.failure} | |"
    spread = f"{_quantity(min(series.values), series.unit)} – {_quantity(max(series.values), series.unit)}"
    return f"| {series.name} | {_quantity(series.median, series.unit)} | {spread} |"


def _judgement(bar: Bar) -> str:
    word = {True: "kept", False: "**missed**", None: "not measured"}[bar.kept]
    value = "–" if bar.value is None else _quantity(bar.value, bar.unit)
    return f"| {bar.text} | {'≥' if bar.at_least else '≤'} {_quantity(bar.bound, bar.unit)} | {value} | {word} |"


def _machine(machine: dict[str, Any]) -> list[str]:
    peers = "; ".join(
        f"{', '.join(f'{name} {version}' for name, version in versions.items() if name != 'python')}"
        f" on Python {versions['python']}"
        for versions in machine["peers"].values()
    )
    ours = ", ".join(f"{name} {version}" for name, version in machine["ours"].items())
    load = f"load {machine['load_before']} before, {machine['load_after']} after"
    return [
        f"- {machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB",
        f"- {machine['system']}, {machine['filesystem']}; {load}",
        f"- Python {machine['python']}, SQLite {machine['sqlite']}; {ours}",
        f"- peers: {peers or 'none installed'}",
    ]


def as_markdown(suite: str, machine: dict[str, Any], outcomes: Sequence[Outcome]) -> str:
    """Write the page: the machine, then per job the promises and the figures."""
    lines = [f"# Benchmarks: {suite}, {machine['date']}", "", *_machine(machine), ""]
    lines += ["Median of the turns, and their range. Ratios are medians of the ratios within each turn.", ""]
    for outcome in outcomes:
        lines += [f"## {outcome.title}", "", "| promise | bound | measured | |", "|---|---|---|---|"]
        lines += [_judgement(bar) for bar in outcome.bars]
        lines += ["", "| | median | range |", "|---|---|---|"]
        lines += [_row(series) for series in outcome.series]
        lines += ["", *outcome.notes, ""] if not outcome.notes else ["", *(f"- {note}" for note in outcome.notes), ""]
    return "\n".join(lines)


def save(folder: Path, suite: str, machine: dict[str, Any], outcomes: Sequence[Outcome]) -> list[Path]:
    """Write ``SUITE-DATE.md`` and ``SUITE-DATE.json``; a second run on one day replaces the first."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{suite}-{machine['date']}"
    data = {"suite": suite, "machine": machine, "jobs": [_plain(outcome) for outcome in outcomes]}
    page, figures = folder / f"{stem}.md", folder / f"{stem}.json"
    page.write_text(as_markdown(suite, machine, outcomes))
    figures.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    return [page, figures]


def _plain(outcome: Outcome) -> dict[str, Any]:
    plain = dataclasses.asdict(outcome)
    for written, bar in zip(plain["bars"], outcome.bars, strict=True):
        written["kept"] = bar.kept
    return plain

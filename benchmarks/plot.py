"""Draw how queries grow from a thousand to a million models: docs/queries.svg and the README's table, from results.

python -m benchmarks.plot benchmarks/results/query-DATE.json
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT

SIZES = (1_000, 100_000, 1_000_000)
COLOURS = {
    "broad": "#1f77b4",
    "OR of three": "#17becf",
    "AND of two rare": "#2ca02c",
    "AND of broad and rare": "#98a62b",
    "rare and not broad": "#e6a117",
    "not broad": "#9467bd",
    "a and b and c and (d or not e) and (f or g)": "#8c564b",
    "not what the newest half has": "#e377c2",
    "two halves that never meet": "#d62728",
}
LOW, HIGH = 0.1, 3000.0  # milliseconds
PANEL = (300, 260)
LEFTS = (62, 392)
TOP = 46
_TICKS = ((0.1, "0.1 ms"), (1, "1 ms"), (10, "10 ms"), (100, "100 ms"), (1000, "1 s"))


def medians(results: dict[str, Any]) -> dict[int, dict[str, float]]:
    """Return, by number of models, the median of each series in milliseconds."""
    found: dict[int, dict[str, float]] = {}
    for job in results["jobs"]:
        number = next((size for size in SIZES if f"{size:,} models" in job["title"]), None)
        if number is None:
            continue
        for series in job["series"]:
            if series["values"]:
                found.setdefault(number, {}).setdefault(series["name"], statistics.median(series["values"]))
    return found


def _x(panel: int, number: int) -> float:
    share = (math.log10(number) - 3) / 3
    return LEFTS[panel] + 12 + share * (PANEL[0] - 24)


def _y(milliseconds: float) -> float:
    share = (math.log10(max(milliseconds, LOW)) - math.log10(LOW)) / (math.log10(HIGH) - math.log10(LOW))
    return TOP + PANEL[1] * (1 - share)


def _frame(panel: int, title: str) -> list[str]:
    left = LEFTS[panel]
    lines = [f'<text x="{left}" y="{TOP - 14}" class="title">{title}</text>']
    for value, label in _TICKS:
        y = _y(value)
        kind = "bar" if value == 10 else "grid"
        lines.append(f'<line x1="{left}" y1="{y:.1f}" x2="{left + PANEL[0]}" y2="{y:.1f}" class="{kind}"/>')
        if panel == 0:
            lines.append(f'<text x="{left - 6}" y="{y + 4:.1f}" class="tick" text-anchor="end">{label}</text>')
    for number in (1_000, 10_000, 100_000, 1_000_000):
        x = _x(panel, number)
        lines.append(f'<text x="{x:.1f}" y="{TOP + PANEL[1] + 16}" class="tick" text-anchor="middle">{number:,}</text>')
    return lines


def draw(figures: dict[int, dict[str, float]]) -> str:
    """Return the plot: the same questions, by modelstore on the left and in plain SQL on the right."""
    height = TOP + PANEL[1] + 40 + 17 * ((len(COLOURS) + 1) // 2) + 18
    lines = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 710 {height}" role="img"'
            ' font-family="system-ui, sans-serif" font-size="11">'
        ),
        "<title>Time for the newest 100 models, by number of models</title>",
        (
            "<style>.grid{stroke:#e4e4e4}.bar{stroke:#999;stroke-dasharray:4 3}.tick{fill:#555}"
            ".title{font-size:13px;font-weight:600;fill:#222}.key{fill:#333}</style>"
        ),
        f'<rect width="710" height="{height}" fill="#fff"/>',
    ]
    for panel, (who, title) in enumerate(
        (("modelstore", "modelstore"), ("by hand", "plain SQL (lines) and MLflow (diamonds)"))
    ):
        lines += _frame(panel, title)
        for name, colour in COLOURS.items():
            points = [(_x(panel, n), _y(figures[n][f"{name}: {who}"])) for n in SIZES if f"{name}: {who}" in figures[n]]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
            lines += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{colour}"/>' for x, y in points]
    for name, colour in COLOURS.items():
        found = mlflow(figures, name)
        if found is not None:
            x, y = _x(1, 100_000), _y(found)
            shape = f"{x:.1f},{y - 6:.1f} {x + 5:.1f},{y:.1f} {x:.1f},{y + 6:.1f} {x - 5:.1f},{y:.1f}"
            lines.append(f'<polygon points="{shape}" fill="{colour}" stroke="#222"/>')
    for number, (name, colour) in enumerate(COLOURS.items()):
        x, y = LEFTS[0] + 330 * (number % 2), TOP + PANEL[1] + 42 + 17 * (number // 2)
        lines.append(f'<rect x="{x}" y="{y - 8}" width="14" height="4" fill="{colour}"/>')
        lines.append(f'<text x="{x + 20}" y="{y - 2}" class="key">{name}</text>')
    lines.append("</svg>")
    return "\n".join(lines) + "\n"


def mlflow(figures: dict[int, dict[str, float]], name: str) -> float | None:
    """Return what the faster of MLflow's two searches takes at 100,000 models; None where it cannot ask."""
    found = [figures[100_000].get(f"{name}: mlflow, {kind}") for kind in ("models", "versions")]
    known = [value for value in found if value is not None]
    return min(known) if known else None


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def table(figures: dict[int, dict[str, float]]) -> str:
    """Return the README's table, in milliseconds."""
    lines = [
        "| newest 100, ms | 1,000 | 100,000 | 1,000,000 | SQL by hand, 1,000,000 | MLflow, 100,000 |",
        "|---|---|---|---|---|---|",
    ]
    names = [name.removesuffix(": by hand") for name in figures[SIZES[-1]] if name.endswith(": by hand")]
    for name in names:
        ours = [_cell(figures[size].get(f"{name}: modelstore")) for size in SIZES]
        by_hand = _cell(figures[SIZES[-1]].get(f"{name}: by hand"))
        lines.append(f"| {name} | {' | '.join(ours)} | {by_hand} | {_cell(mlflow(figures, name))} |")
    return "\n".join(lines)


def main() -> int:
    """Write the plot and print the table."""
    figures = medians(json.loads(Path(sys.argv[1]).read_text()))
    (ROOT / "docs" / "queries.svg").write_text(draw(figures))
    print(table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Puts the tables and curves of benchmarks/tiny_card.py onto the bundled model's card, docs/models/tiny.md.

python benchmarks/tiny_page.py
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

import tyro
from matplotlib.figure import Figure

from benchmarks.common import markdown, plots, records
from benchmarks.common.intervals import wilson
from benchmarks.common.records import Record
from sleepgym.env.render.colours import BLUE, VERMILION

GROUPS = {
    "20 jointly": "20 jointly",
    "50 jointly": "50 jointly",
    "100 jointly": "100 jointly",
    "20 one by one": "20 one by one, unprotected",
}
"""Columns of the table of edits, by the key of the record."""
SPEEDS = {
    "score 64 facts": "score 64 facts in one call",
    "inject one fact, cached target": "inject one fact, target cached",
    "inject one fact, uncached": "inject one fact, target to be optimised",
    "load model": "load the model",
    "load model and statistics": "load the model and its statistics",
}
STYLES = {"joint": (BLUE, "solved jointly"), "one by one": (VERMILION, "one by one, unprotected")}


@dataclass
class Args:
    record: Path = Path("docs/models/tiny.json")
    """JSON of benchmarks/tiny_card.py"""
    page: Path = Path("docs/models/tiny.md")
    """Markdown with the markers"""
    plot: Path = Path("docs/models/tiny.png")
    """picture of the curves"""


def edits(record: Record) -> str:
    """Figures after each way of writing: mean over draws, worst draw in brackets."""
    rows = []
    for name in record["20 jointly"][0]:
        drift = name == "perplexity change"
        worst = max if drift else min
        cells = []
        for group in GROUPS:
            values = [run[name] for run in record[group]]
            mean, last = statistics.mean(values), worst(values)
            cells.append(f"{100 * mean:+.1f} % ({100 * last:+.1f} %)" if drift else f"{mean:.3f} ({last:.3f})")
        rows.append([name, *cells])
    return markdown.table(["", *GROUPS.values()], rows)


def knows(record: Record) -> str:
    """Recall of the trained facts, worst and mean phrasing."""
    rows = [[name, f"{value:.4f}"] for name, value in record["own facts"].items()]
    return markdown.table(["", "recall"], [*rows, ["perplexity on held-out text", f"{record['perplexity']:.3f}"]])


def open_book(record: Record) -> str:
    """Share of people about whom a statement is used, over all draws, with its 95 % interval."""
    rows = []
    for draws in zip(*record["open book"], strict=True):
        n = sum(draw["people"] for draw in draws)
        cells = []
        for name in [key for key in draws[0] if key not in ("others", "people")]:
            hits = sum(draw[name] for draw in draws)
            low, high = wilson(hits, n)
            cells.append(f"{hits / n:.3f} [{low:.3f}, {high:.3f}]")
        rows.append([str(draws[0]["others"]), str(n), *cells])
    names = [key for key in record["open book"][0][0] if key not in ("others", "people")]
    return markdown.table(["other statements", "n", *names], rows)


def contents(record: Record) -> dict[str, str]:
    """Blocks of the page."""
    speeds = [[label, f"{record['speed (ms)'][key]:.0f}"] for key, label in SPEEDS.items()]
    return {
        "knows": knows(record),
        "open book": open_book(record),
        "edits": edits(record),
        "speed": markdown.table(["", "ms"], speeds),
    }


def picture(record: Record) -> Figure:
    """Recall and perplexity by the number of facts."""
    figure, (left, right) = plots.panels(2, 2, (9, 3.6))
    for name, (colour, label) in STYLES.items():
        points = record["curves"][name]
        x = [p["facts"] for p in points]
        left.plot(x, [p["phrasing used"] for p in points], "o-", color=colour, label=label)
        left.plot(x, [p["other subjects kept"] for p in points], "s:", color=colour, label=f"{label}: others")
        right.plot(x, [100 * p["perplexity change"] for p in points], "o-", color=colour, label=label)
    left.set(xlabel="facts held at once", ylabel="recall", ylim=(0, 1.03), title="New facts, and facts of others")
    right.set(xlabel="facts held at once", ylabel="perplexity change (%)", title="Held-out text")
    for axes in (left, right):
        axes.legend(fontsize=8)
        plots.grid(axes)
    return figure


def pictures(args: Args) -> dict[Path, Figure]:
    """Curves by file."""
    return {args.plot: picture(records.read(args.record))}


def main(args: Args) -> None:
    for path, figure in pictures(args).items():
        plots.save(figure, path)
    markdown.write(args.page, contents(records.read(args.record)), "`tiny`", "benchmarks/tiny_page.py")


if __name__ == "__main__":
    main(tyro.cli(Args))

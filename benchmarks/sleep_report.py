"""Puts the tables and curves of benchmarks/sleep.py into docs/sleep.md.

    python benchmarks/sleep_report.py --folder docs/sleep --page docs/sleep.md

Every JSON in the folder is one experiment on one model; tables stand between the page's markers.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.sleep_tables import TITLES, Record, runs_of, table, variants_of

BEGIN, END = "<!-- figures: written by benchmarks/sleep_report.py -->", "<!-- end of figures -->"
# Okabe and Ito's colours, which the colour-blind can tell apart; dashes say the same once more.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
REPORTED = "Llama 3.1 8B, as published"
PERCENT = {"drift": "perplexity change (%)"}
LABELS = {
    "raw": "recall, raw",
    "chat": "recall, in chat",
    "unseen": "recall, unseen phrasings",
    "settled": "share at the last stage",
    "edits": "edits active",
    "kept": "known facts kept",
    "seconds": "seconds per night",
    **PERCENT,
}


@dataclass
class Args:
    folder: Path = Path("docs/sleep")
    """JSON files; pictures are written here too"""
    page: Path = Path("docs/sleep.md")
    """Markdown with the two markers"""


@dataclass(frozen=True)
class Panel:
    """One pair of axes: what is drawn over what, and the published points ``(x, y)``."""

    key: str
    x: str
    published: tuple[tuple[float, float], ...] = ()


CURVES: dict[str, tuple[str, tuple[Panel, ...]]] = {
    "capacity": (
        "facts injected one by one",
        (Panel("raw", "facts", ((13, 0.92), (14, 0.57))), Panel("chat", "facts")),
    ),
    "convergence": (
        "nights",
        (Panel("raw", "cycle", ((0, 0.40), (4, 1.0))), Panel("chat", "cycle"), Panel("drift", "cycle")),
    ),
    "second-wave": ("nights", (Panel("raw", "cycle"), Panel("chat", "cycle"), Panel("drift", "cycle"))),
    "lifetime": (
        "days",
        tuple(Panel(key, "day") for key in ("raw", "chat", "kept", "drift", "edits", "seconds")),
    ),
    "over-capacity": (
        "nights",
        (Panel("raw", "cycle"), Panel("chat", "cycle"), Panel("settled", "cycle")),
    ),
}
BARS: dict[str, tuple[str, ...]] = {
    "sweep": ("chat", "unseen", "settled", "drift"),
    "alignment-tax": ("chat", "raw"),
    "ablations": ("chat", "settled", "kept", "drift"),
}


def finish(ax: Axes, key: str, across: bool = False) -> None:
    """Limits and labels of the axis of a figure."""
    (ax.set_xlabel if across else ax.set_ylabel)(LABELS[key])
    if key in ("raw", "chat", "unseen", "settled", "kept"):
        (ax.set_xlim if across else ax.set_ylim)(-0.03, 1.05)
    ax.grid(alpha=0.3)


def curve(ax: Axes, record: Record, panel: Panel) -> None:
    """Mean over seeds, with their range as a band."""
    scale = 100 if panel.key in PERCENT else 1
    for i, variant in enumerate(variants_of(record)):
        values: dict[float, list[float]] = {}
        for points in runs_of(record, variant):
            for point in points:
                if panel.key in point:
                    values.setdefault(point[panel.x], []).append(scale * point[panel.key])
        x = sorted(values)
        colour, dash = COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]
        ax.plot(x, [statistics.mean(values[n]) for n in x], label=variant, marker="o", ms=3, color=colour, ls=dash)
        low, high = [min(values[n]) for n in x], [max(values[n]) for n in x]
        ax.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
    if panel.published:
        ax.plot(*zip(*panel.published, strict=True), "kx", label=REPORTED)
    finish(ax, panel.key)


def bars(ax: Axes, record: Record, key: str) -> None:
    """Where each variant ended: mean over seeds, with their range."""
    scale = 100 if key in PERCENT else 1
    found: dict[str, list[float]] = {}
    for variant in variants_of(record):
        values = [scale * points[-1][key] for points in runs_of(record, variant) if key in points[-1]]
        if values:
            found[variant] = values
    means = [statistics.mean(values) for values in found.values()]
    errors = [
        [mean - min(values) for mean, values in zip(means, found.values(), strict=True)],
        [max(values) - mean for mean, values in zip(means, found.values(), strict=True)],
    ]
    ax.barh(list(found), means, xerr=errors, color=COLOURS[0], ecolor="#000000", capsize=2)
    finish(ax, key, across=True)


def draw(record: Record, path: Path) -> None:
    """The picture of an experiment."""
    experiment = record["experiment"]
    if experiment in CURVES:
        label, panels = CURVES[experiment]
        rows, columns = -(-len(panels) // 3), min(3, len(panels))
        figure = Figure(figsize=(3.8 * columns, 3.4 * rows), layout="constrained")
        axes: Sequence[Axes] = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
        for ax, panel in zip(axes, panels, strict=True):
            curve(ax, record, panel)
            ax.set_xlabel(label)
        axes[0].legend(fontsize=7)
    else:
        keys = BARS[experiment]
        height = 1.5 + 0.28 * len(variants_of(record))
        figure = Figure(figsize=(3.0 * len(keys) + 1.5, height), layout="constrained")
        axes = figure.subplots(1, len(keys), squeeze=False, sharey=True).ravel().tolist()
        for ax, key in zip(axes, keys, strict=True):
            bars(ax, record, key)
        axes[0].invert_yaxis()  # and with it the others, which share it
    figure.suptitle(f"{record['model']}: {TITLES[experiment]}", fontsize=10)
    figure.savefig(path, dpi=110)


def section(record: Record, args: Args) -> list[str]:
    """Heading, picture, table and circumstances of one experiment on one model."""
    picture = args.folder / f"{record['model']}.{record['experiment']}.png"
    draw(record, picture)
    rows = table(record)
    seeds = len({run["seed"] for run in record["runs"]})
    failed = [f"{run['variant']}, seed {run['seed']}: {run['error']}" for run in record["runs"] if "error" in run]
    title = TITLES[record["experiment"]]
    return [
        f"### {record['model']}: {title}",
        "",
        f"![{title}]({picture.relative_to(args.page.parent)})",
        "",
        *(f"| {' | '.join(row)} |" for row in rows[:1]),
        "|---" * len(rows[0]) + "|",
        *(f"| {' | '.join(row)} |" for row in rows[1:]),
        "",
        f"{record['machine']}, {record['dtype']}, {seeds} {'seed' if seeds == 1 else 'seeds'} (mean, lowest-highest), "
        f"{record['seconds'] / 60:.0f} minutes; bare perplexity {record['perplexity']:.2f}, "
        f"{record['known']} known facts." + (" **A quick run: its numbers mean nothing.**" if record["quick"] else ""),
        *(["", "Failed: " + "; ".join(failed) + "."] if failed else []),
        "",
    ]


def main(args: Args) -> None:
    records: list[Record] = [
        json.loads(file.read_text(encoding="utf-8")) for file in sorted(args.folder.glob("*.*.json"))
    ]
    order = list(TITLES)
    records.sort(key=lambda record: (record["model"] != "tiny", record["model"], order.index(record["experiment"])))
    lines = [line for record in records for line in section(record, args)]
    page = args.page.read_text(encoding="utf-8")
    head, tail = page.split(BEGIN)[0], page.split(END)[1]
    args.page.write_text(head + BEGIN + "\n\n" + "\n".join(lines) + "\n" + END + tail, encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Args))

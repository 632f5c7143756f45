"""Puts the tables and curves of benchmarks/sleep.py into docs/sleep.md.

    python benchmarks/sleep_report.py --folder docs/sleep --page docs/sleep.md

Every JSON in the folder is one experiment on one model; its table stands between markers of its own on the page.
"""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass
from pathlib import Path

import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.common import markdown, plots, records
from benchmarks.common.records import Record
from benchmarks.sleep_tables import TITLES, runs_of, table, variants_of
from sleepgym.env.render.colours import BLACK, BLUE

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
    """Markdown with a pair of markers for every experiment"""


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
    "life": (
        "days",
        tuple(Panel(key, "day") for key in ("raw", "chat", "kept", "drift", "seconds")),
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
    plots.grid(ax)


def curve(ax: Axes, record: Record, panel: Panel) -> None:
    """Mean over seeds, with their range as a band."""
    scale = 100 if panel.key in PERCENT else 1
    for i, variant in enumerate(variants_of(record)):
        values: dict[float, list[float]] = {}
        for points in runs_of(record, variant):
            for point in points:
                if panel.key in point:
                    values.setdefault(point[panel.x], []).append(scale * point[panel.key])
        colour, dash = plots.COLOURS[i % len(plots.COLOURS)], plots.DASHES[i % len(plots.DASHES)]
        plots.band(ax, values, variant, colour, ls=dash)
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
    ax.barh(list(found), means, xerr=errors, color=BLUE, ecolor=BLACK, capsize=2)
    finish(ax, key, across=True)


def picture(record: Record) -> Figure:
    """Curves or bars of an experiment."""
    experiment = record["experiment"]
    if experiment in CURVES:
        label, shown = CURVES[experiment]
        columns = min(3, len(shown))
        figure, axes = plots.panels(len(shown), columns, (3.8 * columns, 3.4 * -(-len(shown) // 3)))
        for ax, panel in zip(axes, shown, strict=True):
            curve(ax, record, panel)
            ax.set_xlabel(label)
        axes[0].legend(fontsize=7)
    else:
        keys = BARS[experiment]
        size = (3.0 * len(keys) + 1.5, 1.5 + 0.28 * len(variants_of(record)))
        figure, axes = plots.panels(len(keys), len(keys), size, sharey=True)
        for ax, key in zip(axes, keys, strict=True):
            bars(ax, record, key)
        axes[0].invert_yaxis()  # and with it the others, which share it
    figure.suptitle(f"{record['model']}: {TITLES[experiment]}", fontsize=10)
    return figure


def section(name: str, record: Record, pictures: str) -> str:
    """Picture, table and circumstances of one experiment on one model.

    Args:
        name: Model and experiment, joined by a dot.
        record: Results.
        pictures: Folder of pictures, as the page links to it.
    """
    head, *rows = table(record)
    seeds = len({run["seed"] for run in record["runs"]})
    failed = [f"{run['variant']}, seed {run['seed']}: {run['error']}" for run in record["runs"] if "error" in run]
    parts = [
        f"![{TITLES[record['experiment']]}]({Path(pictures) / name}.png)",
        markdown.table(head, rows),
        f"{record['machine']}, {record['dtype']}, {seeds} {'seed' if seeds == 1 else 'seeds'} (mean, lowest-highest), "
        f"{record['seconds'] / 60:.0f} minutes; bare perplexity {record['perplexity']:.2f}, "
        f"{record['known']} known facts." + (" **A quick run: its numbers mean nothing.**" if record["quick"] else ""),
        *(["Failed: " + "; ".join(failed) + "."] if failed else []),
    ]
    return "\n\n".join(parts)


def read(folder: Path) -> dict[str, Record]:
    """Records by model and experiment."""
    found = [records.read(file) for file in sorted(folder.glob("*.*.json"))]
    return {f"{record['model']}.{record['experiment']}": record for record in found}


def contents(args: Args) -> dict[str, str]:
    """Blocks of the page."""
    pictures = os.path.relpath(args.folder, args.page.parent)
    return {name: section(name, record, pictures) for name, record in read(args.folder).items()}


def pictures(args: Args) -> dict[Path, Figure]:
    """Pictures by file."""
    return {args.folder / f"{name}.png": picture(record) for name, record in read(args.folder).items()}


def main(args: Args) -> None:
    for path, figure in pictures(args).items():
        plots.save(figure, path)
    markdown.write(args.page, contents(args), "Sleep", "benchmarks/sleep_report.py")


if __name__ == "__main__":
    main(tyro.cli(Args))

"""Puts tables and curves of benchmarks/editing.py and of editing_authors, _cost and _speed into docs/editing.md.

    python benchmarks/editing_report.py

Every JSON in docs/editing is one recipe on one model and data set; tables stand between the page's markers, one pair
for each model and data set.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from matplotlib.figure import Figure

from benchmarks import editing_authors, editing_cost, editing_speed
from benchmarks.common import markdown, plots, records
from benchmarks.common.records import Record
from sleepgym.env.render.colours import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, WINE, YELLOW

COLOURS = {
    "sleepgym": BLUE,
    "sleepgym, gates": SKY,
    "sleepgym, no gates": SKY,
    "sleepgym, defaults": BLUE,
    "sleepgym, calibrated": ORANGE,
    "alphaedit": ORANGE,
    "evoedit": YELLOW,
    "nas": GREY,
    "eamet": WINE,
    "memit-prev": GREEN,
    "memit": VERMILION,
    "encore": PURPLE,
    "sleeping-llm": BLACK,
}
CACHED, UNCACHED = "seconds per fact, cached", "seconds per fact, uncached"
UNTOLD = "seconds per fact"
"""Name in older records: cached where targets are those of the frozen base, uncached elsewhere."""
COLUMNS = {
    "recall": "efficacy exact",
    "P(new) > P(true)": "efficacy likelier",
    "unseen": "paraphrase exact",
    "in chat": "question exact",
    "neighbours kept": "kept",
    "neighbours P(true) > P(new)": "neighbourhood likelier",
    "first 10 kept": "early",
    "perplexity": "drift",
    "norm": "norm",
    "s / fact, cached": CACHED,
    "s / fact, uncached": UNCACHED,
    "peak MB": "peak MB",
}
READINGS = ("likelier", "exact", "written")
TABULATED = {10, 30, 50, 100}
"""Numbers of facts that get a table."""


@dataclass
class Args:
    folder: Path = Path("docs/editing")
    """JSON files; pictures are written here too"""
    page: Path = Path("docs/editing.md")
    """Markdown with a pair of markers for every model and data set"""


def at(record: Record, facts: int, key: str) -> list[float]:
    """Figure of every seed at a number of facts."""
    points = [point for run in record["runs"] for point in run["points"] if point["facts"] == facts]
    if key in (CACHED, UNCACHED) and not any(key in point for point in points):
        key = UNTOLD if record["spec"]["frozen"] is (key == CACHED) else key
    return [p[key] for p in points if key in p and not math.isnan(p[key])]


def cell(record: Record, facts: int, key: str) -> str:
    """Mean and range over seeds."""
    values = at(record, facts, key)
    if not values:
        return "-"
    mean, low, high = statistics.mean(values), min(values), max(values)
    if key == "drift":
        return f"{100 * mean:+.1f} % ({100 * low:+.1f} to {100 * high:+.1f})" if mean < 10 else f"x {1 + mean:.0f}"
    if key == "peak MB":
        return f"{mean:.0f}"
    if key in ("norm", CACHED, UNCACHED):
        return f"{mean:.2g}"
    return f"{mean:.2f} ({low:.2f}-{high:.2f})"


def table(found: Sequence[Record], facts: int) -> str:
    """One row per recipe that was measured at a number of facts."""
    used = {title: key for title, key in COLUMNS.items() if any(at(r, facts, key) for r in found)}
    rows = [
        [record["preset"], *(cell(record, facts, key) for key in used.values())]
        for record in found
        if at(record, facts, "efficacy exact")
    ]
    # Neighbours of all draws are asked whatever was written, so that one row of the bare model goes with all of them.
    asked = [record for record in found if at(record, 0, "kept")]
    rows += [["bare model", *(cell(asked[0], 0, key) for key in used.values())]] if asked else []
    return markdown.table([f"{facts} facts", *used], rows)


def readings(found: Sequence[Record]) -> str:
    """Three usual readings at the last count, where free generation is measured."""
    kinds = {"new": "efficacy", "unseen": "paraphrase", "neighbours": "neighbourhood"}
    rows = []
    for record in found:
        facts = max(point["facts"] for run in record["runs"] for point in run["points"])
        values = [at(record, facts, f"{kind} {reading}") for kind in kinds.values() for reading in READINGS]
        cells = [f"{statistics.mean(of):.2f}" if of else "-" for of in values]
        rows.append([f"{record['preset']}, {facts} facts", *cells])
    return markdown.table(["three readings", *(f"{name}: {reading}" for name in kinds for reading in READINGS)], rows)


def curves(found: Sequence[Record], title: str) -> Figure:
    """Recall, neighbours kept and perplexity by number of facts; bands are the range over seeds."""
    figure, axes = plots.panels(3, 3, (11, 3.6))
    shown = (("efficacy exact", "recall"), ("kept", "neighbours kept"), ("drift", "perplexity change (%)"))
    for ax, (key, label) in zip(axes, shown, strict=True):
        for record in found:
            counts = sorted({p["facts"] for run in record["runs"] for p in run["points"] if key in p and p["facts"]})
            scale = 100 if key == "drift" else 1
            values = {n: [scale * v for v in of] for n in counts if (of := at(record, n, key))}
            plots.band(ax, values, record["preset"], COLOURS[record["preset"]])
        ax.set(xlabel="facts written one by one", ylabel=label, xscale="log")
        ax.set_xticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
        ax.minorticks_off()
        ax.set_ylim(*((-2, 40) if key == "drift" else (-0.03, 1.03)))
        plots.grid(ax)
    axes[0].legend(fontsize=8)
    figure.suptitle(title)
    return figure


def settings(record: Record) -> str:
    """Numbers that a recipe ran with, and whether they were chosen on other facts."""
    spec, layers = record["spec"], record["spec"]["layers"]
    parts = [f"lambda {spec['covariance_weight']:g}"] if spec["covariance_weight"] else []
    parts += [f"null space {spec['null_space']:g}"] if spec["null_space"] else []
    parts += [f"clamp {spec['clamp']:g}", f"step {spec['learning_rate']:g}"]
    parts += [f"{name} {spec[name]:g}" for name in ("gate", "anchor", "alignment") if spec.get(name)]
    blocks = f"block {layers[0]}" if len(layers) == 1 else f"blocks {layers[0]}-{layers[-1]}"
    how = "tuned on other facts" if record["tuning"] else "not tuned here"
    seeds = f"{len(record['runs'])} seeds"
    return f"{record['preset']} {', '.join(parts)}, {blocks}, {spec['site']}, {record['dtype']}, {seeds} ({how})"


def bare(found: Sequence[Record]) -> str:
    """Perplexity of the bare model in each type that recipes ran in."""
    by_type = {record["dtype"]: record["perplexity"] for record in found}
    return " and ".join(f"{value:.2f} in {name}" for name, value in sorted(by_type.items()))


def section(name: str, found: Sequence[Record], pictures: str) -> str:
    """Curves and tables of one model and data set.

    Args:
        name: Model and data set, joined by a dot.
        found: A record per recipe.
        pictures: Folder of pictures, as the page links to it.
    """
    first = found[0]
    counts = {point["facts"] for record in found for run in record["runs"] for point in run["points"]}
    parts = [
        f"![Recall, neighbours kept and perplexity as facts pile up]({Path(pictures) / name}.png)",
        f"{first['machine']}; mean over seeds (lowest-highest). Bare perplexity {bare(found)}.",
        *(table(found, facts) for facts in sorted(counts & TABULATED)),
        readings(found),
        "Settings: " + "; ".join(map(settings, found)) + ".",
    ]
    return "\n\n".join(parts)


def read(folder: Path) -> dict[str, list[Record]]:
    """Records by model and data set, each with its recipes in the order of their colours."""
    found: dict[str, list[Record]] = {}
    for file in sorted(folder.glob("*.*.*.json")):
        record = records.read(file)
        # A model that is a file goes by its name.
        found.setdefault(f"{Path(record['model']).stem}.{record['dataset']}", []).append(record)
    for group in found.values():
        group.sort(key=lambda record: list(COLOURS).index(record["preset"]))
    return found


def contents(args: Args) -> dict[str, str]:
    """Blocks of the page."""
    pictures = os.path.relpath(args.folder, args.page.parent)
    found = {name: section(name, group, pictures) for name, group in read(args.folder).items()}
    tables = {"authors": editing_authors.table, "cost": editing_cost.table, "speed": editing_speed.table}
    for kind, shown in tables.items():
        found |= {file.stem: shown(records.read(file)) for file in sorted(args.folder.glob(f"{kind}.*.json"))}
    return found


def pictures(args: Args) -> dict[Path, Figure]:
    """Curves by file."""
    return {
        args.folder / f"{name}.png": curves(group, ", ".join(name.rsplit(".", 1)))
        for name, group in read(args.folder).items()
    }


def main(args: Args) -> None:
    for path, figure in pictures(args).items():
        plots.save(figure, path)
    markdown.write(args.page, contents(args), "Editing", "benchmarks/editing_report.py")


if __name__ == "__main__":
    main(tyro.cli(Args))

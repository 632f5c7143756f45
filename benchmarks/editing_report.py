"""Puts the tables and curves of benchmarks/editing.py into docs/editing.md.

    python benchmarks/editing_report.py

Every JSON in docs/editing is one recipe on one model and data set; tables stand between the page's markers.
"""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from matplotlib.figure import Figure

BEGIN, END = "<!-- figures: written by benchmarks/editing_report.py -->", "<!-- end of figures -->"
COLOURS = {
    "sleepgym": "#0072B2", "alphaedit": "#E69F00", "memit-prev": "#009E73", "memit": "#D55E00",
    "encore": "#CC79A7", "sleeping-llm": "#000000",
}  # fmt: skip
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
    "s / fact": "seconds per fact",
    "peak MB": "peak MB",
}
READINGS = ("likelier", "exact", "written")


@dataclass
class Args:
    folder: Path = Path("docs/editing")
    """JSON files; pictures are written here too"""
    page: Path = Path("docs/editing.md")
    """Markdown with the two markers"""


Record = dict[str, Any]


def at(record: Record, facts: int, key: str) -> list[float]:
    """A figure of every seed at a number of facts."""
    points = [point for run in record["runs"] for point in run["points"] if point["facts"] == facts]
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
    if key in ("norm", "seconds per fact"):
        return f"{mean:.2g}"
    return f"{mean:.2f} ({low:.2f}-{high:.2f})"


def table(records: list[Record], facts: int) -> list[str]:
    """One row per recipe."""
    used = {title: key for title, key in COLUMNS.items() if any(at(r, facts, key) for r in records)}
    lines = [f"| {facts} facts | " + " | ".join(used) + " |", "|---" * (len(used) + 1) + "|"]
    for record in records:
        if at(record, facts, "efficacy exact"):
            cells = [cell(record, facts, key) for key in used.values()]
            lines.append(f"| {record['preset']} | " + " | ".join(cells) + " |")
    return lines


def readings(records: list[Record]) -> list[str]:
    """The three usual readings at the last count, where free generation is measured."""
    lines = ["| three readings | " + " | ".join(f"{k}: {r}" for k in ("new", "unseen", "neighbours") for r in READINGS)]
    lines = [lines[0] + " |", "|---" * 10 + "|"]
    for record in records:
        facts = max(point["facts"] for run in record["runs"] for point in run["points"])
        keys = [f"{kind} {r}" for kind in ("efficacy", "paraphrase", "neighbourhood") for r in READINGS]
        values = [at(record, facts, key) for key in keys]
        cells = [f"{statistics.mean(v):.2f}" if v else "-" for v in values]
        lines.append(f"| {record['preset']}, {facts} facts | " + " | ".join(cells) + " |")
    return lines


def draw(records: list[Record], title: str, path: Path) -> None:
    """Facts against recall, neighbours kept and perplexity; bands are the range over seeds."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots(1, 3)
    for ax, (key, label) in zip(
        axes,
        (("efficacy exact", "recall"), ("kept", "neighbours kept"), ("drift", "perplexity change (%)")),
        strict=True,
    ):
        for record in records:
            counts = sorted({p["facts"] for run in record["runs"] for p in run["points"] if key in p})
            scale = 100 if key == "drift" else 1
            values = [[scale * v for v in at(record, n, key)] for n in counts]
            rows = [(n, v) for n, v in zip(counts, values, strict=True) if v]
            x, colour = [n for n, _ in rows], COLOURS[record["preset"]]
            ax.plot(x, [statistics.mean(v) for _, v in rows], "o-", ms=3, color=colour, label=record["preset"])
            ax.fill_between(x, [min(v) for _, v in rows], [max(v) for _, v in rows], color=colour, alpha=0.15, lw=0)
        ax.set(xlabel="facts written one by one", ylabel=label, xscale="log")
        ax.set_xticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
        ax.minorticks_off()
        ax.grid(alpha=0.3)
        if key == "drift":
            ax.set_ylim(-2, 40)
        else:
            ax.set_ylim(-0.03, 1.03)
    axes[0].legend(fontsize=8)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def section(model: str, dataset: str, records: list[Record], args: Args) -> list[str]:
    """Heading, curve and tables of one model and data set."""
    picture = args.folder / f"{model}.{dataset}.png"
    draw(records, f"{model}, {dataset}", picture)
    first = records[0]
    lines = [
        f"### {model}, {dataset}",
        "",
        f"![Recall, neighbours kept and perplexity as facts pile up]({picture.relative_to(args.page.parent)})",
        "",
        f"{first['machine']}, {first['dtype']}; mean over seeds (lowest-highest). "
        f"Bare perplexity {first['perplexity']:.2f}.",
    ]
    counts = {p["facts"] for r in records for run in r["runs"] for p in run["points"]}
    for facts in sorted(counts & {10, 30, 50, 100}):
        lines += ["", *table(records, facts)]
    lines += ["", *readings(records), "", "Settings: " + "; ".join(map(settings, records)) + ".", ""]
    return lines


def settings(record: Record) -> str:
    """What a recipe ran with, and whether that was chosen on other facts."""
    spec, layers = record["spec"], record["spec"]["layers"]
    parts = [f"lambda {spec['covariance_weight']:g}"] if spec["covariance_weight"] else []
    parts += [f"null space {spec['null_space']:g}"] if spec["null_space"] else []
    blocks = f"block {layers[0]}" if len(layers) == 1 else f"blocks {layers[0]}-{layers[-1]}"
    how = "tuned on other facts" if record["tuning"] else "not tuned here"
    return f"{record['preset']} {', '.join(parts)}, {blocks}, {spec['site']}, {len(record['runs'])} seeds ({how})"


def main(args: Args) -> None:
    records: dict[tuple[str, str], list[Record]] = {}
    for file in sorted(args.folder.glob("*.*.*.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        records.setdefault((record["model"], record["dataset"]), []).append(record)
    lines: list[str] = []
    for (model, dataset), found in sorted(records.items(), reverse=True):
        found.sort(key=lambda r: list(COLOURS).index(r["preset"]))
        lines += section(model, dataset, found, args)
    page = args.page.read_text(encoding="utf-8")
    head, tail = page.split(BEGIN)[0], page.split(END)[1]
    args.page.write_text(head + BEGIN + "\n\n" + "\n".join(lines) + "\n" + END + tail, encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Args))

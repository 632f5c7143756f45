"""Tables of docs/dreams.md, from the records of benchmarks/dreams.py."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import markdown, records
from benchmarks.common.intervals import interval

MISSING = "Not measured yet."
RESAMPLED = 2000
"""Bootstrap draws."""
CONTROL = "more untuned"
"""What tuned dreams have to beat."""


def contents(folder: Path) -> markdown.Blocks:
    """Blocks of the page; what was not measured says so."""
    made = {"order": order, "lives": lives, "tuning": tuning}
    files = {"order": "order.json", "lives": "lives.json", "tuning": "lives.json"}
    return {
        name: make(records.read(folder / files[name])) if (folder / files[name]).exists() else MISSING
        for name, make in made.items()
    }


def order(record: Mapping[str, Any]) -> str:
    """How often each feedback orders two dreams as their benefits are ordered."""
    runs = record["runs"]
    found = [all_ordered(run) for run in runs]
    rows = [
        (name, *(interval([each[name][kind] for each in found]) for kind in found[0][name]))
        for name in runs[0]["scores"]
    ]
    gains = [
        (
            f"draw {run['seed']}",
            f"{run['bare']:.3f}",
            f"{run['without']:.3f}",
            *(f"{np.mean(b):+.4f} ({min(b):+.4f} to {max(b):+.4f})" for b in run["benefits"].values()),
        )
        for run in runs
    ]
    kinds = tuple(runs[0]["benefits"])
    said = (
        f"{record['dreams']} dreams per draw, nights of {record['facts']} facts, {record['reported']} known facts. "
        "Pairs that feedback orders as their benefits are; 0.50 is chance. Means over draws, 95 % intervals (t). "
        "Below, what margins of known facts lack to one nat, and by how much a dream lowers it: mean, lowest, highest."
    )
    gain = markdown.table(("", "bare model", "night without rehearsal", *kinds), gains)
    return "\n\n".join((markdown.table(("feedback", *kinds), rows), said, gain, source(record)))


def all_ordered(run: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Share of pairs in the right order by feedback and kind of benefit."""
    return {
        name: {kind: round(ordered(scores, benefits), 3) for kind, benefits in run["benefits"].items()}
        for name, scores in run["scores"].items()
    }


def ordered(scores: Sequence[float], benefits: Sequence[float]) -> float:
    """Share of pairs that two lists put in the same order."""
    same = [(scores[i] - scores[j]) * (benefits[i] - benefits[j]) > 0 for i, j in combinations(range(len(scores)), 2)]
    return float(np.mean(same))


def lives(record: Mapping[str, Any]) -> str:
    """What is kept at the end of a life, and the difference to the control."""
    by_pool: dict[str, dict[int, Any]] = {}
    for run in record["runs"]:
        by_pool.setdefault(run["pool"], {})[run["seed"]] = run
    rows = []
    for name, runs in by_pool.items():
        last = [run["points"][-1] for run in runs.values()]
        gain = difference(runs, by_pool.get(CONTROL, {})) if name != CONTROL else "-"
        all_days = difference(runs, by_pool.get(CONTROL, {}), every_day=True) if name != CONTROL else "-"
        rows.append(
            (
                name,
                str(round(statistics.mean(run["rows"] for run in runs.values()))),
                interval([float(np.mean(hits(point))) for point in last], 3),
                gain,
                all_days,
                interval([point["raw"] for point in last], 3),
                interval([point["chat"] for point in last], 3),
                interval([100 * point["drift"] for point in last], 1),
                str(round(statistics.mean(point["steps"] for point in last))),
            )
        )
    days = record["days"]
    asked = f"days {', '.join(str(day) for day in range(record['ask_every'], days + 1, record['ask_every']))}"
    head = (
        "pool",
        "texts",
        f"kept on day {days}",
        f"minus *{CONTROL}*",
        f"the same, {asked}",
        "taught, raw",
        "taught, chat",
        "perplexity, %",
        "steps of all nights",
    )
    said = (
        f"{len(next(iter(by_pool.values())))} draws of {days * record['per_day']} facts, {record['reported']} known "
        "facts asked. ±: 95 %, Student's t over draws. [ ]: 95 %, bootstrap over known facts, draws paired."
    )
    return "\n\n".join((markdown.table(head, rows), said, source(record)))


def difference(runs: Mapping[int, Any], control: Mapping[int, Any], every_day: bool = False) -> str:
    """Mean difference in what is kept, over draws that both have, with its interval."""
    both = sorted(set(runs) & set(control))
    if not both:
        return ""
    days = slice(None) if every_day else slice(-1, None)
    gaps = [_share(runs[seed], days) - _share(control[seed], days) for seed in both]
    by_fact = np.mean(gaps, axis=0)
    rng = np.random.default_rng(0)
    means = by_fact[rng.integers(len(by_fact), size=(RESAMPLED, len(by_fact)))].mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    signs = ", ".join(f"{gap.mean():+.3f}" for gap in gaps)
    return f"{by_fact.mean():+.3f} [{low:+.3f}, {high:+.3f}] ({signs})"


def hits(point: Mapping[str, Any]) -> NDArray[np.int64]:
    """Whether each known fact was kept, ``[facts]``."""
    return np.array([int(digit) for digit in point["kept"]])


def _share(run: Mapping[str, Any], days: slice) -> Any:
    return np.mean([hits(point) for point in run["points"][days]], axis=0)


def tuning(record: Mapping[str, Any]) -> str:
    """Scores of what a writer wrote by round."""
    found: dict[str, list[Any]] = {}
    for run in record["runs"]:
        if "rounds" in run:
            found.setdefault(run["pool"], []).append(run)
    rounds = record["dream"]["rounds"]
    rows = [
        (
            name,
            *(f"{statistics.mean(run['rounds'][i]['score'] for run in runs):.3f}" for i in range(rounds)),
            f"{statistics.mean(run['rounds'][0]['chosen'] for run in runs):.3f}",
        )
        for name, runs in found.items()
    ]
    head = ("writer", *(f"round {i + 1}" for i in range(rounds)), "chosen ones of round 1")
    dreams = record["dream"]["prompts"] * record["dream"]["samples"]
    said = f"Mean score of all {dreams} dreams of a round, before it trains."
    return "\n\n".join((markdown.table(head, rows), said))


def source(record: Mapping[str, Any]) -> str:
    """Where the figures come from."""
    busy = "; the machine was busy" if records.was_busy(record) else ""
    return f"{record['machine']}{busy}; {', '.join(f'`{command}`' for command in record['commands'])}"

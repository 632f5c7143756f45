"""Tables of docs/fastweights.md, from the records of benchmarks/fastweights.py."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import markdown, records
from benchmarks.common.intervals import interval
from benchmarks.common.records import Record
from benchmarks.fastweights_places import CASES
from sleepgym.fastweights.task import ASKED_TOGETHER
from sleepgym.fastweights.tasks import TASKS

NAMES = {
    "n1": "N = 1",
    "n2": "N = 2",
    "n4": "N = 4",
    "frozen": "trained with N = {passes}, S frozen after the first pass",
    "all N": "one model for all N, N = {passes}",
    "flops": "N = 1, the training FLOPs of N = 4",
    "deep": "N = 1, twice the blocks",
    "uncut": "attention with the context kept",
}
"""Rows of the tables, in order."""
MISSING = "Not measured yet."


def contents(folder: Path) -> markdown.Blocks:
    """Blocks of the page, from the records of all tasks; what was not measured says so."""
    blocks: dict[str, str] = {}
    for task in TASKS:
        path = folder / f"{task}.json"
        blocks |= of_task(records.read(path)) if path.exists() else dict.fromkeys(names(task), MISSING)
    path = folder / "hops.json"
    blocks["places"] = placed(records.read(path)) if path.exists() else MISSING
    path = folder / "play.json"
    return blocks | {"schedulers": played(records.read(path)) if path.exists() else MISSING}


def names(task: str) -> tuple[str, str, str]:
    """Names of a task's blocks."""
    return f"accuracy on {task}", f"gains on {task}", f"times on {task}"


def of_task(record: Record) -> dict[str, str]:
    """Blocks of one record."""
    parts = (
        "All four questions of a sequence answered correctly:",
        accuracy(record, "joint"),
        "Single questions:",
        accuracy(record, "right"),
        source(record),
    )
    return dict(zip(names(record["task"]), ("\n\n".join(parts), gains(record), times(record)), strict=True))


def shares(record: Record, kind: str, passes: int, count: str) -> dict[int, dict[int, float]]:
    """Shares of right answers by depth and seed of a kind of run."""
    found: dict[int, dict[int, float]] = {}
    for run in record["runs"]:
        if (run["kind"], run["passes"]) == (kind, passes):
            for score in run["depths"]:
                found.setdefault(score["depth"], {})[run["seed"]] = share(score, count)
    return found


def share(score: dict[str, Any], count: str) -> float:
    """Share of single questions, or of sequences."""
    return float(score[count] / (score["sequences"] * (ASKED_TOGETHER if count == "right" else 1)))


def kinds(record: Record) -> list[tuple[str, int]]:
    """Kinds of runs with their N, in the order of the tables."""
    there = {(run["kind"], run["passes"]) for run in record["runs"]}
    return sorted(there, key=lambda kind: (list(NAMES).index(kind[0]), kind[1]))


def accuracy(record: Record, count: str) -> str:
    """Accuracy by depth, a row for each kind of run."""
    depths = [score["depth"] for score in record["majority"]]
    rows = []
    for kind, passes in kinds(record):
        found = shares(record, kind, passes, count)
        cells = [interval(list(found[depth].values())) for depth in depths]
        rows.append([NAMES[kind].format(passes=passes), str(len(found[depths[0]])), *cells])
    rows.append(["the most frequent answer", "", *(f"{share(score, count):.2f}" for score in record["majority"])])
    return markdown.table(["model", "seeds", *(f"depth {depth}" for depth in depths)], rows)


def placed(record: Record) -> str:
    """Single questions of two hops by the windows of their steps, a row for each kind of run."""
    there = {(run["kind"], run["passes"]) for run in record["runs"] if "places" in run}
    rows = []
    for kind, passes in kinds(record):
        if (kind, passes) in there:
            runs = [run["places"] for run in record["runs"] if (run["kind"], run["passes"]) == (kind, passes)]
            cells = [interval([case["right"] / case["asked"] for case in cases]) for cases in zip(*runs, strict=True)]
            rows.append([NAMES[kind].format(passes=passes), str(len(runs)), *cells])
    head = [f"window {first}, then {second}" for first, second in CASES]
    return markdown.table(["model, two hops", "seeds", *head], rows)


def gains(record: Record) -> str:
    """Differences of joint accuracy between models of the same seed."""
    pairs = [
        ("N = 4 minus N = 1", ("n4", 4), ("n1", 1)),
        ("N = 2 minus N = 1", ("n2", 2), ("n1", 1)),
        ("N = 4 minus N = 1 of equal training FLOPs", ("n4", 4), ("flops", 1)),
        ("N = 4 minus twice the blocks", ("n4", 4), ("deep", 1)),
    ]
    depths = [score["depth"] for score in record["majority"]]
    rows = []
    for name, one, other in pairs:
        left, right = shares(record, *one, "joint"), shares(record, *other, "joint")
        seeds = sorted(set(left.get(depths[0], {})) & set(right.get(depths[0], {})))
        if seeds:
            cells = [interval([left[depth][seed] - right[depth][seed] for seed in seeds]) for depth in depths]
            rows.append([name, str(len(seeds)), *cells])
    return markdown.table(["difference, joint", "seeds", *(f"depth {depth}" for depth in depths)], rows)


def times(record: Record) -> str:
    """Milliseconds awake and asleep, and bytes of S."""
    rows = []
    for row in record["times"]:
        ratio = row["wake relative to the smallest N"]
        rows.append(
            [
                str(row["passes"]),
                markdown.interval(row["wake"]),
                f"{ratio['ratio']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]",
                markdown.interval(row["sleep"]),
                f"{row['bytes of S']:,}",
            ]
        )
    head = ["N", "ms per answer (range)", "relative to N = 1", "ms of sleep per window (range)", "bytes of S"]
    return markdown.table(head, rows)


def played(record: Record) -> str:
    """Score and sleep of every player, relative to the best fixed N, and score relative to the best rule."""
    fixed, rule = (best_of(record, kind) for kind in ("fixed", "rule"))
    rows = []
    for player in [*record["players"], *mean_run(record)]:
        n = len(player["scores"])  # a player may have played the first streams only
        slept = statistics.mean(fixed["slept"][:n])
        rows.append(
            [
                named(player),
                str(n),
                interval(player["scores"], 3),
                *("" if player is best else interval(differences(player, best), 3) for best in (fixed, rule)),
                f"{statistics.mean(player['slept']):.1f}",
                f"{statistics.mean(player['slept']) / slept:.0%}" if slept else "",
            ]
        )
    against = [f"minus {fixed['name']}", f"minus the rule that is best, {rule['name']}"]
    head = ["player", "streams", "score", *against, "ticks of sleep", f"relative to {fixed['name']}"]
    busy = "; the machine was busy" if records.was_busy(record) else ""
    about = (
        f"test streams, the same ones for all; mean with its 95 % interval (t); "
        f"{record['machine']}{busy}; `{record['command']}`"
    )
    return f"{markdown.table(head, rows)}\n\n{about}"


def mean_run(record: Record) -> list[dict[str, Any]]:
    """The mean of all training runs on every stream, as a player; none if there are not several."""
    runs = [player for player in record["players"] if player["kind"] == "learned"]
    if len(runs) < 2:
        return []
    means = {key: np.mean([run[key] for run in runs], axis=0).tolist() for key in ("scores", "slept")}
    return [{"name": f"mean of {len(runs)} runs of PPO", "settings": {}} | means]


def best_of(record: Record, kind: str) -> dict[str, Any]:
    """The player of a kind with the highest mean score."""
    return max((p for p in record["players"] if p["kind"] == kind), key=lambda p: statistics.mean(p["scores"]))


def differences(player: dict[str, Any], best: dict[str, Any]) -> list[float]:
    """Differences of score from another player on the streams that a player has played."""
    scores = player["scores"]
    return [own - other for own, other in zip(scores, best["scores"][: len(scores)], strict=True)]


def named(player: dict[str, Any]) -> str:
    """A player with the numbers that it was tuned to."""
    numbers = ", ".join(f"{name} {value:g}" for name, value in player["settings"].items())
    return f"{player['name']} ({numbers})" if numbers else str(player["name"])


def source(record: Record) -> str:
    """What was measured, where, and by which command."""
    n = record["majority"][0]["sequences"]
    busy = "; the machine was busy" if records.was_busy(record) else ""
    return (
        f"{n} test sequences per depth; {record['parameters']:,} parameters, {record['steps']} steps; "
        f"mean over seeds with its 95 % interval (t); {record['machine']}{busy}; `{record['command']}`"
    )

"""Tables of the sim's page, from its record: how it agrees with the real environment, and how fast it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import agreement, markdown, records
from benchmarks.common.agreement import Scores
from benchmarks.common.records import Record
from sleepgym.evaluation import Column, Estimate, ScoreMatrix, Sheet, stratified_bootstrap
from sleepgym.evaluation.tables import Value

QUANTITIES = ("score", "recall", "ppl_ratio", "sleeps", "naps", "edits_used", "look_ups", "tokens_read")
"""What is compared at the end of an episode, as far as records of real ones have it."""

RESAMPLES = 2_000
"""Resamples of the streams, the same for all statistics."""


@dataclass(frozen=True)
class Goal:
    """A statistic of the agreement of scores, and what it should be.

    Attributes:
        what: The statistic in words.
        statistic: Function of real and simulated scores, ``[schedulers]`` each.
        limit: What it has to reach.
        at_most: Whether it has to be at most that, instead of at least.
    """

    what: str
    statistic: Callable[[Scores, Scores], float]
    limit: float
    at_most: bool = False

    def cells(self, real: ScoreMatrix, sim: ScoreMatrix) -> list[str]:
        """The goal, its limit, what was measured, and whether that is enough."""
        found = estimate(self.statistic, real, sim)
        met = found.point <= self.limit if self.at_most else found.point >= self.limit
        limit = f"{'at most' if self.at_most else 'at least'} {self.limit:g}"
        return [self.what, limit, f"{found:.3f}", "yes" if met else "no"]


GOALS = (
    Goal("Kendall's tau of scores and sim scores", agreement.kendall, 0.8),
    Goal("Pearson's correlation", agreement.pearson, 0.9),
    Goal("mean absolute error of sim scores", agreement.absolute_error, 0.02, at_most=True),
    Goal("mean maximum rank violation", agreement.rank_violation, 0.01, at_most=True),
)

SPEED_GOAL = 100_000
"""Steps per second that the sim should reach on two cores."""


def keep(path: Path | None, part: str, found: Record) -> None:
    """Writes a part of the record, and leaves the others as they are.

    Args:
        path: JSON file; None for no record.
        part: ``fidelity``, ``notes``, ``planner`` or ``speed``.
        found: Its content.
    """
    if path is not None:
        records.write(path, (records.read(path) if path.exists() else {}) | {part: found}, indent=None)


def contents(record: Record) -> markdown.Blocks:
    """Blocks of the page; those of a part that was not measured are empty."""
    blocks: dict[str, str] = {}
    for part in PARTS:
        blocks |= fidelity(record[part], part) if part in record else dict.fromkeys(of_part(part), "")
    blocks |= {"planner": planner(record["planner"]) if "planner" in record else ""}
    return blocks | (speed(record["speed"]) if "speed" in record else dict.fromkeys(SPEED, ""))


# ------------------------------------------------------------------ fidelity

FIDELITY = ("fidelity circumstances", "agreement", "schedulers", "quantities")
"""Blocks about agreement."""
PARTS = ("fidelity", "notes")
"""Parts of the record about agreement: on the default card, and on the one with notes."""


def of_part(part: str) -> tuple[str, ...]:
    """Names of the blocks of a part about agreement."""
    return FIDELITY if part == "fidelity" else tuple(f"{name} of {part}" for name in FIDELITY)


def fidelity(found: Record, part: str = "fidelity") -> dict[str, str]:
    """Blocks about agreement.

    Args:
        found: What was measured.
        part: One of :data:`PARTS`.
    """
    circumstances = [
        ["environment", f"`{found['card']}`"],
        ["model", f"{found['model']}, {found['fingerprint'][:12]}"],
        ["schedulers and policies", str(len(found["rows"]))],
        ["training streams per policy, of which fits are made", str(found["train streams"])],
        ["validation streams, on which scores are compared", str(len(found["seeds"]))],
        ["simulated episodes per validation stream", str(found["draws"])],
    ]
    goals = [goal.cells(*matrices(found, "score")) for goal in GOALS]
    blocks = (
        markdown.table(["", ""], circumstances),
        markdown.table(["", "goal", "measured [95 % interval]", "met"], goals),
        schedulers(found).markdown(),
        quantities(found),
    )
    return dict(zip(of_part(part), blocks, strict=True))


def schedulers(found: Record) -> Sheet:
    """Scores and sim scores of every scheduler, the best real one first."""
    columns = (
        Column("scheduler", "scheduler"),
        Column("score", "score", ".3f"),
        Column("sim_score", "sim score", ".3f"),
        Column("error", "sim score - score", "+.3f"),
        *(Column(name, f"{name}, sim - real", "+.2f") for name in compared(found)[1:]),
    )
    rows: list[tuple[float, list[Value]]] = []
    for place, row in enumerate(found["rows"]):
        real, sim = (only(matrix, place) for matrix in matrices(found, "score"))
        gaps = [float(np.mean(row["sim"][name]) - np.mean(row["real"][name])) for name in compared(found)[1:]]
        both = [estimate(lambda one, _: float(one.mean()), each, each) for each in (real, sim)]
        rows.append((both[0].point, [row["policy"], *both, estimate(agreement.error, real, sim), *gaps]))
    return Sheet("", columns, [cells for _, cells in sorted(rows, key=lambda pair: -pair[0])])


def quantities(found: Record) -> str:
    """Errors of every quantity over schedulers."""
    rows = []
    for name in compared(found):
        real, sim = matrices(found, name)
        sizes = [estimate(statistic, real, sim) for statistic in (agreement.absolute_error, agreement.error)]
        rows.append([f"`{name}`", f"{real.scores.mean():.3f}", f"{sizes[0]:.3f}", f"{sizes[1]:+.3f}"])
    head = ["", "mean, real", "mean absolute error, sim [95 % interval]", "mean error, sim [95 % interval]"]
    return markdown.table(head, rows)


def compared(found: Record) -> list[str]:
    """What real and simulated episodes were compared in, the score first."""
    return [name for name in QUANTITIES if name in found["rows"][0]["real"]]


def matrices(found: Record, name: str) -> tuple[ScoreMatrix, ScoreMatrix]:
    """A quantity of all schedulers, one row each, real and simulated."""
    seeds = tuple(found["seeds"])
    real, sim = (np.array([row[side][name] for row in found["rows"]]) for side in ("real", "sim"))
    return ScoreMatrix("real", seeds, real), ScoreMatrix("sim", seeds, sim)


def only(matrix: ScoreMatrix, row: int) -> ScoreMatrix:
    """One scheduler's row."""
    return ScoreMatrix(matrix.name, matrix.streams, matrix.scores[[row]])


def estimate(statistic: Callable[[Scores, Scores], float], real: ScoreMatrix, sim: ScoreMatrix) -> Estimate:
    """A statistic of means over streams, with its interval over streams, which both sides share."""
    return stratified_bootstrap(
        partial(_of_means, statistic), real, sim, rng=np.random.default_rng(0), resamples=RESAMPLES, over="streams"
    )


def _of_means(statistic: Callable[[Scores, Scores], float], real: Scores, sim: Scores) -> float:
    return statistic(real.mean(1), sim.mean(1))


# ------------------------------------------------------------------- planner


def planner(found: Record) -> str:
    """Simulated scores of players on the same streams, best first, with the difference to the best rule in pairs."""
    scores = {
        row["player"]: ScoreMatrix(row["player"], tuple(found["seeds"]), np.array([row["scores"]]))
        for row in found["rows"]
    }
    best = max(found["rules"], key=lambda name: float(scores[name].scores.mean()))
    rows = []
    for name in sorted(scores, key=lambda name: -float(scores[name].scores.mean())):
        score = estimate(lambda one, _: float(one.mean()), scores[name], scores[name])
        gap = estimate(agreement.error, scores[best], scores[name])
        means = {key: float(np.mean(next(row for row in found["rows"] if row["player"] == name)[key])) for key in MEANS}
        cells = [f"{means[key]:.2f}" if key == "look_ups" else f"{means[key]:.1f}" for key in MEANS]
        rows.append([f"`{name}`", f"{score:.3f}", "" if name == best else f"{gap:+.3f}", *cells])
    played = f"{len(found['seeds'])} streams, {found['draws']} simulated episodes each"
    about = f"{played}; {found['machine']}; `{found['command']}`"
    head = ["player", "sim score [95 %]", f"- `{best}` [95 %]", *MEANS]
    return f"{markdown.table(head, rows)}\n\n{about}"


MEANS = ("edits_used", "sleeps", "naps", "look_ups", "tokens_read")
"""What the table of players says of each besides: means over episodes."""

# --------------------------------------------------------------------- speed

SPEED = ("speed circumstances", "speed goal", "speed")
"""Blocks about speed."""


def speed(found: Record) -> dict[str, str]:
    """Blocks about speed."""
    circumstances = [
        ["environment", f"`{found['card']}`, and its sim with the fit `{found['fit']}`"],
        ["machine", found["machine"]],
        ["load before it began", f"{found['load before']:.1f}"],
        ["rounds, of which medians are shown", str(found["rounds"])],
    ]
    best = max(found["rows"], key=lambda row: float(row["steps per second"]["median"]))
    rate: Mapping[str, Any] = best["steps per second"]
    goal = ["steps/s of the sim", f"at least {SPEED_GOAL:,}", f"{best['what']}: {markdown.interval(rate, ',.0f')}"]
    rows = [[each["what"], rounded(each["steps per second"]), rounded(each["times real"])] for each in found["rows"]]
    blocks = (
        markdown.table(["", ""], circumstances),
        markdown.table(
            ["", "goal", "measured (range)", "met"], [[*goal, "yes" if rate["median"] >= SPEED_GOAL else "no"]]
        ),
        markdown.table(["", "steps/s (range)", "times one real environment (range)"], rows),
    )
    return dict(zip(SPEED, blocks, strict=True))


def rounded(found: Mapping[str, Any]) -> str:
    """A rate with its range, to a whole number where that says enough."""
    return markdown.interval(found, ",.0f" if found["median"] >= 100 else ".1f")

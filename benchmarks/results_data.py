"""Raw data of docs/results.md and what follows from it: comparisons, intervals, habits."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import NormalDist

import numpy as np

from benchmarks.common import records
from sleepgym.evaluation import (
    Band,
    Comparison,
    Estimate,
    ScoreMatrix,
    Summary,
    bootstrap_band,
    compare,
    statistics,
    stratified_bootstrap,
    summarise,
)
from sleepgym.evaluation.plots import LearningCurve
from sleepgym.evaluation.statistics import ScoreArray
from sleepgym.training import PolicyCard

PPO, NEVER, PLANNER = "PPO", "never-sleep", "look-ahead"
RULE = "night-owl"
"""Hand-written scheduler to compare with: the best of the sweep on training streams."""
GOAL = 0.8
"""Probability of improvement that was aimed for."""
ELSEWHERE = ("SleepLLM-Night-v0", "SleepLLM-Tight-v0", "SleepLLM-Churn-v0", "SleepLLM-Gemma-v0")
"""Environments that a policy plays untouched."""
THRESHOLDS = np.linspace(0, 2, 81)
"""Normalised scores at which performance profiles are drawn."""


@dataclass(frozen=True)
class Moment:
    """A step at which a policy could have slept.

    Attributes:
        hour: Ticks since the night began, below a day.
        degraded: Facts that were written and would be answered wrongly.
        load: Sum of the scales of all edits.
        probability: With which the policy sleeps.
    """

    hour: int
    degraded: int
    load: float
    probability: float


@dataclass(frozen=True)
class Data:
    """Raw data of one environment and of those that were not trained on.

    Attributes:
        scores: By scheduler, on all test streams; all policies are runs of one.
        planner: ScoreArray on its few streams.
        elsewhere: The same as ``scores``, by environment.
        policies: Files of the policies, in the order of their runs.
        validation: ScoreArray on validation streams during training.
        relative: Return beyond the imitated rule during training.
        moments: Steps at which policies could have slept.
    """

    scores: Mapping[str, ScoreMatrix]
    planner: ScoreMatrix
    elsewhere: Mapping[str, Mapping[str, ScoreMatrix]]
    policies: Sequence[Path]
    validation: LearningCurve
    relative: LearningCurve
    moments: Sequence[Moment]

    @classmethod
    def read(cls, folder: Path, policies: Path, env_id: str) -> Data:
        """Everything that the page shows.

        Args:
            folder: Raw data.
            policies: Folder of the policies.
            env_id: Environment that they were trained in.
        """
        found = _scores(folder / env_id)
        [planner] = [name for name in found if name.startswith(PLANNER)]
        curves = {
            name: LearningCurve(np.array(one["steps"], np.int64), np.array(one["scores"], np.float64))
            for name, one in records.read(folder / "curves.json").items()
        }
        return cls(
            scores={name: one for name, one in found.items() if name != planner},
            planner=found[planner],
            elsewhere={env: _scores(folder / env) for env in ELSEWHERE},
            policies=sorted(policies.glob("*.zip")),
            validation=curves["validation"],
            relative=curves["relative_return"],
            moments=[Moment(*row) for row in records.read(folder / "habits.json")["moments"]],
        )


def _scores(folder: Path) -> dict[str, ScoreMatrix]:
    """Matrices by scheduler, policies last."""
    found = {one.name: one for one in map(ScoreMatrix.load, sorted(folder.glob("*.json")))}
    return {name: found[name] for name in sorted(found, key=lambda name: (name == PPO, name))}


@dataclass(frozen=True)
class Findings:
    """Estimates that tables and pictures share.

    Attributes:
        pairs: Every scheduler beside the rule.
        runs: Every training run beside the rule, by its name.
        means: Mean scores.
        summaries: Normalised scores on the planner's streams.
        few: Planner and policies beside the rule, on the planner's streams.
        profiles: Performance profiles on the planner's streams, by label.
        closed: Share of the gap between rule and planner that policies close.
        elsewhere: Policies beside the rule, by environment that was not trained on.
    """

    pairs: Mapping[str, Comparison]
    runs: Mapping[str, Comparison]
    means: Mapping[str, Estimate]
    summaries: Mapping[str, Summary]
    few: Mapping[str, Comparison]
    profiles: Mapping[str, Band]
    closed: Estimate
    elsewhere: Mapping[str, Mapping[str, Comparison]]

    @classmethod
    def of(cls, data: Data) -> Findings:
        """All estimates, drawn from one generator in this order, so that they come out the same every time."""
        rng, found, high = np.random.default_rng(0), data.scores, data.planner

        def beside(scores: Mapping[str, ScoreMatrix]) -> dict[str, Comparison]:
            return {name: compare(one, scores[RULE], rng) for name, one in scores.items() if name != RULE}

        pairs = beside(found)
        each = {
            f"{PPO}, seed {PolicyCard.read(path).seed}": ScoreMatrix(PPO, found[PPO].streams, row[None])
            for path, row in zip(data.policies, found[PPO].scores, strict=True)
        }
        runs = {name: compare(one, found[RULE], rng) for name, one in each.items()}
        means = {name: stratified_bootstrap(statistics.mean, one, rng=rng) for name, one in found.items()}
        narrow = {name: one.on(high.streams) for name, one in found.items()} | {high.name: high}
        summaries = {name: summarise(one, narrow[NEVER], high, rng) for name, one in narrow.items()}
        few = {name: compare(narrow[name], narrow[RULE], rng) for name in (high.name, PPO)}
        profile = partial(statistics.performance_profile, thresholds=THRESHOLDS)
        profiles = {
            label: bootstrap_band(profile, narrow[name].normalised(narrow[NEVER], high), rng=rng)
            for label, name in ((RULE, RULE), (PPO, PPO), ("planner", high.name))
        }
        closed = stratified_bootstrap(gap_closed, narrow[PPO], narrow[RULE], high, rng=rng)
        elsewhere = {env: beside(scores) for env, scores in data.elsewhere.items()}
        return cls(pairs, runs, means, summaries, few, profiles, closed, elsewhere)


def gap_closed(scores: ScoreArray, rule: ScoreArray, planner: ScoreArray) -> float:
    """Share of the way from a rule to the planner."""
    return float((scores.mean() - rule.mean()) / (planner.mean() - rule.mean()))


def noise(policies: ScoreArray, rule: ScoreArray) -> dict[str, float]:
    """Standard deviation of differences on one stream, and the gain that a probability of improvement takes then."""
    beyond = float((policies - rule).std(axis=1, ddof=1).mean())
    pairs = [one - other for one, other in itertools.combinations(policies, 2)]
    between = float(np.mean([pair.std(ddof=1) for pair in pairs]))
    # Of normally distributed differences.
    return {"beyond": beyond, "between": between, "needed": NormalDist().inv_cdf(GOAL) * beyond}


def quarters(relative: LearningCurve) -> list[float]:
    """Means of the quarters of training."""
    return [float(part.mean()) for part in np.array_split(relative.scores, 4, axis=1)]


def habits(moments: Sequence[Moment], night: int) -> list[tuple[str, str, str]]:
    """Mean probability of sleeping by time and load, with the number of steps.

    Args:
        moments: Steps at which policies could have slept.
        night: Ticks of the shortest night.
    """
    dark, light = ([m for m in moments if (m.hour < night) is wanted] for wanted in (True, False))
    parts = {
        "first ticks of the night, load of 16 or more": [m for m in dark if m.load >= 16],
        "the same, load of 8 to 16": [m for m in dark if 8 <= m.load < 16],
        "the same, load below 8": [m for m in dark if m.load < 8],
        "later and by day": light,
    }
    return [
        (where, f"{np.mean([m.probability for m in of]):.2f}" if of else "never met", str(len(of)))
        for where, of in parts.items()
    ]

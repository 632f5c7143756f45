"""Raw data of docs/results.md and what follows from it: comparisons, intervals, habits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from benchmarks.common import records
from benchmarks.results_habits import Moment
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

PPO, NEVER, PLANNER = "PPO", "never-sleep", "benchmarks.planner:planner"
OFFLINE: Mapping[str, str] = {"bc": "behaviour cloning (offline)", "iql": "implicit Q-learning (offline)"}
"""Schedulers that learned from a dataset alone, by what agents/offline.py calls their algorithm."""
SIM_ONLY = "sim only"
"""Way of training of the policies that ship."""
GOAL = 0.8
"""Probability of improvement that was aimed for."""
ELSEWHERE = ("SleepLLM-Night-v0", "SleepLLM-Tight-v0", "SleepLLM-Churn-v0", "SleepLLM-Gemma-v0")
"""Environments that a policy plays untouched."""
THRESHOLDS = np.linspace(0, 2, 81)
"""Normalised scores at which performance profiles are drawn."""


@dataclass(frozen=True)
class Way:
    """Policies that were trained in one way, on some of the test streams.

    Attributes:
        scores: A row per training run.
        steps: Steps of each training run in the environment it was trained in, those of a policy to begin with not
            among them.
        minutes: Minutes of each training run by the clock.
    """

    scores: ScoreMatrix
    steps: Sequence[int]
    minutes: Sequence[float]

    @classmethod
    def of_cards(cls, scores: ScoreMatrix, cards: Sequence[PolicyCard]) -> Way:
        """The same of policies with their cards."""
        return cls(scores, [card.steps for card in cards], [60 * (card.hours or math.nan) for card in cards])

    @classmethod
    def of_record(cls, name: str, record: Mapping[str, Any]) -> Way:
        """Reads what :meth:`record` made."""
        scores = ScoreMatrix(name, tuple(record["streams"]), np.array(record["scores"]))
        return cls(scores, record["steps"], record["minutes"])

    def record(self) -> dict[str, Any]:
        """JSON of it."""
        return {
            "streams": list(self.scores.streams),
            "scores": np.round(self.scores.scores, 6).tolist(),
            "steps": list(self.steps),
            "minutes": np.round(self.minutes, 1).tolist(),
        }


@dataclass(frozen=True)
class Data:
    """Raw data of one environment and of those that were not trained on.

    Attributes:
        scores: By scheduler, on all test streams; all policies are runs of one.
        planned: Scores of the planner on its few streams; empty if it has not played.
        elsewhere: The same as ``scores``, by environment that has been played.
        policies: Files of the policies, in the order of their runs.
        learning: Simulated scores during training.
        references: Simulated scores of rules on the same streams.
        moments: Steps of policies on validation streams; none if nobody has looked.
        beside: Two episodes on one stream; empty if nobody has looked.
        ways: Policies by the way in which they were trained, on the same of the test streams.
    """

    scores: Mapping[str, ScoreMatrix]
    planned: Mapping[str, ScoreMatrix]
    elsewhere: Mapping[str, Mapping[str, ScoreMatrix]]
    policies: Sequence[Path]
    learning: LearningCurve
    references: Mapping[str, float]
    moments: Sequence[Moment]
    beside: Mapping[str, Any]
    ways: Mapping[str, Way]

    @property
    def rule(self) -> str:
        """Hand-written scheduler with the best mean score, which policies are compared with."""
        return best_rule(self.scores)

    @classmethod
    def read(cls, folder: Path, policies: Path, env_id: str) -> Data:
        """Everything that the page shows.

        Args:
            folder: Raw data.
            policies: Folder of the policies.
            env_id: Environment that they are for.
        """
        curve, looked = records.read(folder / "learning.json"), folder / "habits.json"
        beside = folder / "episode.json"
        scores, files = recorded(folder / env_id), sorted(policies.glob("*.zip"))
        return cls(
            scores=scores,
            planned=recorded(folder / "planner"),
            elsewhere={env: recorded(folder / env) for env in ELSEWHERE if (folder / env).is_dir()},
            policies=files,
            learning=LearningCurve(*(np.array(curve[name]) for name in ("steps", "scores", "minutes"))),
            references=curve["references"],
            moments=[Moment.of_row(row) for row in records.read(looked)["moments"]] if looked.exists() else [],
            beside=records.read(beside) if beside.exists() else {},
            ways=ways_of(folder, scores, [PolicyCard.read(path) for path in files]),
        )


def best_rule(scores: Mapping[str, ScoreMatrix]) -> str:
    """Hand-written scheduler with the best mean score."""
    learned = {PPO, *OFFLINE.values()}
    return max((name for name in scores if name not in learned), key=lambda name: float(scores[name].scores.mean()))


def recorded(folder: Path) -> dict[str, ScoreMatrix]:
    """Matrices by scheduler, PPO last."""
    found = {one.name: one for one in map(ScoreMatrix.load, sorted(folder.glob("*.json")))}
    return {name: found[name] for name in sorted(found, key=lambda name: (name == PPO, name))}


def ways_of(folder: Path, scores: Mapping[str, ScoreMatrix], cards: Sequence[PolicyCard]) -> dict[str, Way]:
    """Policies of the sim, with their cards, and those of other ways on the same streams; none without a record."""
    path = folder / "ways.json"
    if not path.exists():
        return {}
    others = {name: Way.of_record(name, one) for name, one in records.read(path)["ways"].items()}
    streams = next(iter(others.values())).scores.streams
    return {SIM_ONLY: Way.of_cards(scores[PPO].on(streams), cards), **others}


@dataclass(frozen=True)
class Findings:
    """Estimates that tables and pictures share.

    Attributes:
        pairs: Every scheduler beside the rule.
        runs: Every training run beside the rule, by its name.
        means: Mean scores.
        elsewhere: Policies beside the rule, by environment that was not trained on.
        above: What only the planner's scores tell; None without them.
        ways: Policies beside the rule and beside those of the sim, by the way in which they were trained.
    """

    pairs: Mapping[str, Comparison]
    runs: Mapping[str, Comparison]
    means: Mapping[str, Estimate]
    elsewhere: Mapping[str, Mapping[str, Comparison]]
    above: Above | None
    ways: Mapping[str, tuple[Comparison, Comparison]]

    @classmethod
    def of(cls, data: Data) -> Findings:
        """All estimates, each from the same resamples: an interval does not depend on who else is in a table."""
        found, rule = data.scores, data.rule

        def beside(scores: Mapping[str, ScoreMatrix]) -> dict[str, Comparison]:
            return {name: compare(one, scores[rule], fresh()) for name, one in scores.items() if name != rule}

        pairs = beside(found)
        each = {
            f"{PPO}, seed {PolicyCard.read(path).seed}": ScoreMatrix(PPO, found[PPO].streams, row[None])
            for path, row in zip(data.policies, found[PPO].scores, strict=True)
        }
        runs = {name: compare(one, found[rule], fresh()) for name, one in each.items()}
        means = {name: stratified_bootstrap(statistics.mean, one, rng=fresh()) for name, one in found.items()}
        above = Above.of({**found, **data.planned}, rule) if data.planned else None
        elsewhere = {env: beside(scores) for env, scores in data.elsewhere.items()}
        ways = {
            name: (
                compare(way.scores, found[rule].on(way.scores.streams), fresh()),
                compare(way.scores, found[PPO].on(way.scores.streams), fresh()),
            )
            for name, way in data.ways.items()
        }
        return cls(pairs, runs, means, elsewhere, above, ways)


@dataclass(frozen=True)
class Above:
    """Estimates on the planner's streams, for which never sleeping is 0 and the planner 1.

    Attributes:
        summaries: Normalised scores.
        pairs: Planner and policies beside the rule.
        profiles: Performance profiles, by label.
        closed: Share of the gap between rule and planner that policies close.
    """

    summaries: Mapping[str, Summary]
    pairs: Mapping[str, Comparison]
    profiles: Mapping[str, Band]
    closed: Estimate

    @classmethod
    def of(cls, found: Mapping[str, ScoreMatrix], rule: str) -> Above:
        """All of them.

        Args:
            found: Scores by scheduler, those of the planner among them.
            rule: Scheduler to compare with.
        """
        planner = next(one for name, one in found.items() if name.startswith(PLANNER))
        few = {name: one.on(planner.streams) for name, one in found.items()}
        low = few[NEVER]
        profile = partial(statistics.performance_profile, thresholds=THRESHOLDS)
        shown = ((rule, rule), (PPO, PPO), ("planner", planner.name))
        return cls(
            summaries={name: summarise(one, low, planner, fresh()) for name, one in few.items()},
            pairs={name: compare(few[name], few[rule], fresh()) for name in (planner.name, PPO)},
            profiles={
                label: bootstrap_band(profile, few[name].normalised(low, planner), rng=fresh()) for label, name in shown
            },
            closed=stratified_bootstrap(gap_closed, few[PPO], few[rule], planner, rng=fresh()),
        )


def fresh() -> np.random.Generator:
    """Source of the resamples of one estimate."""
    return np.random.default_rng(0)


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

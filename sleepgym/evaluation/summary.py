"""What is said about schedulers: how episodes went, how good each is, and by how much it beats another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sleepgym.evaluation import statistics
from sleepgym.evaluation.bootstrap import Estimate, stratified_bootstrap
from sleepgym.evaluation.episodes import EpisodeResult
from sleepgym.evaluation.scores import ScoreMatrix
from sleepgym.evaluation.tables import Column, Sheet, Value


@dataclass(frozen=True)
class Summary:
    """How good a scheduler is, with 95 % intervals over runs and streams.

    Attributes:
        score: Mean raw score.
        mean: Mean normalised score: 0 is never sleeping, 1 the planner.
        iqm: Interquartile mean of normalised scores.
        gap: By how much normalised scores fall short of 1.
    """

    score: Estimate
    mean: Estimate
    iqm: Estimate
    gap: Estimate


@dataclass(frozen=True)
class Comparison:
    """How a scheduler does beside another on the same streams, with 95 % intervals over runs and streams.

    Attributes:
        difference: Of raw scores, in pairs.
        probability: That it scores higher on a stream drawn at random.
    """

    difference: Estimate
    probability: Estimate


def summarise(matrix: ScoreMatrix, low: ScoreMatrix, high: ScoreMatrix, rng: np.random.Generator) -> Summary:
    """Sums up the scores of a scheduler.

    The references are taken as they are, as Agarwal et al. take a human's score: intervals of normalised scores do not
    contain how sure the references themselves are.

    Args:
        matrix: Its raw scores.
        low: Raw scores of what normalised scores call 0.
        high: Raw scores of what they call 1.
        rng: Draws the resamples.

    Raises:
        ScoreError: See :meth:`~sleepgym.evaluation.scores.ScoreMatrix.normalised`.
    """
    normalised = matrix.normalised(low, high)
    return Summary(
        score=stratified_bootstrap(statistics.mean, matrix, rng=rng),
        mean=stratified_bootstrap(statistics.mean, normalised, rng=rng),
        iqm=stratified_bootstrap(statistics.iqm, normalised, rng=rng),
        gap=stratified_bootstrap(statistics.optimality_gap, normalised, rng=rng),
    )


def compare(matrix: ScoreMatrix, other: ScoreMatrix, rng: np.random.Generator) -> Comparison:
    """Compares a scheduler with another.

    Args:
        matrix: Its raw scores.
        other: Those of the other, on the same streams.
        rng: Draws the resamples.

    Raises:
        ScoreError: Streams differ.
    """
    return Comparison(
        difference=stratified_bootstrap(statistics.paired_difference, matrix, other, rng=rng),
        probability=stratified_bootstrap(statistics.probability_of_improvement, matrix, other, rng=rng),
    )


def episodes_sheet(results: Mapping[str, Sequence[EpisodeResult]], rng: np.random.Generator, title: str = "") -> Sheet:
    """Schedulers by score, the best first, with its 95 % interval over streams; the rest are means.

    Args:
        results: Episodes of each scheduler, one per seed.
        rng: Draws the resamples.
        title: Of the table.
    """
    columns = (
        Column("scheduler", "scheduler"),
        Column("score", "score", ".2f"),
        Column("recall", "recall", ".2f"),
        Column("edits_used", "edits", ".0f"),
        Column("budget", "budget", ".0f"),
        Column("nights", "nights", ".1f"),
        Column("naps", "naps", ".1f"),
        Column("drift", "drift", "+.1%"),
        Column("seconds", "s", ".1f"),
    )
    rows: list[tuple[Estimate, tuple[Value, ...]]] = []
    for name, episodes in results.items():
        matrix = ScoreMatrix.from_results(name, [episodes])
        means = {
            field: float(np.mean([getattr(episode, field) for episode in episodes]))
            for field in ("recall", "edits_used", "budget", "sleeps", "naps", "ppl_ratio", "seconds")
        }
        means["ppl_ratio"] -= 1
        score = stratified_bootstrap(statistics.mean, matrix, rng=rng)
        rows.append((score, (name, score, *means.values())))
    return Sheet(title, columns, [row for _, row in sorted(rows, key=lambda pair: -pair[0].point)])


def summary_sheet(summaries: Mapping[str, Summary], title: str = "") -> Sheet:
    """Schedulers by mean score, the best first."""
    columns = (
        Column("scheduler", "scheduler"),
        Column("score", "score", ".3f"),
        Column("normalised_mean", "normalised", ".2f"),
        Column("normalised_iqm", "IQM", ".2f"),
        Column("optimality_gap", "optimality gap", ".2f"),
    )
    best_first = sorted(summaries.items(), key=lambda item: -item[1].score.point)
    return Sheet(title, columns, [(name, s.score, s.mean, s.iqm, s.gap) for name, s in best_first])


def comparison_sheet(comparisons: Mapping[str, Comparison], other: str, title: str = "") -> Sheet:
    """Schedulers by how much they beat another, the most first.

    Args:
        comparisons: Of each scheduler with the other.
        other: What the other is called.
        title: Of the table.
    """
    columns = (
        Column("scheduler", "scheduler"),
        Column("difference", f"score - {other}", "+.3f"),
        Column("probability", f"P(better than {other})", ".2f"),
    )
    most_first = sorted(comparisons.items(), key=lambda item: -item[1].difference.point)
    return Sheet(title, columns, [(name, c.difference, c.probability) for name, c in most_first])

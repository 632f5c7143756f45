"""Summaries and comparisons of schedulers, and the tables that show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np

from sleepgym.evaluation import statistics
from sleepgym.evaluation.bootstrap import Estimate, stratified_bootstrap
from sleepgym.evaluation.episodes import EpisodeResult
from sleepgym.evaluation.scores import ScoreMatrix
from sleepgym.evaluation.tables import Column, Sheet, Value


@dataclass(frozen=True)
class Summary:
    """Statistics of a scheduler's scores, with 95 % intervals over runs and streams.

    Attributes:
        score: Mean raw score.
        mean: Mean normalised score: 0 is never sleeping, 1 the planner.
        iqm: Interquartile mean of normalised scores.
        gap: Optimality gap: mean shortfall of normalised scores from 1.
    """

    score: Estimate
    mean: Estimate
    iqm: Estimate
    gap: Estimate


@dataclass(frozen=True)
class Comparison:
    """Comparison of a scheduler with another on the same streams, with 95 % intervals over runs and streams.

    Attributes:
        difference: Mean paired difference of raw scores.
        probability: Probability that the scheduler scores higher on a random stream.
    """

    difference: Estimate
    probability: Estimate


def summarise(matrix: ScoreMatrix, low: ScoreMatrix, high: ScoreMatrix, rng: np.random.Generator) -> Summary:
    """Summarises the scores of a scheduler.

    The references are treated as constants, as Agarwal et al. treat human scores: intervals of normalised scores do not
    include the uncertainty of the references.

    Args:
        matrix: Raw scores of the scheduler.
        low: Raw scores of the lower reference, which is normalised to 0.
        high: Raw scores of the upper reference, which is normalised to 1.
        rng: Source of the resamples.

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
        matrix: Raw scores of the scheduler.
        other: Raw scores of the other scheduler, on the same streams.
        rng: Source of the resamples.

    Raises:
        ScoreError: Streams differ.
    """
    return Comparison(
        difference=stratified_bootstrap(statistics.paired_difference, matrix, other, rng=rng),
        probability=stratified_bootstrap(statistics.probability_of_improvement, matrix, other, rng=rng),
    )


def episodes_sheet(results: Mapping[str, Sequence[EpisodeResult]], rng: np.random.Generator, title: str = "") -> Sheet:
    """Tabulates schedulers by score, best first, with its 95 % interval over streams; other columns are means.

    Args:
        results: Results of each scheduler, one per seed.
        rng: Source of the resamples.
        title: Title of the table.

    Raises:
        ScoreError: A scheduler has no results, or two with the same seed.
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
        Column("invalid", "invalid", ".1f"),
        Column("seconds", "s", ".1f"),
    )
    fields = ("recall", "edits_used", "budget", "sleeps", "naps", "ppl_ratio", "invalid", "seconds")
    entries = ((name, ScoreMatrix.from_results(name, [episodes]), episodes) for name, episodes in results.items())
    return Sheet(title, columns, means_by_score(entries, fields, rng))


def means_by_score(
    entries: Iterable[tuple[str, ScoreMatrix, Sequence[object]]],
    fields: Sequence[str],
    rng: np.random.Generator,
) -> list[tuple[Value, ...]]:
    """Returns a row per scheduler, best first: its name, its mean score with a 95 % interval, and means of fields.

    Args:
        entries: Name, scores and results of each scheduler.
        fields: Numbers of the results; ``ppl_ratio`` is shown as the relative rise.
        rng: Source of the resamples, which are the same for all: an interval does not depend on the others.
    """
    rows: list[tuple[Estimate, tuple[Value, ...]]] = []
    for name, matrix, episodes in entries:
        means = {field: float(np.mean([getattr(episode, field) for episode in episodes])) for field in fields}
        means["ppl_ratio"] -= 1
        score = stratified_bootstrap(statistics.mean, matrix, rng=deepcopy(rng))
        rows.append((score, (name, score, *means.values())))
    return [row for _, row in sorted(rows, key=lambda pair: -pair[0].point)]


def summary_sheet(summaries: Mapping[str, Summary], title: str = "") -> Sheet:
    """Tabulates summaries of schedulers by mean raw score, best first."""
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
    """Tabulates comparisons with one scheduler by mean difference, largest first.

    Args:
        comparisons: Comparison of each scheduler with the other one.
        other: Name of the other scheduler.
        title: Title of the table.
    """
    columns = (
        Column("scheduler", "scheduler"),
        Column("difference", f"score - {other}", "+.3f"),
        Column("probability", f"P(better than {other})", ".2f"),
    )
    largest_first = sorted(comparisons.items(), key=lambda item: -item[1].difference.point)
    return Sheet(title, columns, [(name, c.difference, c.probability) for name, c in largest_first])

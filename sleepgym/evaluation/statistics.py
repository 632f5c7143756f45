"""Statistics of scores, as functions of arrays ``[runs, streams]``.

They are those of Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice",
section 4, with streams as tasks. Confidence intervals are in :mod:`sleepgym.evaluation.bootstrap`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

ScoreArray = NDArray[np.float64]
"""``[runs, streams]``."""


def mean(scores: ScoreArray) -> float:
    """Returns the mean over all runs and streams."""
    return _mean(scores)


def iqm(scores: ScoreArray) -> float:
    """Returns the interquartile mean: the mean of the middle half of all runs x streams.

    A quarter of the values, rounded down, is discarded at either end.
    """
    values = np.sort(scores, axis=None)
    cut = values.size // 4
    return _mean(values[cut : values.size - cut])


def optimality_gap(scores: ScoreArray, threshold: float = 1.0) -> float:
    """Returns the mean shortfall of scores from a threshold; scores above it count as 0.

    Args:
        scores: ``[runs, streams]``.
        threshold: Threshold; 1 is the planner for normalised scores.
    """
    return _mean(np.maximum(threshold - scores, 0.0))


def performance_profile(scores: ScoreArray, thresholds: ArrayLike) -> ScoreArray:
    """Returns the share of runs x streams that score above each threshold.

    Args:
        scores: ``[runs, streams]``.
        thresholds: ``[thresholds]``.

    Returns:
        Shares ``[thresholds]``.
    """
    return (scores.reshape(-1, 1) > np.asarray(thresholds)).mean(axis=0)


def probability_of_improvement(scores: ScoreArray, others: ScoreArray) -> float:
    """Returns the probability that one scheduler scores above another on a random stream.

    This is the mean over streams of P(X > Y) + P(X = Y) / 2 over all pairs of runs: the Mann-Whitney U statistic,
    divided by the number of pairs.

    Args:
        scores: ``[runs, streams]``.
        others: ``[other runs, streams]``.
    """
    mine, theirs = scores[:, None, :], others[None, :, :]
    return _mean((mine > theirs) + 0.5 * (mine == theirs))


def paired_difference(scores: ScoreArray, others: ScoreArray) -> float:
    """Returns the mean over streams of the difference between the two schedulers' means over runs.

    Args:
        scores: ``[runs, streams]``.
        others: ``[other runs, streams]``.
    """
    return _mean(scores.sum(axis=0) / len(scores) - others.sum(axis=0) / len(others))


def _mean(values: ScoreArray) -> float:
    # The bits of `values.mean()`, whose checks take longer than the sum of an array as small as these.
    return float(values.sum() / values.size)

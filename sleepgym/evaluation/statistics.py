"""Numbers that sum scores up, as plain functions of arrays ``[runs, streams]``.

They are those of Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice",
section 4, whose tasks are our streams. How sure each of them is: :mod:`sleepgym.evaluation.bootstrap`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

ScoreArray = NDArray[np.float64]
"""``[runs, streams]``."""


def mean(scores: ScoreArray) -> float:
    """Mean over all runs and streams."""
    return float(scores.mean())


def iqm(scores: ScoreArray) -> float:
    """Interquartile mean: of the middle half of all runs x streams.

    A quarter of the values, rounded down, is left out at either end.
    """
    values = np.sort(scores, axis=None)
    cut = values.size // 4
    return float(values[cut : values.size - cut].mean())


def optimality_gap(scores: ScoreArray, threshold: float = 1.0) -> float:
    """By how much scores fall short of a threshold on average; what exceeds it does not make up for the rest.

    With normalised scores, a threshold of 1 is the planner.
    """
    return float(np.maximum(threshold - scores, 0.0).mean())


def performance_profile(scores: ScoreArray, thresholds: ArrayLike) -> ScoreArray:
    """Share of runs x streams that score above each threshold.

    Args:
        scores: ``[runs, streams]``.
        thresholds: ``[thresholds]``.

    Returns:
        Shares ``[thresholds]``.
    """
    return (scores.reshape(-1, 1) > np.asarray(thresholds)).mean(axis=0)


def probability_of_improvement(scores: ScoreArray, others: ScoreArray) -> float:
    """How likely it is that one scheduler beats another on a stream drawn at random.

    The mean over streams of P(X > Y) + P(X = Y) / 2 over all pairs of runs: Mann and Whitney's U, divided by the
    number of pairs.

    Args:
        scores: ``[runs, streams]``.
        others: ``[other runs, streams]``.
    """
    mine, theirs = scores[:, None, :], others[None, :, :]
    return float(((mine > theirs) + 0.5 * (mine == theirs)).mean())


def paired_difference(scores: ScoreArray, others: ScoreArray) -> float:
    """Mean over streams of the difference on the same stream, between means over runs.

    Args:
        scores: ``[runs, streams]``.
        others: ``[other runs, streams]``.
    """
    return float((scores.mean(axis=0) - others.mean(axis=0)).mean())

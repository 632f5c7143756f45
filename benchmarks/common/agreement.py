"""How well one list of scores agrees with another: order, line, size of errors, and harm of wrong orders."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
"""A score per scheduler, ``[schedulers]``."""


def kendall(real: Scores, sim: Scores) -> float:
    """Returns Kendall's tau-b: concordant pairs less discordant ones, with ties (Kendall 1945); NaN if all are tied."""
    above = np.triu_indices(len(real), 1)
    first, second = (np.sign(scores[:, None] - scores[None, :])[above] for scores in (real, sim))
    scale = np.sqrt(np.count_nonzero(first) * np.count_nonzero(second))
    return float((first * second).sum() / scale) if scale else float("nan")


def pearson(real: Scores, sim: Scores) -> float:
    """Returns Pearson's correlation; NaN if either does not vary."""
    one, other = real - real.mean(), sim - sim.mean()
    scale = np.sqrt((one**2).sum() * (other**2).sum())
    return float((one * other).sum() / scale) if scale else float("nan")


def absolute_error(real: Scores, sim: Scores) -> float:
    """Returns the mean absolute difference."""
    return float(np.abs(real - sim).mean())


def error(real: Scores, sim: Scores) -> float:
    """Returns the mean difference, above 0 where the second is too high."""
    return float((sim - real).mean())


def rank_violation(real: Scores, sim: Scores) -> float:
    """Returns the mean maximum rank violation (MMRV).

    That is, the largest real difference to a scheduler that the sim puts on the wrong side, averaged over schedulers
    (SIMPLER: Li et al. 2024, "Evaluating real-world robot manipulation policies in simulation").
    """
    apart = np.abs(real[:, None] - real[None, :])
    wrong = (sim[:, None] < sim[None, :]) != (real[:, None] < real[None, :])
    return float((apart * wrong).max(axis=1).mean())

"""How sure a statistic is: percentile-bootstrap intervals over runs and streams.

What is drawn again must be what would differ if the experiment were repeated.

- **Each scheduler is a stratum**: its runs are drawn again among its own, never among another's.
- **Runs are drawn as whole rows.** Agarwal et al. 2021 train anew for every task, and so draw runs for each task
  independently. Here one training run plays all streams, and a lucky run is lucky on all of them; to draw each stream's
  runs apart would pretend to as many independent runs as there are streams.
- **Streams are drawn too**, since they are a sample of endless ones and not a fixed suite like Atari's games. Runs and
  streams together are Owen's 2007 pigeonhole bootstrap: no bootstrap of crossed factors is exact (McCullagh 2000), but
  this one counts what is particular to a run on a stream too often rather than too rarely.
- **Matrices share the streams that are drawn**, so that differences are paired: how hard a stream is cancels out.

A percentile interval knows nothing beyond the values it was drawn from. Of few of them, say fewer than ten streams, it
is too narrow; of one stream and one run, it is a point.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sleepgym.evaluation.scores import ScoreError, ScoreMatrix, check_same_streams

Over = Literal["runs", "streams", "both"]
"""What is drawn again. ``"runs"`` alone asks how training varies on just these streams; ``"streams"`` alone, how just
these trained policies do elsewhere; ``"both"``, how another training would do elsewhere."""

RESAMPLES = 5_000
"""Enough for the ends of a 95 % interval to be those of a 95 +- 0.5 % one: each tail has a standard error of 0.2 %."""


@dataclass(frozen=True)
class Estimate:
    """A statistic with its interval. Its format is that of its numbers: ``f"{estimate:.3f}"``.

    Attributes:
        point: Of the scores as they are.
        low: Lower end of the interval.
        high: Upper end.
    """

    point: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        spec = spec or ".2f"
        return f"{self.point:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def __str__(self) -> str:
        return format(self)


@dataclass(frozen=True)
class Band:
    """A statistic that is a curve, with its interval at every point.

    Attributes:
        point: ``[points]``, of the scores as they are.
        low: ``[points]``.
        high: ``[points]``.
    """

    point: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def stratified_bootstrap(
    statistic: Callable[..., float],
    *matrices: ScoreMatrix,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    over: Over = "both",
) -> Estimate:
    """A statistic with its percentile interval (Efron and Tibshirani 1993, ch. 13); see the module for what is drawn.

    Args:
        statistic: Takes as many arrays ``[runs, streams]`` as there are matrices.
        matrices: Of the same streams; each may have a number of runs of its own.
        rng: Draws the resamples.
        resamples: Number of resamples.
        confidence: Coverage.
        over: What is drawn again.

    Raises:
        ScoreError: Matrices are not of the same streams, or runs are to be drawn of which there is one each.
        ValueError: There are no resamples, the confidence is not between 0 and 1, or ``over`` is none of its values.
    """
    low, high = _interval(statistic, matrices, rng, resamples, confidence, over)
    return Estimate(float(statistic(*(matrix.scores for matrix in matrices))), float(low), float(high))


def bootstrap_band(
    statistic: Callable[..., NDArray[np.float64]],
    *matrices: ScoreMatrix,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    over: Over = "both",
) -> Band:
    """What :func:`stratified_bootstrap` is to numbers, for statistics that are arrays ``[points]``, such as profiles.

    The interval is that of each point alone; that the whole curve lies within the band is less likely.

    Args:
        statistic: Takes as many arrays ``[runs, streams]`` as there are matrices, and returns an array ``[points]``.
        matrices: Of the same streams; each may have a number of runs of its own.
        rng: Draws the resamples.
        resamples: Number of resamples.
        confidence: Coverage, at each point.
        over: What is drawn again.

    Raises:
        ScoreError: Matrices are not of the same streams, or runs are to be drawn of which there is one each.
        ValueError: There are no resamples, the confidence is not between 0 and 1, or ``over`` is none of its values.
    """
    low, high = _interval(statistic, matrices, rng, resamples, confidence, over)
    return Band(statistic(*(matrix.scores for matrix in matrices)), low, high)


def _interval(
    statistic: Callable[..., Any],
    matrices: tuple[ScoreMatrix, ...],
    rng: np.random.Generator,
    resamples: int,
    confidence: float,
    over: Over,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    check_same_streams(matrices)
    if over not in get_args(Over):
        raise ValueError(f"expected over in {get_args(Over)}, found {over!r}")
    if over == "runs" and all(len(matrix.scores) == 1 for matrix in matrices):
        raise ScoreError("expected several runs to draw from, found one each; draw streams with over='streams'")
    if resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"expected at least one resample and a confidence between 0 and 1, found {resamples=}, {confidence=}"
        )
    found = np.array([statistic(*_drawn(matrices, rng, over)) for _ in range(resamples)])
    tail = (1 - confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail], axis=0)
    return low, high


def _drawn(matrices: tuple[ScoreMatrix, ...], rng: np.random.Generator, over: Over) -> list[NDArray[np.float64]]:
    """The matrices with rows and columns drawn with replacement, the same columns of all."""
    count = len(matrices[0].streams)
    columns = np.arange(count) if over == "runs" else rng.integers(count, size=count)
    drawn = []
    for matrix in matrices:
        runs = len(matrix.scores)
        rows = np.arange(runs) if over == "streams" else rng.integers(runs, size=runs)
        drawn.append(matrix.scores[np.ix_(rows, columns)])
    return drawn

"""Percentile-bootstrap intervals of statistics over runs and streams.

The factors that would vary if the experiment were repeated are resampled.

- **Each scheduler is a stratum**: its runs are resampled among its own, never among another's.
- **Runs are resampled as whole rows.** Agarwal et al. 2021 train separately for every task, and so resample runs for
  each task independently. Here one training run plays all streams, and scores of one run are correlated over streams;
  resampling each stream's runs independently would count as many independent runs as there are streams.
- **Streams are resampled too**, since they are a sample of an unlimited population and not a fixed suite like Atari's
  games. Runs and streams together are Owen's 2007 pigeonhole bootstrap: no bootstrap of crossed factors is exact
  (McCullagh 2000), but this one overestimates the variance of the interaction rather than underestimating it.
- **Matrices share the resampled streams**, so that differences are paired: the difficulty of a stream cancels out.

A percentile interval is based on the observed values only. With few of them, say fewer than ten streams, it is too
narrow; with one stream and one run, it is a point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sleepgym.evaluation.scores import ScoreError, ScoreMatrix, check_same_streams

Over = Literal["runs", "streams", "both"]
"""Resampled factors: ``"runs"`` for the variation of training on the given streams, ``"streams"`` for the given trained
policies on other streams, ``"both"`` for other training runs on other streams."""

RESAMPLES = 5_000
"""Default number of resamples: the coverage of each tail of a 95 % interval has a standard error of 0.2 %."""

LOT = 256
"""Resamples that are gathered at once: one by one takes longer, and all at once much memory."""


@dataclass(frozen=True)
class Estimate:
    """Statistic with its interval. A format specification applies to its numbers: ``f"{estimate:.3f}"``.

    Attributes:
        point: Statistic of the observed scores.
        low: Lower end of the interval.
        high: Upper end of the interval.
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
    """Statistic that is a curve, with its interval at every point.

    Attributes:
        point: Statistic of the observed scores, ``[points]``.
        low: Lower ends of the intervals, ``[points]``.
        high: Upper ends of the intervals, ``[points]``.
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
    """Computes a statistic with its percentile interval (Efron and Tibshirani 1993, ch. 13); see the module.

    Args:
        statistic: Function of one array ``[runs, streams]`` per matrix.
        *matrices: Scores on the same streams; numbers of runs may differ.
        rng: Source of the resamples.
        resamples: Number of resamples.
        confidence: Nominal coverage.
        over: Resampled factors.

    Raises:
        ScoreError: Matrices differ in streams, or only runs are resampled and every matrix has a single one.
        ValueError: There are no resamples, the confidence is not between 0 and 1, or ``over`` is invalid.
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
    """Computes a statistic that is an array ``[points]``, such as a profile, with its pointwise percentile intervals.

    As :func:`stratified_bootstrap` for numbers. Coverage is pointwise; that of the whole curve is lower.

    Args:
        statistic: Function of one array ``[runs, streams]`` per matrix, returning an array ``[points]``.
        *matrices: Scores on the same streams; numbers of runs may differ.
        rng: Source of the resamples.
        resamples: Number of resamples.
        confidence: Nominal coverage at each point.
        over: Resampled factors.

    Raises:
        ScoreError: Matrices differ in streams, or only runs are resampled and every matrix has a single one.
        ValueError: There are no resamples, the confidence is not between 0 and 1, or ``over`` is invalid.
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
    found = np.array([statistic(*drawn) for drawn in _drawn(matrices, rng, resamples, over)])
    tail = (1 - confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail], axis=0)
    return low, high


def _drawn(
    matrices: tuple[ScoreMatrix, ...], rng: np.random.Generator, resamples: int, over: Over
) -> Iterator[list[NDArray[np.float64]]]:
    """Yields the scores with rows and columns drawn with replacement; all matrices share the drawn columns."""
    count, runs = len(matrices[0].streams), [len(matrix.scores) for matrix in matrices]
    # Indices of all resamples in one call: a call per matrix and resample would take longer than most statistics.
    drawn = [0 if over == "runs" else count, *([0] * len(runs) if over == "streams" else runs)]
    bounds = np.repeat(drawn, drawn)
    indices = rng.integers(np.broadcast_to(bounds, (resamples, len(bounds))))
    parts = np.split(indices, np.cumsum(drawn)[:-1], axis=1)
    fixed = [np.broadcast_to(np.arange(n), (resamples, n)) for n in (count, *runs)]
    columns, *rows = (part if n else every for part, n, every in zip(parts, drawn, fixed, strict=True))
    for lot in (slice(start, start + LOT) for start in range(0, resamples, LOT)):
        together = [
            matrix.scores[of[lot, :, None], columns[lot, None]] for matrix, of in zip(matrices, rows, strict=True)
        ]
        yield from map(list, zip(*together, strict=True))

"""Intervals of shares and of means."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from scipy import stats

Z = 1.959963984540054
"""Two-sided 95 % point of the normal distribution."""


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Returns the 95 % score interval of a share (Wilson 1927, eq. 7 solved for the share).

    Args:
        hits: Number of hits.
        n: Number of trials, at least one.
    """
    share = hits / n
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def interval(values: Sequence[float], digits: int = 2) -> str:
    """Mean over seeds with its 95 % interval (Student's t); a single seed has none."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.{digits}f}"
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.{digits}f} ± {half:.{digits}f}"

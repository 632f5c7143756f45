"""Intervals of shares."""

from __future__ import annotations

import math

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

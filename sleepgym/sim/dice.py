"""Random numbers as a function of a key, a purpose and a place, so that no environment shifts another one's draws.

A generator per environment would mean a loop over environments at every draw; one generator for all would make an
environment depend on its company. Numbers are instead hashed from counters (Salmon et al. 2011, "Parallel random
numbers: as easy as 1, 2, 3"), here by the finaliser of SplitMix64 (Steele et al. 2014, "Fast splittable pseudorandom
number generators").
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]
"""One key per environment, ``[rows]``."""

_GOLDEN = 0x9E3779B97F4A7C15
_WORD = 2**64


def keys_of(seeds: NDArray[np.uint64]) -> Keys:
    """Returns the key of each seed, ``[rows]``."""
    return _mixed(seeds + np.uint64(_GOLDEN))


def derived(keys: Keys, counts: NDArray[np.integer]) -> Keys:
    """Returns a key for each key and count (such as the number of a step), ``[rows]``."""
    return _mixed(keys ^ _mixed((counts.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN)))


def uniform(keys: Keys, purpose: int, width: int) -> NDArray[np.float64]:
    """Draws uniformly from (0, 1), ``[rows, width]``.

    Args:
        keys: One key per row.
        purpose: Tells apart what is drawn under the same key.
        width: Numbers per row.
    """
    return _fraction(_start(keys, purpose)[:, None] + _counter(np.arange(width)))


def uniform_at(keys: Keys, purpose: int, row: NDArray[np.int64], place: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns ``uniform(keys, purpose, width)[row, place]``, and draws no more than that.

    Args:
        keys: One key per row.
        purpose: Tells apart what is drawn under the same key.
        row: Rows of the numbers, ``[numbers]``.
        place: Their places in the rows, ``[numbers]``.
    """
    return _fraction(_start(keys, purpose)[row] + _counter(place))


def normal_pairs_at(keys: Keys, purpose: int, row: NDArray[np.int64], place: NDArray[np.int64]) -> NDArray[np.float64]:
    """Draws two numbers per place from the standard normal distribution, ``[numbers, 2]``; see :func:`uniform_at`."""
    drawn, turn = (uniform_at(keys, purpose, row, 2 * place + half) for half in (0, 1))
    radius, angle = np.sqrt(-2 * np.log(drawn)), 2 * np.pi * turn
    return np.stack((radius * np.cos(angle), radius * np.sin(angle)), 1)


def normal(keys: Keys, purpose: int, width: int) -> NDArray[np.float64]:
    """Draws from the standard normal distribution, ``[rows, width]`` (Box and Muller 1958)."""
    pairs = (width + 1) // 2
    drawn = uniform(keys, purpose, 2 * pairs)
    radius, angle = np.sqrt(-2 * np.log(drawn[:, :pairs])), 2 * np.pi * drawn[:, pairs:]
    return np.concatenate((radius * np.cos(angle), radius * np.sin(angle)), 1)[:, :width]


def integers(drawn: NDArray[np.float64], low: int, high: int) -> NDArray[np.int32]:
    """Turns uniform draws into whole numbers from ``low`` to ``high``, both included."""
    return (low + np.floor(drawn * (high - low + 1))).astype(np.int32)


def _start(keys: Keys, purpose: int) -> Keys:
    return _mixed(keys + np.uint64((purpose + 1) * 0xD1B54A32D192ED03 % _WORD))


def _counter(place: NDArray[np.int64]) -> Keys:
    return (place.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN)


def _fraction(words: Keys) -> NDArray[np.float64]:
    # 53 bits, and half a unit more: never 0, whose logarithm is infinite.
    return ((_mixed(words) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    # Arrays of unsigned integers wrap around, as the algorithm wants.
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))

"""Snapshots of simulated environments: copies of arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sleepgym.sim.dice import Keys
from sleepgym.sim.state import State
from sleepgym.sim.streams import Streams


@dataclass(frozen=True)
class Snapshot:
    """A moment of simulated environments.

    Attributes:
        streams: Streams of the episodes.
        state: State of the episodes.
        keys: Keys of the environments' seeds, ``[rows]``.
        played: Episodes that each has begun since it was seeded, ``[rows]``.
        ended: Which episodes have ended, bool ``[rows]``.
    """

    streams: Streams
    state: State
    keys: Keys
    played: NDArray[np.int64]
    ended: NDArray[np.bool_]

"""Snapshots of simulated environments: copies of arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sleepgym.sim.dice import Keys, derived
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

    def rows(self, rows: NDArray[np.int64], seed: int | None = None) -> Snapshot:
        """Returns a snapshot of some environments, each as often as it is named, so that a planner can branch.

        Args:
            rows: Environments by index.
            seed: Draws what the model will answer anew, and differently in each row; None to leave futures as they
                are, equal for equal actions. Streams stay as they are.
        """
        state = self.state.rows(rows)
        if seed is not None:
            state.clock.dice = derived(state.clock.dice, np.arange(len(rows)) + (seed + 1) * len(rows))
        return Snapshot(self.streams.rows(rows), state, self.keys[rows], self.played[rows], self.ended[rows])

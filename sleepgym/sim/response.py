"""What stands in for the model: the interface that steps of many environments ask what it would answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sleepgym.sim.dice import Keys
from sleepgym.sim.setting import Setting
from sleepgym.sim.state import Mind, State


@dataclass(frozen=True)
class Situation:
    """Episodes that take the same action, just before it.

    Attributes:
        setting: Numbers of the card.
        edit_budget: Edits that each allows, ``[rows]``.
        known: Pretrained facts that are asked in each, ``[rows]``.
        popularity: Popularity of each fact, ``[rows, facts]``.
        state: Their states, to be read only.
    """

    setting: Setting
    edit_budget: NDArray[np.int32]
    known: NDArray[np.int32]
    popularity: NDArray[np.float64]
    state: State


@dataclass(frozen=True)
class Night:
    """What nights lead to; of nights that were undone, only ``undone`` has a meaning.

    Attributes:
        mind: What the model answers afterwards.
        passed: Which entries slow weights recall alone, bool ``[rows, entries]``.
        stage: Stage of each entry, ``[rows, entries]``.
        scale: Scale of each entry's edit, ``[rows, entries]``.
        rank: Rank of the adapter, ``[rows]``.
        undone: Which nights did too much harm and undid themselves, bool ``[rows]``.
    """

    mind: Mind
    passed: NDArray[np.bool_]
    stage: NDArray[np.int32]
    scale: NDArray[np.float64]
    rank: NDArray[np.int32]
    undone: NDArray[np.bool_]


class Response(Protocol):
    """Model of what edits and nights do to answers.

    Random numbers come from ``derived(state.clock.dice, state.clock.steps)``, so that equal states have equal futures.
    What it returns is of the facts that were written at least once; that of others is ignored.
    """

    def inject(self, at: Situation, written: NDArray[np.bool_]) -> Mind:
        """Returns what the model answers after facts were written.

        Args:
            at: Situation before.
            written: Facts to write, bool ``[rows, facts]``.
        """

    def refresh(self, at: Situation, refreshed: NDArray[np.bool_]) -> Mind:
        """Returns what the model answers after entries were solved again.

        Args:
            at: Situation before.
            refreshed: Entries to solve again, bool ``[rows, entries]``.
        """

    def night(
        self,
        at: Situation,
        refreshed: NDArray[np.bool_],
        trained: NDArray[np.bool_],
        held: NDArray[np.bool_],
        steps: NDArray[np.int32],
    ) -> Night:
        """Returns what nights lead to.

        Args:
            at: Situation before.
            refreshed: Entries that the night solves again before it trains, bool ``[rows, entries]``.
            trained: Entries that it trains, bool ``[rows, entries]``.
            held: Facts whose answers it holds, bool ``[rows, facts]``.
            steps: Training steps, ``[rows]``.
        """

    def readings(self, keys: Keys, count: int) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
        """Draws what the bare model reads in notes of new streams; on cards with notes only.

        Args:
            keys: Keys of the streams, ``[rows]``.
            count: Versions of facts per stream.

        Returns:
            ``note_right`` and ``note_tokens`` of :class:`~sleepgym.sim.streams.Streams`.
        """

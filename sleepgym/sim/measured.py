"""Response that answers what the real model was measured to answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sleepgym.sim.dice import Keys
from sleepgym.sim.response import Night, Situation
from sleepgym.sim.rules import at_entries
from sleepgym.sim.state import Mind


@dataclass
class Measured:
    """Response for one episode, whatever is asked of it.

    Attributes:
        answers: What the real model answers after the action; see :func:`~sleepgym.sim.recorder.answers_of`.
        undone: Whether the action is a night that undoes itself.
    """

    answers: Mapping[str, NDArray[Any]]
    undone: bool = False

    def inject(self, at: Situation, written: NDArray[np.bool_]) -> Mind:
        """See :class:`~sleepgym.sim.response.Response`."""
        return self._mind()

    def refresh(self, at: Situation, refreshed: NDArray[np.bool_]) -> Mind:
        """See :class:`~sleepgym.sim.response.Response`."""
        return self._mind()

    def night(
        self,
        at: Situation,
        refreshed: NDArray[np.bool_],
        trained: NDArray[np.bool_],
        held: NDArray[np.bool_],
        steps: NDArray[np.int32],
    ) -> Night:
        """See :class:`~sleepgym.sim.response.Response`."""
        found, ledger = self.answers, at.state.ledger
        passed, stage, scale = (at_entries(found[name][None], ledger) for name in ("held", "stage", "scale"))
        rank = np.array([found["rank"]], np.int32)
        return Night(self._mind(), passed > 0, stage.astype(np.int32), scale, rank, np.array([self.undone]))

    def readings(self, keys: Keys, count: int) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
        """Reads nothing: the stream of a real episode comes with what is read in its notes."""
        return np.zeros((len(keys), count), bool), np.zeros((len(keys), count), np.int32)

    def _mind(self) -> Mind:
        found = self.answers
        raw, chat = (found[name][None].astype(np.float32) for name in ("raw", "chat"))
        ratio, known = (np.array([found[name]], float) for name in ("ratio", "known"))
        return Mind(raw, chat, ratio, known, found["sure"][None].astype(bool))

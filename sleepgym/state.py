"""The whole mutable state of one learner, so that it can be copied, put back, saved and compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sleepgym.ledger import Ledger
from sleepgym.overlay import Memory


@dataclass
class State:
    """Memory, ledger, random generator and clock of one learner.

    Copies are cheap: terms and entries are immutable and shared.

    Attributes:
        memory: Low-rank terms on the base.
        ledger: What was taught.
        rng: Every random draw of the learner comes from here.
        tick: Time, for ages in the ledger; the caller's to advance.
        nights: Nights slept through.
        undone: Nights undone since the last that was not.
    """

    memory: Memory
    ledger: Ledger
    rng: np.random.Generator
    tick: int = 0
    nights: int = 0
    undone: int = 0

    @classmethod
    def fresh(cls, capacity: int, seed: int = 0) -> State:
        """A learner that was taught nothing."""
        return cls(Memory(), Ledger(capacity), np.random.default_rng(seed))

    def copy(self) -> State:
        """An independent state, equal in everything."""
        rng = np.random.default_rng()
        rng.bit_generator.state = self.rng.bit_generator.state
        return State(self.memory.copy(), self.ledger.copy(), rng, self.tick, self.nights, self.undone)

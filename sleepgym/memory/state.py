"""The whole mutable state of one learner, so that it can be copied, put back, saved and compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sleepgym.memory.ledger import Key, Ledger
from sleepgym.memory.overlay import Memory
from sleepgym.memory.owners import edit_of


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

    def scale_of(self, key: Key) -> float:
        """Scale of a fact's edit: it dissolves as the stage rises; 0 also where it was switched off or is not there."""
        term = self.memory.terms.get(edit_of(key))
        return 0.0 if term is None else term.scale

    def __copy__(self) -> State:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> State:
        return self.copy()

    def copy(self) -> State:
        """An independent state, equal in everything."""
        rng = np.random.default_rng()
        rng.bit_generator.state = self.rng.bit_generator.state
        return State(self.memory.copy(), self.ledger.copy(), rng, self.tick, self.nights, self.undone)

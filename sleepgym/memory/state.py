"""Mutable state of one learner, which can be copied, restored, saved and compared."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sleepgym.memory.ledger import Key, Ledger
from sleepgym.memory.overlay import Memory
from sleepgym.memory.owners import edit_of
from sleepgym.memory.settled import Settled


@dataclass
class State:
    """Memory, ledger, settled facts, random generator and clock of one learner.

    Copies are cheap: terms, entries and settled facts are immutable and shared.

    Attributes:
        memory: Low-rank terms on the base.
        ledger: Taught facts.
        rng: Source of all random draws of the learner.
        tick: Current time in ticks, for the ledger; the caller advances it.
        nights: Nights completed, undone ones excluded.
        undone: Nights undone since the last completed one.
        settled: Facts that slow weights hold alone and that are in the ledger no longer, by key, in the order in which
            they left it.
    """

    memory: Memory
    ledger: Ledger
    rng: np.random.Generator
    tick: int = 0
    nights: int = 0
    undone: int = 0
    settled: dict[Key, Settled] = field(default_factory=dict)

    @classmethod
    def fresh(cls, capacity: int, seed: int = 0) -> State:
        """Returns the state of a learner without facts.

        Args:
            capacity: Maximum number of facts in the ledger.
            seed: Seed of the random generator.
        """
        return cls(Memory(), Ledger(capacity), np.random.default_rng(seed))

    @property
    def subjects(self) -> set[str]:
        """Subjects of all facts that it was taught and still holds."""
        return {subject for subject, _ in (*self.ledger, *self.settled)}

    def scale_of(self, key: Key) -> float:
        """Returns the scale of a fact's edit, which falls as its stage rises; 0 if it is switched off or absent."""
        term = self.memory.terms.get(edit_of(key))
        return 0.0 if term is None else term.scale

    def __copy__(self) -> State:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> State:
        return self.copy()

    def copy(self) -> State:
        """Returns an independent copy."""
        rng = np.random.default_rng()
        rng.bit_generator.state = self.rng.bit_generator.state
        return replace(self, memory=self.memory.copy(), ledger=self.ledger.copy(), rng=rng, settled=dict(self.settled))

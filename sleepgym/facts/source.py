"""What a stream of facts is drawn from."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from sleepgym.facts.fact import Fact
from sleepgym.facts.world import Split


class FactSource(Protocol):
    """Facts a model does not know yet, changes of them, and facts it does know.

    :class:`~sleepgym.facts.world.World` is one for the bundled model, :class:`~sleepgym.facts.real.RealFacts`
    one for pretrained models.
    """

    def new_facts(self, rng: np.random.Generator, n: int, split: Split) -> list[Fact]:
        """Draws ``n`` facts about different subjects of a split; no subject is in two splits."""

    def update(self, rng: np.random.Generator, fact: Fact) -> Fact:
        """The same ``(subject, relation)`` with another object."""

    def known_facts(self) -> list[Fact]:
        """Facts the model was trained on, in a fixed order."""

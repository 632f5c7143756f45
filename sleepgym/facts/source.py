"""What a stream of facts is drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
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

    @property
    def truth(self) -> Mapping[tuple[str, str], str]:
        """Objects of the facts the model was trained on, in a fixed order."""

    def known_fact(self, subject: str, relation: str) -> Fact:
        """One of these facts."""

    def known_facts(self) -> list[Fact]:
        """All of these facts, in that order."""


def with_neighbours(rng: np.random.Generator, facts: Sequence[Fact], known: Sequence[Fact], count: int) -> list[Fact]:
    """The facts, each with known facts of the same relation about subjects that none of them is about.

    Args:
        rng: Draws the neighbours.
        facts: Facts to be taught.
        known: What the model knows.
        count: Neighbours of each fact at most.
    """
    taught = {fact.subject for fact in facts}
    others: dict[str, list[Fact]] = {}
    for fact in known:
        if fact.subject not in taught:
            others.setdefault(fact.relation, []).append(fact)

    def around(fact: Fact) -> tuple[tuple[str, str], ...]:
        pool = others.get(fact.relation, [])
        picks = rng.choice(len(pool), size=min(count, len(pool)), replace=False) if pool else ()
        return tuple((pool[i].prompt, pool[i].object) for i in picks)

    return [replace(fact, neighbours=around(fact)) for fact in facts]

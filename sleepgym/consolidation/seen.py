"""Measurements of one night, kept so that nothing is asked twice under the same memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sleepgym.lm.encoding import Encoded
from sleepgym.memory.asking import margins
from sleepgym.memory.overlay import Memory, Overlay

InForce = tuple[tuple[str, int, float], ...]
"""Terms that the forward pass adds: owner, identity of the factors and scale of each."""


class Seen:
    """Margins and perplexities of one night by the terms in force.

    An audit, the gate and the audit after it often ask the same under the same memory: all do in a night without news.
    """

    def __init__(self) -> None:
        self.margins: dict[tuple[InForce, Encoded], float] = {}
        self._perplexities: dict[InForce, float] = {}
        self._alive: list[Memory] = []

    def in_force(self, memory: Memory) -> InForce:
        """Returns the terms of a memory that are not switched off."""
        # Kept alive, so that no later factors can have the identity of these.
        self._alive.append(memory.copy())
        return tuple((owner, id(t.factors), t.scale) for owner, t in memory.terms.items() if t.scale)

    def perplexity(self, memory: Memory, measure: Callable[[], float]) -> float:
        """Returns the perplexity under a memory, measured unless it is known."""
        terms = self.in_force(memory)
        if terms not in self._perplexities:
            self._perplexities[terms] = measure()
        return self._perplexities[terms]


def ask(
    seen: Sequence[Seen], overlay: Overlay, memories: Sequence[Memory], probes: Sequence[Sequence[Encoded]]
) -> list[Tensor]:
    """Computes margins as :func:`~sleepgym.memory.asking.margins` does, of what was not asked yet.

    Args:
        seen: What each group has been asked; added to.
        overlay: The model with hooks.
        memories: One memory per group of probes.
        probes: Groups of probes.

    Returns:
        One tensor ``[probes of the group]`` (nats) per group.
    """
    terms = [each.in_force(memory) for each, memory in zip(seen, memories, strict=True)]
    missing = [
        [probe for probe in dict.fromkeys(group) if (in_force, probe) not in each.margins]
        for each, in_force, group in zip(seen, terms, probes, strict=True)
    ]
    for each, in_force, group, found in zip(seen, terms, missing, margins(overlay, memories, missing), strict=True):
        each.margins |= {(in_force, probe): margin for probe, margin in zip(group, found.tolist(), strict=True)}
    return [
        torch.tensor([each.margins[in_force, probe] for probe in group])
        for each, in_force, group in zip(seen, terms, probes, strict=True)
    ]

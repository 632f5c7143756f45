"""Numbers of a card in the form in which steps of many environments look them up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sleepgym.episode.card import Card
from sleepgym.sim.streams import max_facts


@dataclass(frozen=True)
class Setting:
    """Numbers of a card.

    Attributes:
        card: The card.
        facts: Maximum number of facts of an episode.
        notable: How many of them can have notes: all, or none on a card without notes.
        entries: Maximum number of entries of the ledger that an episode can fill.
        scales: Scale of an edit by stage, ``[stages]``.
        recency: Factor of a fact's question rate by ticks since its arrival, ``[horizon + 1]``.
        is_offline: Whether the weights answer no question during an action, bool ``[actions]``.
        edits_share_modules: Whether edits and the adapter are on the same modules, so that their ranks add up.
    """

    card: Card
    facts: int
    notable: int
    entries: int
    scales: NDArray[np.float64]
    recency: NDArray[np.float64]
    is_offline: NDArray[np.bool_]
    edits_share_modules: bool

    @classmethod
    def of(cls, card: Card) -> Setting:
        """Looks the numbers of a card up."""
        spec, facts = card.stream, max_facts(card)
        age = np.arange(card.horizon + 1)
        return cls(
            card=card,
            facts=facts,
            notable=facts if card.notes is not None else 0,
            entries=min(card.budget.capacity, facts),
            scales=np.array(card.sleep.scales),
            recency=1 + spec.recency_boost * np.exp(-age / spec.recency_ticks),
            is_offline=np.array([action.name.lower() in card.ticks.offline for action in card.operators]),
            edits_share_modules=_edits_share_modules(card),
        )


def _edits_share_modules(card: Card) -> bool:
    """By default an adapter is above all edits; a model that is edited in its last block is taken for an exception.

    A gated one is where the edits are.
    """
    first, targets = card.sleep.first_layer, card.sleep.targets
    if card.sleep.adapter == "gated":
        return True
    return first is not None and first <= card.edit.layers[-1] and (not targets or "down_proj" in targets)

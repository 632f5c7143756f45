"""Sleep pressure: how badly sleep is needed."""

from __future__ import annotations

from sleepgym.episode.card import PressureCard
from sleepgym.memory.state import State


def load_of(state: State) -> float:
    """Sum of the scales of all edits: how many full-strength edits share the fast weights."""
    return sum(state.scale_of(key) for key in state.ledger)


def sleep_pressure(card: PressureCard, load: float, ticks_awake: int, perplexity_ratio: float) -> float:
    """How badly sleep is needed, 0 to 1 with the usual weights (0.6, 0.3, 0.1).

    Args:
        card: Weights and what counts as much.
        load: See :func:`load_of`.
        ticks_awake: Since the last night.
        perplexity_ratio: Relative to the bare model.
    """
    return min(
        1.0,
        card.edits_weight * min(1.0, load / card.edits) ** card.exponent
        + card.ticks_weight * min(1.0, ticks_awake / card.ticks)
        + card.perplexity_weight * min(1.0, max(0.0, perplexity_ratio - 1) / card.perplexity),
    )

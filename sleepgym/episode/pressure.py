"""Sleep pressure: a scalar estimate of the need to sleep."""

from __future__ import annotations

from sleepgym.episode.card_sections import PressureCard


def sleep_pressure(card: PressureCard, load: float, ticks_awake: int, perplexity_ratio: float) -> float:
    """Returns the sleep pressure, at most 1: a weighted sum of saturating terms in edits, time and perplexity.

    Args:
        card: Weights and saturation levels of the terms.
        load: Sum of the scales of all edits, see :class:`~sleepgym.episode.tables.WrittenFacts`.
        ticks_awake: Ticks since the last night.
        perplexity_ratio: Perplexity relative to the bare model.
    """
    return min(
        1.0,
        card.edits_weight * min(1.0, load / card.edits) ** card.exponent
        + card.ticks_weight * min(1.0, ticks_awake / card.ticks)
        + card.perplexity_weight * min(1.0, max(0.0, perplexity_ratio - 1) / card.perplexity),
    )

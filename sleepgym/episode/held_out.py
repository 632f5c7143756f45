"""Held-out text of an episode: drift is perplexity on it, relative to that of the bare model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sleepgym.episode.card_sections import EpisodeCard
from sleepgym.lm.probes import perplexity, sampled_columns
from sleepgym.memory.overlay import Memory
from sleepgym.sleeper import Base


@dataclass(frozen=True)
class HeldOut:
    """Text that perplexity is measured on: after every change of a memory at a sample of its tokens, else at all.

    Attributes:
        base: Model with its held-out text.
        rows: Token rows.
        columns: Per row the sampled positions.
        bare: Perplexity of the bare model at the sample.
        bare_whole: Perplexity of the bare model at all positions.
    """

    base: Base
    rows: Sequence[tuple[int, ...]]
    columns: Sequence[Sequence[int]]
    bare: float
    bare_whole: float

    @classmethod
    def of(cls, base: Base, card: EpisodeCard) -> HeldOut:
        """Measures the bare model on the text that a card asks for."""
        rows = base.statistics.held_out[: card.perplexity_rows]
        columns = sampled_columns(rows, card.perplexity_tokens)
        asked = base.overlay.asked(Memory())
        bare = (perplexity(base.lm, rows, columns=part, logits=asked) for part in (columns, None))
        return cls(base, rows, columns, *bare)

    def ratio(self, memory: Memory) -> float:
        """Returns perplexity at the sample relative to that of the bare model; infinity for NaN."""
        return self._relative(memory, self.columns, self.bare)

    def whole_ratio(self, memory: Memory) -> float:
        """Returns perplexity at all positions relative to that of the bare model; infinity for NaN."""
        return self._relative(memory, None, self.bare_whole)

    def _relative(self, memory: Memory, columns: Sequence[Sequence[int]] | None, bare: float) -> float:
        if not memory.terms:
            return 1.0
        found = perplexity(self.base.lm, self.rows, columns=columns, logits=self.base.overlay.asked(memory))
        # NaN compares false with every limit: infinity makes it count as damage.
        return math.inf if math.isnan(found) else found / bare

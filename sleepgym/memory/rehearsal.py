"""Rehearsal text that sleep replays, with cached hidden states of the frozen lower blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sleepgym.lm.continuation import Continuation
from sleepgym.memory.lower import LowerBlocks
from sleepgym.memory.overlay import Overlay


class Rehearsal:
    """Token rows of ordinary text, and cached hidden states of the frozen base at their lower blocks.

    Args:
        overlay: The model with hooks.
        rows: Token rows; rows of a single token are left out, since they have no next token to predict.

    Attributes:
        lower: What the lower blocks put out for other rows, such as those of facts.
    """

    def __init__(self, overlay: Overlay, rows: Sequence[Sequence[int]]) -> None:
        self.overlay = overlay
        self.rows = tuple(tuple(row) for row in rows if len(row) > 1)
        self.lower = LowerBlocks(overlay)
        self._runs: dict[int, Continuation] = {}

    def run(self, first_block: int) -> Continuation:
        """Returns the continuation of all rows from a block on; computed on first use, then cached.

        Valid for every memory without a term below that block.

        Args:
            first_block: Index of the first block that the continuation runs.
        """
        if first_block not in self._runs:
            with torch.no_grad(), self.overlay.use(()):
                self._runs[first_block] = Continuation(self.overlay.lm, self.rows, [0] * len(self.rows), first_block)
        return self._runs[first_block]

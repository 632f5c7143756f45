"""Ordinary text that sleep replays, with what never changes about it computed once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sleepgym.lm.continuation import Continuation
from sleepgym.memory.overlay import Overlay


class Rehearsal:
    """Rows of text, and what the lower blocks of the frozen base make of them.

    Args:
        overlay: The model with hooks.
        rows: Token rows; those of one token are left out, since nothing precedes what they predict.
    """

    def __init__(self, overlay: Overlay, rows: Sequence[Sequence[int]]) -> None:
        self.overlay = overlay
        self.rows = tuple(tuple(row) for row in rows if len(row) > 1)
        self._runs: dict[int, Continuation] = {}

    def run(self, first_block: int) -> Continuation:
        """All rows, ready to be run from a block on; made on first use.

        Valid for every memory without a term below that block.
        """
        if first_block not in self._runs:
            with torch.no_grad(), self.overlay.use(()):
                self._runs[first_block] = Continuation(self.overlay.lm, self.rows, [0] * len(self.rows), first_block)
        return self._runs[first_block]

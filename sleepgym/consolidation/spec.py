"""Every number of a night in one frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass

from sleepgym.settings import above_zero, at_least, require


class SleepError(RuntimeError):
    """A night failed half way; the learner is as it was before it."""


@dataclass(frozen=True)
class SleepSpec:
    """How facts move from edits into a LoRA adapter.

    Attributes:
        rank: Rank of the adapter. One adapter is trained on, night after night, so the rank stays bounded.
        first_layer: Lowest block that gets adapters (on every linear of it and of the blocks above).
        steps: Optimiser steps at most.
        learning_rate: Of AdamW.
        stop_nll: Training ends once the mean NLL (nats per token) of every lesson is below this.
        lessons: Lessons (rows) per step at most.
        rehearsal_rows: Rows of ordinary text per step, so that the rest stays.
        rehearsal_weight: Weight of the rehearsal's divergence from the model before the night.
        scales: Scale of an edit at stages 0, 1, 2, ...; the last stage must be 0: held by slow weights alone.
        max_perplexity_ratio: A night that raises perplexity on held-out text by more than this factor is
            rolled back.
        max_recall_drop: So is a night after which recall over the ledger is lower by more than this.
        refresh: Whether facts that the audit found degraded are re-solved before they are consolidated.

    Raises:
        SettingError: A value is impossible.
    """

    rank: int = 16
    first_layer: int = 0
    steps: int = 60
    learning_rate: float = 6e-3
    stop_nll: float = 0.05
    lessons: int = 96
    rehearsal_rows: int = 8
    rehearsal_weight: float = 1.0
    scales: tuple[float, ...] = (1.0, 0.5, 0.1, 0.0)
    max_perplexity_ratio: float = 1.15
    max_recall_drop: float = 0.05
    refresh: bool = True

    def __post_init__(self) -> None:
        scales = list(self.scales)
        falling = len(scales) > 1 and scales == sorted(scales, reverse=True) and scales[0] <= 1 and scales[-1] == 0
        require(falling, "scales", "at least two numbers that fall from 1 at most to 0", scales)
        at_least(self, 1, "rank", "steps", "lessons")
        at_least(self, 0, "first_layer", "rehearsal_rows", "rehearsal_weight", "stop_nll", "max_recall_drop")
        above_zero(self, "learning_rate", "max_perplexity_ratio")

    @property
    def last_stage(self) -> int:
        """The stage at which a fact no longer needs its edit."""
        return len(self.scales) - 1

"""Every number of a night in one frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from sleepgym.errors import SleepGymError
from sleepgym.settings import above_zero, at_least, require


class SleepError(SleepGymError, RuntimeError):
    """A night failed half way; the learner is as it was before it."""


@dataclass(frozen=True)
class SleepSpec:
    """How facts move from edits into a LoRA adapter.

    Attributes:
        rank: Rank of an adapter when it is made.
        targets: Names of the linears that get adapters, such as ``("q_proj", "down_proj")``; empty for all.
        first_layer: Lowest block that gets adapters; None for the upper half of the model, above the edited blocks
            (an adapter on an edited block or below changes the keys that edits listen to). What lies below it is
            run once a night.
        adapter: Whether nights train one adapter on and on (``"continued"``), or a fresh one on top of the earlier
            ones that is then joined to them (``"fresh"``).
        max_rank: Largest rank of what fresh adapters add up to; beyond it they are recompressed.
        steps: Optimiser steps at most.
        learning_rate: Of AdamW.
        stop_nll: Training ends once the mean NLL (nats per token) of every lesson is below this.
        facts: Facts that a night trains at most: those not yet held by slow weights alone, then the others, the ones
            trained longest ago first.
        lessons: Lessons (rows, two per fact) per step at most: those not known yet, and as many that are.
        rehearsal_rows: Rows of ordinary text per step, so that the rest stays.
        rehearsal_weight: Weight of the divergence from the base on these rows.
        rem_steps: Steps of a second phase on passages in the model's own words that lead from fact to fact, with
            rehearsal weighing three times as much; 0 leaves it out.
        gate: Whether facts advance each on its own (``"fact"``), or all of them or none (``"night"``).
        scales: Scale of a fact's edit by stage, falling to 0.
        max_perplexity_ratio: A night after which perplexity on held-out text is more than this times as high is undone.
        max_recall_drop: A night after which recall over the ledger, or of known facts, is lower by more than this is
            undone.
        validation_rows: Rows of held-out text that perplexity is measured on.
        refresh: Whether facts that the audit found degraded are re-solved before they are consolidated.

    Raises:
        SettingError: A value is impossible.
    """

    rank: int = 32
    targets: tuple[str, ...] = ()
    first_layer: int | None = None
    adapter: Literal["continued", "fresh"] = "continued"
    max_rank: int = 96
    steps: int = 40
    learning_rate: float = 4e-3
    stop_nll: float = 0.3
    facts: int = 512
    lessons: int = 256
    rehearsal_rows: int = 6
    rehearsal_weight: float = 2.0
    rem_steps: int = 0
    gate: Literal["fact", "night"] = "fact"
    scales: tuple[float, ...] = (1.0, 0.5, 0.1, 0.0)
    max_perplexity_ratio: float = 1.15
    max_recall_drop: float = 0.05
    validation_rows: int = 16
    refresh: bool = True

    def __post_init__(self) -> None:
        scales = list(self.scales)
        falling = len(scales) > 1 and scales == sorted(scales, reverse=True) and scales[0] <= 1 and scales[-1] == 0
        require(falling, "scales", "at least two numbers that fall from 1 at most to 0", scales)
        at_least(self, 1, "rank", "steps", "facts", "lessons", "validation_rows")
        at_least(self, 0, "rehearsal_rows", "rehearsal_weight", "rem_steps", "stop_nll", "max_recall_drop")
        at_least(self, self.rank, "max_rank")
        above_zero(self, "learning_rate", "max_perplexity_ratio")
        require(self.first_layer is None or self.first_layer >= 0, "first_layer", "0 or more", self.first_layer)
        require(self.adapter in ("continued", "fresh"), "adapter", "'continued' or 'fresh'", self.adapter)
        require(self.gate in ("fact", "night"), "gate", "'fact' or 'night'", self.gate)

    def lasting(self, length: float) -> SleepSpec:
        """A night that is this many times as long: it trains that many times as many steps, one at least."""
        if length == 1:
            return self
        return replace(self, steps=max(1, round(length * self.steps)), rem_steps=round(length * self.rem_steps))

    @property
    def last_stage(self) -> int:
        """The stage at which a fact no longer needs its edit."""
        return len(self.scales) - 1

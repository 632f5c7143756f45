"""Settings of a night."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from sleepgym.editing.spec import EditSpec
from sleepgym.errors import SleepGymError
from sleepgym.settings import above_zero, at_least, require


class SleepError(SleepGymError, RuntimeError):
    """A night failed; the learner is as it was before the night."""


@dataclass(frozen=True)
class SleepSpec:
    """Consolidation of facts from edits into a LoRA adapter.

    Attributes:
        rank: Rank of a new adapter.
        targets: Names of the linears that get adapters, such as ``("q_proj", "down_proj")``; empty for all.
        first_layer: Lowest block that gets adapters; None for the upper half of the model, above the edited blocks
            (an adapter on an edited block or below changes the keys of edits). Blocks below it are run once per night.
        adapter: Whether all nights train the same adapter (``"continued"``); or each night trains a fresh one on top of
            the earlier ones, which is then joined to them (``"fresh"``); or the adapter has a row per fact and edited
            layer, solved for like an edit and gated, of which the output ``B`` alone is trained (``"gated"``: ``rank``,
            ``targets``, ``first_layer`` and ``max_rank`` do not apply). A gated adapter leaves other subjects alone,
            and cannot be exported without loss.
        row_gate: Gate of the rows of a gated adapter, see :class:`~sleepgym.editing.EditSpec`.
        max_rank: Maximum rank of joined fresh adapters; beyond it they are recompressed.
        steps: Maximum number of optimiser steps.
        learning_rate: Initial step size of AdamW; it decays linearly to 0.
        stop_nll: Training stops once the mean NLL (nats per token) of every lesson is below this, and so is the mean KL
            divergence of every held answer.
        facts: Maximum number of facts that a night trains: new ones and those that failed the last gate first, then
            those whose turn it is, see :mod:`sleepgym.consolidation.spacing`.
        spacing: Maximum number of nights from one training of a fact to the next while slow weights hold it; 1 to train
            every fact every night, as is advisable if nothing is held (``settled`` is 0).
        lessons: Maximum number of lessons (rows, two per fact) per step: half or more are unlearned ones, if there are
            as many.
        rehearsal_rows: Rows of ordinary text per step, which limit drift.
        rehearsal_tokens: Tokens of each of these rows that are read, drawn anew each step; 0 for all.
        rehearsal_weight: Weight of the KL divergence from the base at these tokens.
        settled: Maximum number of facts that a night holds to yesterday's answers in place of training them (settled
            ones and those of the ledger that are not due), the ones held longest ago first; 0 for none.
        settled_rows: Maximum number of questions about them per step, two per fact: half or more are those whose
            answers have moved away from yesterday's, if there are as many.
        settled_weight: Weight of the KL divergence from the night before in the answers to these questions.
        neighbours: Maximum number of subjects that are not taught about which a night holds the answers of the bare
            model, see :mod:`sleepgym.consolidation.neighbours`; of each relation also of those whose keys the rows of a
            gated adapter leave without output. 0 for none.
        neighbour_rows: Maximum number of questions about them per step, two per subject.
        neighbour_weight: Weight of the KL divergence from the bare model in the answers to these questions.
        rem_steps: Steps of a second phase on passages in the model's own words that lead from fact to fact, with three
            times the rehearsal weight; 0 for none.
        gate: Whether each fact advances on its own (``"fact"``), or all of them or none (``"night"``).
        scales: Scale of a fact's edit by stage, falling to 0.
        max_perplexity_ratio: A night is undone if perplexity on held-out text after it exceeds this multiple of that
            before it.
        max_recall_drop: A night is undone if recall over the ledger, or of known facts, falls by more than this.
        validation_rows: Rows of held-out text that perplexity is measured on.
        refresh: Whether degraded facts of stage 0 are re-solved before training.

    Raises:
        SettingError: A value is impossible.
    """

    rank: int = 32
    targets: tuple[str, ...] = ()
    first_layer: int | None = None
    adapter: Literal["continued", "fresh", "gated"] = "continued"
    row_gate: float = 0.5
    max_rank: int = 96
    steps: int = 40
    learning_rate: float = 4e-3
    stop_nll: float = 0.3
    facts: int = 512
    spacing: int = 4
    lessons: int = 256
    rehearsal_rows: int = 6
    rehearsal_tokens: int = 16
    rehearsal_weight: float = 4.0
    settled: int = 512
    settled_rows: int = 48
    settled_weight: float = 4.0
    neighbours: int = 0
    neighbour_rows: int = 48
    neighbour_weight: float = 4.0
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
        at_least(self, 1, "rank", "steps", "facts", "spacing", "lessons", "validation_rows")
        at_least(self, 0, "rehearsal_rows", "rehearsal_tokens", "rehearsal_weight")
        at_least(self, 0, "settled", "settled_rows", "settled_weight")
        at_least(self, 0, "neighbours", "neighbour_rows", "neighbour_weight")
        at_least(self, 0, "rem_steps", "stop_nll", "max_recall_drop")
        at_least(self, self.rank, "max_rank")
        above_zero(self, "learning_rate", "max_perplexity_ratio")
        require(self.first_layer is None or self.first_layer >= 0, "first_layer", "0 or more", self.first_layer)
        kinds = ("continued", "fresh", "gated")
        require(self.adapter in kinds, "adapter", f"one of {kinds}", self.adapter)
        require(0 <= self.row_gate < 1, "row_gate", "0 or more and below 1", self.row_gate)
        require(self.gate in ("fact", "night"), "gate", "'fact' or 'night'", self.gate)

    def lasting(self, length: float) -> SleepSpec:
        """Returns the settings of a night of relative length ``length``: steps are multiplied by it, at least one."""
        if length == 1:
            return self
        return replace(self, steps=max(1, round(length * self.steps)), rem_steps=round(length * self.rem_steps))

    @property
    def last_stage(self) -> int:
        """Stage at which the scale of a fact's edit is 0."""
        return len(self.scales) - 1


def nights_for(edit: EditSpec) -> SleepSpec:
    """Returns settings of nights beside edits: gated if the edits are, and otherwise the defaults.

    Rows of a gated adapter hold their facts before any training, and leave text and answers about others alone: a night
    is short, and rehearses nothing.
    """
    if not edit.gate:
        return SleepSpec()
    return SleepSpec(
        adapter="gated",
        row_gate=edit.gate,
        steps=20,
        learning_rate=5e-3,
        rehearsal_rows=0,
        neighbours=edit.neighbours,
        neighbour_rows=0,
        scales=(1.0, 0.0),
    )

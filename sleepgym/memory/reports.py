"""What every operator returns: frozen records of what it did and what it saw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sleepgym.facts.fact import Fact
from sleepgym.memory.ledger import Key


@dataclass(frozen=True)
class InjectReport:
    """Outcome of writing facts.

    Attributes:
        written: The facts.
        superseded: Earlier facts that the new ones replaced.
        margins: Margin of each written fact right afterwards (nats; positive means recalled).
        edits: Edits spent.
        missed: Facts that are not recalled right afterwards, by their keys, and why they did not take; empty texts
            if it was not asked for.
    """

    written: tuple[Fact, ...]
    superseded: tuple[Fact, ...]
    margins: tuple[float, ...]
    edits: int
    missed: Mapping[Key, str] = field(default_factory=dict)

    @property
    def recall(self) -> float:
        """Share of the written facts that are recalled right afterwards."""
        return sum(m > 0 for m in self.margins) / len(self.margins)


@dataclass(frozen=True)
class AuditReport:
    """Outcome of probing every fact of the ledger.

    Attributes:
        margins: Margin by fact key, each on the pathway that its stage is judged on.
        degraded: Keys of the facts that were not recalled, the worst first.
    """

    margins: dict[Key, float] = field(repr=False)
    degraded: tuple[Key, ...]

    @property
    def recall(self) -> float:
        """Share of facts recalled; 1.0 for an empty ledger."""
        return 1 - len(self.degraded) / len(self.margins) if self.margins else 1.0


@dataclass(frozen=True)
class RefreshReport:
    """Outcome of re-solving facts.

    Attributes:
        refreshed: Keys of the facts that were re-solved.
        recall_before: Share of them recalled before.
        recall_after: Share of them recalled after.
        edits: Edits spent.
    """

    refreshed: tuple[Key, ...]
    recall_before: float
    recall_after: float
    edits: int


@dataclass(frozen=True)
class SleepReport:
    """Outcome of a night.

    Attributes:
        refreshed: Facts re-solved before training; they count as edits.
        trained: Facts that were among the lessons.
        advanced: Facts that the adapter alone recalls: a stage up, or more where their edit stood in the way.
        retreated: Facts that it does not: back to stage 0.
        released: Facts whose edit is no longer needed (last stage).
        recall_before: Recall over the ledger before the night.
        recall_after: Recall over the ledger after it.
        perplexity_before: Perplexity on held-out text before.
        perplexity_after: The same after; of the rejected state if the night was rolled back.
        perplexity_before_rem: Perplexity between training and REM; None for a night without REM.
        steps: LoRA steps.
        nll: NLL of the lessons at the end of training (nats per token).
        rank: Rank of the adapter.
        truncation: What recompressing the adapter lost, in units of its norm; 0 if it was not.
        rolled_back: Whether the night did more harm than allowed and was undone.
    """

    refreshed: tuple[Key, ...]
    trained: tuple[Key, ...]
    advanced: tuple[Key, ...]
    retreated: tuple[Key, ...]
    released: tuple[Key, ...]
    recall_before: float
    recall_after: float
    perplexity_before: float
    perplexity_after: float
    perplexity_before_rem: float | None
    steps: int
    nll: float
    rank: int
    truncation: float
    rolled_back: bool

    @property
    def edits(self) -> int:
        """Edits spent by the night's own refreshes."""
        return len(self.refreshed)


@dataclass(frozen=True)
class PruneReport:
    """Outcome of forgetting facts: keys of those taken out of ledger and memory."""

    pruned: tuple[Key, ...]

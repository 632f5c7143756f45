"""Reports that operators return: frozen records of their effects and measurements."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sleepgym.facts.fact import Fact
from sleepgym.memory.ledger import Key


class Reasons(Mapping[Key, str]):
    """Reasons by fact key, each found out when it is first read: most are never asked for, and each takes two passes.

    Args:
        facts: Facts that there are reasons for.
        why: Finds one out.
    """

    def __init__(self, facts: Sequence[Fact] = (), why: Callable[[Fact], str] = str) -> None:
        self._facts = {fact.key: fact for fact in facts}
        self._why = why
        self._found: dict[Key, str] = {}

    def __getitem__(self, key: Key) -> str:
        if key not in self._found:
            self._found[key] = self._why(self._facts[key])
        return self._found[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self._facts)})"


@dataclass(frozen=True)
class InjectReport:
    """Outcome of writing facts.

    Attributes:
        written: The facts.
        superseded: Earlier facts of the same keys that the new ones replaced.
        margins: Margin of each written fact after the write (nats; positive means recalled).
        edits: Edits spent.
        missed: Why facts that are not recalled right afterwards did not take, by their keys; found out when it is read.
    """

    written: tuple[Fact, ...]
    superseded: tuple[Fact, ...]
    margins: tuple[float, ...]
    edits: int
    missed: Mapping[Key, str] = field(default_factory=Reasons)

    @property
    def recall(self) -> float:
        """Share of the written facts that are recalled after the write."""
        return sum(m > 0 for m in self.margins) / len(self.margins)


@dataclass(frozen=True)
class AuditReport:
    """Outcome of probing every fact of the ledger.

    Attributes:
        margins: Margin (nats) by fact key, asked in chat.
        degraded: Keys of the facts that were not recalled, lowest margin first.
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
        recall_before: Share of these facts recalled before, on the raw probe.
        recall_after: Share of these facts recalled after, on the raw probe.
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
        trained: Facts that the adapter was trained on.
        advanced: Facts that passed the gate and moved up, by one stage or by more where their edit interfered with
            recall.
        retreated: Facts that failed the gate and are at stage 0.
        released: Facts that reached the last stage, where their edit is no longer needed.
        recall_before: Recall over the ledger before the night.
        recall_after: Recall over the ledger after the night.
        perplexity_before: Perplexity on held-out text before the night.
        perplexity_after: Perplexity on held-out text after it; of the rejected state if the night was rolled back.
        perplexity_before_rem: Perplexity between training and REM; None for a night without REM.
        steps: Optimiser steps, those of REM included.
        nll: Mean NLL of the lessons at the end of training (nats per token).
        rank: Rank of the adapter.
        truncation: Relative error (Frobenius norm) of recompressing the adapter; 0 without recompression.
        rolled_back: Whether the night exceeded the allowed harm and was undone.
        held: Settled facts, and facts of the ledger that were not trained, whose answers it held.
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
    held: tuple[Key, ...] = ()

    @property
    def edits(self) -> int:
        """Edits spent by the night's own refreshes."""
        return len(self.refreshed)


@dataclass(frozen=True)
class PruneReport:
    """Outcome of pruning facts.

    Attributes:
        pruned: Keys of the facts that were removed from ledger and memory.
        settled: Those of them that later nights hold.
    """

    pruned: tuple[Key, ...]
    settled: tuple[Key, ...] = ()

"""Ledger: every fact a learner was taught, with its last audit and its consolidation stage."""

from __future__ import annotations

import math
from collections.abc import ItemsView, Iterator, Mapping, Sequence, ValuesView
from dataclasses import dataclass, replace

from sleepgym.errors import SleepGymError
from sleepgym.facts.fact import Fact

Key = tuple[str, str]
"""Key of a fact, ``(subject, relation)``."""


class LedgerFullError(SleepGymError, RuntimeError):
    """The ledger has no room for the new facts; nothing was written."""


@dataclass(frozen=True)
class Entry:
    """Record of one taught fact, as of its last audit; the model may have changed since.

    Attributes:
        fact: The fact.
        stage: Consolidation stage, from 0 (held by its edit alone) to ``SleepSpec.last_stage`` (held by slow weights
            alone).
        margin: Margin (nats) at the last audit; None before the first, or if it was NaN.
        written_at: Tick of the first write.
        audited_at: Tick of the last audit; -1 before the first.
        writes: Edits spent on it: its injection and every refresh.
        trained_at: Number of the last night that trained it, counted from 1; 0 before the first.
        held: Nights in a row after which slow weights recalled it alone.
    """

    fact: Fact
    stage: int = 0
    margin: float | None = None
    written_at: int = 0
    audited_at: int = -1
    writes: int = 1
    trained_at: int = 0
    held: int = 0

    @property
    def audited(self) -> bool:
        """Whether the fact has been audited since it was written or refreshed."""
        return self.audited_at >= 0

    @property
    def recalled(self) -> bool:
        """Whether the fact was recalled at the last audit; False before the first."""
        return self.margin is not None and self.margin > 0

    @property
    def degraded(self) -> bool:
        """Whether the fact was not recalled at the last audit; False before the first."""
        return self.audited and not self.recalled


class Ledger(Mapping[Key, Entry]):
    """Mapping from fact keys to at most ``capacity`` entries, in the order in which the facts were first written.

    Args:
        capacity: Maximum number of facts.
        entries: Initial entries.
    """

    def __init__(self, capacity: int, entries: Mapping[Key, Entry] | None = None) -> None:
        self.capacity = capacity
        self._entries: dict[Key, Entry] = dict(entries or {})

    def __getitem__(self, key: Key) -> Entry:
        return self._entries[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    # Views of the dictionary itself: those that a Mapping brings look every key up.
    def values(self) -> ValuesView[Entry]:
        """Entries, oldest first."""
        return self._entries.values()

    def items(self) -> ItemsView[Key, Entry]:
        """Keys with their entries, oldest first."""
        return self._entries.items()

    @property
    def facts(self) -> list[Fact]:
        """Facts of all entries, oldest first."""
        return [entry.fact for entry in self._entries.values()]

    @property
    def degraded(self) -> list[Key]:
        """Keys of the degraded entries, lowest margin first."""
        # No margin means a damaged model, and sorts first.
        worst = {
            key: -math.inf if entry.margin is None else entry.margin
            for key, entry in self._entries.items()
            if entry.degraded
        }
        return sorted(worst, key=lambda key: worst[key])

    def of_stage(self, stage: int) -> list[Key]:
        """Keys of the entries of a stage, oldest first."""
        return [key for key, entry in self._entries.items() if entry.stage == stage]

    def require_room(self, facts: Sequence[Fact]) -> None:
        """Checks that the facts fit into the ledger; facts that it has already need no room.

        Raises:
            LedgerFullError: The facts do not fit.
        """
        new = sum(fact.key not in self._entries for fact in facts)
        if len(self) + new > self.capacity:
            raise LedgerFullError(
                f"expected room for {new} new facts, found {len(self)} of {self.capacity} places taken; "
                "prune facts or raise the capacity"
            )

    def put(self, entry: Entry) -> None:
        """Adds an entry, or replaces the one of the same key in its place.

        Raises:
            LedgerFullError: The entry is new and the ledger is full.
        """
        self.require_room([entry.fact])
        self._entries[entry.fact.key] = entry

    def update(self, key: Key, **changes: object) -> None:
        """Replaces the given fields of an entry.

        Raises:
            KeyError: The ledger has no such entry.
        """
        self._entries[key] = replace(self._entries[key], **changes)  # type: ignore[arg-type]

    def remove(self, key: Key) -> Entry:
        """Removes an entry and returns it.

        Raises:
            KeyError: The ledger has no such entry.
        """
        return self._entries.pop(key)

    def copy(self) -> Ledger:
        """Returns an independent ledger with the same (immutable) entries."""
        return Ledger(self.capacity, self._entries)

"""The ledger: every fact a learner was taught, what was last seen of it, and how deep it has sunk."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sleepgym.errors import SleepGymError
from sleepgym.facts.fact import Fact

Key = tuple[str, str]
"""``(subject, relation)``."""


class LedgerFullError(SleepGymError, RuntimeError):
    """No room for more facts; nothing was written."""


@dataclass(frozen=True)
class Entry:
    """What a learner knows about one of its facts. It shows the last audit, not the truth.

    Attributes:
        fact: The fact.
        stage: 0 (held by its edit alone) to 3 (held by slow weights alone).
        margin: Margin (nats) at the last audit; None before the first, or where it was no number.
        written_at: Tick of the first write.
        audited_at: Tick of the last audit; -1 before the first.
        writes: Edits spent on it: its injection and every refresh.
        trained_at: The last night that trained it, counted from 1; 0 before the first.
    """

    fact: Fact
    stage: int = 0
    margin: float | None = None
    written_at: int = 0
    audited_at: int = -1
    writes: int = 1
    trained_at: int = 0

    @property
    def audited(self) -> bool:
        """Whether it was ever audited."""
        return self.audited_at >= 0

    @property
    def recalled(self) -> bool:
        """Whether it was recalled at the last audit; False before the first."""
        return self.margin is not None and self.margin > 0

    @property
    def degraded(self) -> bool:
        """Whether the last audit found it lost."""
        return self.audited and not self.recalled


class Ledger(Mapping[Key, Entry]):
    """Entries by fact key, in the order of their writing, at most ``capacity``.

    Args:
        capacity: Largest number of facts.
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

    @property
    def facts(self) -> list[Fact]:
        """All facts, oldest first."""
        return [entry.fact for entry in self._entries.values()]

    @property
    def degraded(self) -> list[Key]:
        """Keys that the last audit found lost, the worst first."""
        lost = {key: entry.margin for key, entry in self._entries.items() if entry.degraded}
        # A margin that was no number says that the model is ruined: nothing is worse.
        worst = {key: -math.inf if margin is None else margin for key, margin in lost.items()}
        return sorted(worst, key=lambda key: worst[key])

    def require_room(self, facts: Sequence[Fact]) -> None:
        """Checks that the facts fit.

        Raises:
            LedgerFullError: They do not.
        """
        new = sum(fact.key not in self._entries for fact in facts)
        if len(self) + new > self.capacity:
            raise LedgerFullError(
                f"expected room for {new} new facts, found {len(self)} of {self.capacity} places taken; "
                "prune facts or raise the capacity"
            )

    def put(self, entry: Entry) -> None:
        """Adds an entry, or replaces the one of the same key where it stands."""
        self.require_room([entry.fact])
        self._entries[entry.fact.key] = entry

    def update(self, key: Key, **changes: object) -> None:
        """Replaces some fields of an entry."""
        self._entries[key] = replace(self._entries[key], **changes)  # type: ignore[arg-type]

    def remove(self, key: Key) -> Entry:
        """Takes an entry out."""
        return self._entries.pop(key)

    def copy(self) -> Ledger:
        """An independent ledger with the same (immutable) entries."""
        return Ledger(self.capacity, self._entries)

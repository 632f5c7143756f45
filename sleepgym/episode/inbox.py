"""Inbox: the current, pending and written versions of arrived facts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from sleepgym.episode.stream import Arrival
from sleepgym.facts.fact import Fact
from sleepgym.memory.ledger import Key


class Inbox:
    """Bounded first-in-first-out buffer of pending facts, with the current version of every arrived fact.

    Args:
        size: Maximum number of pending facts; a further arrival drops the oldest.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.current: dict[Key, Arrival] = {}
        """Newest version of every arrived fact."""
        self.pending: dict[Key, Arrival] = {}
        """Versions that are to be written, oldest first."""
        self.lost = 0
        """Number of arrivals that were dropped because the buffer was full."""
        self.written: dict[Key, Fact] = {}
        """Last written version of every written fact."""

    def arrive(self, arrivals: Sequence[Arrival]) -> None:
        """Makes facts current and appends them to the buffer; a newer version replaces a pending one."""
        for arrival in arrivals:
            key = arrival.fact.key
            self.current[key] = arrival
            self.pending.pop(key, None)
            self.pending[key] = arrival
            if len(self.pending) > self.size:
                del self.pending[next(iter(self.pending))]
                self.lost += 1

    def batch(
        self, limit: int, held: Collection[Key], room: int, waiting: Iterable[Arrival] | None = None
    ) -> list[Fact]:
        """Returns the waiting facts to write next.

        Args:
            limit: Maximum number of facts.
            held: Keys of those that are there already; a new version of one of them needs no room.
            room: Number of further facts that there is room for.
            waiting: What waits, the next one first; None for the pending facts, oldest first.
        """
        chosen: list[Fact] = []
        for arrival in self.pending.values() if waiting is None else waiting:
            if len(chosen) == max(0, limit):
                break
            if arrival.fact.key in held:
                chosen.append(arrival.fact)
            elif room > 0:
                chosen.append(arrival.fact)
                room -= 1
        return chosen

    def mark_written(self, facts: Sequence[Fact]) -> None:
        """Moves facts that were pending, or noted, to ``written``."""
        self.clear(facts)
        self.written.update({fact.key: fact for fact in facts})

    def clear(self, facts: Sequence[Fact]) -> None:
        """Takes facts that do not wait any longer out of the buffer."""
        for fact in facts:
            self.pending.pop(fact.key, None)

    def is_answerable(self, key: Key) -> bool:
        """Returns whether the current version of a fact was written; a guess at an unwritten one is no answer."""
        return self.written.get(key) == self.current[key].fact

    def copy(self) -> Inbox:
        """Returns an independent inbox with the same (immutable) arrivals."""
        other = Inbox(self.size)
        other.current, other.pending, other.written = dict(self.current), dict(self.pending), dict(self.written)
        other.lost = self.lost
        return other

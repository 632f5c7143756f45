"""What has arrived so far: which facts are true, which wait to be written, which were written."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sleepgym.episode.stream import Arrival
from sleepgym.facts.fact import Fact
from sleepgym.memory.ledger import Key


class Inbox:
    """The bounded buffer of pending facts and the record of what is true.

    Args:
        size: Facts that can wait; one more loses the one that has waited longest.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.current: dict[Key, Arrival] = {}
        """The newest version of every fact that has arrived."""
        self.pending: dict[Key, Arrival] = {}
        """Versions that wait to be written, oldest first."""
        self.lost = 0
        """Arrivals that were lost because the buffer was full."""
        self.written: dict[Key, Fact] = {}
        """The version of every fact that was written last."""

    def arrive(self, arrivals: Sequence[Arrival]) -> None:
        """Makes facts true and queues them. A newer version replaces one that still waits."""
        for arrival in arrivals:
            key = arrival.fact.key
            self.current[key] = arrival
            self.pending.pop(key, None)
            self.pending[key] = arrival
            if len(self.pending) > self.size:
                del self.pending[next(iter(self.pending))]
                self.lost += 1

    def batch(self, limit: int, held: Collection[Key], room: int) -> list[Fact]:
        """The pending facts to write next, oldest first.

        Args:
            limit: Facts at most.
            held: Keys in the ledger; a new version of one of them needs no room.
            room: Places left in the ledger.
        """
        chosen: list[Fact] = []
        for key, arrival in self.pending.items():
            if len(chosen) == max(0, limit):
                break
            if key in held:
                chosen.append(arrival.fact)
            elif room > 0:
                chosen.append(arrival.fact)
                room -= 1
        return chosen

    def mark_written(self, facts: Sequence[Fact]) -> None:
        """Takes facts out of the buffer: they are in the model's memory now."""
        for fact in facts:
            del self.pending[fact.key]
            self.written[fact.key] = fact

    def is_answerable(self, key: Key) -> bool:
        """Whether the fact as it is now was ever written; a guess at one that was not is not an answer."""
        return self.written.get(key) == self.current[key].fact

    def copy(self) -> Inbox:
        """An independent inbox with the same (immutable) arrivals."""
        other = Inbox(self.size)
        other.current, other.pending, other.written = dict(self.current), dict(self.pending), dict(self.written)
        other.lost = self.lost
        return other

"""Facts of an episode as arrays, which are laid out anew only where something has changed.

Most ticks let at most one fact arrive and leave ledger and memory alone, and the shortest action should cost no more
than that. Tables are derived: they are no part of any state, which is copied, saved and restored without them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from sleepgym.episode.history import Standing
from sleepgym.episode.inbox import Inbox
from sleepgym.facts.fact import Fact
from sleepgym.memory.ledger import Key
from sleepgym.memory.state import State

T = TypeVar("T")


class Latest(Generic[T]):
    """Latest value of a computation, kept together with what it was computed from."""

    def __init__(self) -> None:
        self._latest: tuple[tuple[object, ...], T] | None = None

    def holds(self, *sources: object) -> bool:
        """Returns whether the value was computed from these sources.

        Args:
            sources: Compared by ``==``, which takes next to nothing for tuples of the same immutable objects. What can
                change in place must come with a counter of its changes.
        """
        return self._latest is not None and self._latest[0] == sources

    def of(self, compute: Callable[[], T], *sources: object) -> T:
        """Returns the value, which is computed only if the sources are others than last time.

        Args:
            compute: Makes the value.
            sources: All that the value depends on, see :meth:`holds`.
        """
        if not self.holds(*sources):
            self._latest = sources, compute()
        assert self._latest is not None
        return self._latest[1]


@dataclass(frozen=True, eq=False)
class ArrivedFacts:
    """Current versions of all facts that have arrived, in order of first arrival.

    Attributes:
        popularity: Popularity of each, ``[facts]``.
        arrived_at: Tick at which the current version of each arrived, ``[facts]``.
        unless_recalled: Standing of each as long as it is not recalled.
        is_answerable: Whether the current version of each was written, bool ``[facts]``.
        answerable: Facts of which that is so.
    """

    popularity: NDArray[np.float64]
    arrived_at: NDArray[np.float64]
    unless_recalled: tuple[Standing, ...]
    is_answerable: NDArray[np.bool_]
    answerable: tuple[Fact, ...]

    @classmethod
    def of(cls, inbox: Inbox, noted: Collection[Key] = ()) -> ArrivedFacts:
        """Lays out an inbox.

        Args:
            inbox: Arrived, pending and written facts.
            noted: Keys of facts with notes, from which they can still be written.
        """
        arrivals = inbox.current.values()
        standings = tuple(_unless_recalled(inbox, key, noted) for key in inbox.current)
        answerable = [standing is Standing.WRONG for standing in standings]
        return cls(
            popularity=_floats(arrival.popularity for arrival in arrivals),
            arrived_at=_floats(arrival.tick for arrival in arrivals),
            unless_recalled=standings,
            is_answerable=np.array(answerable, np.bool_),
            answerable=tuple(arrival.fact for arrival, yes in zip(arrivals, answerable, strict=True) if yes),
        )

    def standings(self, correct: NDArray[np.bool_]) -> str:
        """Returns the status of the facts, one letter of :class:`Standing` each.

        Args:
            correct: Whether each would be answered correctly, bool ``[facts]``.
        """
        each = zip(self.unless_recalled, correct.tolist(), strict=True)
        return "".join([Standing.RIGHT if right else otherwise for otherwise, right in each])


@dataclass(frozen=True, eq=False)
class WrittenFacts:
    """Entries of a ledger in its order, and the terms of the memory that hold them.

    Attributes:
        stage: Consolidation stage of each, ``[facts]``.
        scale: Scale of its edit, ``[facts]``.
        audited: Whether it was audited since it was last written, bool ``[facts]``.
        margin: Margin (nats) at the last audit; 0 where there is none, ``[facts]``.
        recalled: Whether it was recalled at the last audit, bool ``[facts]``.
        writes: Edits spent on it, ``[facts]``.
        written_at: Tick of its first write, ``[facts]``.
        audited_at: Tick of its last audit; -1 before the first, ``[facts]``.
        load: Sum of the scales of all edits.
        rank: Largest sum of ranks that the memory has on a module.
    """

    stage: NDArray[np.float64]
    scale: NDArray[np.float64]
    audited: NDArray[np.bool_]
    margin: NDArray[np.float64]
    recalled: NDArray[np.bool_]
    writes: NDArray[np.float64]
    written_at: NDArray[np.float64]
    audited_at: NDArray[np.float64]
    load: float
    rank: int

    @classmethod
    def of(cls, state: State) -> WrittenFacts:
        """Lays out ledger and memory of a learner."""
        entries, scales = state.ledger.values(), [state.scale_of(key) for key in state.ledger]
        return cls(
            stage=_floats(entry.stage for entry in entries),
            scale=_floats(scales),
            audited=np.array([entry.audited for entry in entries], np.bool_),
            margin=_floats(0.0 if entry.margin is None else entry.margin for entry in entries),
            recalled=np.array([entry.recalled for entry in entries], np.bool_),
            writes=_floats(entry.writes for entry in entries),
            written_at=_floats(entry.written_at for entry in entries),
            audited_at=_floats(entry.audited_at for entry in entries),
            load=sum(scales),
            rank=state.memory.largest_rank,
        )


def _unless_recalled(inbox: Inbox, key: Key, noted: Collection[Key]) -> Standing:
    if inbox.is_answerable(key):
        return Standing.WRONG
    if key in inbox.written:
        return Standing.OUTDATED
    return Standing.WAITING if key in inbox.pending or key in noted else Standing.LOST


def _floats(values: Iterable[float]) -> NDArray[np.float64]:
    return np.array(list(values), np.float64)

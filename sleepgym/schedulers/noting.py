"""Schedulers of cards with notes: what goes into notes, what into the weights, and when it is looked up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sleepgym.env.observation import column, stat
from sleepgym.episode.actions import Action, NoteAction, Operator
from sleepgym.schedulers.base import (
    ROUNDING,
    Mask,
    Observation,
    Scheduler,
    first_allowed,
    is_rich,
    prune_if_crowded,
)


@dataclass(frozen=True)
class NotesOnly(Scheduler):
    """Writes everything into notes and looks everything up; it never writes into the weights.

    Source: retrieval-augmented generation (Lewis et al. 2020, "Retrieval-augmented generation for knowledge-intensive
    NLP tasks").
    """

    def act(self, observation: Observation, mask: Mask) -> Operator:
        """See :meth:`Scheduler.act`."""
        require_notes(mask, "notes-only")
        return first_allowed(mask, NoteAction.LOOK_UP_ALWAYS, NoteAction.NOTE)


@dataclass(frozen=True)
class _Routing(Scheduler):
    """Notes facts, teaches popular ones, and sleeps in quiet moments.

    Questions are looked up if the weights are unsure. Subclasses say in which order it notes, prunes and teaches.
    """

    popular_at: float = 0.2
    traffic_at: float = 0.3
    load_at: float = 0.4
    reserve: float = 1.0

    name: ClassVar[str]

    def order(self, pruned: Sequence[Operator], taught: Sequence[Operator]) -> Sequence[Operator]:
        """Returns what it would do, the first first.

        Args:
            pruned: PRUNE if the ledger is crowded, or nothing.
            taught: INJECT if a fact is popular enough, or nothing.
        """
        raise NotImplementedError

    def act(self, observation: Observation, mask: Mask) -> Operator:
        """See :meth:`Scheduler.act`."""
        require_notes(mask, self.name)
        if mask[NoteAction.LOOK_UP_UNSURE]:
            return NoteAction.LOOK_UP_UNSURE
        if sleeps(observation, mask, self.traffic_at, self.load_at):
            return Action.SLEEP
        taught = (Action.INJECT,) if popularity_of_next(observation) >= self.popular_at - ROUNDING else ()
        busy = first_allowed(mask, *self.order(prune_if_crowded(observation), taught))
        return (
            first_allowed(mask, Action.REFRESH) if busy == Action.WAIT and is_rich(observation, self.reserve) else busy
        )


@dataclass(frozen=True)
class NoteFirst(_Routing):
    """Notes everything at once, teaches it to the weights from there, and sleeps later, in quiet moments.

    Questions are looked up when the weights are unsure.

    Source: complementary learning systems: a fast store keeps what is new until sleep has moved it into a slow one
    (McClelland, McNaughton and O'Reilly 1995, "Why there are complementary learning systems in the hippocampus and
    neocortex").

    Attributes:
        popular_at: Popularity from which a noted fact is taught.
        traffic_at: Traffic relative to its peak up to which it sleeps.
        load_at: Load (sum of the scales of all edits relative to the ledger's capacity) from which it sleeps.
        reserve: Edits kept for arrivals when it refreshes, as a multiple of the budget that even spending would have
            left.
    """

    popular_at: float = 0.0

    name: ClassVar[str] = "note-first"

    def order(self, pruned: Sequence[Operator], taught: Sequence[Operator]) -> Sequence[Operator]:
        """Notes before it teaches."""
        return (NoteAction.NOTE, *pruned, *taught)


@dataclass(frozen=True)
class PopularFirst(_Routing):
    """Teaches popular facts to the weights, and notes the others; sleeps in quiet moments.

    Questions are looked up when the weights are unsure, or were not taught what a note tells.

    Source: caches that hold what is asked often (Smith 1982, "Cache memories"), with the weights as the fast level.

    Attributes:
        popular_at: Popularity from which a fact is taught.
        traffic_at: Traffic relative to its peak up to which it sleeps.
        load_at: Load (sum of the scales of all edits relative to the ledger's capacity) from which it sleeps.
        reserve: Edits kept for arrivals when it refreshes, as a multiple of the budget that even spending would have
            left.
    """

    name: ClassVar[str] = "popular-first"

    def order(self, pruned: Sequence[Operator], taught: Sequence[Operator]) -> Sequence[Operator]:
        """Teaches before it notes."""
        return (*pruned, *taught, NoteAction.NOTE)


def require_notes(mask: Mask, name: str) -> None:
    """Checks that a card has notes.

    Args:
        mask: Allowed operators.
        name: Name of the scheduler, for the message.

    Raises:
        ValueError: It has none.
    """
    if len(mask) <= NoteAction.NOTE:
        raise ValueError(f"expected a card with notes for {name}, such as SleepLLM-Notes-v0, found one without them")


def sleeps(observation: Observation, mask: Mask, traffic_at: float, load_at: float) -> bool:
    """Returns whether a night is due: it is allowed, traffic is low, and edits are many.

    Args:
        observation: Observation of one episode.
        mask: Allowed operators, ``[actions]``.
        traffic_at: Traffic relative to its peak up to which it is low.
        load_at: Load from which edits are many.
    """
    quiet = stat(observation, "traffic") <= traffic_at + ROUNDING
    return bool(mask[Action.SLEEP]) and quiet and stat(observation, "load") >= load_at


def popularity_of_next(observation: Observation) -> float:
    """Returns the popularity of the fact that INJECT would write first: the largest of all that wait; 0 for none."""
    return float(np.max(column(observation, "popularity") * (column(observation, "pending") > 0)))

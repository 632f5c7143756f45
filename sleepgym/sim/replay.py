"""Plays a record again: the mechanics on recorded answers, and what was seen before each change of the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sleepgym.episode.actions import Action
from sleepgym.sim.dice import Keys, keys_of
from sleepgym.sim.episodes import Choices, Episodes
from sleepgym.sim.measured import Measured
from sleepgym.sim.response import Night, Situation
from sleepgym.sim.setting import Setting
from sleepgym.sim.state import Mind
from sleepgym.sim.streams import Streams

if TYPE_CHECKING:
    from sleepgym.sim.recorder import Record


@dataclass(frozen=True)
class Change:
    """A change of the model: the arguments of a method of :class:`~sleepgym.sim.response.Response`, and its result.

    Attributes:
        action: INJECT, REFRESH or SLEEP.
        at: Situation before, as one row.
        chosen: Facts that INJECT writes, or entries that REFRESH or a night solves again, bool.
        trained: Entries that a night trains; none for other actions, bool ``[1, entries]``.
        held: Facts whose answers it holds; none for other actions, bool ``[1, facts]``.
        steps: Training steps of a night; 0 for other actions, ``[1]``.
        after: What the model answered afterwards.
        night: What the night led to; None for other actions.
    """

    action: Action
    at: Situation
    chosen: NDArray[np.bool_]
    trained: NDArray[np.bool_]
    held: NDArray[np.bool_]
    steps: NDArray[np.int32]
    after: Mind
    night: Night | None = None


@dataclass
class Replayed:
    """Response that answers as a record says, step by step.

    Attributes:
        record: The record.
        changes: What it was asked so far.
    """

    record: Record
    changes: list[Change] = field(default_factory=list)

    def inject(self, at: Situation, written: NDArray[np.bool_]) -> Mind:
        """See :class:`~sleepgym.sim.response.Response`."""
        return self._noted(Action.INJECT, at, written, self._measured(at, before_night=True).inject(at, written))

    def refresh(self, at: Situation, refreshed: NDArray[np.bool_]) -> Mind:
        """See :class:`~sleepgym.sim.response.Response`."""
        return self._noted(Action.REFRESH, at, refreshed, self._measured(at).refresh(at, refreshed))

    def night(
        self,
        at: Situation,
        refreshed: NDArray[np.bool_],
        trained: NDArray[np.bool_],
        held: NDArray[np.bool_],
        steps: NDArray[np.int32],
    ) -> Night:
        """See :class:`~sleepgym.sim.response.Response`."""
        night = self._measured(at).night(at, refreshed, trained, held, steps)
        self.changes.append(Change(Action.SLEEP, _copied(at), refreshed, trained, held, steps, night.mind, night))
        return night

    def readings(self, keys: Keys, count: int) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
        """See :class:`~sleepgym.sim.measured.Measured`."""
        return Measured({}).readings(keys, count)

    def _noted(self, action: Action, at: Situation, chosen: NDArray[np.bool_], after: Mind) -> Mind:
        none = (
            np.zeros(at.state.ledger.fact.shape, bool),
            np.zeros(at.state.facts.entry.shape, bool),
            np.zeros(1, np.int32),
        )
        self.changes.append(Change(action, _copied(at), chosen, *none, after))
        return after

    def _measured(self, at: Situation, before_night: bool = False) -> Measured:
        """Returns the answers after the present step, or those between what its night teaches first and the night."""
        step, record = int(at.state.clock.steps[0]), self.record
        answers = record.answers_after(step)
        if before_night and record.action[step] == Action.SLEEP and record.taught is not None:
            answers |= {name: array[step] for name, array in vars(record.taught).items()}
        return Measured(answers, bool(record.undone[step]))


def replay(record: Record) -> Iterator[tuple[Episodes, Choices, NDArray[np.bool_], Replayed]]:
    """Yields, before each step of a record, the episode, the step's choice, the masks, and the response.

    Args:
        record: The record.
    """
    setting, response = Setting.of(record.about.card), Replayed(record)
    streams = Streams(**{name: array.copy() for name, array in vars(record.streams).items()})
    episodes = Episodes(setting, response, streams, keys_of(np.zeros(1, np.uint64)))
    for step in range(len(record.action)):
        choices = Choices(record.action[[step]], record.facts[[step]], record.ticks[[step]])
        allowed = episodes.masks
        if record.invalid[step]:
            # Allowed, but it failed.
            allowed[0, record.action[step]] = False
        yield episodes, choices, allowed, response


def played_out(record: Record) -> tuple[Episodes, Replayed]:
    """Plays a record, which has at least one step, to its end; returns the episode and the response."""
    for episodes, choices, allowed, response in replay(record):
        episodes.step(choices, np.zeros(1, bool), allowed)
        played = episodes, response
    return played


def changes_of(record: Record) -> list[Change]:
    """Returns every change of the model in a record, in order."""
    _, response = played_out(record)
    return response.changes


def _copied(at: Situation) -> Situation:
    return replace(at, state=at.state.copy())

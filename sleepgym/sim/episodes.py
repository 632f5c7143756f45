"""Many episodes at once, one action each: the steps of :mod:`sleepgym.episode.episode` without a model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sleepgym.episode.actions import LOOK_UPS, Action
from sleepgym.sim import clock, masks, operators
from sleepgym.sim.clock import Rewards
from sleepgym.sim.dice import Keys, derived
from sleepgym.sim.noted import recalled
from sleepgym.sim.response import Response, Situation
from sleepgym.sim.setting import Setting
from sleepgym.sim.state import State
from sleepgym.sim.streams import Streams, draw_streams

_STREAM, _RESPONSE, _READINGS = 0, 1, 2
"""Keys of an episode: neither its stream nor the response can shift the other's draws."""


@dataclass(frozen=True)
class Choices:
    """An action of each episode, ``[rows]``; see :class:`~sleepgym.episode.actions.Choice`.

    Attributes:
        action: Operators by their values.
        facts: Maximum number of facts that it writes.
        ticks: Ticks that it takes.
    """

    action: NDArray[np.int32]
    facts: NDArray[np.int32]
    ticks: NDArray[np.int32]


@dataclass(frozen=True)
class Steps:
    """Results of a step of many episodes.

    Attributes:
        rewards: Terms of the reward.
        invalid: Which actions were not allowed, bool ``[rows]``.
        undone: Which actions were nights that undid themselves, bool ``[rows]``.
    """

    rewards: Rewards
    invalid: NDArray[np.bool_]
    undone: NDArray[np.bool_]


class Episodes:
    """Episodes of a card, each with its own stream and clock.

    Args:
        setting: Numbers of the card.
        response: Stands in for the model.
        streams: Stream of each episode.
        dice: Key of each episode's random numbers.

    Attributes:
        streams: Stream of each episode.
        state: State of each episode; copy it to come back, and assign the copy of a copy.
    """

    def __init__(self, setting: Setting, response: Response, streams: Streams, dice: Keys) -> None:
        self.setting, self.response = setting, response
        self.streams = streams
        self.state = State.fresh(setting, dice)
        clock.arrive(streams, self.state, np.arange(len(dice)))

    def begin(self, rows: NDArray[np.int64], streams: Streams, dice: Keys) -> None:
        """Replaces some episodes by new ones.

        Args:
            rows: Episodes to replace.
            streams: Their new streams.
            dice: Their new keys.
        """
        fresh = Episodes(self.setting, self.response, streams, dice)
        self.streams.put(rows, streams)
        self.state.put(rows, fresh.state)

    def __len__(self) -> int:
        return len(self.state)

    @property
    def masks(self) -> NDArray[np.bool_]:
        """Which actions are allowed, bool ``[rows, actions]``."""
        return masks.masks(self.setting, self.state, self.streams.edit_budget)

    @property
    def collapsed(self) -> NDArray[np.bool_]:
        """Where perplexity exceeds the card's limit, bool ``[rows]``."""
        return self.state.mind.ratio > self.setting.card.episode.max_perplexity_ratio

    @property
    def truncated(self) -> NDArray[np.bool_]:
        """Where the horizon is reached, bool ``[rows]``."""
        return self.state.clock.tick >= self.setting.card.horizon

    @property
    def recall(self) -> NDArray[np.float64]:
        """True recall over all arrived facts, ``[rows]``; 1 before the first."""
        arrived = np.count_nonzero(self.state.facts.current >= 0, axis=1)
        right = np.count_nonzero(recalled(self.setting, self.streams, self.state), axis=1)
        return np.where(arrived > 0, right / np.maximum(arrived, 1), 1.0)

    @property
    def score(self) -> NDArray[np.float64]:
        """Share of the questions so far answered correctly, ``[rows]``; after a collapse, all later ones are wrong."""
        done = self.state.clock
        asked = done.asked.copy()
        for row in np.flatnonzero(self.collapsed):  # rare, and the last step of its episode
            asked[row] += self.streams.traffic[row, done.tick[row] :].sum()
        return np.where(asked > 0, done.answered / np.where(asked > 0, asked, 1.0), 1.0)

    def step(self, choices: Choices, resting: NDArray[np.bool_], allowed: NDArray[np.bool_] | None = None) -> Steps:
        """Performs an action in every episode and lets its ticks pass.

        Args:
            choices: An action of each episode.
            resting: Episodes that do nothing, and whose clock stands still, bool ``[rows]``.
            allowed: :attr:`masks` of this moment, if they are at hand.
        """
        allowed = self.masks if allowed is None else allowed
        state, setting = self.state, self.setting
        each = np.arange(len(state))
        invalid = ~allowed[each, choices.action] & ~resting
        action = np.where(invalid | resting, Action.WAIT, choices.action)
        undone = np.zeros(len(state), bool)
        if setting.card.notes is not None:
            self._look_up_and_teach(action)
        operators.audit(state, np.flatnonzero(action == Action.NAP))
        for kind, changed in operators.CHANGED.items():
            rows = np.flatnonzero(action == kind)
            if len(rows):
                size = (choices.ticks if kind == Action.SLEEP else choices.facts)[rows]
                at = self._at(rows)
                undone[rows] = operators.perform(at, self.response, kind, size)
                state.put(rows, at.state, changed)
        ticks = np.where(invalid, setting.card.ticks.wait, choices.ticks)
        ticks[resting] = 0
        rewards = clock.elapse(setting, self.streams, state, ticks, setting.is_offline[action], invalid)
        napped, slept = action == Action.NAP, action == Action.SLEEP
        done = state.clock
        done.audited_at[:] = np.where(napped | slept, done.tick, done.audited_at)
        done.slept_at[:] = np.where(slept, done.tick, done.slept_at)
        done.naps += napped
        done.sleeps += slept
        done.steps += ~resting
        return Steps(rewards, invalid, undone)

    def _look_up_and_teach(self, action: NDArray[np.int32]) -> None:
        """Says how questions are answered, and lets audits teach anew what notes tell; on a card with notes."""
        state = self.state
        asks = np.flatnonzero(np.isin(action, LOOK_UPS))
        state.notes.answering[asks] = action[asks] - LOOK_UPS[0]
        audited = np.flatnonzero((action == Action.NAP) | (action == Action.SLEEP))
        rows = operators.to_teach_anew(state, self.streams.edit_budget, audited)
        if len(rows):
            at = self._at(rows)
            operators.teach_anew(at, self.response)
            state.put(rows, at.state, operators.WRITTEN)

    def _at(self, rows: NDArray[np.int64]) -> Situation:
        """Returns copies of some episodes."""
        streams = self.streams
        budget, known, popularity = streams.edit_budget[rows], streams.known[rows], streams.popularity[rows]
        return Situation(self.setting, budget, known, popularity, self.state.rows(rows))


def drawn(setting: Setting, response: Response, seeds: Keys, played: NDArray[np.int64]) -> tuple[Streams, Keys]:
    """Draws an episode for each of some environments.

    Args:
        setting: Numbers of the card.
        response: Stands in for the model, which has read the notes.
        seeds: Keys of the environments' seeds, ``[rows]``.
        played: Episodes that each has begun before, ``[rows]``.

    Returns:
        Their streams, and the keys of their random numbers.
    """
    keys, part = derived(seeds, played), np.zeros(len(seeds), np.int64)
    streams = draw_streams(setting.card, derived(keys, part + _STREAM))
    if setting.card.notes is not None:
        read = response.readings(derived(keys, part + _READINGS), streams.version.shape[1])
        streams.note_right, streams.note_tokens = read
    return streams, derived(keys, part + _RESPONSE)

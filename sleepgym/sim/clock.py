"""The clock of many episodes: facts arrive, questions are asked, and rewards add up, tick by tick."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sleepgym.sim.arrays import Arrays
from sleepgym.sim.noted import serve
from sleepgym.sim.rules import answered, is_recalled
from sleepgym.sim.setting import Setting
from sleepgym.sim.state import NOBODY, Facts, State
from sleepgym.sim.streams import Streams


@dataclass
class Rewards(Arrays):
    """Terms of the reward, summed over the ticks of an action, ``[rows]`` each."""

    served: NDArray[np.float64]
    drift: NDArray[np.float64]
    invalid: NDArray[np.float64]

    @classmethod
    def zeros(cls, rows: int) -> Rewards:
        """Returns those of no tick."""
        return cls(*(np.zeros(rows) for _ in range(3)))

    @property
    def total(self) -> NDArray[np.float64]:
        """The reward, ``[rows]``."""
        return self.served + self.drift + self.invalid


def arrive(streams: Streams, state: State, rows: NDArray[np.int64]) -> None:
    """Lets the facts of the present tick arrive.

    Args:
        streams: Streams of all episodes.
        state: State of all episodes, which is changed.
        rows: Episodes whose facts arrive; none of them is over.
    """
    tick = state.clock.tick[rows]
    place, end = streams.first[rows, tick], streams.first[rows, tick + 1]
    while True:
        # One arrival per round and episode: they have an order, in which a full inbox drops facts.
        there = place < end
        if not there.any():
            return
        rows, place, end, tick = rows[there], place[there], end[there], tick[there]
        fact = streams.fact[rows, place]
        state.facts.current[rows, fact] = streams.version[rows, place]
        state.facts.arrived_at[rows, fact] = tick
        state.clock.lost[rows] += _wait(state.facts, rows, fact)
        place = place + 1


def _wait(facts: Facts, rows: NDArray[np.int64], fact: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Appends a fact to each inbox, instead of an older version or, if the inbox is full, of the oldest fact.

    Returns:
        Whether a fact was dropped, bool ``[rows]``.
    """
    inbox = facts.inbox[rows]
    size = inbox.shape[1]
    is_same = inbox == fact[:, None]
    has_older = is_same.any(1)
    fill = np.count_nonzero(inbox >= 0, axis=1)
    is_full = ~has_older & (fill == size)
    goes = np.where(has_older, is_same.argmax(1), np.where(is_full, 0, size))
    moved = np.concatenate((inbox[:, 1:], np.full((len(rows), 1), NOBODY, np.int32)), 1)
    inbox = np.where(np.arange(size) >= goes[:, None], moved, inbox)
    inbox[np.arange(len(rows)), fill - has_older - is_full] = fact
    facts.inbox[rows] = inbox
    return is_full


def elapse(
    setting: Setting,
    streams: Streams,
    state: State,
    ticks: NDArray[np.int32],
    offline: NDArray[np.bool_],
    invalid: NDArray[np.bool_],
) -> Rewards:
    """Lets the ticks of an action pass, up to the horizon.

    Args:
        setting: Numbers of the card.
        streams: Streams of all episodes.
        state: State of all episodes, which is changed.
        ticks: Ticks that each episode's action takes; 0 for those that rest.
        offline: Whether the weights answer no question meanwhile, bool ``[rows]``.
        invalid: Whether the action was not allowed, bool ``[rows]``.
    """
    card, clock, horizon = setting.card, state.clock, setting.card.horizon
    weights, limit = card.reward, card.episode.max_perplexity_ratio
    rewards = Rewards.zeros(len(state))
    drift = weights.drift * np.maximum(0.0, np.where(state.mind.ratio < limit, state.mind.ratio, limit) - 1)
    passed = 0
    while True:
        passing = np.flatnonzero((ticks > passed) & (clock.tick < horizon))
        if not len(passing):
            return rewards
        traffic = streams.traffic[passing, clock.tick[passing]]
        correctness = _answered(setting, streams, state, passing, offline[passing])
        clock.asked[passing] += traffic
        clock.answered[passing] += traffic * correctness
        lately = clock.lately_served[passing]
        clock.lately_served[passing] = lately + (correctness - lately) / card.episode.served_memory_ticks
        rewards.served[passing] += weights.served * traffic * correctness
        rewards.drift[passing] -= drift[passing]
        if passed == 0:
            rewards.invalid[passing] = np.where(invalid[passing], -weights.invalid, 0.0)
        clock.tick[passing] += 1
        arrive(streams, state, passing[clock.tick[passing] < horizon])
        passed += 1


def _answered(
    setting: Setting, streams: Streams, state: State, rows: NDArray[np.int64], offline: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Returns the worth of the answers to the questions of a tick, ``[rows]``; counts those that are looked up."""
    if setting.card.notes is None:
        correctness = np.zeros(len(rows))
        correctness[~offline] = served(setting, streams, state, rows[~offline])
        return correctness
    # Views where all are asked: most ticks pass in all episodes.
    chosen: NDArray[np.int64] | slice = slice(None) if len(rows) == len(state) else rows
    own, asked = state.rows(chosen), streams.rows(chosen)
    weights = _question_weights(setting, asked.popularity, own.facts, own.clock.tick)
    total = weights.sum(1)
    weights /= np.where(total > 0, total, 1.0)[:, None]
    worth = serve(setting, asked, own, weights, offline, asked.traffic[np.arange(len(rows)), own.clock.tick])
    state.notes.put(chosen, own.notes)
    return worth


def _question_weights(
    setting: Setting, popularity: NDArray[np.float64], facts: Facts, tick: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Returns how often each arrived fact is asked, relative to others, ``[rows, facts]``."""
    return popularity * setting.recency[tick[:, None] - facts.arrived_at] * (facts.current >= 0)


def served(setting: Setting, streams: Streams, state: State, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns the probability that a question of the present tick is answered correctly, ``[rows]``.

    See :func:`sleepgym.episode.reward.served`.

    Args:
        setting: Numbers of the card.
        streams: Streams of all episodes.
        state: State of all episodes.
        rows: Episodes.
    """
    # Views where all are asked: most ticks pass in all episodes.
    chosen: NDArray[np.int64] | slice = slice(None) if len(rows) == len(state) else rows
    facts, mind, clock = state.facts.rows(chosen), state.mind.rows(chosen), state.clock
    weights = _question_weights(setting, streams.popularity[chosen], facts, clock.tick[chosen])
    total = weights.sum(1)
    right = (weights * is_recalled(facts, mind)).sum(1)
    about_new = np.minimum(1.0, right / np.where(total > 0, total, 1.0))
    return answered(setting, facts, about_new, mind.known, streams.known[chosen] > 0)

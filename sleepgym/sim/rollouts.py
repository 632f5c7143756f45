"""Rollouts: simulated episodes that are played to their ends side by side, and branch at any moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sleepgym.env.observation import Observation
from sleepgym.sim.actions import Tables
from sleepgym.sim.dice import keys_of
from sleepgym.sim.episodes import Episodes, Steps, drawn
from sleepgym.sim.observation import observations
from sleepgym.sim.response import Response
from sleepgym.sim.setting import Setting
from sleepgym.sim.snapshot import Snapshot
from sleepgym.sim.state import State
from sleepgym.sim.streams import Streams


class Rollouts:
    """Episodes without autoreset: those that have ended rest until all have.

    Args:
        setting: Numbers of the card.
        response: Stands in for the model.
        moment: Where they go on from; it is not changed.

    Attributes:
        episodes: The episodes.
        over: Which of them have ended, bool ``[rows]``.
        tables: What actions mean.
    """

    def __init__(self, setting: Setting, response: Response, moment: Snapshot) -> None:
        self.setting, self.response, self.tables = setting, response, Tables(setting.card)
        self._keys, self._played = moment.keys.copy(), moment.played.copy()
        self.episodes = Episodes(setting, response, moment.streams.copy(), moment.keys)
        self.episodes.state = moment.state.copy()
        self.over = moment.ended.copy()
        usual = [self.tables.single.usual(action) for action in setting.card.operators]
        self._usual = np.stack(usual)

    @classmethod
    def of(cls, setting: Setting, response: Response, seeds: Sequence[int], streams: Streams | None = None) -> Rollouts:
        """Begins the first episodes of environments with these seeds.

        Args:
            setting: Numbers of the card.
            response: Stands in for the model.
            seeds: Seeds, as :meth:`SimVectorEnv.reset` takes them.
            streams: What they live through instead of their own streams, one row per seed, such as
                :func:`~sleepgym.sim.streams.streams_of` makes of real ones.

        Raises:
            ValueError: There are not as many streams as seeds.
        """
        if streams is not None and len(streams) != len(seeds):
            raise ValueError(f"expected a stream for each of {len(seeds)} seeds, found {len(streams)}")
        keys, played = keys_of(np.array(seeds, np.uint64)), np.zeros(len(seeds), np.int64)
        own, dice = drawn(setting, response, keys, played)
        begun = Episodes(setting, response, own if streams is None else streams, dice)
        over = np.zeros(len(seeds), bool)
        return cls(setting, response, Snapshot(begun.streams, begun.state, keys, played + 1, over))

    def __len__(self) -> int:
        return len(self.over)

    @property
    def state(self) -> State:
        """State of the episodes."""
        return self.episodes.state

    @property
    def masks(self) -> NDArray[np.bool_]:
        """Which operators are allowed, bool ``[rows, actions]``."""
        return self.episodes.masks

    def snapshot(self) -> Snapshot:
        """Returns this moment."""
        streams, state = self.episodes.streams.copy(), self.state.copy()
        return Snapshot(streams, state, self._keys.copy(), self._played.copy(), self.over.copy())

    def branches(self, rows: NDArray[np.int64], seed: int | None = None) -> Rollouts:
        """Returns episodes that go on independently from this moment; see :meth:`Snapshot.rows`.

        Args:
            rows: Episodes by index, each as often as it branches.
            seed: Draws what the model will answer anew; None to leave futures as they are.
        """
        return Rollouts(self.setting, self.response, self.snapshot().rows(rows, seed))

    def observe(self, rows: NDArray[np.int64] | None = None) -> Observation:
        """Returns the observations of some episodes.

        Args:
            rows: Episodes by index; None for all.
        """
        streams, state = self.episodes.streams, self.state
        if rows is not None:
            streams, state = streams.rows(rows), state.rows(rows)
        return observations(self.setting, streams, state)

    def step(self, actions: Any, masks: NDArray[np.bool_] | None = None) -> Steps:
        """Performs an action in every episode that has not ended.

        Args:
            actions: One per episode, as ``step`` of the environment takes them, or operators alone, which the card's
                usual parameters complete; those of episodes that have ended are ignored.
            masks: :attr:`masks` of this moment, if they are at hand.

        Raises:
            ActionError: Actions are not in the action space; nothing has happened.
        """
        done = self.episodes.step(self.tables.decoded(self.completed(actions), len(self)), self.over, masks)
        self.over = self.over | self.episodes.collapsed | self.episodes.truncated
        return done

    def completed(self, actions: Any) -> Any:
        """Returns actions of the action space, where operators alone may be given on a card with parameters."""
        if isinstance(self.tables.space, spaces.Discrete) or np.ndim(actions) != 1:
            return actions
        return self._usual[np.asarray(actions)]

"""Gymnasium wrappers that fit SleepEnv to what learning libraries expect, and that sum up its episodes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, SupportsFloat, TypeVar, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from sleepgym.env.spaces import operator_of
from sleepgym.episode.actions import Action

ObsType = TypeVar("ObsType")
ActType = TypeVar("ActType")

OBSERVATIONS = "observations"
"""Where RLlib's action masking looks for the observation itself."""

ACTION_MASK = "action_mask"
"""Where RLlib's action masking looks for the mask; SleepEnv's infos call it so too."""


class FlattenLedger(
    gym.ObservationWrapper[NDArray[np.float32], ActType, dict[str, NDArray[np.float32]]], RecordConstructorArgs
):
    """Lays an observation out as one float32 vector, for policies that read no dictionaries.

    The layout is Gymnasium's own, so ``gymnasium.spaces.unflatten(env.env.observation_space, vector)`` gives the
    dictionary back: first the rows of ``ledger`` one after the other, then ``stats``. On every card

    - ``vector[:-len(STATS_FEATURES)].reshape(-1, len(LEDGER_FEATURES))`` is the ledger, and
    - ``vector[-len(STATS_FEATURES):]`` are the statistics.

    Each entry keeps its bounds. Unlike ``gymnasium.wrappers.FlattenObservation`` it holds no lambda, so it can be
    pickled where its environment can.

    Args:
        env: A SleepEnv, or any environment with a dictionary of boxes.
    """

    def __init__(self, env: gym.Env[dict[str, NDArray[np.float32]], ActType]) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self.observation_space = spaces.flatten_space(env.observation_space)  # type: ignore[assignment]

    def observation(self, observation: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """The vector."""
        return np.asarray(spaces.flatten(self.env.observation_space, observation), np.float32)


class PadLedger(
    gym.ObservationWrapper[dict[str, NDArray[np.float32]], ActType, dict[str, NDArray[np.float32]]],
    RecordConstructorArgs,
):
    """Adds empty rows to the ledger, for policies that were trained on a card with a larger one.

    A policy that reads the ledger as a set of facts does not see the difference.

    Args:
        env: A SleepEnv.
        rows: Rows of the ledger that is shown.

    Raises:
        ValueError: There are more already.
    """

    def __init__(self, env: gym.Env[dict[str, NDArray[np.float32]], ActType], rows: int) -> None:
        RecordConstructorArgs.__init__(self, rows=rows)
        super().__init__(env)
        shown = cast(spaces.Dict, env.observation_space)
        ledger = cast("spaces.Box[np.float32]", shown["ledger"])
        self._missing = rows - len(ledger.low)
        if self._missing < 0:
            raise ValueError(f"expected a ledger of at most {rows} rows, found {len(ledger.low)}")
        low, high = (np.tile(bound[0], (rows, 1)) for bound in (ledger.low, ledger.high))
        padded = spaces.Box(low, high, dtype=np.float32)
        self.observation_space = spaces.Dict({**shown.spaces, "ledger": padded})  # type: ignore[assignment]

    def observation(self, observation: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """The observation with more rows."""
        return {**observation, "ledger": np.pad(observation["ledger"], ((0, self._missing), (0, 0)))}


class RLlibActionMask(gym.Wrapper[dict[str, Any], ActType, ObsType, ActType], RecordConstructorArgs):
    """Puts the action mask beside the observation, where RLlib's action-masking modules look for it.

    The observation becomes ``{"observations": the wrapped one, "action_mask": float32 of 0 and 1}``. The mask is a
    float since those modules add its logarithm to the logits. With several parts to an action, their masks stand one
    after the other, as their logits do. Their default encoders read vectors: wrap
    :class:`FlattenLedger` first, ``RLlibActionMask(FlattenLedger(env))``.

    Args:
        env: Discrete or MultiDiscrete actions, and the mask in ``info["action_mask"]`` at every reset and step.
    """

    def __init__(self, env: gym.Env[ObsType, ActType]) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)  # type: ignore[arg-type]  # Gymnasium asks for an env of the outer observations
        if not isinstance(env.action_space, (spaces.Discrete, spaces.MultiDiscrete)):
            raise TypeError(f"expected Discrete or MultiDiscrete actions to mask, found {env.action_space}")
        mask = spaces.Box(0.0, 1.0, (spaces.flatdim(env.action_space),), np.float32)
        self.observation_space = spaces.Dict({OBSERVATIONS: env.observation_space, ACTION_MASK: mask})

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Resets the environment and masks its first observation."""
        observation, info = self.env.reset(seed=seed, options=options)
        return _masked(observation, info), info

    def step(self, action: ActType) -> tuple[dict[str, Any], SupportsFloat, bool, bool, dict[str, Any]]:
        """Steps the environment and masks its observation."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return _masked(observation, info), reward, terminated, truncated, info


@dataclass
class _Counts:
    """What infos of single steps do not add up.

    Attributes:
        chosen: Steps by action.
        invalid: Invalid steps.
        rolled_back: Nights that undid themselves.
        recall: Sum of the recall over ticks.
        tick: Ticks that have passed.
    """

    chosen: list[int] = field(default_factory=lambda: [0] * len(Action))
    invalid: int = 0
    rolled_back: int = 0
    recall: float = 0.0
    tick: int = 0


class RecordSleepStatistics(gym.Wrapper[ObsType, ActType, ObsType, ActType], RecordConstructorArgs):
    """Sums an episode up in the info of its last step, as Gymnasium's ``RecordEpisodeStatistics`` does for returns.

    ``info["sleep"]`` has then

    - ``score``, ``recall`` (at the end), ``edits_used``, ``sleeps``, ``naps`` and ``ppl_ratio`` as the last info has
      them;
    - ``recall_mean``: true recall after each step, averaged over ticks (a step counts for the ticks it took);
    - ``rolled_back``: nights that undid themselves;
    - ``invalid``: steps that were not allowed, or failed;
    - ``length``: steps, and ``ticks``: ticks; they differ, since an action may take several;
    - ``actions``: share of the steps that chose each action, by its name in lower case.

    Args:
        env: A SleepEnv, wrapped or not.
        buffer_length: Episodes that :attr:`queues` remembers.
        stats_key: Where the info has it.

    Attributes:
        queues: The last episodes' values by name, oldest first; those of ``actions`` are called ``actions/wait`` and
            so on.
        episode_count: Episodes that ended.
    """

    def __init__(self, env: gym.Env[ObsType, ActType], buffer_length: int = 100, stats_key: str = "sleep") -> None:
        RecordConstructorArgs.__init__(self, buffer_length=buffer_length, stats_key=stats_key)
        super().__init__(env)
        self.queues: dict[str, deque[float]] = {}
        self.episode_count = 0
        self._buffer_length, self._stats_key = buffer_length, stats_key
        self._counts = _Counts()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsType, dict[str, Any]]:
        """Resets the environment and the counts; an episode that was not finished is not remembered."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._counts = _Counts()
        return observation, info

    def step(self, action: ActType) -> tuple[ObsType, SupportsFloat, bool, bool, dict[str, Any]]:
        """Steps the environment and counts."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        counts = self._counts
        counts.chosen[operator_of(action)] += 1
        counts.invalid += bool(info["invalid_action"])
        counts.rolled_back += bool(info.get("rolled_back", False))
        counts.recall += info["recall"] * (info["tick"] - counts.tick)
        counts.tick = info["tick"]
        if terminated or truncated:
            summary = info[self._stats_key] = self._summary(info)
            self._remember(summary)
        return observation, reward, terminated, truncated, info

    def _summary(self, info: dict[str, Any]) -> dict[str, Any]:
        counts, steps = self._counts, sum(self._counts.chosen)
        return {
            "score": info["score"],
            "recall": info["recall"],
            "recall_mean": counts.recall / counts.tick,
            "edits_used": info["edits_used"],
            "sleeps": info["sleeps"],
            "naps": info["naps"],
            "rolled_back": counts.rolled_back,
            "invalid": counts.invalid,
            "ppl_ratio": info["ppl_ratio"],
            "length": steps,
            "ticks": counts.tick,
            "actions": {action.name.lower(): counts.chosen[action] / steps for action in Action},
        }

    def _remember(self, summary: dict[str, Any]) -> None:
        self.episode_count += 1
        values = {name: value for name, value in summary.items() if name != "actions"}
        values |= {f"actions/{name}": share for name, share in summary["actions"].items()}
        for name, value in values.items():
            self.queues.setdefault(name, deque(maxlen=self._buffer_length)).append(float(value))


def _masked(observation: Any, info: dict[str, Any]) -> dict[str, Any]:
    # One array, or a tuple of one per part of an action.
    return {OBSERVATIONS: observation, ACTION_MASK: np.hstack(info[ACTION_MASK]).astype(np.float32)}

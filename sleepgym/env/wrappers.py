"""Gymnasium wrappers that fit SleepEnv to what learning libraries expect, and that sum up its episodes."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, SupportsFloat, TypeVar, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import DTypeLike, NDArray

from sleepgym.env.spaces import operator_of
from sleepgym.episode.actions import OPERATORS, Action

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
    dictionary back: first the rows of ``ledger`` one after the other, then ``stats``. On any card,
    :func:`sleepgym.env.observation.structured` does as well.

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
        TypeError: Observations are no dictionary with a ledger.
    """

    def __init__(self, env: gym.Env[dict[str, NDArray[np.float32]], ActType], rows: int) -> None:
        RecordConstructorArgs.__init__(self, rows=rows)
        super().__init__(env)
        shown: spaces.Space[Any] = env.observation_space
        if not isinstance(shown, spaces.Dict) or "ledger" not in shown.spaces:
            raise TypeError(
                f"expected a Dict with 'ledger' to add rows to, found {type(shown).__name__}; "
                "put PadLedger around the environment before anything that flattens it, and leave flat=True out"
            )
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


class ActionMask(gym.Wrapper[dict[str, Any], ActType, ObsType, ActType], RecordConstructorArgs):
    """Puts the action mask into the observation, under the names and with the dtype that a library looks for.

    The observation becomes ``{observation_key: the wrapped one, mask_key: the mask}``, or the wrapped dictionary with
    the mask added to it. With several parts to an action, their masks stand one after the other, as logits do.

    Args:
        env: Discrete or MultiDiscrete actions, and the mask in ``info["action_mask"]`` at every reset and step.
        mask_key: What the mask is called.
        observation_key: What the wrapped observation is called; None adds the mask to a dictionary.
        dtype: Of the mask: bool, an integer or a floating type, or its name. 1 and True are allowed.

    Raises:
        TypeError: Actions have other spaces, there is no dictionary to add to, or the dtype is no number's.
        ValueError: The observation would have two parts of one name.
    """

    def __init__(
        self,
        env: gym.Env[ObsType, ActType],
        mask_key: str = ACTION_MASK,
        observation_key: str | None = "observation",
        dtype: DTypeLike = np.bool_,
    ) -> None:
        self._dtype = np.dtype(dtype)
        # By its name: a spec is written as JSON.
        RecordConstructorArgs.__init__(self, mask_key=mask_key, observation_key=observation_key, dtype=self._dtype.name)
        super().__init__(env)  # type: ignore[arg-type]  # Gymnasium asks for an env of the outer observations
        self._mask_key, self._observation_key = mask_key, observation_key
        self.observation_space = spaces.Dict(self._spaces(env))

    def _spaces(self, env: gym.Env[ObsType, ActType]) -> dict[str, spaces.Space[Any]]:
        mask_key, observation_key, shown = self._mask_key, self._observation_key, env.observation_space
        if not isinstance(env.action_space, (spaces.Discrete, spaces.MultiDiscrete)):
            raise TypeError(f"expected Discrete or MultiDiscrete actions to mask, found {env.action_space}")
        if self._dtype.kind not in "biuf":
            raise TypeError(f"expected a mask of bool, integers or floats, found dtype={self._dtype}")
        if observation_key is None and not isinstance(shown, spaces.Dict):
            raise TypeError(f"expected a Dict to add the mask to, found {type(shown).__name__}; give observation_key")
        parts = dict(shown.spaces) if isinstance(shown, spaces.Dict) and observation_key is None else {}
        if observation_key is not None:
            parts[observation_key] = shown
        if mask_key in parts:
            raise ValueError(f"expected a mask_key beside {', '.join(parts)}, found {mask_key!r}; choose another")
        size = int(spaces.flatdim(env.action_space))
        mask: spaces.Space[Any] = spaces.Box(0, 1, (size,), self._dtype.type)
        return parts | {mask_key: mask}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Resets the environment and masks its first observation."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._masked(observation, info), info

    def step(self, action: ActType) -> tuple[dict[str, Any], SupportsFloat, bool, bool, dict[str, Any]]:
        """Steps the environment and masks its observation."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._masked(observation, info), reward, terminated, truncated, info

    def _masked(self, observation: Any, info: dict[str, Any]) -> dict[str, Any]:
        if ACTION_MASK not in info:
            raise KeyError(f"expected {ACTION_MASK!r} in the info of every reset and step, found {sorted(info)}")
        parts = observation if self._observation_key is None else {self._observation_key: observation}
        # One array, or a tuple of one per part of an action.
        return {**parts, self._mask_key: np.hstack(info[ACTION_MASK]).astype(self._dtype)}


class RLlibActionMask(ActionMask[ActType, ObsType]):
    """Puts the action mask where RLlib's action-masking modules look for it: :class:`ActionMask` with their names.

    The observation becomes ``{"observations": the wrapped one, "action_mask": float32 of 0 and 1}``. The mask is a
    float since those modules add its logarithm to the logits. Their default encoders read vectors: make the
    environment with ``flat=True``, or wrap :class:`FlattenLedger` first.

    Args:
        env: Discrete or MultiDiscrete actions, and the mask in ``info["action_mask"]`` at every reset and step.
    """

    def __init__(self, env: gym.Env[ObsType, ActType]) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env, ACTION_MASK, OBSERVATIONS, np.float32)


@dataclass
class Counts:
    """What infos of single steps do not add up.

    Attributes:
        chosen: Steps by action, a number for each that there is.
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

    def summary(self, info: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Returns the summary of :class:`RecordSleepStatistics`.

        Args:
            info: The last info.
            seconds: Measured time of the environment.
        """
        steps = sum(self.chosen)
        return {
            "score": info["score"],
            "recall": info["recall"],
            "recall_mean": self.recall / self.tick if self.tick else info["recall"],
            "edits_used": info["edits_used"],
            "sleeps": info["sleeps"],
            "naps": info["naps"],
            "rolled_back": self.rolled_back,
            "invalid": self.invalid,
            "ppl_ratio": info["ppl_ratio"],
            "length": steps,
            "ticks": self.tick,
            "seconds": seconds,
            "actions": {
                action.name.lower(): count / max(steps, 1)
                for action, count in zip(OPERATORS, self.chosen, strict=False)  # cards without notes have fewer
            },
        }


class RecordSleepStatistics(gym.Wrapper[ObsType, ActType, ObsType, ActType], RecordConstructorArgs):
    """Sums an episode up in the info of its last step, as Gymnasium's ``RecordEpisodeStatistics`` does for returns.

    ``info["sleep"]`` has then, and at no other step,

    - ``score``, ``recall`` (at the end), ``edits_used``, ``sleeps``, ``naps`` and ``ppl_ratio`` as the last info has
      them;
    - ``recall_mean``: true recall after each step, averaged over ticks (a step counts for the ticks it took);
    - ``rolled_back``: nights that undid themselves;
    - ``invalid``: steps that were not allowed, or failed;
    - ``length``: steps, and ``ticks``: ticks; they differ, since an action may take several;
    - ``seconds``: measured time of the environment, as ``info["episode"]["t"]`` is; no two runs share it;
    - ``actions``: share of the steps that chose each action, by its name in lower case.

    Recorders that want the same keys in every info, such as Minari's, are served by ``every_step``: the summary of the
    episode so far then stands in every info under flat keys (``sleep/recall_mean``, ``sleep/actions/wait``), without
    the measured time, and ``info["sleep"]`` is left out.

    Args:
        env: A SleepEnv, wrapped or not.
        buffer_length: Episodes that :attr:`queues` remembers.
        stats_key: Where the info has it.
        every_step: Whether every info has the summary so far, under flat keys.

    Attributes:
        queues: The last episodes' values by name, oldest first; those of ``actions`` are called ``actions/wait`` and
            so on.
        episode_count: Episodes that ended.
    """

    def __init__(
        self,
        env: gym.Env[ObsType, ActType],
        buffer_length: int = 100,
        stats_key: str = "sleep",
        every_step: bool = False,
    ) -> None:
        RecordConstructorArgs.__init__(self, buffer_length=buffer_length, stats_key=stats_key, every_step=every_step)
        super().__init__(env)
        self.queues: dict[str, deque[float]] = {}
        self.episode_count = 0
        self._buffer_length, self._stats_key, self._every_step = buffer_length, stats_key, every_step
        self._counts = self._none()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsType, dict[str, Any]]:
        """Resets the environment and the counts; an episode that was not finished is not remembered."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._counts = self._none()
        if self._every_step:
            info |= self._flat(info)
        return observation, info

    def step(self, action: ActType) -> tuple[ObsType, SupportsFloat, bool, bool, dict[str, Any]]:
        """Steps the environment and counts."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        counts = self._counts
        counts.chosen[operator_of(action)] += 1
        counts.invalid += bool(info["invalid_action"])
        counts.rolled_back += bool(info["rolled_back"])
        counts.recall += info["recall"] * (info["tick"] - counts.tick)
        counts.tick = info["tick"]
        if terminated or truncated:
            summary = self._summary(info)
            self._remember(summary)
            if not self._every_step:
                info[self._stats_key] = summary
        if self._every_step:
            info |= self._flat(info)
        return observation, reward, terminated, truncated, info

    def _none(self) -> Counts:
        """Counts of an episode that begins; a card with notes has more operators than others."""
        operators = spaces.flatdim(self.action_space) if isinstance(self.action_space, spaces.Discrete) else len(Action)
        return Counts([0] * operators)

    def _summary(self, info: dict[str, Any]) -> dict[str, Any]:
        return self._counts.summary(info, float(getattr(self.unwrapped, "seconds", 0.0)))

    def _flat(self, info: dict[str, Any]) -> dict[str, np.float64]:
        """The summary so far, with reproducible values of one type."""
        summary = {name: value for name, value in self._summary(info).items() if name != "seconds"}
        return {f"{self._stats_key}/{name}": np.float64(value) for name, value in _leaves(summary).items()}

    def _remember(self, summary: dict[str, Any]) -> None:
        self.episode_count += 1
        for name, value in _leaves(summary).items():
            self.queues.setdefault(name, deque(maxlen=self._buffer_length)).append(float(value))


def _leaves(summary: dict[str, Any]) -> dict[str, Any]:
    """The summary without nesting."""
    values = {name: value for name, value in summary.items() if name != "actions"}
    return values | {f"actions/{name}": share for name, share in summary["actions"].items()}

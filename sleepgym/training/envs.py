"""The environments that policies train in: seeded, counted, with scaled rewards and an end at the horizon."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

from sleepgym.env.wrappers import FlattenLedger, RecordSleepStatistics
from sleepgym.training.sb3 import SB3VecEnv

Baselines = Mapping[int, NDArray[np.float64]]
"""By seed of an episode, the rewards that a scheduler had earned by each tick, ``[horizon + 1]``."""


class EndAtHorizon(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Reports the horizon as a termination, for learners that estimate what comes after a truncation.

    The horizon of a SleepEnv is part of the task: the observation shows how close it is (``progress``), and nothing
    that comes after it is ever counted. Learners treat a truncation as an interruption and add the value of the last
    observation to the last reward; Stable-Baselines3 does so where ``info["TimeLimit.truncated"]`` is set. Here this
    would be an estimate of something that is 0, at observations that no update ever corrects. So each episode of
    training ends for good.

    Args:
        env: A SleepEnv, wrapped or not.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps the environment."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated or truncated, False, info


class ScaleReward(gym.RewardWrapper[Any, Any], RecordConstructorArgs):
    """Multiplies rewards by a constant, so that returns are a few units and the value loss does not drown the rest.

    A constant, not a running norm as ``VecNormalize`` keeps: it is the same in every run, and there is nothing to be
    saved beside the policy.

    Args:
        env: Any environment.
        scale: The factor.
    """

    def __init__(self, env: gym.Env[Any, Any], scale: float) -> None:
        RecordConstructorArgs.__init__(self, scale=scale)
        super().__init__(env)
        self.scale = scale

    def reward(self, reward: Any) -> float:
        """The scaled reward."""
        return float(reward) * self.scale


class RelativeReward(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Takes from every reward what another scheduler earned on the same stream in the same ticks.

    Streams differ far more than schedulers do: most of a return says how kind the stream was. What the other earned
    does not depend on what is done here, so that without discounting (``gamma`` of 1) the policy gradient stays what
    it was, and its variance falls: a control variate, as a learned value function is, but exact from the beginning.
    (Every action is charged for the ticks it takes; over an episode these are always the same ticks.)

    Episodes are those that the other played, in an order drawn from the first seed of ``reset``. At the end of each,
    ``info["relative_return"]`` is what the rewards added up to.

    Args:
        env: A SleepEnv, wrapped or not.
        baselines: By seed of the episode.

    Raises:
        ValueError: There are none.
    """

    def __init__(self, env: gym.Env[Any, Any], baselines: Baselines) -> None:
        if not baselines:
            raise ValueError("expected baselines to compare with, found none; let a scheduler play some episodes")
        RecordConstructorArgs.__init__(self, baselines=baselines)
        super().__init__(env)
        self.baselines = baselines
        self._order: list[int] = []
        self._rng = np.random.default_rng()
        self._baseline, self._tick, self._return = next(iter(baselines.values())), 0, 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts the next episode; all are played before one comes again."""
        if seed is not None:
            self._rng, self._order = np.random.default_rng(seed), []
        if not self._order:
            self._order = self._rng.permutation(list(self.baselines)).tolist()
        stream = self._order.pop()
        self._baseline, self._tick, self._return = self.baselines[stream], 0, 0.0
        return self.env.reset(seed=stream, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Steps the environment."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        # A collapse ends the episode early, and all that the other earned after it is lost here.
        now = len(self._baseline) - 1 if terminated else info["tick"]
        reward = float(reward) - float(self._baseline[now] - self._baseline[self._tick])
        self._tick, self._return = now, self._return + reward
        if terminated or truncated:
            info["relative_return"] = self._return
        return observation, reward, terminated, truncated, info


@dataclass(frozen=True)
class EnvSpec:
    """Which environment, and how a policy sees it.

    Attributes:
        env_id: Registered id.
        card: Path of a card to play instead of the id's own; empty for that one.
        flat: Whether observations are one vector.
    """

    env_id: str
    card: str = ""
    flat: bool = False

    def make(self, split: str, render_mode: str | None = None) -> gym.Env[Any, Any]:
        """One environment, as :func:`~sleepgym.evaluation.evaluate` takes it.

        Args:
            split: Whose facts are taught.
            render_mode: As ``gymnasium.make`` takes it.
        """
        env = gym.make(self.env_id, split=split, render_mode=render_mode, **self._card)
        return FlattenLedger(env) if self.flat else env

    def training(
        self,
        n_envs: int,
        seed: int,
        reward_scale: float,
        steps: int = 0,
        baselines: Baselines | None = None,
    ) -> VecEnv:
        """What an algorithm learns in, on the split ``train``.

        Rewards in ``info["episode"]`` and all of ``info["sleep"]`` are as the environment gives them, unscaled.

        Args:
            n_envs: Episodes at once.
            seed: Of the run. Environments get seeds that no other run's environments have: with numbers that follow
                each other, runs 1 and 2 would share all streams but those of one environment.
            reward_scale: See :class:`ScaleReward`.
            steps: Steps that the run has behind it when it is resumed, so that it is not played the same streams again.
            baselines: What another scheduler earned: its episodes are played then, and rewards are relative to it (see
                :class:`RelativeReward`).
        """
        first = int(np.random.SeedSequence([seed, steps]).generate_state(1)[0])
        wrap: Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]] = partial(
            _wrap, flat=self.flat, scale=reward_scale, baselines=baselines
        )
        # A render mode of None: make_vec_env would otherwise ask for pictures.
        return make_vec_env(
            self.env_id,
            n_envs,
            seed=first,
            env_kwargs={"split": "train", "render_mode": None, **self._card},
            vec_env_cls=SB3VecEnv,
            wrapper_class=wrap,
        )

    @property
    def _card(self) -> dict[str, Any]:
        return {"card": self.card} if self.card else {}


def _wrap(env: gym.Env[Any, Any], flat: bool, scale: float, baselines: Baselines | None) -> gym.Env[Any, Any]:
    env = RecordSleepStatistics(env)
    if baselines is not None:
        env = RelativeReward(env, baselines)
    env = ScaleReward(EndAtHorizon(env), scale)
    return FlattenLedger(env) if flat else env

"""The environments that policies train in: seeded, counted, with scaled rewards and an end at the horizon."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

import sleepgym  # noqa: F401  (registers the environments)
from sleepgym.env.sb3 import SB3VecEnv
from sleepgym.env.wrappers import FlattenLedger, RecordSleepStatistics


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

    def training(self, n_envs: int, seed: int, reward_scale: float, steps: int = 0) -> VecEnv:
        """What an algorithm learns in, on the split ``train``.

        Rewards in ``info["episode"]`` and all of ``info["sleep"]`` are as the environment gives them, unscaled.

        Args:
            n_envs: Episodes at once.
            seed: Of the run. Environments get seeds that no other run's environments have: with numbers that follow
                each other, runs 1 and 2 would share all streams but those of one environment.
            reward_scale: See :class:`ScaleReward`.
            steps: Steps that the run has behind it when it is resumed, so that it is not played the same streams again.
        """
        first = int(np.random.SeedSequence([seed, steps]).generate_state(1)[0])
        wrap: Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]] = partial(_wrap, flat=self.flat, scale=reward_scale)
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


def _wrap(env: gym.Env[Any, Any], flat: bool, scale: float) -> gym.Env[Any, Any]:
    env = ScaleReward(EndAtHorizon(RecordSleepStatistics(env)), scale)
    return FlattenLedger(env) if flat else env

"""Training environments: wrappers for horizon and rewards, and vector environments with independent seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

from sleepgym.env.registration import registered
from sleepgym.env.wrappers import FlattenLedger, RecordSleepStatistics
from sleepgym.sim.vector import SimVectorEnv
from sleepgym.training.sb3 import SB3VecEnv
from sleepgym.training.sim_vector import SimSB3VecEnv, is_sim

Baselines = Mapping[int, NDArray[np.float64]]
"""Cumulative reward of a scheduler by tick, ``[horizon + 1]``, by seed of the episode."""


class EndAtHorizon(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Reports the horizon as a termination, so that learners do not bootstrap at it.

    The horizon of a SleepEnv is part of the task: observations show the distance to it (``progress``), and rewards end
    with it. Learners bootstrap at truncations by adding the value of the last observation to the last reward;
    Stable-Baselines3 does so where ``info["TimeLimit.truncated"]`` is set. The true value is 0 here, and no update
    would correct the estimate at these observations.

    Args:
        env: SleepEnv, wrapped or not.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps the environment."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated or truncated, False, info


class ScaleReward(gym.RewardWrapper[Any, Any], RecordConstructorArgs):
    """Multiplies rewards by a constant, so that returns are of order 1 and the value loss does not dominate.

    A constant, and not a running norm as in ``VecNormalize``, is the same in every run and need not be saved with the
    policy.

    Args:
        env: Any environment.
        scale: Factor of rewards.
    """

    def __init__(self, env: gym.Env[Any, Any], scale: float) -> None:
        RecordConstructorArgs.__init__(self, scale=scale)
        super().__init__(env)
        self.scale = scale

    def reward(self, reward: Any) -> float:
        """Returns the scaled reward."""
        return float(reward) * self.scale


class RelativeReward(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Subtracts from every reward that of a baseline scheduler on the same stream in the same ticks.

    Returns vary more between streams than between schedulers. The baseline's rewards do not depend on the policy, so
    that without discounting (``gamma`` of 1) the policy gradient is unchanged in expectation and has lower variance: a
    control variate, as a learned value function is, but exact from the beginning. (Every action is charged for the
    ticks that it takes; over an episode these are always the same ticks.)

    Episodes are those of the baselines, in an order drawn from the seed of ``reset``. At the end of each,
    ``info["relative_return"]`` is the sum of its rewards.

    Args:
        env: SleepEnv, wrapped or not.
        baselines: Cumulative rewards of the baseline by seed of the episode.

    Raises:
        ValueError: There are no baselines.
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
        """Starts the next episode; none is repeated before all have been started."""
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
        # After a collapse, all later rewards of the baseline are subtracted at once.
        now = len(self._baseline) - 1 if terminated else info["tick"]
        reward = float(reward) - float(self._baseline[now] - self._baseline[self._tick])
        self._tick, self._return = now, self._return + reward
        if terminated or truncated:
            info["relative_return"] = self._return
        return observation, reward, terminated, truncated, info


@dataclass(frozen=True)
class EnvSpec:
    """Environment and observation format of a policy.

    Attributes:
        env_id: Registered id.
        card: Path of a card that replaces the id's own; empty for the id's own.
        flat: Whether observations are flat vectors.
        fit: Path of a fit of the sim; empty for the one that is shipped for the card.
    """

    env_id: str
    card: str = ""
    flat: bool = False
    fit: str = ""

    @property
    def played_card(self) -> str:
        """Card of the environment: its path, or its id."""
        return self.card or str(gym.spec(registered(self.env_id)).kwargs["card"])

    def make(self, split: str, render_mode: str | None = None) -> gym.Env[Any, Any]:
        """Makes one environment, as for :func:`~sleepgym.evaluation.evaluate`.

        Args:
            split: Split that facts are drawn from.
            render_mode: See ``gymnasium.make``.
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
        """Makes the vector environment for training, on the split ``train``.

        ``info["episode"]`` and ``info["sleep"]`` have the unscaled rewards and statistics of the environment.

        Args:
            n_envs: Number of parallel episodes.
            seed: Seed of the run. Environments get seeds that are hashed from it: with consecutive seeds, runs 1 and 2
                would share the streams of all environments but one.
            reward_scale: See :class:`ScaleReward`.
            steps: Steps that a resumed run has done already, so that it does not repeat its streams.
            baselines: Baselines of :class:`RelativeReward`; None for absolute rewards on new streams.

        Raises:
            ValueError: There are baselines, and the environment is simulated.
        """
        first = int(np.random.SeedSequence([seed, steps]).generate_state(1)[0])
        if is_sim(self.env_id):
            return self._simulated(n_envs, first, reward_scale, baselines)
        wrap: Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]] = partial(
            _wrap, flat=self.flat, scale=reward_scale, baselines=baselines
        )
        # A render mode of None, since make_vec_env requests pictures by default.
        return make_vec_env(
            self.env_id,
            n_envs,
            seed=first,
            env_kwargs={"split": "train", "render_mode": None, **self._card},
            vec_env_cls=SB3VecEnv,
            wrapper_class=wrap,
        )

    def _simulated(self, n_envs: int, seed: int, reward_scale: float, baselines: Baselines | None) -> VecEnv:
        if baselines is not None:
            raise ValueError(f"expected absolute rewards in {self.env_id}, found baselines; train without them")
        arguments = {"autoreset_mode": AutoresetMode.SAME_STEP, "flat": self.flat, **self._card}
        if self.fit:
            arguments["fit"] = self.fit
        made = cast(SimVectorEnv, gym.make_vec(self.env_id, num_envs=n_envs, **arguments))
        envs = SimSB3VecEnv(made, reward_scale)
        envs.seed(seed)
        return envs

    @property
    def _card(self) -> dict[str, Any]:
        return {"card": self.card} if self.card else {}


def _wrap(env: gym.Env[Any, Any], flat: bool, scale: float, baselines: Baselines | None) -> gym.Env[Any, Any]:
    env = RecordSleepStatistics(env)
    if baselines is not None:
        env = RelativeReward(env, baselines)
    env = ScaleReward(EndAtHorizon(env), scale)
    return FlattenLedger(env) if flat else env

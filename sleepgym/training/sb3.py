"""SB3VecEnv: vector environment for Stable-Baselines3, whose episodes share a model and its forward passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from sleepgym.env.sleep_env import SleepEnv
from sleepgym.env.vector import act_together
from sleepgym.episode.together import require_one_base


class SB3VecEnv(DummyVecEnv):
    """Stable-Baselines3's ``DummyVecEnv`` for SleepEnvs, with shared forward passes.

    It differs from a ``DummyVecEnv`` in speed and rounding only: seeds, infos (``terminal_observation``,
    ``TimeLimit.truncated``), ``env_method("action_masks")`` and wrappers around single environments are the same. It
    can be made with Stable-Baselines3's own function::

        from stable_baselines3.common.env_util import make_vec_env

        envs = make_vec_env(
            "sleepgym:SleepLLM-v0", n_envs=16, seed=0, vec_env_cls=SB3VecEnv, wrapper_class=FlattenLedger
        )
        MaskablePPO("MlpPolicy", envs).learn(100_000)

    Without :class:`~sleepgym.env.wrappers.FlattenLedger`, observations are dictionaries, for ``MultiInputPolicy``.

    Args:
        env_fns: Factories of SleepEnvs, wrapped or not. Wrappers that change actions are correct but slow: the shared
            work is undone and repeated for each environment.

    Raises:
        TypeError: An environment is no SleepEnv.
        ValueError: The environments are not on one model with one editing recipe.
    """

    def __init__(self, env_fns: list[Callable[[], gym.Env[Any, Any]]]) -> None:
        super().__init__(env_fns)
        self._sleep_envs = _on_one_base(self.envs)

    def step_wait(self) -> VecEnvStepReturn:
        """Performs the actions that were passed to ``step_async``.

        Returns:
            Observations, rewards ``[n_envs]``, dones ``[n_envs]`` and one info per environment.

        Raises:
            ValueError: An action is not in the action space; no environment has changed.
        """
        act_together(self._sleep_envs, self.actions)
        return super().step_wait()


def _on_one_base(envs: Sequence[gym.Env[Any, Any]]) -> list[SleepEnv]:
    """Returns the unwrapped environments, after checking that they can share passes."""
    inner = [env.unwrapped for env in envs]
    sleep_envs = [env for env in inner if isinstance(env, SleepEnv)]
    if len(sleep_envs) < len(inner):
        raise TypeError(f"expected SleepEnvs, found {inner}; use DummyVecEnv for other environments")
    require_one_base([(env.base, env.card) for env in sleep_envs])
    return sleep_envs

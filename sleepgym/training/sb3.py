"""SB3VecEnv: what Stable-Baselines3 trains on, with episodes that share a model and its passes."""

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
    """Stable-Baselines3's ``DummyVecEnv`` for SleepEnvs, in which all act in the same passes.

    It differs from a ``DummyVecEnv`` in time only, and by rounding: seeds, infos (``terminal_observation``,
    ``TimeLimit.truncated``), ``env_method("action_masks")`` and wrappers around single environments are the same.
    So Stable-Baselines3's own function makes it::

        from stable_baselines3.common.env_util import make_vec_env

        envs = make_vec_env(
            "sleepgym:SleepLLM-v0", n_envs=16, seed=0, vec_env_cls=SB3VecEnv, wrapper_class=FlattenLedger
        )
        MaskablePPO("MlpPolicy", envs).learn(100_000)

    Without :class:`~sleepgym.env.wrappers.FlattenLedger`, observations are dictionaries, for ``MultiInputPolicy``.

    Args:
        env_fns: Functions that each make a SleepEnv, wrapped or not. A wrapper that changes actions costs time: what
            was done together is taken back and done again alone.

    Raises:
        TypeError: There is something else than a SleepEnv inside the wrappers.
        ValueError: The environments are not on one model with one editing recipe.
    """

    def __init__(self, env_fns: list[Callable[[], gym.Env[Any, Any]]]) -> None:
        super().__init__(env_fns)
        self._sleepers = _on_one_base(self.envs)

    def step_wait(self) -> VecEnvStepReturn:
        """Performs the actions that ``step_async`` was given.

        Returns:
            Observations, rewards ``[n_envs]``, dones ``[n_envs]`` and one info per environment.

        Raises:
            ValueError: An action is not in the action space; no environment has moved.
        """
        act_together(self._sleepers, self.actions)
        return super().step_wait()


def _on_one_base(envs: Sequence[gym.Env[Any, Any]]) -> list[SleepEnv]:
    """What is inside the wrappers."""
    inner = [env.unwrapped for env in envs]
    sleepers = [env for env in inner if isinstance(env, SleepEnv)]
    if len(sleepers) < len(inner):
        raise TypeError(f"expected SleepEnvs, found {inner}; use DummyVecEnv for other environments")
    require_one_base([(env.base, env.card) for env in sleepers])
    return sleepers

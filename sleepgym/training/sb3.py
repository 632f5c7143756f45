"""SB3VecEnv: vector environment for Stable-Baselines3, whose episodes share a model and its forward passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from sleepgym.env.fastweights.env import FastWeightsEnv
from sleepgym.env.fastweights.vector import digest_together
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.env.vector import act_together
from sleepgym.episode.together import require_one_base


class SB3VecEnv(DummyVecEnv):
    """Stable-Baselines3's ``DummyVecEnv`` for SleepEnvs, or for FastWeightsEnvs, with shared forward passes.

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
        env_fns: Factories of environments of one kind, wrapped or not. Wrappers that change actions are correct but
            slow: the shared work is undone and repeated for each environment.

    Raises:
        TypeError: Environments are neither all SleepEnvs nor all FastWeightsEnvs.
        ValueError: The environments are not on one model with one editing recipe.
    """

    def __init__(self, env_fns: list[Callable[[], gym.Env[Any, Any]]]) -> None:
        super().__init__(env_fns)
        self._ahead = _shared_work([env.unwrapped for env in self.envs])

    def step_wait(self) -> VecEnvStepReturn:
        """Performs the actions that were passed to ``step_async``.

        Returns:
            Observations, rewards ``[n_envs]``, dones ``[n_envs]`` and one info per environment.

        Raises:
            ValueError: An action is not in the action space; no environment has changed.
        """
        self._ahead(self.actions)
        return super().step_wait()


def _shared_work(envs: Sequence[gym.Env[Any, Any]]) -> Callable[[NDArray[Any]], None]:
    """Returns what does the work of all actions together, after checking that the environments can share it."""
    sleep_envs = [env for env in envs if isinstance(env, SleepEnv)]
    fast = [env for env in envs if isinstance(env, FastWeightsEnv)]
    if len(fast) == len(envs):
        if len({id(env.trained) for env in fast}) > 1:
            raise ValueError("expected FastWeightsEnvs on one model, found several; give all the same card")
        return partial(digest_together, fast)
    if len(sleep_envs) < len(envs):
        raise TypeError(
            f"expected only SleepEnvs or only FastWeightsEnvs, found {envs}; use DummyVecEnv for other environments"
        )
    require_one_base([(env.base, env.card) for env in sleep_envs])
    return partial(act_together, sleep_envs)

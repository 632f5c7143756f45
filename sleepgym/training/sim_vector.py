"""SimSB3VecEnv: simulated episodes for Stable-Baselines3; EpisodeSums, which vectors of any library need."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sleepgym.env.registration import registered
from sleepgym.env.wrappers import Counts
from sleepgym.episode.actions import Action
from sleepgym.sim.vector import SimVectorEnv


def is_sim(env_id: str) -> bool:
    """Returns whether an id is that of a simulated environment; it may name its module, ``sleepgym:SleepSim-v0``."""
    return gym.spec(registered(env_id)).vector_entry_point == "sleepgym.sim.vector:SimVectorEnv"


class EpisodeSums:
    """Sums over the running episodes of a vector: what wrappers around single environments would add to a last info.

    Args:
        count: Number of episodes.
        operators: Number of operators of their card.
    """

    def __init__(self, count: int, operators: int = len(Action)) -> None:
        self._started = time.perf_counter()
        self._chosen = np.zeros((count, operators), np.int64)
        self._invalid, self._rolled_back, self._tick = np.zeros((3, count), np.int64)
        self._recall, self._return, self._seconds = np.zeros((3, count))

    def add(
        self,
        operators: NDArray[np.integer],
        rewards: NDArray[np.float64],
        infos: Mapping[str, NDArray[Any]],
        seconds: float,
    ) -> None:
        """Adds a step of every episode.

        Args:
            operators: What was chosen, ``[count]``.
            rewards: Unscaled rewards.
            infos: Infos of :class:`SimVectorEnv` after the step, of the same episodes.
            seconds: Measured time of the step, which is divided evenly.
        """
        self._chosen[np.arange(len(operators)), operators] += 1
        self._invalid += infos["invalid_action"]
        self._rolled_back += infos["rolled_back"]
        self._recall += infos["recall"] * (infos["tick"] - self._tick)
        self._tick = infos["tick"].copy()
        self._return += rewards
        self._seconds += seconds / len(operators)

    def last_info(self, infos: Mapping[str, NDArray[Any]], row: int) -> dict[str, Any]:
        """Returns the last info of an episode, with ``episode`` as of ``Monitor`` and ``sleep``.

        Args:
            infos: Infos of the vector after the episode's last step.
            row: The episode.
        """
        info = {name: values[row] for name, values in infos.items() if not name.startswith("_")}
        counts = Counts(
            chosen=self._chosen[row].tolist(),
            invalid=int(self._invalid[row]),
            rolled_back=int(self._rolled_back[row]),
            recall=float(self._recall[row]),
            tick=int(self._tick[row]),
        )
        total, length, since = float(self._return[row]), sum(counts.chosen), time.perf_counter() - self._started
        return info | {
            "episode": {"r": round(total, 6), "l": length, "t": round(since, 6)},
            "sleep": counts.summary(info, float(self._seconds[row])),
        }

    def forget(self, rows: NDArray[Any]) -> None:
        """Begins anew for some episodes, given by index or by truth value."""
        own = (self._chosen, self._invalid, self._rolled_back, self._tick, self._recall, self._return, self._seconds)
        for counted in own:
            counted[rows] = 0


class SimSB3VecEnv(VecEnv):
    """Simulated episodes for Stable-Baselines3, hundreds at a time.

    The last step of an episode is reported as a termination, see :class:`~sleepgym.training.envs.EndAtHorizon`, and its
    info has what ``Monitor`` and :class:`~sleepgym.env.wrappers.RecordSleepStatistics` would add; other infos are
    empty. Rewards in these summaries are unscaled.

    Args:
        envs: The episodes, with autoreset in the same step.
        reward_scale: Factor of rewards.

    Raises:
        ValueError: The episodes have another kind of autoreset, or actions with parameters.
    """

    def __init__(self, envs: SimVectorEnv, reward_scale: float = 1.0) -> None:
        if envs.autoreset_mode != AutoresetMode.SAME_STEP:
            raise ValueError(f"expected autoreset_mode=AutoresetMode.SAME_STEP, found {envs.autoreset_mode}")
        if not isinstance(envs.single_action_space, gym.spaces.Discrete):
            raise ValueError(f"expected a card without parameters, found actions in {envs.single_action_space}")
        self.envs, self.reward_scale = envs, reward_scale
        self._actions = np.zeros(envs.num_envs, np.int64)
        self._sums = EpisodeSums(envs.num_envs, len(envs.card.operators))
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> VecEnvObs:
        """Starts an episode in every environment, from the seeds of :meth:`seed` if they are new."""
        seeds = None if self._seeds[0] is None else self._seeds
        observations, _ = self.envs.reset(seed=seeds)
        self._reset_seeds()
        self._reset_options()
        self._sums.forget(np.arange(self.num_envs))
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        """Takes the actions of the next step, ``[num_envs]``."""
        self._actions = np.asarray(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Performs them; see :class:`stable_baselines3.common.vec_env.VecEnv`."""
        started = time.perf_counter()
        observations, rewards, terminated, truncated, infos = self.envs.step(self._actions)
        dones = terminated | truncated
        # Infos of episodes that have just ended are apart, since others have begun in their places.
        after = infos
        if dones.any():
            names = ("recall", "tick", "invalid_action", "rolled_back")
            after = {name: np.where(dones, infos["final_info"][name], infos[name]) for name in names}
        self._sums.add(self._actions, rewards, after, time.perf_counter() - started)
        of_each: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        ended = np.flatnonzero(dones)
        for row in ended.tolist():
            last = {"terminal_observation": infos["final_obs"][row], "TimeLimit.truncated": False}
            of_each[row] = self._sums.last_info(infos["final_info"], row) | last
        self._sums.forget(ended)
        return observations, (rewards * self.reward_scale).astype(np.float32), dones, of_each

    def close(self) -> None:
        """Closes the episodes."""
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Returns an attribute, which all environments share, once for each."""
        value = None if attr_name == "render_mode" else getattr(self.envs, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refuses: environments share all attributes.

        Raises:
            AttributeError: Always.
        """
        raise AttributeError(f"expected no change of {attr_name}, since simulated environments share it")

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Calls ``action_masks``, which sb3-contrib asks for.

        Raises:
            AttributeError: Another method is asked for.
        """
        if method_name != "action_masks":
            raise AttributeError(f"expected the method action_masks, found {method_name}; see SimVectorEnv")
        masks = self.envs.action_masks()
        return [masks[row] for row in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: Any = None) -> list[bool]:
        """Returns False for each: there are no wrappers."""
        return [False for _ in self._get_indices(indices)]

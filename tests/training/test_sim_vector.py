"""Stable-Baselines3 sees simulated episodes as it would see them one by one."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

import sleepgym  # noqa: F401  (registers the environments)
from sleepgym.env.wrappers import RecordSleepStatistics
from sleepgym.training.envs import EndAtHorizon, EnvSpec, ScaleReward
from sleepgym.training.sim_vector import SimSB3VecEnv, is_sim

SIM, NOTES = "SleepSim-v0", "SleepSim-Notes-v0"
SHORT: dict[str, Any] = {"episode": {"days": 1}}


def simulated(count: int, env_id: str = SIM, **more: Any) -> Any:
    return gym.make_vec(env_id, num_envs=count, **{"autoreset_mode": AutoresetMode.SAME_STEP, **SHORT, **more})


def one_by_one(count: int, env_id: str) -> DummyVecEnv:
    def make() -> gym.Env[Any, Any]:
        return Monitor(ScaleReward(EndAtHorizon(RecordSleepStatistics(gym.make(env_id, **SHORT))), 0.5))

    return DummyVecEnv([make] * count)


@pytest.mark.parametrize("env_id", [SIM, NOTES])
def test_every_step_is_that_of_environments_one_by_one(env_id: str) -> None:
    together, apart = SimSB3VecEnv(simulated(3, env_id), 0.5), one_by_one(3, env_id)
    assert together.observation_space == apart.observation_space and together.action_space == apart.action_space
    together.seed(5)
    apart.seed(5)
    rng, ends = np.random.default_rng(0), 0
    found, expected = together.reset(), apart.reset()
    for _ in range(60):
        np.testing.assert_equal(found, expected)
        masks = get_action_masks(together)
        np.testing.assert_array_equal(masks, get_action_masks(apart))
        actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in masks])
        found, rewards, dones, infos = together.step(actions)
        expected, others, over, told = apart.step(actions)
        np.testing.assert_allclose(rewards, others, rtol=1e-6)
        np.testing.assert_array_equal(dones, over)
        for info, other in zip(np.array(infos)[dones], np.array(told)[dones], strict=True):
            ends += 1
            np.testing.assert_equal(info["terminal_observation"], other["terminal_observation"])
            summary, alone = ({**each["sleep"], "seconds": 0} for each in (info, other))
            assert summary == alone
            # The monitor is outermost there, and sees scaled rewards.
            assert info["episode"]["r"] * 0.5 == pytest.approx(other["episode"]["r"], abs=1e-5)
            assert info["episode"]["l"] == other["episode"]["l"]
            assert info["TimeLimit.truncated"] is False
    assert ends >= 9


@pytest.mark.parametrize("env_id", [SIM, NOTES])
def test_ppo_with_masks_learns_in_it(env_id: str) -> None:
    envs = EnvSpec(env_id).training(4, seed=1, reward_scale=0.2)
    assert isinstance(envs, SimSB3VecEnv)
    model = MaskablePPO("MultiInputPolicy", envs, n_steps=8, batch_size=16, n_epochs=1, seed=1).learn(64)
    assert model.num_timesteps == 64
    assert envs.get_attr("card")[0].stream.ticks_per_day == 16
    assert envs.env_is_wrapped(Monitor) == [False] * 4


def test_seeds_of_runs_give_other_streams() -> None:
    first, again, other = (EnvSpec(SIM).training(2, seed, 1.0).reset() for seed in (1, 1, 2))
    np.testing.assert_equal(first, again)
    assert not np.array_equal(first["stats"], other["stats"])


def test_what_it_cannot_do_is_said() -> None:
    assert is_sim(SIM) and is_sim("SleepSim-Mini-Flat-v0") and not is_sim("SleepLLM-v0")
    with pytest.raises(
        ValueError, match=r"expected autoreset_mode=AutoresetMode\.SAME_STEP, found AutoresetMode\.NEXT"
    ):
        SimSB3VecEnv(simulated(1, autoreset_mode=AutoresetMode.NEXT_STEP))
    envs = SimSB3VecEnv(simulated(1))
    with pytest.raises(AttributeError, match="expected the method action_masks, found snapshot"):
        envs.env_method("snapshot")
    with pytest.raises(AttributeError, match="expected no change of card"):
        envs.set_attr("card", None)
    with pytest.raises(ValueError, match="expected absolute rewards in SleepSim-v0, found baselines"):
        EnvSpec(SIM).training(1, 1, 1.0, baselines={0: np.zeros(97)})

"""Stable-Baselines3 and sb3-contrib."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.evaluation import evaluate_policy as evaluate_masked
from sb3_contrib.common.maskable.utils import get_action_masks
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from sleepgym.env.wrappers import RecordSleepStatistics
from sleepgym.training.sb3 import SB3VecEnv


def test_the_checker_is_silent_on_the_flat_form(make: Callable) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        check_env(make(flat=True).unwrapped)


@pytest.mark.parametrize(
    ("algorithm", "arguments"),
    [(PPO, {"n_steps": 16, "batch_size": 16}), (A2C, {}), (DQN, {"learning_starts": 8, "batch_size": 8})],
)
def test_algorithms_learn_save_and_load(make: Callable, tmp_path: Path, algorithm: Any, arguments: Any) -> None:
    model = algorithm("MlpPolicy", DummyVecEnv([partial(make, flat=True)]), seed=0, **arguments).learn(32)
    model.save(tmp_path / "model")
    again = algorithm.load(tmp_path / "model", env=DummyVecEnv([partial(make, flat=True)]))
    observation = model.get_env().reset()
    expected, _ = model.predict(observation, deterministic=True)
    assert np.array_equal(again.predict(observation, deterministic=True)[0], expected)
    again.learn(16, reset_num_timesteps=False)
    assert np.isfinite(evaluate_policy(again, again.get_env(), n_eval_episodes=1)[0])


def test_dictionaries_are_read_by_the_policy_for_them(make: Callable) -> None:
    PPO("MultiInputPolicy", make(), n_steps=16, batch_size=16, seed=0).learn(32)


def test_normalisation_is_saved_and_loaded(make: Callable, tmp_path: Path) -> None:
    envs = VecNormalize(DummyVecEnv([partial(make, flat=True)] * 2))
    PPO("MlpPolicy", envs, n_steps=8, batch_size=16, seed=0).learn(32)
    envs.save(str(tmp_path / "normalize.pkl"))
    again = VecNormalize.load(str(tmp_path / "normalize.pkl"), DummyVecEnv([partial(make, flat=True)] * 2))
    assert np.array_equal(again.obs_rms.mean, envs.obs_rms.mean)
    observations = again.reset()
    assert np.isfinite(observations).all() and observations.shape == again.reset().shape


def test_processes_of_their_own_play_what_this_one_plays(make: Callable) -> None:
    here = DummyVecEnv([partial(make, flat=True)] * 2)
    there = SubprocVecEnv([partial(make, flat=True)] * 2, start_method="spawn")
    try:
        for envs in (here, there):
            envs.seed(3)
        assert np.allclose(here.reset(), there.reset(), atol=1e-5)
        for actions in ([0, 1], [1, 3], [3, 4], [1, 0]):
            for one, other in zip(here.step(np.array(actions)), there.step(np.array(actions)), strict=True):
                if isinstance(one, np.ndarray):
                    assert np.allclose(one, other, atol=1e-5)
        assert np.array_equal(here.env_method("action_masks"), there.env_method("action_masks"))
    finally:
        there.close()


@pytest.mark.parametrize("vector", [DummyVecEnv, SB3VecEnv])
def test_a_masked_policy_never_plays_what_is_forbidden(
    make: Callable, forbidden: Callable, tmp_path: Path, vector: Any
) -> None:
    def recorded() -> Any:
        return RecordSleepStatistics(make(flat=True))

    envs = make_vec_env(recorded, n_envs=2, seed=0, vec_env_cls=vector)
    model = MaskablePPO("MlpPolicy", envs, n_steps=16, batch_size=16, seed=0).learn(128)
    assert [forbidden(env) for env in envs.envs] == [0, 0]
    model.save(tmp_path / "model")
    again = MaskablePPO.load(tmp_path / "model")
    masks = get_action_masks(envs)
    actions, _ = again.predict(envs.reset(), action_masks=masks)
    assert masks[np.arange(2), actions].all()
    assert np.isfinite(evaluate_masked(again, envs, n_eval_episodes=1)[0])

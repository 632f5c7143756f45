"""Environments for training: they end at the horizon, scale what is learned from, and report what was earned."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from sb3_contrib.common.maskable.utils import get_action_masks
from stable_baselines3.common.vec_env import VecEnv

from sleepgym.env.actions import Action
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.env.wrappers import FlattenLedger
from sleepgym.learning import EndAtHorizon, EnvSpec, ScaleReward


def last_infos(envs: VecEnv) -> list[dict]:
    """Infos of the first episode of each environment, which waits; and its rewards, under "rewards"."""
    envs.reset()
    rewards = np.zeros(envs.num_envs)
    while True:
        _, reward, dones, infos = envs.step(np.full(envs.num_envs, Action.WAIT))
        rewards += reward
        if dones.any():
            assert dones.all()
            return [{**info, "rewards": total} for info, total in zip(infos, rewards, strict=True)]


def test_the_horizon_is_no_interruption_to_be_bootstrapped_over(quick_card: Path) -> None:
    for info in last_infos(EnvSpec("SleepLLM-Mini-v0", str(quick_card)).training(2, 5, 1.0)):
        assert info["tick"] == 12
        assert info["TimeLimit.truncated"] is False


def test_without_the_wrapper_it_would_be_one(quick_card: Path) -> None:
    env = gym.make("sleepgym:SleepLLM-Mini-v0", card=str(quick_card))
    for inner, ends in ((env, (False, True)), (EndAtHorizon(env), (True, False))):
        inner.reset(seed=0)
        over = False
        while not over:
            *_, terminated, truncated, _ = inner.step(Action.WAIT)
            over = terminated or truncated
        assert (terminated, truncated) == ends


@pytest.mark.parametrize("flat", [False, True])
def test_scaled_rewards_are_learned_from_and_true_ones_reported(quick_card: Path, flat: bool) -> None:
    infos = last_infos(EnvSpec("SleepLLM-Mini-v0", str(quick_card), flat).training(2, 5, 0.05))
    for info in infos:
        assert info["episode"]["r"] > 0
        np.testing.assert_allclose(info["rewards"], 0.05 * info["episode"]["r"], rtol=1e-4)
        assert info["sleep"]["actions"]["wait"] == 1


def test_training_is_on_the_training_split_with_masks(quick_card: Path) -> None:
    envs = EnvSpec("SleepLLM-Mini-v0", str(quick_card)).training(2, 5, 1.0)
    envs.reset()
    assert envs.get_attr("split") == ["train", "train"]
    assert get_action_masks(envs).shape == (2, 6)


def test_runs_have_streams_of_their_own_which_seeds_repeat(quick_card: Path) -> None:
    spec = EnvSpec("SleepLLM-Mini-v0", str(quick_card))

    def streams(seed: int, steps: int = 0) -> list[int]:
        envs = spec.training(3, seed, 1.0, steps)
        envs.reset()
        return envs.get_attr("np_random_seed")

    assert streams(1) == streams(1)
    runs = [*streams(1), *streams(2), *streams(3), *streams(1, steps=96)]
    assert len(set(runs)) == len(runs)


def test_flat_observations_are_vectors(quick_card: Path) -> None:
    spec = EnvSpec("SleepLLM-Mini-v0", str(quick_card), flat=True)
    assert isinstance(spec.make("validation"), FlattenLedger)
    assert spec.training(1, 0, 1.0).observation_space == spec.make("train").observation_space


def test_a_spec_says_card_and_split(quick_card: Path) -> None:
    env = EnvSpec("SleepLLM-Mini-v0", str(quick_card)).make("test", "ansi").unwrapped
    assert isinstance(env, SleepEnv)
    assert (env.split, env.render_mode, env.card.horizon) == ("test", "ansi", 12)


def test_scaling_leaves_observations_and_ends_alone() -> None:
    env = ScaleReward(gym.make("CartPole-v1"), 0.5)
    env.reset(seed=0)
    assert env.step(0)[1] == 0.5

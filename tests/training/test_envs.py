"""Environments for training: they end at the horizon, scale what is learned from, and report what was earned."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from sb3_contrib.common.maskable.utils import get_action_masks
from stable_baselines3.common.vec_env import VecEnv

from sleepgym.env.sleep_env import SleepEnv
from sleepgym.env.wrappers import FlattenLedger
from sleepgym.episode.actions import Action
from sleepgym.schedulers import FixedPeriod, NeverSleep
from sleepgym.training import EndAtHorizon, EnvSpec, RelativeReward, ScaleReward, demonstrate


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


SEEDS = (41, 42, 43)
RULE = FixedPeriod(0.5)


def play(env: gym.Env, action_of, seed: int | None = None) -> list[dict]:
    """An episode's infos, with its rewards under "reward"."""
    observation, info = env.reset(seed=seed)
    infos, over = [], False
    while not over:
        action = int(action_of.predict(observation, action_masks=info["action_mask"])[0])
        observation, reward, terminated, truncated, info = env.step(action)
        infos.append({**info, "reward": reward})
        over = terminated or truncated
    return infos


@pytest.fixture(scope="module")
def baselines(quick_card: Path) -> dict[int, np.ndarray]:
    """What RULE earned on SEEDS."""
    return demonstrate(EnvSpec("SleepLLM-Mini-v0", str(quick_card)), RULE, SEEDS).baselines


def test_relative_to_itself_a_scheduler_earns_nothing(quick_card: Path, baselines: dict[int, np.ndarray]) -> None:
    env = RelativeReward(EnvSpec("SleepLLM-Mini-v0", str(quick_card)).make("train"), baselines)
    infos = play(env, RULE, seed=0)
    assert max(abs(info["reward"]) for info in infos) < 1e-5
    assert infos[-1]["relative_return"] == pytest.approx(0, abs=1e-5)


def test_relative_returns_are_differences_of_returns_whatever_is_done(
    quick_card: Path, baselines: dict[int, np.ndarray]
) -> None:
    spec, other = EnvSpec("SleepLLM-Mini-v0", str(quick_card)), NeverSleep()
    relative, plain = RelativeReward(spec.make("train"), baselines), spec.make("train")
    earned = play(relative, other, seed=0)
    stream = relative.unwrapped.np_random_seed
    returned = sum(info["reward"] for info in play(plain, other, seed=stream))
    assert earned[-1]["relative_return"] == pytest.approx(returned - baselines[stream][-1], abs=1e-4)


def test_a_collapse_loses_all_that_the_other_earned_later() -> None:
    class Collapse(gym.Env):
        observation_space = action_space = gym.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            return 0, {}

        def step(self, action):
            return 0, 1.0, True, False, {"tick": 2}

    env = RelativeReward(Collapse(), {7: np.array([0.0, 1.0, 3.0, 6.0])})
    env.reset(seed=0)
    assert env.step(0)[1] == 1.0 - 6.0


def test_all_courses_are_played_before_one_comes_again(quick_card: Path) -> None:
    spec = EnvSpec("SleepLLM-Mini-v0", str(quick_card))
    baselines = {seed: np.zeros(13) for seed in SEEDS}

    def order(seed: int) -> list[int | None]:
        env = RelativeReward(spec.make("train"), baselines)
        env.reset(seed=seed)
        found = [env.unwrapped.np_random_seed]
        for _ in range(5):
            env.reset()
            found.append(env.unwrapped.np_random_seed)
        return found

    assert sorted(order(1)[:3]) == sorted(order(1)[3:]) == list(SEEDS)
    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(5)}) > 1


def test_without_courses_there_is_nothing_to_compare_with(quick_card: Path) -> None:
    with pytest.raises(ValueError, match="found none; let a scheduler play"):
        RelativeReward(EnvSpec("SleepLLM-Mini-v0", str(quick_card)).make("train"), {})


def test_training_relative_to_a_scheduler_plays_its_episodes(quick_card: Path) -> None:
    spec = EnvSpec("SleepLLM-Mini-v0", str(quick_card))
    baselines = demonstrate(spec, NeverSleep(), SEEDS).baselines
    envs = spec.training(2, 5, 0.5, baselines=baselines)
    for info in last_infos(envs):
        np.testing.assert_allclose(info["rewards"], 0.5 * info["relative_return"], rtol=1e-4)
        assert info["episode"]["r"] > info["relative_return"], "what was earned is reported as it is"
    assert set(envs.get_attr("np_random_seed")) <= set(SEEDS)


def test_the_card_of_an_environment_is_its_own_or_the_one_in_its_place() -> None:
    assert EnvSpec("sleepgym:SleepLLM-Flat-v0").played_card == "SleepLLM-v0"
    assert EnvSpec("SleepSim-Mini-v0", "mine.toml").played_card == "mine.toml"

"""Gymnasium's checker, its wrappers and vectors, and the generic parts of its own tests."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import wrappers
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.wrappers import vector

pytestmark = pytest.mark.filterwarnings("error::UserWarning:gymnasium")


@pytest.mark.parametrize("flat", [False, True])
def test_the_checker_is_silent(make: Callable, flat: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        check_env(make(flat=flat).unwrapped, skip_render_check=True)


def test_equal_seeds_and_actions_give_equal_rollouts(make: Callable) -> None:
    """Gymnasium's own test_env_determinism_rollout."""
    one, other = make(disable_env_checker=True), make(disable_env_checker=True)
    assert data_equivalence(one.reset(seed=0), other.reset(seed=0), exact=True)
    one.action_space.seed(0)
    for _ in range(50):
        action = one.action_space.sample()
        result = one.step(action)
        assert data_equivalence(result, other.step(action), exact=True)
        if result[2] or result[3]:
            assert data_equivalence(one.reset(), other.reset(), exact=True)


@pytest.mark.parametrize("at", ["before any reset", "after a reset", "within an episode"])
def test_a_pickled_environment_goes_on_as_the_original(make: Callable, at: str) -> None:
    """Gymnasium's own test_pickle_env, which compares the first step after a reset; and from later moments."""
    env = make()
    if at != "before any reset":
        env.reset(seed=3)
    for action in (0, 1, 3) if at == "within an episode" else ():
        env.step(action)
    again = pickle.loads(pickle.dumps(env))
    if at == "before any reset":
        assert data_equivalence(env.reset(seed=3), again.reset(seed=3), exact=True)
    for action in (1, 3, 4, 0):
        assert data_equivalence(env.step(action), again.step(action), exact=True)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda env: wrappers.TimeLimit(env, 5),
        lambda env: wrappers.TimeAwareObservation(wrappers.TimeLimit(env, 5)),
        lambda env: wrappers.RecordEpisodeStatistics(wrappers.TimeLimit(env, 5)),
        lambda env: wrappers.Autoreset(wrappers.TimeLimit(env, 5)),
        wrappers.OrderEnforcing,
        wrappers.PassiveEnvChecker,
        wrappers.NormalizeReward,
        wrappers.NormalizeObservation,
        lambda env: wrappers.FrameStackObservation(env, 2),
        lambda env: wrappers.DelayObservation(env, 1),
        lambda env: wrappers.ClipReward(env, -1, 1),
        lambda env: wrappers.RescaleObservation(env, np.float32(0), np.float32(1)),
        lambda env: wrappers.DtypeObservation(env, np.float64),
        wrappers.FlattenObservation,
        lambda env: wrappers.StickyAction(env, 0.5),
    ],
)
@pytest.mark.parametrize("flat", [False, True])
def test_wrappers_of_gymnasium_fit(make: Callable, wrap: Callable, flat: bool) -> None:
    try:
        wrapped = wrap(make(flat=flat))
    except (AssertionError, TypeError, ValueError) as refused:
        if flat:
            raise
        pytest.skip(f"made for boxes alone: {refused}")
    observation, _ = wrapped.reset(seed=0)
    for _ in range(5):
        observation, _, _, _, info = wrapped.step(0)
        assert observation in wrapped.observation_space
    assert info["tick"] in (0, 5, 6) and not info["invalid_action"]


def test_a_time_limit_truncates_and_statistics_add_up(make: Callable) -> None:
    env = wrappers.RecordEpisodeStatistics(wrappers.TimeLimit(make(), 4))
    env.reset(seed=0)
    rewards = []
    for step in range(4):
        _, reward, terminated, truncated, info = env.step(0)
        rewards.append(reward)
        assert (terminated, truncated) == (False, step == 3)
    assert info["episode"]["l"] == 4 and np.isclose(info["episode"]["r"], sum(rewards))


def test_vectors_of_gymnasium_in_this_process_and_in_others_are_equal(make: Callable, make_vec: Callable) -> None:
    vectors = [
        make_vec(num_envs=2, vectorization_mode="sync"),
        make_vec(num_envs=2, vectorization_mode="async", vector_kwargs={"context": "spawn"}),
    ]
    try:
        (seen, info), (expected, expected_info) = (envs.reset(seed=5) for envs in vectors)
        for actions in ([0, 0], [1, 1], [3, 0], [4, 1], [1, 5], [0, 0], [0, 0], [0, 0], [0, 0], [0, 0], [0, 0]):
            assert data_equivalence((seen, info), (expected, expected_info))
            (seen, *_, info), (expected, *_, expected_info) = (envs.step(np.array(actions)) for envs in vectors)
    finally:
        for envs in vectors:
            envs.close()


@pytest.mark.parametrize("mode", ["sync", "vector_entry_point"])
def test_vector_wrappers_fit(make_vec: Callable, mode: str) -> None:
    envs: Any = make_vec(num_envs=2, vectorization_mode=mode, flat=True)
    envs = vector.NormalizeObservation(vector.NormalizeReward(vector.RecordEpisodeStatistics(envs)))
    observations, infos = envs.reset(seed=0)
    ended = 0
    for _ in range(30):
        masks = infos["action_mask"]
        actions = np.array([envs.single_action_space.sample(mask=mask) for mask in masks])
        observations, rewards, terminated, truncated, infos = envs.step(actions)
        assert np.isfinite(observations).all() and np.isfinite(rewards).all()
        for i in np.flatnonzero(terminated | truncated):
            ended += 1
            assert infos["episode"]["l"][i] >= 1 and infos["_episode"][i]
    assert ended >= 2
    assert isinstance(envs.unwrapped, gym.vector.VectorEnv)

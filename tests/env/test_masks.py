"""The mask in the observation, under the names and with the dtype that a library looks for."""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

import sleepgym  # noqa: F401  (registers the environments)
from sleepgym.env.wrappers import ActionMask, FlattenLedger, RecordSleepStatistics, RLlibActionMask
from sleepgym.episode.actions import Action
from sleepgym.evaluation import run_episode

MINI = "SleepLLM-Mini-v0"
QUICK: dict[str, Any] = {
    "edit": {"steps": 3},
    "sleep": {"steps": 1, "validation_rows": 2, "rehearsal_rows": 1},
    "episode": {"days": 1, "perplexity_rows": 2},
}
PARAMETERS = {"facts": [1, 2, 4], "sleep": [2, 3, 6]}


def make(**arguments: Any) -> gym.Env[Any, Any]:
    return gym.make(MINI, **QUICK, **arguments)


DTYPES = [np.bool_, bool, np.int8, "int64", np.float32, float]


@pytest.mark.parametrize(("dtype", "flat"), itertools.product(DTYPES, [False, True]), ids=str)
def test_names_and_dtype_are_the_users_choice(dtype: Any, flat: bool) -> None:
    env = ActionMask(make(flat=flat), mask_key="mask", observation_key="obs", dtype=dtype)
    observation, info = env.reset(seed=0)
    for action in (Action.WAIT, Action.INJECT, Action.NAP):
        assert set(observation) == {"obs", "mask"}
        assert observation in env.observation_space
        assert observation["obs"] in env.unwrapped.observation_space
        assert observation["mask"].dtype == np.dtype(dtype)
        assert np.array_equal(observation["mask"], info["action_mask"])
        observation, *_, info = env.step(action)
    assert env.observation_space.sample() in env.observation_space


@pytest.mark.parametrize("dtype", [np.bool_, np.float32])
def test_masks_of_several_parts_stand_one_after_the_other(dtype: Any) -> None:
    env = ActionMask(make(parameters=PARAMETERS), dtype=dtype)
    observation, info = env.reset(seed=0)
    assert observation in env.observation_space
    assert observation["action_mask"].shape == (6 + 3 + 3,)
    assert np.array_equal(observation["action_mask"], np.concatenate(info["action_mask"]))


def test_the_mask_is_added_to_a_dictionary() -> None:
    env = ActionMask(make(), observation_key=None)
    observation, _ = env.reset(seed=0)
    assert set(observation) == {"ledger", "stats", "action_mask"}
    assert observation in env.observation_space
    assert set(env.step(0)[0]) == set(observation)


def test_a_scheduler_reads_a_dictionary_with_the_mask_in_it() -> None:
    def owl(observation: Any, mask: Any) -> Action:
        assert np.array_equal(observation["action_mask"], mask)
        return Action.WAIT

    run_episode(ActionMask(make(), observation_key=None), owl, 1)


def test_rllibs_wrapper_is_one_of_these() -> None:
    one, other = RLlibActionMask(make(flat=True)), ActionMask(make(flat=True), "action_mask", "observations", "float32")
    assert one.observation_space == other.observation_space
    (seen, _), (expected, _) = one.reset(seed=0), other.reset(seed=0)
    assert seen.keys() == expected.keys() == {"observations", "action_mask"}
    assert all(np.array_equal(seen[key], expected[key]) for key in seen)


@pytest.mark.parametrize("arguments", [{}, {"mask_key": "mask", "observation_key": None, "dtype": np.int8}], ids=str)
def test_it_is_part_of_the_spec_and_survives_json(arguments: dict[str, Any]) -> None:
    env = ActionMask(make(), **arguments)
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert isinstance(again, ActionMask) and again.spec == env.spec
    assert again.observation_space == env.observation_space


def test_mistakes_are_named() -> None:
    with pytest.raises(TypeError, match="expected Discrete or MultiDiscrete actions to mask, found Box"):
        ActionMask(gym.make("Pendulum-v1"))
    with pytest.raises(TypeError, match="expected a Dict to add the mask to, found Box; give observation_key"):
        ActionMask(make(flat=True), observation_key=None)
    with pytest.raises(TypeError, match="expected a mask of bool, integers or floats, found dtype=<U1"):
        ActionMask(make(), dtype="U1")
    for arguments in ({"mask_key": "stats", "observation_key": None}, {"mask_key": "x", "observation_key": "x"}):
        with pytest.raises(ValueError, match="choose another"):
            ActionMask(make(), **arguments)  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="expected 'action_mask' in the info of every reset and step"):
        ActionMask(gym.make("CartPole-v1")).reset()


# ---------------------------------------------------------------------- vectors


@pytest.mark.parametrize("wrappers", [[ActionMask], (RecordSleepStatistics, FlattenLedger, ActionMask)], ids=len)
def test_make_vec_takes_wrappers_by_another_name_than_its_own(wrappers: Any) -> None:
    envs = gym.make_vec(MINI, num_envs=2, env_wrappers=wrappers, **QUICK)
    observations, infos = envs.reset(seed=0)
    assert np.array_equal(observations["action_mask"], infos["action_mask"])
    assert all(type(env) is ActionMask for env in envs.envs)
    observations, *_, infos = envs.step(np.zeros(2, np.int64))
    assert np.array_equal(observations["action_mask"], infos["action_mask"])


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_gymnasiums_own_vectors_take_wrappers_by_its_own_name(mode: str) -> None:
    # A fork after threads have run can hang.
    kwargs = {"context": "forkserver"} if mode == "async" else {}
    envs = gym.make_vec(
        MINI, num_envs=1, vectorization_mode=mode, wrappers=[ActionMask], vector_kwargs=kwargs, flat=True, **QUICK
    )
    observations, infos = envs.reset(seed=0)
    assert np.array_equal(observations["action_mask"], infos["action_mask"])
    envs.close()


def test_gymnasium_refuses_its_own_name_where_an_environment_brings_a_vector() -> None:
    """What the page says: should this change, its advice can go."""
    with pytest.raises(gym.error.Error, match="with the wrappers argument"):
        gym.make_vec(MINI, num_envs=2, wrappers=[ActionMask], **QUICK)


@pytest.mark.parametrize("wrappers", [ActionMask, ["ActionMask"], 3, [ActionMask, None]])
def test_wrappers_that_are_none_are_refused(wrappers: Any) -> None:
    with pytest.raises(TypeError, match=r"expected a sequence of wrappers such as \[FlattenLedger\]"):
        gym.make_vec(MINI, num_envs=1, env_wrappers=wrappers, **QUICK)


def test_wrappers_are_given_once() -> None:
    from sleepgym.env.vector import SleepVectorEnv

    with pytest.raises(ValueError, match="expected wrappers or env_wrappers, found both"):
        SleepVectorEnv(1, card=MINI, wrappers=[ActionMask], env_wrappers=[ActionMask], **QUICK)


def test_the_autoreset_mode_is_declared_and_each_vectors_own() -> None:
    from gymnasium.vector import AutoresetMode

    from sleepgym.env.sleep_env import SleepEnv
    from sleepgym.env.vector import SleepVectorEnv

    assert SleepVectorEnv.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    envs = gym.make_vec(MINI, num_envs=1, autoreset_mode=AutoresetMode.SAME_STEP, **QUICK)
    assert envs.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert SleepVectorEnv.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    assert "autoreset_mode" not in SleepEnv.metadata
    assert isinstance(envs.single_observation_space, spaces.Dict)

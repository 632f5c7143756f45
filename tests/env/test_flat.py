"""Vectors as observations, by id and by keyword: the same episodes, whatever plays, forks or records them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env, data_equivalence
from stable_baselines3 import PPO

import sleepgym  # noqa: F401  (registers the environments)
from sleepgym.env.observation import LEDGER_FEATURES, ObservationError, column, stat, structured
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.env.vector import SleepVectorEnv
from sleepgym.env.wrappers import ActionMask, FlattenLedger, PadLedger
from sleepgym.episode.actions import Action
from sleepgym.evaluation import evaluate, run_episode
from sleepgym.record.recording import Recorder
from sleepgym.record.replay import replay
from sleepgym.schedulers import LookAhead, NightOwl, allowed

MINI, FLAT = "SleepLLM-Mini-v0", "SleepLLM-Mini-Flat-v0"
QUICK: dict[str, Any] = {
    "edit": {"steps": 3},
    "sleep": {"steps": 1, "validation_rows": 2, "rehearsal_rows": 1},
    "episode": {"days": 1, "perplexity_rows": 2},
}


def test_id_keyword_and_wrapper_lay_out_the_same_vectors() -> None:
    by_id, by_keyword = gym.make(FLAT, **QUICK), gym.make(MINI, flat=True, **QUICK)
    wrapped = FlattenLedger(gym.make(MINI, **QUICK))
    assert by_id.observation_space == by_keyword.observation_space == wrapped.observation_space
    assert isinstance(by_id.observation_space, spaces.Box)
    out = [env.reset(seed=3) for env in (by_id, by_keyword, wrapped)]
    for action in (Action.WAIT, Action.INJECT, Action.NAP, Action.SLEEP, Action.INJECT):
        assert out[0][0] in by_id.observation_space
        assert data_equivalence(out[0], out[2], exact=True) and data_equivalence(out[1], out[2], exact=True)
        out = [env.step(action) for env in (by_id, by_keyword, wrapped)]


def test_gymnasium_finds_no_fault() -> None:
    check_env(gym.make(FLAT, **QUICK).unwrapped, skip_render_check=True)


@pytest.mark.parametrize("flat", [1, "yes", None])
def test_flat_is_a_truth_value(flat: Any) -> None:
    with pytest.raises(TypeError, match="expected flat=True or flat=False"):
        SleepEnv(MINI, flat=flat)


def test_vectors_of_flat_environments_are_made_by_id_and_by_keyword() -> None:
    for envs in (gym.make_vec(FLAT, num_envs=2, **QUICK), gym.make_vec(MINI, num_envs=2, flat=True, **QUICK)):
        assert isinstance(envs, SleepVectorEnv)
        width = envs.single_observation_space.shape
        assert envs.reset(seed=0)[0].shape == (2, *width)
        assert envs.step(np.zeros(2, np.int64))[0].shape == (2, *width)


def test_a_flat_environment_is_restored_and_forked() -> None:
    env = SleepEnv(MINI, flat=True, **QUICK)
    env.reset(seed=0)
    before, _ = env.restore(env.snapshot())
    assert before in env.observation_space
    other = env.fork()
    assert other.observation_space == env.observation_space
    assert data_equivalence(other.step(Action.WAIT), env.step(Action.WAIT), exact=True)
    # A snapshot is of the episode, however it is shown.
    dictionaries = SleepEnv(MINI, **QUICK)
    seen, _ = dictionaries.restore(env.snapshot())
    assert seen in dictionaries.observation_space


def test_a_recording_of_a_flat_environment_is_replayed(tmp_path: Path) -> None:
    env = Recorder(gym.make(FLAT, **QUICK), tmp_path)
    run_episode(env, NightOwl(load_at=0.01), 1)
    assert env.recording.card_id == MINI
    assert replay(env.recording).agrees


@pytest.mark.slow
def test_hand_written_schedulers_play_vectors_as_dictionaries() -> None:
    def planner(env: SleepEnv, seed: int) -> LookAhead:
        return LookAhead(env, NightOwl(load_at=0.01), depth=2, width=2)

    for scheduler in (NightOwl(load_at=0.01), planner, lambda o, m: 1 if m[1] and stat(o, "pending") > 0 else 0):
        dictionaries, vectors = (
            [result.actions for result in evaluate(lambda id_=id_: gym.make(id_, **QUICK), scheduler, [1, 2])]
            for id_ in (MINI, FLAT)
        )
        assert dictionaries == vectors
    wrapped = evaluate(lambda: FlattenLedger(gym.make(MINI, **QUICK)), NightOwl(load_at=0.01), [1, 2])
    assert [r.actions for r in wrapped] == [
        r.actions for r in evaluate(lambda: gym.make(MINI, **QUICK), NightOwl(load_at=0.01), [1, 2])
    ]


def test_features_are_read_from_vectors_by_name() -> None:
    one, other = gym.make(MINI, **QUICK), gym.make(FLAT, **QUICK)
    (seen, _), (vector, _) = one.reset(seed=1), other.reset(seed=1)
    for action in (Action.WAIT, Action.INJECT, Action.NAP):
        assert stat(vector, "budget_left") == stat(seen, "budget_left")
        assert np.array_equal(column(vector, "age"), column(seen, "age"))
        assert np.array_equal(allowed(structured(vector)), allowed(seen))
        seen, vector = one.step(action)[0], other.step(action)[0]


def test_what_is_no_observation_is_refused_in_words() -> None:
    env = ActionMask(gym.make(MINI, **QUICK))
    masked, _ = env.reset(seed=0)
    with pytest.raises(ObservationError, match=r"found a mapping with \['action_mask', 'observation'\]; take off"):
        stat(masked, "load")
    with pytest.raises(ObservationError, match="found a mapping with"):
        run_episode(env, NightOwl(), 1)
    for other in (np.zeros(21 + 4, np.float32), np.zeros(3, np.int64), "load", None):
        with pytest.raises(ObservationError, match="expected an observation of a SleepEnv"):
            stat(other, "load")  # type: ignore[arg-type]
    batch, _ = gym.make_vec(MINI, num_envs=2, **QUICK).reset(seed=0)
    with pytest.raises(ObservationError, match=r"found a batch with stats of shape \[2, 21\]"):
        stat(batch, "load")
    assert column(batch, "age").shape == (2, 14)


def test_a_ledger_that_was_flattened_cannot_be_padded() -> None:
    for env in (gym.make(FLAT, **QUICK), FlattenLedger(gym.make(MINI, **QUICK))):
        with pytest.raises(TypeError, match=r"expected a Dict with 'ledger' .*, found Box; put PadLedger"):
            PadLedger(env, 99)
    with pytest.raises(TypeError, match="found Discrete"):
        PadLedger(gym.make("FrozenLake-v1"), 99)
    assert len(LEDGER_FEATURES) == 11


def test_a_script_that_knows_an_id_alone_trains_on_it() -> None:
    """As CleanRL's ppo.py does: it asks for the shape of one box, and passes arrays of actions."""
    envs = gym.vector.SyncVectorEnv([lambda: gym.wrappers.RecordEpisodeStatistics(gym.make(FLAT, **QUICK))] * 2)
    assert np.array(envs.single_observation_space.shape).prod() > 0
    envs.reset(seed=1)
    _, rewards, terminated, truncated, infos = envs.step(np.array([0, 1]))
    assert rewards.shape == terminated.shape == truncated.shape == (2,)
    assert infos["tick"].tolist() == [1, 1]
    model = PPO("MlpPolicy", FLAT, n_steps=8, batch_size=8, n_epochs=1, seed=0).learn(8)
    assert model.num_timesteps == 8

"""Episodes that share a model and its passes live as they would alone."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import sleepgym  # noqa: F401  (registers the environments)
from sleepgym.env import vector
from sleepgym.env.vector import SleepVectorEnv
from sleepgym.env.wrappers import FlattenLedger, RecordSleepStatistics
from sleepgym.episode.actions import Action

MINI = "SleepLLM-Mini-v0"
# Short nights and little text: what is compared does not depend on them.
SHORT = {"sleep": {"steps": 2, "rehearsal_rows": 1, "validation_rows": 2}, "episode": {"days": 1, "perplexity_rows": 2}}


def masked(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """A random allowed action per row."""
    return np.array([rng.choice(np.flatnonzero(row)) for row in mask])


def test_gymnasium_makes_it_by_id() -> None:
    envs = gym.make_vec(MINI, num_envs=3, split="validation")
    assert isinstance(envs, SleepVectorEnv)
    assert envs.single_action_space.n == len(Action) and envs.action_space.shape == (3,)
    obs, info = envs.reset(seed=0)
    assert envs.observation_space.contains(obs)
    assert info["action_mask"].shape == (3, len(Action)) and info["_action_mask"].all()
    assert np.array_equal(envs.action_masks(), info["action_mask"].astype(bool))
    assert all(env.split == "validation" for env in envs.envs)
    envs.close()


def test_each_slot_lives_as_a_single_environment_with_its_seed_and_actions() -> None:
    envs = SleepVectorEnv(3, AutoresetMode.DISABLED, card=MINI, **SHORT)
    alone = [gym.make(MINI, **SHORT).unwrapped for _ in range(3)]
    rng = np.random.default_rng(0)
    obs, info = envs.reset(seed=5)
    for i, env in enumerate(alone):
        single, _ = env.reset(seed=5 + i)
        assert all(np.array_equal(obs[key][i], single[key]) for key in single)
    seen: set[int] = set()
    over = np.zeros(3, dtype=bool)
    for step in range(60):
        # Now and then all do the same, so that naps and nights are shared.
        mask = info["action_mask"].astype(bool)
        together = step % 6 == 5 and mask[:, Action.SLEEP].all()
        actions = np.full(3, Action.SLEEP) if together else masked(rng, mask)
        seen |= set(actions.tolist())
        obs, rewards, terminated, truncated, info = envs.step(actions)
        for i, env in enumerate(alone):
            single, reward, *ended, about = env.step(actions[i])
            for key in single:
                np.testing.assert_allclose(obs[key][i], single[key], atol=1e-3)
            assert rewards[i] == pytest.approx(reward, abs=1e-4)
            assert (terminated[i], truncated[i]) == tuple(ended)
            for key in ("recall", "edits_used", "sleeps", "naps", "pending", "tick", "invalid_action"):
                assert info[key][i] == about[key], key
            assert np.array_equal(info["action_mask"][i], about["action_mask"])
        over = terminated | truncated
        if over.any():
            break
    assert over.any()
    assert {Action.INJECT, Action.NAP, Action.SLEEP} <= seen


@pytest.mark.parametrize("mode", AutoresetMode)
def test_every_step_is_that_of_environments_one_by_one(mode: AutoresetMode) -> None:
    """Autoreset, infos and their masks are Gymnasium's, over ends of episodes that come at different times."""
    alone = SyncVectorEnv([lambda: gym.make(MINI, **SHORT)] * 2, autoreset_mode=mode)
    envs = gym.make_vec(MINI, num_envs=2, autoreset_mode=mode, **SHORT)
    rng = np.random.default_rng(0)
    (obs, info), expected = envs.reset(seed=3), alone.reset(seed=3)
    assert_alike((obs, info), expected)
    ends = np.zeros(2, dtype=int)
    while ends.min() < 2:
        # The second never sleeps, so that its episodes take more steps.
        allowed = info["action_mask"].astype(bool) & np.array([[True], [False]]) | (
            np.arange(len(Action)) < Action.SLEEP
        )
        actions = masked(rng, info["action_mask"].astype(bool) & allowed)
        obs, rewards, terminated, truncated, info = envs.step(actions)
        assert_alike((obs, rewards, terminated, truncated, info), alone.step(actions))
        over = terminated | truncated
        ends += over
        if mode == AutoresetMode.SAME_STEP:
            assert np.array_equal(info.get("_final_info", np.zeros(2, bool)), over)
        if mode == AutoresetMode.DISABLED and over.any():
            again = {"options": {"reset_mask": over}}
            obs, fresh = envs.reset(**again)
            again = {"options": {"reset_mask": over}}  # Gymnasium takes the mask out
            assert_alike((obs, fresh), alone.reset(**again))
            info["action_mask"] = np.where(over[:, None], fresh["action_mask"], info["action_mask"])
    assert envs.metadata["autoreset_mode"] == mode


def assert_alike(found: Any, expected: Any) -> None:
    """Equal but for rounding."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_alike(found[key], expected[key])
    elif isinstance(expected, tuple) or (isinstance(expected, np.ndarray) and expected.dtype == object):
        for one, other in zip(found, expected, strict=True):
            assert_alike(one, other)
    elif expected is None:
        assert found is None
    else:
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_all_that_takes_time_is_counted_and_nothing_twice() -> None:
    envs = SleepVectorEnv(2, card=MINI, **SHORT)
    envs.reset(seed=5)
    start = time.perf_counter()
    for action in (Action.INJECT, Action.NAP, Action.SLEEP):
        envs.step(np.full(2, action))
    elapsed = time.perf_counter() - start
    assert 0.5 * elapsed < sum(env.seconds for env in envs.envs) <= elapsed


def test_the_time_of_shared_passes_is_divided_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    now, act = [0.0], vector.act

    def slow(*arguments: Any) -> None:
        act(*arguments)
        now[0] += 6.0

    envs = SleepVectorEnv(2, card=MINI, **SHORT)
    envs.reset(seed=5)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(vector, "act", slow)
    for shared, action in enumerate((Action.INJECT, Action.NAP, Action.SLEEP), 1):
        envs.step(np.full(2, action))
        assert [env.seconds for env in envs.envs] == [3.0 * shared] * 2


def test_logits_of_a_slot_are_those_of_a_single_environment() -> None:
    envs = SleepVectorEnv(3, AutoresetMode.DISABLED, card=MINI, **SHORT)
    alone = [gym.make(MINI, **SHORT).unwrapped for _ in range(3)]
    envs.reset(seed=5)
    for i, env in enumerate(alone):
        env.reset(seed=5 + i)
    for action in (
        *[Action.WAIT] * 3,
        Action.INJECT,
        Action.NAP,
        Action.SLEEP,
        Action.WAIT,
        Action.INJECT,
        Action.REFRESH,
    ):
        actions = np.where(envs.action_masks()[:, action], action, Action.WAIT)
        envs.step(actions)
        for env, chosen in zip(alone, actions, strict=True):
            env.step(chosen)
    ids = torch.tensor([list(alone[0].base.statistics.held_out[0])])
    for slot, env in zip(envs.envs, alone, strict=True):
        seen = []
        for learner in (slot.unwrapped.episode.learner, env.episode.learner):
            assert learner.state.memory.terms, "something was learnt"
            with torch.no_grad(), learner.base.overlay.use(learner.state.memory):
                seen.append(learner.lm.model(input_ids=ids, use_cache=False).logits)
        torch.testing.assert_close(seen[0], seen[1], atol=1e-4, rtol=0)


def test_an_episode_that_has_ended_must_be_reset_where_nobody_else_does() -> None:
    envs = SleepVectorEnv(2, AutoresetMode.DISABLED, card=MINI, max_episode_steps=2, **SHORT)
    envs.reset(seed=0)
    envs.reset(options={"reset_mask": np.array([True, False])})
    envs.step(np.full(2, Action.WAIT))
    envs.reset(options={"reset_mask": np.array([True, False])})
    _, _, _, truncated, _ = envs.step(np.full(2, Action.WAIT))
    assert truncated.tolist() == [False, True]
    with pytest.raises(gym.error.ResetNeeded, match=r"those of environments \[1\] have ended"):
        envs.step(np.full(2, Action.INJECT))
    assert [env.unwrapped.episode.tick for env in envs.envs] == [1, 2], "nobody has moved"
    envs.reset(options={"reset_mask": truncated})
    assert envs.step(np.full(2, Action.WAIT))[4]["tick"].tolist() == [2, 1]


def test_a_limit_of_steps_truncates_as_it_does_one_environment() -> None:
    envs = gym.make_vec(MINI, num_envs=2, max_episode_steps=3, **SHORT)
    alone = gym.make(MINI, max_episode_steps=3, **SHORT)
    envs.reset(seed=0), alone.reset(seed=0)
    for _ in range(3):
        *_, truncated, info = envs.step(np.full(2, Action.WAIT))
        *_, expected, _ = alone.step(Action.WAIT)
        assert truncated.tolist() == [expected] * 2
    assert expected and (info["tick"] == 3).all()


def test_wrappers_stand_around_every_environment_the_first_one_innermost() -> None:
    envs = SleepVectorEnv(2, card=MINI, wrappers=(RecordSleepStatistics, FlattenLedger), max_episode_steps=2, **SHORT)
    alone = FlattenLedger(RecordSleepStatistics(gym.make(MINI, max_episode_steps=2, **SHORT)))
    assert all([type(env), type(env.env)] == [FlattenLedger, RecordSleepStatistics] for env in envs.envs)
    observations, _ = envs.reset(seed=3)
    expected, _ = alone.reset(seed=3)
    assert observations.shape == (2, *expected.shape) and np.array_equal(observations[0], expected)
    for _ in range(2):
        observations, _, _, truncated, infos = envs.step(np.full(2, Action.WAIT))
        expected, *_, info = alone.step(Action.WAIT)
        np.testing.assert_allclose(observations[0], expected, atol=1e-3)
    assert truncated.all()
    assert infos["sleep"]["length"].tolist() == [2, 2] and infos["sleep"]["ticks"][0] == info["sleep"]["ticks"]


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_an_episode_that_has_ended_makes_way_for_the_next(mode: AutoresetMode) -> None:
    envs = SleepVectorEnv(2, mode, card=MINI, **SHORT)
    envs.reset(seed=0)
    horizon = envs.envs[0].card.horizon
    for tick in range(horizon):
        _, _, _, truncated, info = envs.step(np.full(2, Action.WAIT))
        assert truncated.all() == (tick == horizon - 1)
    if mode == AutoresetMode.SAME_STEP:
        assert (info["tick"] == 0).all() and (info["final_info"]["tick"] == horizon).all()
        assert envs.single_observation_space.contains(info["final_obs"][0])
    else:
        assert (info["tick"] == horizon).all()
        _, rewards, _, truncated, info = envs.step(np.full(2, Action.INJECT))
        assert (info["tick"] == 0).all() and not rewards.any() and not truncated.any(), "the action is not taken"


@pytest.mark.parametrize("actions", [np.array([0, 6]), np.array([0]), np.array([0, -1]), [0.5, 1.0]])
def test_bad_actions_move_nobody(actions: Any) -> None:
    envs = SleepVectorEnv(2, card=MINI)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=r"expected 2 actions in Discrete\(6\), found"):
        envs.step(actions)
    assert [env.episode.tick for env in envs.envs] == [0, 0]


def test_no_environments_are_refused() -> None:
    with pytest.raises(ValueError, match="expected at least one environment"):
        SleepVectorEnv(0, card=MINI)


def test_naps_and_questions_of_all_slots_are_asked_in_the_same_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    envs = SleepVectorEnv(3, AutoresetMode.DISABLED, card=MINI, **SHORT)
    envs.reset(seed=0)
    while not envs.action_masks()[:, Action.INJECT].all():
        envs.step(np.full(3, Action.WAIT))
    envs.step(np.full(3, Action.INJECT))
    passes = []
    overlay = envs.envs[0].base.overlay
    original = type(overlay).logits

    def count(self: object, memories: Any, *args: Any) -> Any:
        passes.append(memories)
        return original(self, memories, *args)

    monkeypatch.setattr(type(overlay), "logits", count)
    envs.step(np.full(3, Action.NAP))
    assert [len(memory) for memory in passes] == [3], "what was asked after the injections is still true"

"""Episodes that share a model and its passes live as they would alone."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import sleepgym  # noqa: F401  (registers the environments)
from sleepgym.env.actions import Action
from sleepgym.env.vector_env import SleepVectorEnv

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
    with pytest.raises(ValueError, match=r"expected 2 actions in 0\.\.5"):
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
    original = type(overlay).use

    def count(self: object, memory: Any, *args: Any) -> Any:
        passes.append(memory)
        return original(self, memory, *args)

    monkeypatch.setattr(type(overlay), "use", count)
    envs.step(np.full(3, Action.NAP))
    assert [len(memory) for memory in passes] == [3], "what was asked after the injections is still true"

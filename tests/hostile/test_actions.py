"""Whatever actions are tried, allowed or not, the parts of an environment agree and rewards are finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import sleepgym  # noqa: F401  (registers the environments)
from sleepgym.env.shared import shared_lm
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.env.spaces import ActionError
from sleepgym.episode.actions import Action
from sleepgym.episode.card import load_card
from sleepgym.files import card_paths
from sleepgym.lm import ModelLoadError
from sleepgym.sim.maker import shipped

TINY, LARGER = 1500, 60
"""Actions on a card of the bundled model, and on one of another, in the slow run."""
QUICK: dict[str, Any] = {
    "edit": {"prefixes": 2, "steps": 3},
    "sleep": {"steps": 1, "lessons": 8, "rehearsal_rows": 1, "validation_rows": 2},
    "stream": {"known_facts": 4},
    "episode": {"days": 1, "perplexity_rows": 4},
}
"""Edits and nights that teach little: what has to hold does not depend on how well a model learns."""
NO_ACTIONS = (-1, 6, 10**9, 2**70, 1.5, math.nan, "1", None, [], [0, 0], [0, 0, 99], [[0]], b"0", np.zeros(7), object())


def made(card_id: str) -> SleepEnv:
    """The environment; skips the test where its model is not on this machine."""
    try:
        shared_lm(load_card(card_id).model)
    except ModelLoadError as error:
        pytest.skip(str(error).splitlines()[0])
    env = gym.make(card_id, **QUICK).unwrapped
    assert isinstance(env, SleepEnv)
    return env


def checked_play(env: SleepEnv, check: Callable[[SleepEnv], None], actions: int, seed: int) -> tuple[int, int, int]:
    """Tries random actions, of which some are not allowed now and some are none at all.

    Returns:
        How many were allowed, not allowed, and no actions.
    """
    rng = np.random.default_rng(seed)
    space = env.action_space
    space.seed(seed)
    counts = [0, 0, 0]
    env.reset(seed=seed)
    for _ in range(actions):
        if rng.random() < 0.15:
            counts[2] += 1
            before = env.episode.tick, env.episode.learner.state.memory.version, env.seconds
            action = NO_ACTIONS[rng.integers(len(NO_ACTIONS))]
            if space.contains(action):
                continue
            with pytest.raises(ActionError, match="expected an action"):
                env.step(action)
            assert (env.episode.tick, env.episode.learner.state.memory.version, env.seconds) == before
            continue
        action = space.sample()
        if rng.random() < 0.4:  # most arrivals want to be written, or nights would have nothing to do
            parts = np.atleast_1d(action).copy()
            parts[0] = Action.INJECT
            action = parts if np.ndim(action) else int(parts[0])
        operator = int(np.atleast_1d(action)[0])
        allowed, tick, left = env.action_masks()[operator], env.episode.tick, env.episode.edits_left
        observation, reward, terminated, truncated, info = env.step(action)
        counts[0 if allowed else 1] += 1
        assert math.isfinite(reward) and math.isfinite(info["score"]) and 0 <= info["score"] <= 1
        assert all(np.isfinite(part).all() for part in observation.values())
        assert env.observation_space.contains(observation)
        assert bool(info["invalid_action"]) or allowed  # what is not allowed is never done
        if not allowed:
            assert env.episode.edits_left == left
        assert tick < env.episode.tick <= env.card.horizon
        check(env)
        if terminated or truncated:
            assert env.over
            env.reset(seed=seed + 1 + sum(counts))
    return counts[0], counts[1], counts[2]


def test_a_few_random_actions_leave_everything_in_agreement(
    short: Callable[..., SleepEnv], assert_consistent: Any
) -> None:
    parameters = {"facts": [1, 4, 8], "sleep": [3, 6]}
    for env in (short(), short(parameters=parameters)):
        allowed, forbidden, none = checked_play(env, assert_consistent, 70, seed=7)
        assert min(allowed, forbidden, none) > 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("card_id", card_paths())
def test_many_random_actions_leave_everything_in_agreement(
    card_id: str, assert_consistent: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    env = made(card_id)
    actions = TINY if env.card.model.name == "tiny" else LARGER
    allowed, forbidden, none = checked_play(env, assert_consistent, actions, seed=11)
    with capsys.disabled():
        print(f"\n{card_id}: {actions} actions: {allowed} allowed, {forbidden} not allowed now, {none} no actions")


@pytest.mark.parametrize("card_id", shipped())
def test_random_actions_in_the_sim_leave_rewards_finite(card_id: str) -> None:
    env = gym.make_vec(card_id.replace("SleepLLM", "SleepSim"), num_envs=16, vectorization_mode="vector_entry_point")
    env.reset(seed=5)
    env.action_space.seed(5)
    for _ in range(120):
        observations, rewards, *_, infos = env.step(env.action_space.sample())
        assert np.isfinite(rewards).all() and np.isfinite(infos["score"]).all()
        assert all(np.isfinite(part).all() for part in observations.values())
    env.close()

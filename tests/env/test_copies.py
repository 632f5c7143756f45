"""What a copy, a pickle and another mode of torch mean for an environment: the same episode goes on."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import data_equivalence

import sleepgym  # noqa: F401  (registers the environments)
from sleepgym.env import Action, FlattenLedger, SleepEnv

MINI = "SleepLLM-Mini-v0"
QUICK: dict[str, Any] = {
    "edit": {"steps": 3},
    "sleep": {"steps": 2, "rehearsal_rows": 1, "validation_rows": 2},
    "episode": {"days": 2, "perplexity_rows": 2},
}
ACTIONS = [Action.INJECT, Action.WAIT, Action.NAP, Action.SLEEP, Action.INJECT, Action.WAIT]

COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda env: pickle.loads(pickle.dumps(env)),
}


def begun(env: gym.Env[Any, Any], steps: int = 4) -> gym.Env[Any, Any]:
    env.reset(seed=3)
    for action in ACTIONS[:steps]:
        env.step(action)
    return env


def rest(env: gym.Env[Any, Any]) -> list[Any]:
    """What the next steps and the next episode are like."""
    out = [env.step(action) for action in ACTIONS]
    return [*out, env.reset(), env.step(Action.INJECT)]


@pytest.mark.parametrize(("how", "flat"), [("copy", False), ("deepcopy", True), ("pickle", False)])
def test_a_copy_goes_on_as_its_original_would_and_is_independent(how: str, flat: bool) -> None:
    env = begun(SleepEnv(MINI, flat=flat, **QUICK))
    twin = COPIES[how](env)
    assert twin.base is env.base
    assert twin.episode is not env.episode
    assert data_equivalence(rest(twin), rest(begun(SleepEnv(MINI, flat=flat, **QUICK))))
    assert data_equivalence(rest(env), rest(begun(SleepEnv(MINI, flat=flat, **QUICK))))


@pytest.mark.parametrize("how", COPIES)
def test_an_environment_is_copied_before_its_first_episode_and_between_episodes(how: str) -> None:
    env, other = SleepEnv(MINI, **QUICK), SleepEnv(MINI, **QUICK)
    twin = COPIES[how](env)
    with pytest.raises(gym.error.ResetNeeded):
        twin.step(0)
    assert data_equivalence(twin.reset(seed=1), other.reset(seed=1))


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_wrapped_environments_are_copied_with_their_wrappers(how: str) -> None:
    env = begun(FlattenLedger(gym.make(MINI, **QUICK)))
    twin = COPIES[how](env)
    assert isinstance(twin, FlattenLedger) and twin.unwrapped.base is env.unwrapped.base
    assert data_equivalence(env.step(Action.WAIT), twin.step(Action.WAIT))


def test_a_copy_samples_its_own_actions() -> None:
    env = SleepEnv(MINI, **QUICK)
    env.action_space.seed(5)
    twin = copy.deepcopy(env)
    drawn = [env.action_space.sample() for _ in range(9)]
    assert [twin.action_space.sample() for _ in range(9)] == drawn


def test_a_pickle_of_another_model_is_refused() -> None:
    env = begun(SleepEnv(MINI, **QUICK))
    state = env.__getstate__()
    with pytest.raises(pickle.UnpicklingError, match="expected the model 'tiny' with fingerprint 000000000000"):
        object.__new__(SleepEnv).__setstate__({**state, "base": 64 * "0"})


MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


@pytest.mark.parametrize("mode", [*MODES, "float64"])
def test_an_episode_is_the_same_in_any_mode(
    mode: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def episode(steps: int) -> list[Any]:
        # Targets that nobody has cached: a recipe of its own, with a cache of its own.
        monkeypatch.setenv("SLEEPGYM_CACHE", str(tmp_path_factory.mktemp("cache")))
        env = SleepEnv(MINI, **QUICK | {"edit": {"steps": steps, "stop_nll": 0.1 + 1e-9 * next(unused)}})
        return [env.reset(seed=3), *(env.step(action) for action in ACTIONS)]

    unused = iter(range(1, 10))
    expected = episode(3)
    if mode == "float64":
        torch.set_default_dtype(torch.float64)
    try:
        with MODES.get(mode, torch.enable_grad)():
            found = episode(3)
    finally:
        torch.set_default_dtype(torch.float32)
    assert data_equivalence(found, expected)
    assert any(np.asarray(step[4]["edits_used"]) > 0 for step in found[1:])

"""Infos have one structure: the same keys, types and shapes at every reset and step, and reproducible values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_reset_seed_determinism, check_step_determinism, data_equivalence

import sleepgym  # noqa: F401  (registers the environments)
from sleepgym.consolidation.spec import SleepError
from sleepgym.editing import EditError
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.env.wrappers import RecordSleepStatistics
from sleepgym.episode.actions import Action
from sleepgym.episode.operators import FAILURES
from sleepgym.facts.fact import FactError
from sleepgym.memory.ledger import LedgerFullError

MINI = "SleepLLM-Mini-v0"
QUICK: dict[str, Any] = {
    "edit": {"steps": 3},
    "sleep": {"steps": 1, "validation_rows": 2, "rehearsal_rows": 1},
    "episode": {"days": 1, "perplexity_rows": 2},
}
PARAMETERS = {"facts": [1, 2, 4], "sleep": [2, 3, 6]}


def structure(info: dict[str, Any]) -> dict[str, Any]:
    """Keys with types, dtypes and shapes; as Minari compares them, and somewhat stricter."""

    def shape(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(shape, value))
        assert isinstance(value, np.generic | np.ndarray), f"expected a value of numpy, found {value!r}"
        return type(value), value.dtype, value.shape

    return {key: shape(value) for key, value in info.items()}


def infos(env: gym.Env[Any, Any], seed: int = 0) -> Iterator[dict[str, Any]]:
    """Of a whole episode in which everything happens: edits, naps, nights, forbidden actions."""
    inner = env.unwrapped
    assert isinstance(inner, SleepEnv)
    rng = np.random.default_rng(seed)
    yield env.reset(seed=seed)[1]
    wanted = [Action.SLEEP, Action.NAP, Action.INJECT]
    while not inner.over:
        mask = inner.action_masks()
        chosen = next((action for action in wanted if mask[action]), Action(int(rng.integers(6))))
        if chosen in (Action.SLEEP, Action.NAP) and chosen in wanted:
            wanted.remove(chosen)
        yield env.step(inner.choices.usual(chosen))[4]
    yield env.reset()[1]


@pytest.mark.parametrize("arguments", [{}, {"flat": True}, {"parameters": PARAMETERS}], ids=str)
def test_every_info_has_the_same_keys_types_and_shapes(arguments: dict[str, Any]) -> None:
    seen = list(infos(gym.make(MINI, **arguments, **QUICK)))
    assert {bool(info["invalid_action"]) for info in seen} == {True, False}
    assert seen[-2]["sleeps"] and seen[-2]["naps"]
    assert all(structure(info) == structure(seen[0]) for info in seen)
    dtypes = {np.asarray(value).dtype for key, value in seen[0].items() if key != "action_mask"}
    assert dtypes == {np.dtype(np.float64), np.dtype(np.int64), np.dtype(np.bool_)}


def test_equal_runs_have_equal_infos() -> None:
    one, other = (list(infos(gym.make(MINI, **QUICK), seed=4)) for _ in range(2))
    assert data_equivalence(one, other, exact=True)


def test_gymnasiums_determinism_tests_pass_to_the_end_of_an_episode() -> None:
    check_reset_seed_determinism(gym.make(MINI, **QUICK).unwrapped)
    check_step_determinism(gym.make(MINI, **QUICK).unwrapped)


def test_the_terms_of_the_reward_add_up_and_what_step_returns_is_pythons_own() -> None:
    env = gym.make(MINI, **QUICK).unwrapped
    assert isinstance(env, SleepEnv)
    env.reset(seed=0)
    while not env.over:
        _, reward, terminated, truncated, info = env.step(Action.PRUNE)
        assert (type(reward), type(terminated), type(truncated)) == (float, bool, bool)
        assert info["reward_served"] + info["reward_drift"] + info["reward_invalid"] == reward
        assert info["reward_invalid"] < 0


def test_measured_seconds_are_the_environments() -> None:
    env = gym.make(MINI, **QUICK)
    seen = list(infos(env))
    assert all("seconds" not in info for info in seen)
    assert env.unwrapped.seconds == 0  # of the episode that has just begun
    env.step(Action.WAIT)
    assert env.unwrapped.seconds > 0


@pytest.mark.parametrize(("code", "kind"), enumerate((EditError, FactError, LedgerFullError, SleepError), start=1))
def test_a_failure_is_a_code_in_the_info_and_words_at_the_environment(
    code: int, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    env = SleepEnv(MINI, **QUICK)
    _, info = env.reset(seed=0)
    before = structure(info)
    while not env.action_masks()[Action.INJECT]:
        env.step(Action.WAIT)

    class Special(kind):  # type: ignore[misc, valid-type]
        """A failure of a kind that is known by its base."""

    def fail(facts: object) -> None:
        raise Special("expected this, found that")

    monkeypatch.setattr(env.episode.learner, "inject", fail)
    *_, info = env.step(Action.INJECT)
    assert (int(info["error_code"]), bool(info["invalid_action"])) == (code, True)
    assert env.error == "Special: expected this, found that"
    assert structure(info) == before
    *_, info = env.step(Action.WAIT)
    assert (int(info["error_code"]), env.error) == (0, "")
    assert len(FAILURES) == 4, "name the new one in the docstring's table"


def test_a_restored_moment_has_the_structure_of_any_other() -> None:
    env = SleepEnv(MINI, **QUICK)
    _, info = env.reset(seed=0)
    env.step(Action.WAIT)
    assert structure(env.restore(env.snapshot())[1]) == structure(info)
    fork = env.fork()
    assert structure(fork.step(Action.WAIT)[4]) == structure(info)


@pytest.mark.parametrize("mode", ["vector_entry_point", "sync"])
def test_vectors_keep_dtypes(mode: str) -> None:
    envs = gym.make_vec(MINI, num_envs=2, vectorization_mode=mode, **QUICK)
    _, info = envs.reset(seed=0)
    single = gym.make(MINI, **QUICK).reset(seed=0)[1]
    for key, value in single.items():
        assert info[key].dtype == value.dtype, key
        assert info[key].shape == (2, *value.shape)
        assert info[f"_{key}"].all()
    envs.close()


# -------------------------------------------------------- RecordSleepStatistics


def test_the_summary_has_the_seconds_and_stands_in_the_last_info_alone() -> None:
    env = RecordSleepStatistics(gym.make(MINI, **QUICK))
    seen = list(infos(env))
    assert ["sleep" in info for info in seen] == [False] * (len(seen) - 2) + [True, False]
    summary = seen[-2]["sleep"]
    assert summary["seconds"] > 0
    assert summary["invalid"] == sum(bool(info["invalid_action"]) for info in seen)


def test_flat_keys_are_in_every_info_for_recorders_that_want_that() -> None:
    usual, flat = (RecordSleepStatistics(gym.make(MINI, **QUICK), every_step=every) for every in (False, True))
    expected, seen = list(infos(usual)), list(infos(flat))
    assert all(structure(info) == structure(seen[0]) for info in seen)
    assert "sleep" not in seen[-2]
    assert seen[-2]["sleep/recall_mean"] == expected[-2]["sleep"]["recall_mean"]
    assert seen[-2]["sleep/actions/wait"] == expected[-2]["sleep"]["actions"]["wait"]
    assert seen[0]["sleep/length"] == 0
    # Nothing that was measured.
    assert "sleep/seconds" not in seen[0]
    assert flat.queues.keys() == usual.queues.keys()

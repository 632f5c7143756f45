"""Every SleepLLM environment keeps to the contracts of Gymnasium and Stable-Baselines3, and to its own rules.

Days are few and edits and nights are short here: contracts do not depend on how well a model learns. FastWeights has no
facts, edits and operators that these tests could try: its contracts are tested in ``tests/env/fastweights``.
"""

from __future__ import annotations

import gc
import hashlib
import os
import pickle
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env, data_equivalence
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import sleepgym  # noqa: F401  (registers the environments)
from sleepgym.env.shared import shared_lm
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.env.wrappers import FlattenLedger
from sleepgym.episode.actions import OPERATORS, Action, Operator
from sleepgym.episode.card import load_card
from sleepgym.files import card_paths
from sleepgym.lm import ModelLoadError

MINI, NOTES = "SleepLLM-Mini-v0", "SleepLLM-Notes-v0"
# One editing recipe for all cards of a model: they can share hooks and statistics.
QUICK: dict[str, Any] = {
    "edit": {"prefixes": 2, "steps": 3},
    "sleep": {"steps": 1, "lessons": 8, "rehearsal_rows": 1, "validation_rows": 2},
    "stream": {"known_facts": 4},
    "episode": {"days": 1, "perplexity_rows": 4},
}
# The others differ from the default in a few numbers, or have a larger model: what is measured about one when it is
# first used, and then kept, takes minutes.
CARDS = [
    pytest.param(
        card_id, marks=[] if card_id in (MINI, NOTES, "SleepLLM-v0") else [pytest.mark.slow, pytest.mark.timeout(3600)]
    )
    for card_id in card_paths()
]
every_card = pytest.mark.parametrize("card_id", CARDS)


@pytest.fixture(autouse=True)
def model_is_here(request: pytest.FixtureRequest) -> None:
    """Skips cards of models that are not on this machine; the bundled one must be."""
    if "card_id" not in request.fixturenames:
        return
    model = load_card(request.getfixturevalue("card_id")).model
    try:
        shared_lm(model)
    except ModelLoadError as error:
        if model.name == "tiny":
            raise
        pytest.skip(str(error))


def make(card_id: str, **overrides: Any) -> SleepEnv:
    env = gym.make(card_id, **(QUICK | overrides)).unwrapped
    assert isinstance(env, SleepEnv)
    return env


def some(env: SleepEnv, action: Operator, rng: np.random.Generator) -> np.ndarray:
    """The action; with random parameters, if the card has any."""
    parts = [int(rng.integers(n)) for n in getattr(env.action_space, "nvec", [])[1:]]
    return np.array([action, *parts]) if parts else np.asarray(action)


@every_card
@pytest.mark.usefixtures("screen")
def test_gymnasium_finds_no_fault(card_id: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        check_env(make(card_id))


@every_card
def test_stable_baselines_finds_no_fault(card_id: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        sb3_check_env(FlattenLedger(make(card_id)), warn=True)
        # It advises against boxes of two axes, which policies with a features extractor of their own do read.
        warnings.filterwarnings("ignore", message=".*unconventional shape.*")
        sb3_check_env(make(card_id), warn=True)


@every_card
def test_a_seed_decides_the_resets_that_follow_it_too(card_id: str) -> None:
    one, other = make(card_id), make(card_id)
    first, _ = one.reset(seed=0), other.reset(seed=0)
    for _ in range(2):
        following = one.reset()
        assert data_equivalence(following, other.reset(), exact=True)
        assert one.episode.stream == other.episode.stream
        assert not data_equivalence(following, first)
    assert data_equivalence(one.reset(seed=0), first, exact=True)


@every_card
def test_the_spec_survives_json_and_pickle(card_id: str) -> None:
    for spec in (gym.spec(card_id), make(card_id, split="test", render_mode="ansi").spec):
        assert spec is not None
        assert EnvSpec.from_json(spec.to_json()) == spec
        assert pickle.loads(pickle.dumps(spec)) == spec


@every_card
def test_an_environment_can_be_made_again_from_its_spec(card_id: str) -> None:
    env = make(card_id, split="test", render_mode="ansi")
    assert env.spec is not None
    again = gym.make(EnvSpec.from_json(env.spec.to_json())).unwrapped
    assert isinstance(again, SleepEnv)
    assert (again.card, again.split, again.render_mode) == (env.card, "test", "ansi")


@every_card
def test_mask_is_the_truth_and_the_budget_is_hard(card_id: str) -> None:
    """What the mask allows works, what it forbids changes nothing, and no edit exceeds the budget."""
    # A budget that runs out soon, so that its end is seen.
    env = make(card_id, budget={"edits": [0.2, 0.3]})
    rng = np.random.default_rng(0)
    _, info = env.reset(seed=0)
    seen: set[bool] = set()
    over = closed = False
    while not over:
        mask = env.action_masks()
        assert mask.dtype == bool
        parts = info["action_mask"] if isinstance(info["action_mask"], tuple) else (info["action_mask"],)
        assert np.array_equal(mask, np.concatenate(parts))
        assert all(part.dtype == np.int8 for part in parts)
        assert env.action_space.contains(env.action_space.sample(mask=info["action_mask"]))
        # While there are edits, most steps write, so that the budget's end comes within the day.
        write = mask[Action.INJECT] and rng.random() < 0.5
        action = Action.INJECT if write else env.card.operators[int(rng.integers(len(env.card.operators)))]
        version, tick = env.episode.learner.state.memory.version, info["tick"]
        _, _, terminated, truncated, info = env.step(some(env, action, rng))
        assert info["invalid_action"] == (not mask[action]), env.error
        seen.add(bool(info["invalid_action"]))
        if info["invalid_action"]:
            assert env.episode.learner.state.memory.version == version
            assert info["tick"] == tick + 1
            assert info["reward_invalid"] < 0
        assert info["edits_left"] >= 0
        assert info["edits_used"] + info["edits_left"] == env.episode.stream.rhythm.edit_budget
        if info["edits_left"] == 0:
            closed = True
            assert not env.action_masks()[[Action.INJECT, Action.REFRESH]].any()
        over = terminated or truncated
    assert closed
    assert seen == {True, False}


@every_card
def test_closing_twice_does_no_harm(card_id: str) -> None:
    for env in (make(card_id), gym.make(card_id, **QUICK)):
        env.close()
        env.reset(seed=0)
        env.close()
        env.close()


@every_card
def test_a_step_needs_a_reset(card_id: str) -> None:
    for env in (make(card_id), gym.make(card_id, **QUICK), FlattenLedger(gym.make(card_id, **QUICK))):
        with pytest.raises(gym.error.ResetNeeded):
            env.step(env.unwrapped.choices.usual(Action.WAIT))


@every_card
@pytest.mark.parametrize("action", [-1, len(OPERATORS), 0.5, None, [0, -1, 0], [0, 0, 99], [[0, 0, 0]]])
def test_what_is_no_action_is_refused(card_id: str, action: Any) -> None:
    env = make(card_id)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="expected an action"):
        env.step(action)
    assert env.episode.tick == 0


# ------------------------------------------------------------------------ slow


def play(env: SleepEnv, steps: int) -> str:
    """A hash of everything that random steps (forbidden ones too) bring."""
    rng, digest = np.random.default_rng(0), hashlib.sha256()

    def note(*values: Any) -> None:
        for value in values:
            if isinstance(value, dict):
                note(*(part for item in sorted(value.items()) for part in item))
            else:
                digest.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())

    note(*env.reset(seed=0))
    for _ in range(steps):
        observation, reward, terminated, truncated, info = env.step(int(rng.integers(len(Action))))
        note(observation, reward, terminated, truncated, info)
        if terminated or truncated:
            note(*env.reset())
    return digest.hexdigest()


@pytest.mark.slow
def test_200_random_steps_are_equal_bit_for_bit_in_two_processes(tmp_path: Path) -> None:
    code = (
        "import importlib.util, sys; "
        f"spec = importlib.util.spec_from_file_location('conformance', {__file__!r}); "
        "module = importlib.util.module_from_spec(spec); "
        "spec.loader.exec_module(module); "
        f"print(module.play(module.SleepEnv({MINI!r}), 200))"
    )
    # The second finds what the first has cached: that may save time, but must not change a bit.
    environment = {**os.environ, "SLEEPGYM_CACHE": str(tmp_path)}
    hashes = []
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**environment, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        hashes.append(done.stdout.strip())
    assert len(hashes[0]) == 64
    assert hashes[0] == hashes[1]


def held() -> tuple[int, int]:
    """Bytes of Python objects and of tensors."""
    gc.collect()
    tensors = {t.data_ptr(): t.untyped_storage().nbytes() for t in gc.get_objects() if isinstance(t, torch.Tensor)}
    return tracemalloc.get_traced_memory()[0], sum(tensors.values())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_400_episodes_leave_no_more_in_memory_than_150() -> None:
    rhythm = {"ticks_per_day": 4, "night_start": [0, 3], "night_ticks": [1, 2], "arrival_rate": [1.0, 1.0]}
    env = make(MINI, stream=QUICK["stream"] | rhythm, ticks={"sleep": 1})
    before = (0, 0)
    tracemalloc.start()
    try:
        for episode in range(400):
            # The same few streams again and again: targets of edits are kept on purpose, and would hide a leak. So are
            # rows of text that nights draw, up to a limit: by then, nearly all of them have been drawn.
            if episode == 150:
                before = held()
            env.reset(seed=episode % 5)
            for action in (Action.INJECT, Action.NAP, Action.REFRESH, Action.SLEEP):
                env.step(action)
        after = held()
    finally:
        tracemalloc.stop()
    # An episode holds tens of kilobytes: 250 of them that nobody lets go of would be megabytes.
    assert after[0] - before[0] < 2**20
    assert after[1] - before[1] < 2**20


@pytest.mark.slow
def test_spawned_workers_play_what_single_environments_play() -> None:
    envs = gym.make_vec(MINI, num_envs=2, vectorization_mode="async", vector_kwargs={"context": "spawn"}, **QUICK)
    singles = [make(MINI), make(MINI)]
    observations, infos = envs.reset(seed=[3, 4])
    expected = [env.reset(seed=seed) for env, seed in zip(singles, (3, 4), strict=True)]
    for action in (Action.WAIT, Action.WAIT, Action.INJECT, Action.NAP):
        for i, (observation, info) in enumerate(expected):
            # Workers may split sums over another number of threads than this process does.
            assert all(np.allclose(observations[key][i], observation[key], atol=1e-3) for key in observation)
            assert np.array_equal(infos["action_mask"][i], info["action_mask"])
            assert infos["tick"][i] == info["tick"]
        observations, *_, infos = envs.step(np.array([action, action]))
        expected = [(step[0], step[4]) for step in (env.step(action) for env in singles)]
    envs.close()

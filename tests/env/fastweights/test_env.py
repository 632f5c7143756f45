"""FastWeights environments keep to the contracts of Gymnasium and Stable-Baselines3, and to their own rules."""

from __future__ import annotations

import copy
import json
import pickle
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env, data_equivalence
from numpy.typing import NDArray
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from sleepgym.env import registration
from sleepgym.env.fastweights.card import load_fast_card
from sleepgym.env.fastweights.env import FastWeightsEnv
from sleepgym.env.fastweights.features import FEATURES, seen
from sleepgym.env.fastweights.snapshot import FastSnapshotError, Snapshot
from sleepgym.env.fastweights.stream import same
from sleepgym.env.fastweights.vector import FastWeightsVectorEnv
from sleepgym.episode.card import CardError, UnknownArgumentError
from sleepgym.fastweights import CheckpointError, shipped

Make = Callable[..., FastWeightsEnv]
WAIT, ONE, TWO, FOUR = range(4)


def play(env: FastWeightsEnv, seed: int, steps: int = 30) -> list[Any]:
    rng = np.random.default_rng(seed)
    trail: list[Any] = [env.reset(seed=seed)]
    for _ in range(steps):
        trail.append(env.step(int(rng.integers(4))))
        if trail[-1][3]:
            trail.append(env.reset())
    return trail


@pytest.mark.usefixtures("screen")
def test_gymnasium_and_stable_baselines_find_no_fault(make: Make) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        check_env(make())
        sb3_check_env(make(), warn=True)


def test_the_spec_survives_json_and_makes_an_equal_environment(make: Make) -> None:
    env = make(split="test", render_mode="ansi")
    assert env.spec is not None
    again = gym.make(EnvSpec.from_json(env.spec.to_json())).unwrapped
    assert isinstance(again, FastWeightsEnv)
    assert (again.card, again.split, again.render_mode) == (env.card, "test", "ansi")


def test_a_card_in_its_folder_is_registered_under_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"fastweights": {"FastWeights-Probe-v0": Path("FastWeights-Probe-v0.toml")}}
    monkeypatch.setattr(registration, "card_paths", lambda kind="": there.get(kind, {}))
    try:
        registration.register_cards()
        assert gym.spec("FastWeights-Probe-v0").kwargs == {"card": "FastWeights-Probe-v0"}
    finally:
        gym.registry.pop("FastWeights-Probe-v0", None)


@pytest.mark.usefixtures("screen")
def test_the_shipped_environment_is_made_of_its_card_alone() -> None:
    card_id = "FastWeights-v0"
    path = shipped(load_fast_card(card_id).model.file)
    assert path.stat().st_size < 5 * 2**20
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        check_env(gym.make(card_id).unwrapped)
        sb3_check_env(gym.make(card_id), warn=True)
    spec = gym.spec(card_id)
    assert EnvSpec.from_json(spec.to_json()) == spec and pickle.loads(pickle.dumps(spec)) == spec
    envs, single = gym.make_vec(card_id, num_envs=2), gym.make(card_id)
    assert isinstance(envs.unwrapped, FastWeightsVectorEnv)
    observations, _ = envs.reset(seed=5)
    observation, _ = single.reset(seed=5)
    np.testing.assert_allclose(observations[0], observation, atol=1e-5)
    envs.close()


def test_equal_seeds_and_actions_give_equal_trajectories(make: Make) -> None:
    one, again, other = (play(make(), seed) for seed in (3, 3, 4))
    assert data_equivalence(one, again, exact=True)
    assert not data_equivalence(one[0], other[0])


def test_mask_is_the_truth(make: Make) -> None:
    env, rng = make(), np.random.default_rng(0)
    _, info = env.reset(seed=0)
    refused = set()
    over = False
    while not over:
        mask = env.action_masks()
        assert mask.dtype == bool and mask[WAIT]
        assert np.array_equal(mask, info["action_mask"]) and info["action_mask"].dtype == np.int8
        before, action = env.life.now, int(rng.integers(4))
        _, reward, _, over, info = env.step(action)
        assert info["invalid_action"] == (not mask[action])
        refused.add(bool(info["invalid_action"]))
        if info["invalid_action"]:
            assert info["tick"] == len(before.ticks) + 1
            assert reward < 0 or before.right.any()
        else:
            assert info["tick"] == len(before.ticks) + max(1, env.card.passes.choices[action])
        assert info["passes"] <= env.card.passes.most
        assert not env.life.over or env.life.tick == env.life.stream.horizon
    assert refused == {True, False}


def test_passes_add_up_whatever_is_waited_in_between(make: Make) -> None:
    one, other = make(), make()
    for env, actions in ((one, (ONE, WAIT, ONE, TWO)), (other, (FOUR, WAIT))):
        env.reset(seed=1)
        for action in actions:
            env.step(action)
    assert one.life.tick == other.life.tick == 5
    assert one.life.now.digested.state.distance(other.life.now.digested.state).item() == 0
    assert one.life.now.digested.change == other.life.now.digested.change > 0
    assert np.array_equal(one.life.now.right, other.life.now.right)


def test_the_state_is_what_the_model_makes_of_the_windows(make: Make) -> None:
    env = make()
    env.reset(seed=2)
    for action in (TWO, *[WAIT] * 6, FOUR):
        env.step(action)
    model, document = env.trained.model, env.life.stream.documents[0]
    state = model.digest(document.windows[1], model.digest(document.windows[0], model.empty(1), 2), 4)
    assert env.life.now.digested.state.distance(state).item() == pytest.approx(0, abs=1e-6)
    logits = model.answer(document.queries.view(-1, 2), state.rows(torch.zeros(4, dtype=torch.long)))[:, 1]
    assert (logits.argmax(-1) == document.answers[0]).tolist() == env.life.now.right.tolist()


def test_a_document_begins_with_an_empty_state_and_a_window_with_that_of_the_one_before(make: Make) -> None:
    env = make()
    env.reset(seed=0)
    assert env.life.now.digested.state.norm().item() == 0
    for _ in range(2):
        env.step(FOUR)
        for _ in range(4):
            left = env.life.now.digested.state
            observation, *_ = env.step(WAIT)
    assert left.norm().item() > 0
    assert env.life.tick == 16 and env.life.now.digested.state.norm().item() == 0
    assert seen(observation, "passes") == seen(observation, "norm") == seen(observation, "change") == 0


def test_the_score_is_the_share_of_questions_and_the_rewards_are_its_terms(make: Make) -> None:
    env = make()
    env.reset(seed=5)
    rewards, over = 0.0, False
    while not over:
        _, reward, _, over, info = env.step(WAIT if env.life.tick % 8 else ONE)
        rewards += reward
    asked = sum(tick.traffic for tick in env.life.now.ticks)
    assert rewards == pytest.approx(info["score"] * asked)
    assert info["slept"] == sum(tick.offline for tick in env.life.now.ticks) == 6
    assert all(tick.served == 0 for tick in env.life.now.ticks if tick.offline)


def test_observations_are_bounded_and_show_what_they_say(make: Make) -> None:
    env = make()
    for step in play(env, 7, 60):
        observation = step[0]
        assert env.observation_space.contains(observation)
    observation, _ = env.reset(seed=1)
    assert {name: seen(observation, name) for name in ("passes", "left", "progress")} == {
        "passes": 0, "left": 1, "progress": 0,
    }  # fmt: skip
    assert len(observation) == len(FEATURES) == 8


def test_the_hidden_depth_is_not_in_the_observation_before_anything_was_read(make: Make) -> None:
    env, found = make(), {}
    for seed in range(30):
        observation, info = env.reset(seed=seed)
        found.setdefault(int(info["depth"]), set()).add((observation[0], observation[1], observation[3]))
    assert len(found) == 3 and len(set(map(frozenset, found.values()))) == 1


def test_restoring_and_forking_go_on_bit_for_bit(make: Make) -> None:
    env = make()
    env.reset(seed=4)
    env.step(ONE)
    moment = env.snapshot()
    fork, deep, pickled = env.fork(), copy.deepcopy(env), pickle.loads(pickle.dumps(env))

    def rest(one: FastWeightsEnv) -> list[Any]:
        trail: list[Any] = [one.step(action) for action in (WAIT, TWO, FOUR, WAIT)]
        return [*trail, one.reset()]  # the episode that follows, too

    expected = rest(env)
    env.restore(moment)
    for other in (env, fork, deep, pickled):
        assert data_equivalence(rest(other), expected, exact=True)


def test_a_saved_snapshot_goes_on_bit_for_bit(make: Make, quick: dict[str, Any], tmp_path: Path) -> None:
    env, path = make(), tmp_path / "moment.json"
    env.reset(seed=3)
    env.reset()
    for action in (ONE, WAIT, FOUR, FOUR, TWO, WAIT):  # the second FOUR is not allowed
        env.step(action)
    env.snapshot().save(path)
    other = make()
    other.restore(Snapshot.load(path, other.card, other.trained))
    for _ in range(2):
        steps = [(one.step(TWO), one.step(WAIT), one.reset()) for one in (env, other)]
        assert data_equivalence(steps[0], steps[1], exact=True)


def test_files_that_hold_no_snapshot_of_this_environment_are_refused(make: Make, tmp_path: Path) -> None:
    env, path = make(), tmp_path / "moment.json"
    env.reset(seed=3)
    env.step(FOUR)
    env.snapshot().save(path)
    good = json.loads(path.read_text(encoding="utf-8"))
    one = make(stream={"documents": 1, "window_ticks": 8})
    with pytest.raises(FastSnapshotError, match="expected a snapshot with this card, found one with another card"):
        Snapshot.load(path, one.card, one.trained)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"format": 2}, "expected a snapshot with this format"),
        ({"actions": [9]}, "expected actions of one episode"),
        ({"actions": [0] * 99}, "expected actions of one episode"),
        ({"actions": [1]}, "expected a snapshot of this model"),
        ({"actions": "all"}, "expected a snapshot of a FastWeights environment"),
        ({"origin": {}}, "expected a snapshot of a FastWeights environment"),
        ({"generator": {"bit_generator": "PCG64", "state": 1}}, "expected a snapshot of a FastWeights environment"),
    ]
    for change, message in changes:
        path.write_text(json.dumps(good | change), encoding="utf-8")
        with pytest.raises(FastSnapshotError, match=message):
            Snapshot.load(path, env.card, env.trained)
    with pytest.raises(FastSnapshotError, match="expected a snapshot of a FastWeights environment"):
        Snapshot.load(tmp_path / "nowhere.json", env.card, env.trained)


def test_splits_have_their_own_documents(make: Make) -> None:
    env = make()
    streams = []
    for split in ("train", "validation", "test"):
        env.reset(seed=0, options={"split": split})
        streams.append(env.life.stream)
    assert not same(streams[0], streams[1]) and not same(streams[1], streams[2])


@pytest.mark.parametrize("action", [-1, 4, 0.5, None, "1", [0, 1], [[0]]])
def test_what_is_no_action_is_refused(make: Make, action: Any) -> None:
    env = make()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="expected an action"):
        env.step(action)
    assert env.life.tick == 0


def test_mistakes_are_named(make: Make) -> None:
    env = make()
    with pytest.raises(gym.error.ResetNeeded):
        env.step(0)
    with pytest.raises(CardError, match=re.escape("key passes.choices: expected ascending numbers that begin with 0")):
        make(passes={"choices": [1, 2], "most": 4})
    with pytest.raises(CardError, match=re.escape("key passes.most: expected at least 8, found 4")):
        make(passes={"choices": [0, 8], "most": 4})
    with pytest.raises(UnknownArgumentError, match="did you mean 'stream'"):
        make(streams={})
    with pytest.raises(CheckpointError, match="expected a model"):
        make(model={"file": "nowhere.safetensors"})
    with pytest.raises(ValueError, match="expected options out of"):
        env.reset(options={"splits": "test"})
    with pytest.raises(ValueError, match="expected a split in"):
        make(split="dev")
    env.reset(seed=0)
    with pytest.raises(ValueError, match="expected a snapshot of an environment with this card"):
        make(stream={"documents": 1, "window_ticks": 8}).restore(env.snapshot())


@pytest.mark.usefixtures("screen")
def test_every_render_mode_shows_the_episode(make: Make) -> None:
    env = make(render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    env.step(TWO)
    second = env.render()
    assert isinstance(first, np.ndarray) and isinstance(second, np.ndarray)
    assert first.shape == second.shape == (480, 640, 3) and first.dtype == np.uint8
    assert not np.array_equal(first, second)
    words = make(render_mode="ansi")
    words.reset(seed=0)
    words.step(TWO)
    text = words.render()
    assert isinstance(text, str) and "served  zz" in text and "passes  22" in text and "tick 2 of 48" in text
    human = make(render_mode="human")
    human.reset(seed=0)
    assert human.render() is None
    human.close()
    human.close()


def picks(seed: int, steps: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(4, size=(steps, count))


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_a_vector_plays_what_single_environments_play(
    make: Make, quick: dict[str, Any], env_id: str, mode: str
) -> None:
    envs = gym.make_vec(env_id, num_envs=3, vector_kwargs={}, autoreset_mode=gym.vector.AutoresetMode(mode), **quick)
    observations, infos = envs.reset(seed=5)
    singles = [make() for _ in range(3)]
    for row, env in enumerate(singles):
        observation, _ = env.reset(seed=5 + row)
        np.testing.assert_allclose(observations[row], observation, atol=1e-5)
    for actions in picks(0, 12, 3):
        observations, rewards, _, truncations, infos = envs.step(actions)
        for row, env in enumerate(singles):
            observation, reward, _, truncated, info = env.step(int(actions[row]))
            np.testing.assert_allclose(observations[row], observation, atol=1e-5)
            assert rewards[row] == pytest.approx(reward) and truncations[row] == truncated
            assert np.array_equal(infos["action_mask"][row], info["action_mask"])
            assert np.array_equal(envs.action_masks()[row], info["action_mask"])
    envs.close()


def test_a_vector_refuses_what_is_no_action_and_nobody_moves(quick: dict[str, Any], env_id: str) -> None:
    envs = gym.make_vec(env_id, num_envs=2, **quick)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="expected 2 actions in"):
        envs.step([0, 7])
    assert [env.unwrapped.life.tick for env in envs.unwrapped.envs] == [0, 0]
    envs.close()

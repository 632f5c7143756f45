"""Snapshots: going on from one is going on, whoever does it and however it was kept."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import data_equivalence

from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.actions import Action
from sleepgym.episode.card import load_card
from sleepgym.episode.snapshot import Snapshot, SnapshotError
from sleepgym.memory.checkpoint import CheckpointError
from sleepgym.sleeper import SleepingLM

MINI = "SleepLLM-Mini-v0"
# Little effort in edits and nights: what goes on does not depend on it.
CARD = load_card(
    MINI,
    edit={"steps": 4},
    sleep={"steps": 4, "rehearsal_rows": 1, "validation_rows": 4},
    episode={"perplexity_rows": 4},
)


def act(env: SleepEnv, rng: np.random.Generator, *, sleepless: bool = False) -> Any:
    """A random allowed action, seldom to sleep."""
    mask = env.action_masks()
    weights = np.array([1.0, 3.0, 2.0, 1.0, 0.0 if sleepless else 0.2, 1.0]) * mask
    return env.step(int(rng.choice(len(Action), p=weights / weights.sum())))


def rest(env: SleepEnv, seed: int) -> list[Any]:
    """What is left of the episode under random actions, and the beginning of the next one, of which no seed is told."""
    rng, out = np.random.default_rng(seed), []
    while not env.over:
        out.append(act(env, rng))
    out.append(env.reset())
    out += [act(env, rng, sleepless=True) for _ in range(3)]
    return out


def same(one: Any, other: Any) -> bool:
    return bool(data_equivalence(one, other, exact=True))


def lived(seed: int, steps: int, *last: Action) -> SleepEnv:
    """An environment some steps into an episode."""
    env, rng = SleepEnv(CARD), np.random.default_rng(seed)
    env.reset(seed=seed)
    for _ in range(steps):
        act(env, rng, sleepless=True)
    for action in last:
        assert env.action_masks()[action]
        env.step(action)
    return env


@pytest.fixture(scope="module")
def slept() -> SleepEnv:
    """Right after a night, with facts that were never audited beside the others; not to be stepped."""
    env = lived(1, 8, Action.SLEEP)
    while not env.action_masks()[Action.INJECT]:
        env.step(Action.WAIT)
    env.step(Action.INJECT)
    return env


@pytest.fixture
def saved(slept: SleepEnv, tmp_path: Path) -> Path:
    slept.snapshot().save(tmp_path / "snapshot")
    return tmp_path / "snapshot"


@pytest.mark.parametrize(("seed", "steps", "last"), [(0, 0, ()), (1, 6, ()), (4, 8, (Action.SLEEP,)), (3, 17, ())])
def test_going_on_from_a_snapshot_is_going_on(seed: int, steps: int, last: tuple[Action, ...]) -> None:
    env = lived(seed, steps, *last)
    snapshot = env.snapshot()
    expected = rest(env, seed)
    elsewhere = SleepEnv(CARD, split="test")
    for restored in (env, elsewhere):
        restored.restore(snapshot)
        assert restored.split == "train"
        assert same(rest(restored, seed), expected)


def test_restoring_shows_that_moment(slept: SleepEnv) -> None:
    snapshot = slept.snapshot()
    env = SleepEnv(CARD)
    observation, info = env.restore(snapshot)
    assert same(observation, slept.restore(snapshot)[0])
    assert same(info["action_mask"], slept.action_masks().astype(np.int8))
    assert (info["tick"], info["score"]) == (slept.episode.tick, slept.episode.score)
    assert env.np_random_seed == 1
    assert env.seconds == slept.seconds


def test_what_was_asked_is_not_asked_again(slept: SleepEnv) -> None:
    env = SleepEnv(CARD)
    env.restore(slept.snapshot())
    passes = env.episode.examiner.answers.forward_passes
    env.episode.correct(), env.episode.examiner.correct(env.episode.stream.known), env.episode.collapsed
    assert env.episode.examiner.answers.forward_passes == passes == slept.episode.examiner.answers.forward_passes


def test_a_fork_and_its_origin_do_not_see_each_other(slept: SleepEnv) -> None:
    one = slept.fork()
    other = one.fork()
    before = other.snapshot()
    expected = rest(one.fork(), 5)
    # Each in turn goes another way than the other.
    assert not same(rest(other, 6), expected)
    assert same(rest(one, 5), expected)
    one.restore(before)
    going = one.fork()
    act(one, np.random.default_rng(6))
    assert same(rest(going, 5), expected)
    assert slept.episode.learner.state.tick == before.state.learner.tick


def test_forks_in_turns_are_as_if_alone(slept: SleepEnv) -> None:
    alone = []
    for seed in (7, 8):
        env, rng = slept.fork(), np.random.default_rng(seed)
        alone.append([act(env, rng) for _ in range(3)])
    envs, rngs = [slept.fork(), slept.fork()], [np.random.default_rng(seed) for seed in (7, 8)]
    mixed: list[list[Any]] = [[], []]
    for _ in range(3):
        for env, rng, out in zip(envs, rngs, mixed, strict=True):
            out.append(act(env, rng))
    assert same(mixed, alone)


def test_a_fork_shares_the_model_and_nothing_that_changes(slept: SleepEnv) -> None:
    fork = slept.fork()
    assert fork.base is slept.base
    assert fork.episode.stream is slept.episode.stream
    for name in ("learner", "inbox", "history", "state", "examiner"):
        assert getattr(fork.episode, name) is not getattr(slept.episode, name)
    assert fork.action_space is not slept.action_space
    assert fork.np_random is not slept.np_random
    terms = slept.episode.learner.state.memory.terms
    assert all(fork.episode.learner.state.memory.terms[owner] is term for owner, term in terms.items())


def test_a_wrapped_environment_is_forked_without_its_wrappers() -> None:
    env = gym.make(MINI)
    env.reset(seed=0)
    fork = env.unwrapped.fork()  # type: ignore[attr-defined]
    assert type(fork) is SleepEnv
    assert fork.spec == env.unwrapped.spec
    assert fork.step(Action.WAIT)[4]["tick"] == 1
    assert env.unwrapped.episode.tick == 0  # type: ignore[attr-defined]


def test_an_episode_that_has_ended_stays_so(slept: SleepEnv) -> None:
    env = slept.fork()
    while not env.over:
        env.step(Action.WAIT)
    other = SleepEnv(CARD)
    other.restore(pickle.loads(pickle.dumps(env.snapshot())))
    with pytest.raises(gym.error.ResetNeeded):
        other.step(Action.WAIT)
    assert same(other.reset(), env.reset())


def test_before_the_first_reset_there_is_nothing_to_take() -> None:
    env = SleepEnv(CARD)
    with pytest.raises(gym.error.ResetNeeded):
        env.snapshot()
    with pytest.raises(gym.error.ResetNeeded):
        env.fork()


def test_another_card_is_refused_and_named(slept: SleepEnv) -> None:
    other = SleepEnv(CARD, episode={"days": 3})
    other.reset(seed=0)
    episode = other.episode
    with pytest.raises(SnapshotError, match=r"episode\.days: expected 3, found 2"):
        other.restore(slept.snapshot())
    assert other.episode is episode
    there = SleepEnv(slept.snapshot().card)
    assert same(there.restore(slept.snapshot()), slept.restore(slept.snapshot()))


def test_another_model_is_refused_and_named(slept: SleepEnv) -> None:
    snapshot = slept.snapshot()
    object.__setattr__(snapshot, "model", type(snapshot.model)("another", "0" * 64))
    with pytest.raises(SnapshotError, match=r"expected a snapshot of 'tiny'.*found one of 'another'"):
        slept.restore(snapshot)


# -------------------------------------------------------------------- pickles


def test_a_pickle_goes_on_as_the_original(slept: SleepEnv) -> None:
    expected = rest(slept.fork(), 3)
    env = SleepEnv(CARD)
    env.restore(pickle.loads(pickle.dumps(slept.snapshot())))
    assert same(rest(env, 3), expected)


def test_a_pickle_holds_numbers_and_no_model(slept: SleepEnv) -> None:
    snapshot = slept.snapshot()
    classes: set[str] = set()

    class Watching(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            classes.add(f"{module}.{name}")
            return super().find_class(module, name)

    data = pickle.dumps(snapshot)
    Watching(io.BytesIO(data)).load()
    unwanted = ("transformers", "torch.nn", "sleepgym.lm", "sleepgym.editing.base", "sleepgym.sleeper", "tokenizers")
    assert not [name for name in classes if name.startswith(unwanted)]
    numbers = 4 * snapshot.state.learner.memory.parameters
    # What is not a number is text about facts: those of the ledger, of the stream, and those that were asked.
    assert len(data) < numbers + 4096 * (slept.card.budget.capacity + slept.card.stream.known_facts) + 65536


def test_a_pickle_takes_no_more_of_a_view_than_is_seen(slept: SleepEnv) -> None:
    snapshot = slept.snapshot()
    memory, room = snapshot.state.learner.memory, torch.zeros(10**6)
    memory.put("view", {"module": (room[:8].view(2, 4), room[8:16].view(4, 2))})
    assert len(pickle.dumps(snapshot)) < 4 * memory.parameters + room.numel()


# ---------------------------------------------------------------------- files


def test_a_saved_snapshot_goes_on_as_the_original_through_another_night(slept: SleepEnv, saved: Path) -> None:
    original, env = slept.fork(), SleepEnv(CARD)
    snapshot = Snapshot.load(saved, env.base.lm)
    env.restore(snapshot)
    assert same(original.step(Action.SLEEP)[:4], env.step(Action.SLEEP)[:4])
    before, after = (e.episode.learner.state.memory.terms["lora"].factors for e in (original, env))
    assert list(before) == list(after)
    assert all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(before.values(), after.values(), strict=True)
    )
    assert same(rest(env, 4), rest(original, 4))


def test_a_saved_snapshot_is_the_same_snapshot(slept: SleepEnv, saved: Path) -> None:
    taken, loaded = slept.snapshot(), Snapshot.load(saved, slept.base.lm)
    for name in ("card", "model", "split", "stream", "over", "seconds"):
        assert getattr(loaded, name) == getattr(taken, name), name
    for name in ("history", "counters", "answers"):
        assert getattr(loaded.state, name) == getattr(taken.state, name), name
    # Order is part of it: it is that of the observation's rows and of what is written next.
    for name in ("current", "pending", "written"):
        assert list(vars(loaded.state.inbox)[name].items()) == list(vars(taken.state.inbox)[name].items())
    assert loaded.generator().bit_generator.state == taken.generator().bit_generator.state
    assert loaded.randomness.seed == taken.randomness.seed == 1


def test_a_saved_snapshot_is_a_checkpoint_of_the_learner(slept: SleepEnv, saved: Path) -> None:
    learner = SleepingLM(slept.base)
    learner.load(saved)
    assert learner.state.ledger.facts == slept.episode.learner.state.ledger.facts


def test_a_learner_alone_is_no_snapshot(slept: SleepEnv, tmp_path: Path) -> None:
    slept.episode.learner.save(tmp_path)
    with pytest.raises(CheckpointError, match=r"expected an episode .* found a learner alone"):
        Snapshot.load(tmp_path, slept.base.lm)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda episode: episode | {"format": 1}, "format"),
        (lambda episode: [], "format"),
        (lambda episode: episode | {"card": {}}, "well-formed"),
        (lambda episode: episode | {"split": "tset"}, "well-formed"),
        (lambda episode: episode | {"stream_seed": 0}, "draws others"),
        (lambda episode: episode | {"stream_seed": -1}, "well-formed"),
        (lambda episode: episode | {"split": "test"}, "draws others"),
        (lambda episode: episode | {"rng": {}}, "well-formed"),
        (lambda episode: episode | {"counts": {"ticks": 3}}, "well-formed"),
        (lambda episode: episode | {"inbox": {**episode["inbox"], "current": [10**6]}}, "well-formed"),
        (lambda episode: episode | {"history": {"seen": []}}, "well-formed"),
        (lambda episode: episode | {"history": {**episode["history"], "standings": []}}, "well-formed"),
        (lambda episode: {key: value for key, value in episode.items() if key != "answers"}, "well-formed"),
    ],
)
def test_a_forged_episode_is_refused(slept: SleepEnv, saved: Path, change: Any, message: str) -> None:
    from sleepgym.memory.checkpoint import _digest

    path = saved / "state.json"
    document = json.loads(path.read_text())
    document["notes"]["episode"] = change(document["notes"]["episode"])
    path.write_text(json.dumps(document | {"sha256": _digest(document)}))
    with pytest.raises(CheckpointError, match=message):
        Snapshot.load(saved, slept.base.lm)


@pytest.mark.parametrize("pattern", ["state.json", "terms-*.safetensors"])
@pytest.mark.parametrize("cut", [0, -3])
def test_a_damaged_file_is_refused(slept: SleepEnv, saved: Path, pattern: str, cut: int) -> None:
    (path,) = saved.glob(pattern)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CheckpointError):
        Snapshot.load(saved, slept.base.lm)


def test_an_edited_file_is_refused(slept: SleepEnv, saved: Path) -> None:
    path = saved / "state.json"
    document = json.loads(path.read_text())
    document["notes"]["episode"]["counts"]["answered"] += 1
    path.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="edited"):
        Snapshot.load(saved, slept.base.lm)

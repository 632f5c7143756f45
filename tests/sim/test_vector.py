"""Vectors of simulated environments: rows live as they would alone, and everything is Gymnasium's."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import sleepgym  # noqa: F401  (registers the environments)
from sleepgym.env.observation import Observer
from sleepgym.env.spaces import ActionError
from sleepgym.episode.actions import Action, NoteAction
from sleepgym.episode.card import load_card
from sleepgym.episode.reading import Readings
from sleepgym.episode.stream import draw_stream
from sleepgym.facts import World
from sleepgym.sim.env import SimEnv
from sleepgym.sim.fit import FitError
from sleepgym.sim.maker import FITS
from sleepgym.sim.response import Response
from sleepgym.sim.streams import streams_of
from sleepgym.sim.vector import SimVectorEnv
from tests.sim.conftest import NOTES

MINI = "SleepSim-Mini-v0"
PARAMETERS = {"facts": [2, 4], "sleep": [2, 3, 6]}


def masked(rng: np.random.Generator, masks: np.ndarray) -> np.ndarray:
    """A random allowed action per row."""
    return (rng.random(masks.shape) * masks).argmax(1)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("kind", ["", "-Notes"])
def test_gymnasium_makes_both_by_id(kind: str, flat: bool, wear: Response) -> None:
    env_id, card = f"SleepSim{kind}{'-Flat' if flat else ''}-v0", load_card(f"SleepLLM{kind}-v0")
    space = Observer(card).space
    space = gym.spaces.flatten_space(space) if flat else space
    envs = gym.make_vec(env_id, num_envs=3, fit=wear)
    assert isinstance(envs, SimVectorEnv)
    assert envs.single_observation_space == space and envs.single_action_space.n == len(card.operators)
    observation, info = envs.reset(seed=0)
    assert envs.observation_space.contains(observation)
    assert np.array_equal(info["action_mask"].astype(bool), envs.action_masks())
    env = gym.make(env_id, fit=wear)
    assert isinstance(env.unwrapped, SimEnv) and env.observation_space == space


def test_the_checker_of_gymnasium_has_nothing_to_say(wear: Response) -> None:
    check_env(SimEnv("SleepLLM-Mini-v0", wear), skip_render_check=True)
    check_env(SimEnv("SleepLLM-Mini-v0", wear, notes=NOTES), skip_render_check=True)


def test_a_card_without_a_fit_says_how_to_make_one() -> None:
    with pytest.raises(FitError, match=r"sleepgym fit-sim --env SleepLLM-Mini-v0 --episodes DIR --out FILE"):
        gym.make(MINI)


def test_a_card_with_notes_needs_a_fit_of_one() -> None:
    with pytest.raises(FitError, match=r"expected a fit of a card with notes in .*, found one of a card without them"):
        gym.make("SleepSim-v0", fit=FITS / "SleepLLM-v0.safetensors", notes=NOTES | {"capacity": 16})


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("kind", [{}, {"parameters": PARAMETERS}, {"notes": NOTES}], ids=lambda kind: str(*kind))
def test_every_step_is_that_of_environments_one_by_one(mode: AutoresetMode, kind: Any, wear: Response) -> None:
    """Streams, answers, autoreset, infos and their masks, over ends of episodes that come at different times."""
    # Fewer edits, and so less damage, where there is more to choose from.
    limit = 1.02 if "notes" in kind else 1.05
    arguments = {"fit": wear, "episode": {"max_perplexity_ratio": limit}, **kind}
    operators = 10 if "notes" in kind else 6
    alone = SyncVectorEnv([lambda: gym.make(MINI, **arguments)] * 5, autoreset_mode=mode)
    envs = gym.make_vec(MINI, num_envs=5, autoreset_mode=mode, **arguments)
    rng = np.random.default_rng(0)
    assert_alike(envs.reset(seed=3), alone.reset(seed=3))
    ends = collapses = 0
    for _ in range(120):
        actions = masked(rng, envs.action_masks()[:, :operators])
        if "parameters" in kind:
            actions = np.stack((actions, rng.integers(2, size=5), rng.integers(3, size=5)), 1)
        found = envs.step(actions)
        assert_alike(found, alone.step(actions))
        collapses += found[2].sum()
        over = found[2] | found[3]
        ends += over.sum()
        if mode == AutoresetMode.DISABLED and over.any():
            options = ({"reset_mask": over} for _ in range(2))
            assert_alike(*(each.reset(options=given) for each, given in zip((envs, alone), options, strict=True)))
    assert ends > 10 and collapses > 0


def assert_alike(found: Any, expected: Any) -> None:
    """Checks that two results of steps or resets are equal, bit for bit."""
    assert type(found) is type(expected) or np.isscalar(found)
    if isinstance(found, dict):
        assert found.keys() == expected.keys()
        for name in found:
            assert_alike(found[name], expected[name])
    elif isinstance(found, tuple) or (isinstance(found, np.ndarray) and found.dtype == object):
        for left, right in zip(found, expected, strict=True):
            assert_alike(left, right)
    else:
        np.testing.assert_array_equal(found, expected)
        assert np.asarray(found).dtype == np.asarray(expected).dtype


def test_a_snapshot_goes_on_as_the_environments_did(wear: Response) -> None:
    envs = SimVectorEnv(7, "SleepLLM-Mini-v0", wear)
    envs.reset(seed=1)
    rng = np.random.default_rng(0)
    for _ in range(10):
        envs.step(masked(rng, envs.action_masks()))
    there, actions = envs.snapshot(), []
    first = []
    for _ in range(40):
        actions.append(masked(rng, envs.action_masks()))
        first.append(envs.step(actions[-1]))
    other = SimVectorEnv(7, "SleepLLM-Mini-v0", wear)
    for again in (envs, other):
        again.restore(there)
        for action, expected in zip(actions, first, strict=True):
            assert_alike(again.step(action), expected)


def test_a_planner_branches_by_repeating_rows_of_a_snapshot(wear: Response) -> None:
    envs = SimVectorEnv(3, "SleepLLM-Mini-v0", wear)
    envs.reset(seed=1)
    envs.step([1, 1, 1])
    there, rows = envs.snapshot(), np.array([2, 2, 2, 0])
    branches = SimVectorEnv(4, "SleepLLM-Mini-v0", wear)
    first, _ = branches.restore(there.rows(rows))
    assert all(np.array_equal(first[name], part[rows]) for name, part in envs.restore(there)[0].items())
    for seed, alike in ((None, True), (0, False)):
        branches.restore(there.rows(rows, seed))
        ledger = branches.step([4, 4, 4, 4])[0]["ledger"]
        # Equal futures, or futures of their own.
        assert np.array_equal(ledger[0], ledger[1]) is alike


def test_a_fork_leaves_the_original_alone(wear: Response) -> None:
    env = SimEnv("SleepLLM-Mini-v0", wear)
    env.reset(seed=4)
    env.step(1)
    twin = env.fork()
    for _ in range(5):
        twin.step(4)
    assert env.fork().step(0)[0]["stats"].tolist() == env.step(0)[0]["stats"].tolist()


def test_a_real_stream_can_be_played(wear: Response) -> None:
    card = load_card("SleepLLM-Mini-v0")
    stream = draw_stream(card, World(), "validation", np.random.default_rng(5))
    env = SimEnv(card, wear)
    _, info = env.reset(seed=0, options={"stream": stream})
    assert info["edits_left"] == stream.rhythm.edit_budget
    arrived = [len(stream.arrivals[0])]
    while not env.over:
        *_, info = env.step(0)
        arrived.append(int(info["arrived"]))
    keys = {arrival.fact.key for tick in stream.arrivals for arrival in tick}
    assert arrived[-1] == len(keys) and len(arrived) == card.horizon + 1
    with pytest.raises(ValueError, match="the card that it was drawn for"):
        SimEnv("SleepLLM-v0", wear).reset(options={"stream": stream})
    with pytest.raises(ValueError, match="options out of"):
        env.reset(options={"streams": stream})
    with pytest.raises(ValueError, match="a stream for each of 2"):
        SimVectorEnv(2, card, wear).reset(options={"streams": streams_of(card, [stream])})


def test_a_real_stream_with_notes_brings_what_is_read_in_them(wear: Response) -> None:
    card = load_card("SleepLLM-Mini-v0", notes=NOTES)
    stream = draw_stream(card, World(), "validation", np.random.default_rng(5))
    facts = {arrival.fact for tick in stream.arrivals for arrival in tick}
    env, asks = SimEnv(card, wear), (NoteAction.LOOK_UP_ALWAYS, *[NoteAction.NOTE, Action.WAIT] * card.horizon)
    shares, tokens = [], []
    for right in (True, False):
        readings = Readings(dict.fromkeys(facts, right), dict.fromkeys(facts, 7))
        env.reset(seed=0, options={"stream": stream, "readings": readings})
        for action in asks[: card.horizon]:
            *_, info = env.step(action)
        shares.append(info["score"])
        tokens.append(info["tokens_read"] / info["look_ups"])
    assert tokens == pytest.approx([7, 7]) and shares[0] > shares[1] + 0.3
    with pytest.raises(ValueError, match=r"expected readings of notes for each of 1 streams .*, found 0"):
        env.reset(options={"stream": stream})


def test_equal_seeds_give_equal_episodes_and_others_do_not(wear: Response) -> None:
    envs = SimVectorEnv(2, "SleepLLM-Mini-v0", wear)
    (first, _), (again, _), (other, _) = (envs.reset(seed=[seed, seed]) for seed in (1, 1, 2))
    assert np.array_equal(first["stats"], again["stats"]) and np.array_equal(first["stats"][0], first["stats"][1])
    assert not np.array_equal(first["stats"], other["stats"])
    following, _ = envs.reset()
    assert not np.array_equal(following["stats"], other["stats"])


def test_without_a_seed_every_episode_is_another() -> None:
    """Alone, in Gymnasium's own vectors and in that of the sim, also with seeds for some only."""
    alone = [gym.make("SleepSim-v0").reset()[0]["stats"] for _ in range(3)]
    envs = gym.make_vec("SleepSim-v0", num_envs=3, vectorization_mode="sync")
    own, in_part, for_some = (SimVectorEnv(3) for _ in range(3))
    streams = [
        np.array(alone),
        envs.reset()[0]["stats"],
        own.reset()[0]["stats"],
        for_some.reset(seed=[None, None, 7])[0]["stats"],
    ]
    first = np.concatenate(streams)
    assert len(np.unique(first, axis=0)) == len(first)
    # All begin at first, whatever the mask.
    known, _ = in_part.reset(seed=5, options={"reset_mask": np.array([True, False, False])})
    assert np.array_equal(known["stats"], SimVectorEnv(3).reset(seed=[5, 6, 7])[0]["stats"])
    assert np.array_equal(streams[3][2], known["stats"][2])
    # Those without a seed now go on, and are not drawn anew.
    again = for_some.snapshot()
    following, _ = for_some.reset(seed=[None, None, 7])
    for_some.restore(again)
    repeated, _ = for_some.reset()
    assert np.array_equal(following["stats"][:2], repeated["stats"][:2])


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"seed": [0, -1, -2]}, r"expected seeds from 0 on, found \[-1, -2\]"),
        ({"seed": [0, 1]}, "expected a seed for each of 3 environments, found 2"),
        ({"options": {"typo": 1}}, r"expected options out of \['reset_mask', 'split', 'streams'\], found \['typo'\]"),
        ({"options": {"split": "dream"}}, "expected a split in .*, found 'dream'"),
    ],
)
def test_a_reset_that_cannot_be_leaves_episodes_as_they_were(asked: Any, why: str, wear: Response) -> None:
    envs, other = (SimVectorEnv(3, "SleepLLM-Mini-v0", wear) for _ in range(2))
    for each in (envs, other):
        each.reset(seed=1)
    with pytest.raises(ValueError, match=why):
        envs.reset(**asked)
    assert_alike(envs.step(np.full(3, Action.INJECT)), other.step(np.full(3, Action.INJECT)))
    assert_alike(envs.reset(), other.reset())


@pytest.mark.parametrize("actions", [[0, 0], np.zeros(3), [0, 0, 6], "abc", [[0], [0, 1], 0]])
def test_what_is_no_batch_of_actions_is_refused(actions: Any, wear: Response) -> None:
    envs = SimVectorEnv(3, "SleepLLM-Mini-v0", wear)
    envs.reset(seed=0)
    with pytest.raises(ActionError, match="expected 3 actions"):
        envs.step(actions)


def test_a_step_before_the_first_reset_is_refused(wear: Response) -> None:
    with pytest.raises(gym.error.ResetNeeded):
        SimVectorEnv(3, "SleepLLM-Mini-v0", wear).step([0, 0, 0])

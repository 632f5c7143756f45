"""What is kept between steps is right at every step: against a plain reference, and against what starts afresh."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence

from sleepgym.env.observation import EDITS_SCALE, LEDGER_FEATURES, MARGIN_SCALE, STATS_FEATURES, stat
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.actions import Action
from sleepgym.episode.episode import Episode
from sleepgym.episode.history import Standing
from sleepgym.memory.owners import owner_of

OF_THE_ACTION = {"invalid_action", "error_code", "reward_served", "reward_drift", "reward_invalid", "rolled_back"}
"""Infos that are about the last action and not about the moment."""


def make() -> SleepEnv:
    """Many arrivals and changes, hardly room for them, and two passed nights to the last stage."""
    return SleepEnv(
        "SleepLLM-Mini-v0",
        edit={"steps": 6},
        sleep={"scales": [1.0, 0.5, 0.0], "rehearsal_rows": 2, "validation_rows": 4},
        stream={"arrival_rate": [1.0, 1.0], "update_share": [0.3, 0.5], "known_facts": 2},
        budget={"capacity": 6, "pending": 3, "edits": [1.5, 2.0]},
        ticks={"sleep": 1},
        episode={"perplexity_rows": 4},
    )


@pytest.fixture(scope="module")
def env() -> SleepEnv:
    return make()


@pytest.fixture(scope="module")
def other() -> SleepEnv:
    return make()


def lived(env: SleepEnv, seed: int) -> Iterator[tuple[Any, dict[str, Any]]]:
    """What is seen in an episode of random allowed actions, in which everything happens that can."""
    rng, untried = np.random.default_rng(seed), set(Action)
    yield env.reset(seed=seed)
    while not env.over:
        allowed = [action for action in Action if env.action_masks()[action]]
        action = Action(int(rng.choice([action for action in allowed if action in untried] or allowed)))
        observation, *_, info = env.step(action)
        untried -= set() if info["invalid_action"] else {action}
        yield observation, info
    assert not untried
    assert {*Standing} == set("".join(env.episode.history.standings))


def answers(episode: Episode) -> list[bool]:
    """Whether each arrived fact would be answered, looked up one by one."""
    written, known = episode.inbox.written, episode.examiner.answers.correct
    return [written.get(key) == arrival.fact and known[arrival.fact] for key, arrival in episode.inbox.current.items()]


def rows(episode: Episode) -> np.ndarray:
    """The ledger of an observation, a number at a time."""
    inbox, state, card = episode.inbox, episode.learner.state, episode.card
    found = np.zeros((card.budget.capacity + card.budget.pending, len(LEDGER_FEATURES)), np.float32)
    for row, (key, entry) in enumerate(state.ledger.items()):
        audit_age = (episode.tick - entry.audited_at) / card.horizon if entry.audited else 1
        found[row] = [
            1,
            0,
            (episode.tick - entry.written_at) / card.horizon,
            entry.stage / card.sleep.last_stage,
            state.memory.terms[owner_of(entry.fact)].scale,
            entry.audited,
            0 if entry.margin is None else min(1, max(-1, entry.margin / MARGIN_SCALE)),
            entry.recalled,
            audit_age,
            min(1, entry.writes / EDITS_SCALE),
            inbox.current[key].popularity,
        ]
    for row, arrival in enumerate(inbox.pending.values(), start=len(state.ledger)):
        age = (episode.tick - arrival.tick) / card.horizon
        found[row] = [1, 1, age, 0, 0, 0, 0, 0, 1, 0, arrival.popularity]
    return found


def load_and_rank(episode: Episode) -> tuple[float, int]:
    state = episode.learner.state
    ranks: dict[str, int] = {}
    for term in state.memory.terms.values():
        for module, (a, _) in term.factors.items():
            ranks[module] = ranks.get(module, 0) + len(a)
    load = sum(state.memory.terms[owner_of(fact)].scale for fact in state.ledger.facts)
    return load, max(ranks.values(), default=0)


def served(episode: Episode) -> float:
    spec, known = episode.card.stream, episode.examiner.answers.correct
    asked = [
        arrival.popularity * (1 + spec.recency_boost * math.exp((arrival.tick - episode.tick) / spec.recency_ticks))
        for arrival in episode.inbox.current.values()
    ]
    about_known = sum(known[fact] for fact in episode.stream.known) / len(episode.stream.known)
    if not asked:
        return about_known
    about_new = sum(share for share, right in zip(asked, answers(episode), strict=True) if right) / sum(asked)
    return (1 - spec.known_share) * about_new + spec.known_share * about_known


def test_every_observation_is_that_of_a_plain_reference(env: SleepEnv) -> None:
    for step, (observation, info) in enumerate(lived(env, seed=0)):
        episode, card = env.episode, env.card
        assert np.array_equal(observation["ledger"], rows(episode))
        load, rank = load_and_rank(episode)
        degraded = [
            key
            for key, entry in episode.learner.state.ledger.items()
            if entry.degraded and entry.fact == episode.inbox.current[key].fact
        ]
        expected = {
            "load": load / card.budget.capacity,
            "rank_used": rank / (card.budget.capacity + card.sleep.rank),
            "degraded": len(degraded) / card.budget.capacity,
            "pending": len(episode.inbox.pending) / card.budget.pending,
        }
        assert {name: np.float32(stat(observation, name)) for name in expected} == {
            name: np.float32(value) for name, value in expected.items()
        }
        right = answers(episode)
        assert info["recall"] == (np.mean(right) if right else 1.0)
        assert info["degraded"] == len(degraded)
        assert sorted(episode.degraded()) == sorted(degraded)
        assert [letter == Standing.RIGHT for letter in episode.standings()] == right
        if step and not env.over:
            (level, *_), drift = episode.stream.traffic[episode.tick :], max(0.0, info["ppl_ratio"] - 1)
            worth = card.reward.served * level * served(episode) - card.reward.drift * drift
            assert episode.prospect(episode.tick + 1) == pytest.approx(worth)


def test_every_moment_is_seen_as_by_an_environment_that_is_restored_to_it(env: SleepEnv, other: SleepEnv) -> None:
    for observation, info in lived(env, seed=2):
        seen, told = other.restore(env.snapshot())
        assert data_equivalence(seen, observation, exact=True)
        moment = {name: value for name, value in info.items() if name not in OF_THE_ACTION}
        assert data_equivalence({name: told[name] for name in moment}, moment, exact=True)
        assert other.episode.standings() == env.episode.standings()
        assert other.episode.pressure() == env.episode.pressure()
        assert other.episode.prospect(env.card.horizon) == env.episode.prospect(env.card.horizon)


def test_forks_that_part_see_what_each_would_see_alone(env: SleepEnv, other: SleepEnv) -> None:
    for step, _ in enumerate(lived(env, seed=3)):
        if step % 6 or env.over:
            continue
        moment = env.snapshot()
        # Both learn and forget something, so that their counters go up alike while their memories differ.
        plans = [[Action.INJECT, Action.NAP, Action.WAIT], [Action.SLEEP, Action.INJECT, Action.WAIT]]
        forks = [env.fork() for _ in plans]
        together = [
            [fork.step(plan[turn]) for fork, plan in zip(forks, plans, strict=True) if not fork.over]
            for turn in range(3)
        ]
        for i, plan in enumerate(plans):
            # One environment after another way out of the same moment, without forgetting anything in between.
            other.restore(moment)
            alone = [other.step(action) for action in plan if not other.over]
            assert data_equivalence(alone, [turn[i] for turn in together if len(turn) > i], exact=True)


def test_an_environment_that_goes_back_forgets_what_it_saw(env: SleepEnv) -> None:
    env.reset(seed=5)
    while not env.action_masks()[Action.INJECT]:
        env.step(Action.WAIT)
    moment = env.snapshot()
    ways = [[Action.INJECT, Action.WAIT], [Action.WAIT, Action.INJECT], [Action.WAIT, Action.WAIT]]

    def walked(way: list[Action]) -> list[Any]:
        env.restore(moment)
        return [env.step(action) for action in way]

    first = [walked(way) for way in ways]
    assert data_equivalence([walked(way) for way in reversed(ways)][::-1], first, exact=True)


def test_waiting_lays_nothing_out_anew(env: SleepEnv) -> None:
    env.reset(seed=0)
    env.step(Action.INJECT)
    quiet = 0
    while not env.over:
        arrived, written = env.episode.arrived, env.episode.written
        env.step(Action.WAIT)
        assert env.episode.written is written
        if env.episode.truncated or not env.episode.stream.arrivals[env.episode.tick]:
            assert env.episode.arrived is arrived
            quiet += 1
        assert not env.episode.asked()
    assert quiet


def test_what_is_kept_is_in_no_snapshot_and_no_pickle(env: SleepEnv) -> None:
    env.reset(seed=0)
    env.step(Action.INJECT)
    for kept in (env, env.snapshot()):
        assert b"episode.tables" not in pickle.dumps(kept)


def test_features_are_those_of_the_reference() -> None:
    """Its numbers stand in this order."""
    assert ",".join(LEDGER_FEATURES) == (
        "present,pending,age,stage,scale,audited,margin,recalled,audit_age,edits,popularity"
    )
    assert {"load", "rank_used", "degraded", "pending", "pressure"} <= set(STATS_FEATURES)

"""SleepEnv on the small card: it is a correct environment, and its rules hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence

import sleepgym  # noqa: F401  (registers the environments)
from sleepgym.editing import EditError
from sleepgym.env.observation import LEDGER_FEATURES, STATS_FEATURES, stat
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.actions import Action
from sleepgym.schedulers import RandomScheduler

MINI = "SleepLLM-Mini-v0"


def make(**overrides: Any) -> SleepEnv:
    return SleepEnv(MINI, **overrides)


@pytest.fixture
def env() -> Iterator[SleepEnv]:
    made = make()
    made.reset(seed=0)
    yield made
    made.close()


def until_pending(env: SleepEnv) -> None:
    while not env.episode.inbox.pending:
        env.step(Action.WAIT)


def trajectory(env: SleepEnv, seed: int, steps: int = 10) -> list[Any]:
    out: list[Any] = [env.reset(seed=seed)]
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        # Forbidden actions too: they are part of what must be reproducible.
        out.append(env.step(int(rng.integers(len(Action)))))
        if out[-1][2] or out[-1][3]:
            break
    return out


def test_equal_seeds_and_actions_give_equal_trajectories_bit_for_bit() -> None:
    first, second = trajectory(make(), 3), trajectory(make(), 3)
    assert data_equivalence(first, second, exact=True)


def test_a_reset_forgets_the_episode_before() -> None:
    env = make()
    first = trajectory(env, 4)
    trajectory(env, 5)
    assert data_equivalence(first, trajectory(env, 4), exact=True)


def test_actions_do_not_shift_the_stream() -> None:
    idle, busy = make(), make()
    idle.reset(seed=6)
    trajectory(busy, 6)
    assert idle.episode.stream == busy.episode.stream


def test_a_second_environment_shares_the_model_and_loads_nothing() -> None:
    first, second = make(), make(split="test")
    assert first.base is second.base
    assert first.base.lm.model is second.base.lm.model


def test_two_environments_on_one_model_do_not_see_each_other() -> None:
    alone = trajectory(make(), 7)
    one, other = make(), make()
    mixed: list[Any] = [one.reset(seed=7)]
    other.reset(seed=8)
    rng = np.random.default_rng(7)
    for _ in range(10):
        mixed.append(one.step(int(rng.integers(len(Action)))))
        if mixed[-1][2] or mixed[-1][3]:
            break
        other.step(Action.INJECT)
    assert data_equivalence(alone, mixed, exact=True)


def test_a_night_that_the_budget_does_not_cover_refreshes_nothing() -> None:
    env = make(budget={"edits": [0.5, 0.5]})
    env.reset(seed=0)
    while env.episode.edits_left and not env.episode.truncated:
        until_pending(env)
        env.step(Action.INJECT)
    env.step(Action.SLEEP)
    assert env.episode.edits_left == 0
    assert env.episode.learner.sleep_spec == env.card.sleep


def test_waiting_needs_no_forward_pass(env: SleepEnv) -> None:
    until_pending(env)
    env.step(Action.INJECT)
    passes = env.episode.examiner.answers.forward_passes
    while not env.episode.truncated:
        env.step(Action.WAIT)
    assert env.episode.examiner.answers.forward_passes == passes


def test_sleep_takes_its_ticks_offline_while_the_stream_goes_on(env: SleepEnv) -> None:
    until_pending(env)
    env.step(Action.INJECT)
    before = env.episode.tick
    _, reward, _, _, info = env.step(Action.SLEEP)
    assert info["tick"] - before == env.card.ticks.sleep
    assert info["reward_served"] == 0
    assert reward <= 0
    assert env.episode.history.doing[before : info["tick"]] == ["SLEEP"] * env.card.ticks.sleep
    arrived = {a.fact.key for tick in env.episode.stream.arrivals[: info["tick"] + 1] for a in tick}
    assert set(env.episode.inbox.current) == arrived


def test_waiting_facts_are_wrong_until_they_are_written() -> None:
    env = make()
    env.reset(seed=1)
    until_pending(env)
    assert env.episode.recall() == 0
    while env.episode.inbox.pending:
        env.step(Action.INJECT)
    assert env.episode.recall() > 0


def test_overflow_loses_facts_for_good() -> None:
    env = make(budget={"pending": 1}, stream={"update_share": [0.0, 0.0]})
    _, info = env.reset(seed=0)
    while env.episode.inbox.lost == 0:
        *_, info = env.step(Action.WAIT)
    assert info["lost"] >= 1
    assert info["arrived"] == info["lost"] + info["pending"]
    assert info["recall"] == 0


def test_an_update_makes_the_written_version_wrong_until_it_is_written_too() -> None:
    env = make(stream={"update_share": [0.9, 1.0]})
    env.reset(seed=2)
    episode = env.episode
    while True:
        env.step(Action.INJECT)
        known = {k: a for k, a in episode.inbox.current.items() if episode.inbox.is_answerable(k)}
        env.step(Action.WAIT)
        changed = [key for key, old in known.items() if episode.inbox.current[key] != old]
        if changed:
            break
    (key, *_) = changed
    position = list(episode.inbox.current).index(key)
    assert episode.inbox.current[key].is_update
    assert not episode.correct()[position]
    while key in episode.inbox.pending:
        env.step(Action.INJECT)
    assert episode.learner.state.ledger[key].fact == episode.inbox.current[key].fact
    assert episode.inbox.is_answerable(key)


def test_a_full_ledger_closes_inject_but_not_for_new_versions() -> None:
    env = make(budget={"capacity": 1}, stream={"update_share": [0.0, 0.0]})
    env.reset(seed=0)
    until_pending(env)
    env.step(Action.INJECT)
    until_pending(env)
    assert not env.action_masks()[Action.INJECT]
    assert len(env.episode.learner.state.ledger) == 1


def test_a_failing_operator_is_an_invalid_action_with_a_reason(env: SleepEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    until_pending(env)
    pending = dict(env.episode.inbox.pending)

    def fail(facts: object) -> None:
        raise EditError("expected finite losses, found NaN")

    monkeypatch.setattr(env.episode.learner, "inject", fail)
    *_, info = env.step(Action.INJECT)
    assert info["invalid_action"]
    assert info["error_code"] == 1
    assert env.error == "EditError: expected finite losses, found NaN"
    assert info["edits_used"] == 0
    assert pending.items() <= env.episode.inbox.pending.items()


def test_a_refreshed_fact_is_no_longer_known_to_be_degraded(env: SleepEnv) -> None:
    until_pending(env)
    env.step(Action.INJECT)
    ledger = env.episode.learner.state.ledger
    (key, *_) = ledger
    ledger.update(key, margin=-1.0, audited_at=0)
    assert env.action_masks()[Action.REFRESH]
    *_, info = env.step(Action.REFRESH)
    assert not info["invalid_action"]
    assert key not in env.episode.degraded()


def test_pruned_facts_leave_the_ledger_but_are_still_asked(env: SleepEnv) -> None:
    until_pending(env)
    env.step(Action.INJECT)
    episode = env.episode
    (key, *_) = episode.learner.state.ledger
    assert not env.action_masks()[Action.PRUNE]
    episode.learner.state.ledger.update(key, stage=env.card.sleep.last_stage)
    arrived = len(episode.inbox.current)
    *_, info = env.step(Action.PRUNE)
    assert not info["invalid_action"]
    assert key not in episode.learner.state.ledger
    assert info["arrived"] >= arrived
    assert len(episode.correct()) == info["arrived"]


def test_collapse_terminates_and_what_it_leaves_unasked_is_wrong() -> None:
    env = make(episode={"max_perplexity_ratio": 1.001})
    env.reset(seed=2)
    score = 1.0
    for _ in range(24):
        mask = env.action_masks()
        _, _, terminated, truncated, info = env.step(Action.INJECT if mask[Action.INJECT] else Action.WAIT)
        if terminated:
            assert info["ppl_ratio"] > 1
            assert info["score"] < score
            assert not truncated
            return
        score = info["score"]
    pytest.fail("no edit raised perplexity")


def test_the_clock_truncates_and_ends_the_episode(env: SleepEnv) -> None:
    truncated = False
    while not truncated:
        _, _, terminated, truncated, info = env.step(Action.WAIT)
        assert not terminated
    assert info["tick"] == env.card.horizon
    assert 0 <= info["score"] <= 1
    assert env.seconds > 0
    with pytest.raises(gym.error.ResetNeeded):
        env.step(Action.WAIT)


def test_score_is_the_traffic_weighted_share_of_served_questions(env: SleepEnv) -> None:
    scheduler = RandomScheduler(0)
    observation, info = env.reset(seed=9)
    over = False
    while not over:
        action, _ = scheduler.predict(observation, action_masks=info["action_mask"])
        observation, _, terminated, truncated, info = env.step(int(action))
        over = terminated or truncated
    history, traffic = env.episode.history, np.array(env.episode.stream.traffic)
    assert len(history) == env.card.horizon
    assert info["score"] == pytest.approx(traffic @ np.array(history.served) / traffic.sum())


def test_observation_shows_the_last_audit_and_not_the_truth(env: SleepEnv) -> None:
    until_pending(env)
    observation, *_ = env.step(Action.INJECT)
    rows = observation["ledger"]
    names = list(LEDGER_FEATURES)
    assert rows[0, names.index("present")] == 1
    assert rows[0, names.index("pending")] == 0
    assert rows[0, names.index("audited")] == 0
    assert rows[0, names.index("recalled")] == 0
    observation, *_ = env.step(Action.NAP)
    assert observation["ledger"][0, names.index("audited")] == 1


def test_waiting_facts_are_rows_of_the_ledger(env: SleepEnv) -> None:
    until_pending(env)
    observation, *_ = env.step(Action.WAIT)
    pending = observation["ledger"][:, list(LEDGER_FEATURES).index("pending")]
    assert pending.sum() == len(env.episode.inbox.pending)
    assert stat(observation, "pending") == pytest.approx(len(env.episode.inbox.pending) / env.card.budget.pending)


def test_every_feature_has_finite_bounds(env: SleepEnv) -> None:
    for name, features in (("ledger", LEDGER_FEATURES), ("stats", STATS_FEATURES)):
        box = env.observation_space[name]  # type: ignore[index]
        assert box.shape[-1] == len(features)
        assert np.isfinite(box.low).all()
        assert np.isfinite(box.high).all()


def test_split_is_an_argument_of_reset_too(env: SleepEnv) -> None:
    env.reset(seed=0, options={"split": "test"})
    assert env.split == "test"
    with pytest.raises(ValueError, match="split"):
        env.reset(options={"split": "tset"})


def test_unknown_options_of_reset_are_named_and_leave_the_episode_as_it_is(env: SleepEnv) -> None:
    env.reset(seed=0, options={"split": "test"})
    stream, drawn = env.episode.stream, env.np_random.bit_generator.state
    with pytest.raises(ValueError, match=r"expected options out of \['split'\], found \['card', 'spilt'\]"):
        env.reset(seed=1, options={"split": "train", "spilt": "test", "card": "SleepLLM-v0"})
    with pytest.raises(ValueError, match="expected a split"):
        env.reset(seed=1, options={"split": "tset"})
    assert env.episode.stream is stream
    assert (env.split, env.np_random.bit_generator.state) == ("test", drawn)
    env.reset(options={})

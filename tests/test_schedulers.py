"""Schedulers answer as SB3 models do, keep to the mask, and do what their names say."""

from __future__ import annotations

import numpy as np
import pytest

from sleepgym.env.actions import Action
from sleepgym.env.observation import LEDGER_FEATURES, STATS_FEATURES
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.schedulers import FixedPeriod, NeverSleep, PressureRule, RandomScheduler, Scheduler, allowed

ALL: list[Scheduler] = [
    RandomScheduler(0),
    NeverSleep(),
    NeverSleep(nap_days=0.5),
    FixedPeriod(),
    PressureRule(),
    PressureRule(night_relief=0.4),
]


def seen(**stats: float) -> dict[str, np.ndarray]:
    """An observation with a few statistics set."""
    values = np.zeros(len(STATS_FEATURES), np.float32)
    for name, value in stats.items():
        values[list(STATS_FEATURES).index(name)] = value
    return {"ledger": np.zeros((4, len(LEDGER_FEATURES)), np.float32), "stats": values}


def choice(scheduler: Scheduler, observation: dict[str, np.ndarray], *without: Action) -> Action:
    mask = np.ones(len(Action), dtype=bool)
    mask[[Action.PRUNE, *without]] = False
    action, _ = scheduler.predict(observation, action_masks=mask)
    return Action(int(action))


@pytest.mark.parametrize("scheduler", ALL, ids=str)
def test_only_allowed_actions_are_chosen(scheduler: Scheduler) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        observation = {
            "ledger": rng.random((4, len(LEDGER_FEATURES)), np.float32),
            "stats": rng.random(len(STATS_FEATURES), np.float32),
        }
        mask = rng.random(len(Action)) < 0.5
        mask[Action.WAIT] = True
        action, state = scheduler.predict(observation, "memory", action_masks=mask)
        assert mask[int(action)]
        assert state == "memory"


def test_a_batch_of_observations_gets_a_batch_of_actions() -> None:
    one, other = seen(pending=0.5, budget_left=1), seen(pressure=0.9, ledger_fill=0.5)
    batch = {name: np.stack([one[name], other[name]]) for name in one}
    actions, _ = PressureRule().predict(batch)
    assert actions.tolist() == [Action.INJECT, Action.SLEEP]


def test_never_sleep_never_sleeps() -> None:
    tired = seen(pressure=1, since_sleep=1, since_audit=1, ledger_fill=0.5)
    assert choice(NeverSleep(), tired, Action.INJECT, Action.REFRESH) == Action.WAIT
    assert choice(NeverSleep(nap_days=0.5), tired, Action.INJECT, Action.REFRESH) == Action.NAP


def test_fixed_period_sleeps_when_its_period_is_over() -> None:
    assert choice(FixedPeriod(days=1), seen(since_sleep=0.5)) == Action.SLEEP
    assert choice(FixedPeriod(days=1), seen(since_sleep=0.4)) == Action.INJECT


def test_pressure_rule_naps_then_sleeps_as_pressure_rises() -> None:
    idle = (Action.INJECT, Action.REFRESH)
    assert choice(PressureRule(), seen(pressure=0.3, since_audit=1), *idle) == Action.WAIT
    assert choice(PressureRule(), seen(pressure=0.5, since_audit=1), *idle) == Action.NAP
    assert choice(PressureRule(), seen(pressure=0.5, since_audit=0), *idle) == Action.WAIT
    assert choice(PressureRule(), seen(pressure=0.8, since_audit=0), *idle) == Action.SLEEP


def test_night_relief_makes_it_sleep_earlier_by_night() -> None:
    rule = PressureRule(night_relief=0.4)
    assert choice(rule, seen(pressure=0.5, night=1)) == Action.SLEEP
    assert choice(rule, seen(pressure=0.5, night=0)) == Action.INJECT


def test_a_nearly_full_ledger_is_pruned_first() -> None:
    mask = np.ones(len(Action), dtype=bool)
    action, _ = NeverSleep().predict(seen(ledger_fill=0.9), action_masks=mask)
    assert action == Action.PRUNE


def test_without_a_mask_the_observation_says_what_is_allowed() -> None:
    env = SleepEnv("SleepLLM-Mini-v0")
    observation, _ = env.reset(seed=0)
    over, scheduler = False, RandomScheduler(1)
    while not over:
        mask, guessed = env.action_masks(), allowed(observation)
        # A refresh of facts that are no longer true is the one thing that only the environment knows better.
        assert not (guessed & ~mask).any()
        action, _ = scheduler.predict(observation)
        observation, _, terminated, truncated, _ = env.step(int(action))
        over = terminated or truncated

"""Schedulers answer as SB3 models do, and keep to the mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sleepgym.env.observation import LEDGER_FEATURES, STATS_FEATURES
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.actions import Action
from sleepgym.schedulers import (
    AlwaysSleep,
    BudgetAware,
    Drowsiness,
    FixedPeriod,
    NeverSleep,
    NightOwl,
    PressureRule,
    RandomScheduler,
    Scheduler,
    allowed,
)
from sleepgym.schedulers.base import days_passed, keep_up

ALL: list[Scheduler] = [
    RandomScheduler(0),
    NeverSleep(),
    NeverSleep(nap_days=0.5),
    AlwaysSleep(),
    FixedPeriod(),
    PressureRule(),
    PressureRule(nap_at=0.4, sleep_at=0.8, night_relief=0.0),
    Drowsiness(),
    NightOwl(),
    BudgetAware(),
]

Seen = Callable[..., dict[str, np.ndarray]]


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


@pytest.mark.parametrize("scheduler", ALL[1:], ids=str)
def test_a_batch_is_answered_row_by_row(scheduler: Scheduler) -> None:
    rng = np.random.default_rng(1)
    batch = {
        "ledger": rng.random((30, 4, len(LEDGER_FEATURES)), np.float32),
        "stats": rng.random((30, len(STATS_FEATURES)), np.float32),
    }
    masks = rng.random((30, len(Action))) < 0.5
    masks[:, Action.WAIT] = True
    rows = [
        int(scheduler.predict({name: value[i] for name, value in batch.items()}, action_masks=masks[i])[0])
        for i in range(30)
    ]
    actions, state = scheduler.predict(batch, "memory", action_masks=masks)
    assert actions.tolist() == rows
    assert (actions.dtype, state) == (np.int64, "memory")
    # Masks of int8, as infos have them, are masks as well.
    assert scheduler.predict(batch, action_masks=masks.astype(np.int8))[0].tolist() == rows


def test_without_masks_a_batch_is_told_by_its_observations_what_is_allowed(seen: Seen) -> None:
    one, other = seen(pending=0.5, budget_left=1), seen(pressure=0.9, ledger_fill=0.5)
    batch = {name: np.stack([one[name], other[name]]) for name in one}
    actions, _ = PressureRule(sleep_at=0.8).predict(batch)
    assert actions.tolist() == [Action.INJECT, Action.SLEEP]


def test_of_a_mask_with_parameters_the_operators_part_is_read(seen: Seen) -> None:
    mask = np.concatenate([np.eye(len(Action), dtype=bool)[Action.NAP], np.ones(7, dtype=bool)])
    for _ in range(20):
        assert RandomScheduler().predict(seen(), action_masks=mask)[0] == Action.NAP


def test_without_a_mask_the_observation_says_what_is_allowed(short: Callable[..., SleepEnv]) -> None:
    env = short()
    observation, _ = env.reset(seed=0)
    over, scheduler, guesses = False, RandomScheduler(1), 0
    while not over:
        mask, guessed = env.action_masks(), allowed(observation)
        # A refresh of facts that are no longer true is the one thing that only the environment knows better.
        assert not (guessed & ~mask).any()
        guesses += int(guessed.sum())
        action, _ = scheduler.predict(observation)
        observation, _, terminated, truncated, _ = env.step(int(action))
        over = terminated or truncated
    assert guesses > 12


@pytest.mark.parametrize(
    ("stats", "expected"),
    [
        ({}, {Action.WAIT}),
        ({"pending": 0.1, "budget_left": 0.1}, {Action.WAIT, Action.INJECT}),
        ({"pending": 0.1}, {Action.WAIT}),
        ({"pending": 0.1, "budget_left": 1, "ledger_fill": 1}, {Action.WAIT, Action.NAP, Action.SLEEP}),
        (
            {"degraded": 0.1, "budget_left": 1, "ledger_fill": 0.2},
            {Action.WAIT, Action.REFRESH, Action.NAP, Action.SLEEP},
        ),
    ],
)
def test_the_mask_that_an_observation_shows(seen: Seen, stats: dict[str, float], expected: set[Action]) -> None:
    assert set(map(Action, np.flatnonzero(allowed(seen(**stats))))) == expected


@pytest.mark.parametrize(
    ("row", "prunable"),
    [({"present": 1, "stage": 1}, True), ({"present": 1, "stage": 0.5}, False), ({"present": 1, "pending": 1}, False)],
)
def test_only_written_facts_at_the_last_stage_can_be_pruned(seen: Seen, row: dict[str, float], prunable: bool) -> None:
    observation = seen(ledger_fill=0.5)
    for name, value in row.items():
        observation["ledger"][2, list(LEDGER_FEATURES).index(name)] = value
    assert allowed(observation)[Action.PRUNE] == prunable


def test_keeping_up_makes_room_then_writes_then_repairs(seen: Seen) -> None:
    mask = np.ones(len(Action), dtype=bool)
    assert keep_up(seen(ledger_fill=0.9), mask) == Action.PRUNE
    assert keep_up(seen(ledger_fill=0.8 - 1e-3), mask) == Action.INJECT
    mask[[Action.PRUNE, Action.INJECT]] = False
    assert keep_up(seen(ledger_fill=0.9), mask) == Action.REFRESH
    mask[Action.REFRESH] = False
    assert keep_up(seen(ledger_fill=0.9), mask) == Action.WAIT


def test_a_period_is_over_at_its_tick_and_not_before(seen: Seen) -> None:
    # 0.7 days of 24 ticks are 16.8; of float32 numbers, those at the tick itself must not come late.
    for ticks in range(1, 49):
        days = ticks / 24
        assert days_passed(seen(since_sleep=ticks / 48), "since_sleep", days)
        assert not days_passed(seen(since_sleep=(ticks - 1) / 48), "since_sleep", days)


@pytest.mark.parametrize(
    "make",
    [
        lambda days: FixedPeriod(days=days),
        lambda days: NeverSleep(nap_days=days),
        lambda days: PressureRule(nap_days=days),
        lambda days: Drowsiness(nap_days=days),
        lambda days: BudgetAware(nap_days=days),
    ],
)
def test_periods_that_would_never_be_over_are_refused(make: Any) -> None:
    make(2)
    for days in (2.01, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"days in 0\.\.2"):
            make(days)

"""Chance, never, always, and by the clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sleepgym.episode.actions import Action
from sleepgym.schedulers import AlwaysSleep, FixedPeriod, NeverSleep, RandomScheduler

Seen = Callable[..., dict[str, np.ndarray]]
Choice = Callable[..., Action]
IDLE = (Action.INJECT, Action.REFRESH)


def test_random_draws_evenly_and_by_its_seed(seen: Seen) -> None:
    mask = np.array([True, True, False, True, False, False])

    def draws(seed: int) -> list[int]:
        scheduler = RandomScheduler(seed)
        return [int(scheduler.predict(seen(), action_masks=mask)[0]) for _ in range(3000)]

    counts = np.bincount(draws(0), minlength=6)
    # Standard deviation of each is 26.
    np.testing.assert_allclose(counts, [1000, 1000, 0, 1000, 0, 0], atol=110)
    assert draws(0) == draws(0) != draws(1)


def test_never_sleep_never_sleeps(seen: Seen, choice: Choice) -> None:
    tired = seen(pressure=1, since_sleep=1, since_audit=1, ledger_fill=0.5)
    assert choice(NeverSleep(), tired) == Action.INJECT
    assert choice(NeverSleep(), tired, *IDLE) == Action.WAIT
    assert choice(NeverSleep(nap_days=0.5), tired, *IDLE) == Action.NAP
    assert choice(NeverSleep(nap_days=0.5), tired, *IDLE, Action.NAP) == Action.WAIT
    assert choice(NeverSleep(nap_days=0.5), seen(since_audit=0.24), *IDLE) == Action.WAIT
    assert choice(NeverSleep(nap_days=0.5), seen(since_audit=0.25), *IDLE) == Action.NAP


def test_always_sleep_writes_first(seen: Seen, choice: Choice) -> None:
    assert choice(AlwaysSleep(), seen()) == Action.INJECT
    assert choice(AlwaysSleep(), seen(), Action.INJECT) == Action.SLEEP
    assert choice(AlwaysSleep(), seen(), Action.INJECT, Action.SLEEP) == Action.WAIT


def test_fixed_period_sleeps_when_its_period_is_over(seen: Seen, choice: Choice) -> None:
    assert choice(FixedPeriod(days=1), seen(since_sleep=0.5)) == Action.SLEEP
    assert choice(FixedPeriod(days=1), seen(since_sleep=0.4)) == Action.INJECT
    assert choice(FixedPeriod(days=1), seen(since_sleep=1), Action.SLEEP) == Action.INJECT
    # The longest that can be seen is not too long.
    assert choice(FixedPeriod(days=2), seen(since_sleep=1)) == Action.SLEEP


def test_fixed_period_keeps_its_period_in_an_episode(short: Any) -> None:
    env = short(episode={"days": 2, "perplexity_rows": 2})
    observation, info = env.reset(seed=1)
    began, over, ended = [], False, 0
    while not over:
        action = int(FixedPeriod(days=0.5).predict(observation, action_masks=info["action_mask"])[0])
        if action == Action.SLEEP:
            began.append(info["tick"] - ended)
        observation, _, terminated, truncated, info = env.step(action)
        over, ended = terminated or truncated, info["tick"] if action == Action.SLEEP else ended
    assert began == [6, 6]

"""What tests of schedulers share: observations made by hand, and short episodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sleepgym.env.observation import LEDGER_FEATURES, STATS_FEATURES
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.actions import Action
from sleepgym.schedulers import Scheduler


@pytest.fixture
def seen() -> Callable[..., dict[str, np.ndarray]]:
    """Makes an observation with a few statistics set."""

    def make(**stats: float) -> dict[str, np.ndarray]:
        values = np.zeros(len(STATS_FEATURES), np.float32)
        for name, value in stats.items():
            values[list(STATS_FEATURES).index(name)] = value
        return {"ledger": np.zeros((4, len(LEDGER_FEATURES)), np.float32), "stats": values}

    return make


@pytest.fixture
def choice() -> Callable[..., Action]:
    """What a scheduler chooses where everything is allowed but PRUNE and what is named."""

    def choose(scheduler: Scheduler, observation: dict[str, np.ndarray], *without: Action) -> Action:
        mask = np.ones(len(Action), dtype=bool)
        mask[[Action.PRUNE, *without]] = False
        action, _ = scheduler.predict(observation, action_masks=mask)
        return Action(int(action))

    return choose


SHORT: dict[str, Any] = {
    "edit": {"steps": 3, "prefixes": 1},
    "sleep": {"steps": 2, "rehearsal_rows": 1, "validation_rows": 2, "lessons": 8},
    "stream": {"known_facts": 2},
    "episode": {"days": 1, "perplexity_rows": 2},
}


@pytest.fixture
def short() -> Callable[..., SleepEnv]:
    """Makes environments with a day of twelve ticks, little to learn and short nights."""

    def make(**overrides: Any) -> SleepEnv:
        return SleepEnv("SleepLLM-Mini-v0", **(SHORT | overrides))

    return make

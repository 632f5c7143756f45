"""Real episodes that tests of the sim compare with, each played once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.actions import Action
from sleepgym.sim.recorder import Policy

SHORT = {
    "sleep": {"steps": 4, "rehearsal_rows": 1, "validation_rows": 2, "max_recall_drop": 0.3},
    "edit": {"steps": 4},
    "episode": {"perplexity_rows": 2},
}
"""Little effort in edits and nights, so that an episode takes a second: what is compared does not depend on it."""


@pytest.fixture(scope="session")
def mini() -> Callable[..., SleepEnv]:
    """Makes a real environment, as ``mini(budget={"capacity": 4})``."""

    def make(**overrides: dict) -> SleepEnv:
        return SleepEnv("SleepLLM-Mini-v0", **{**SHORT, **overrides})

    return make


def busy(seed: int) -> Policy:
    """Takes every kind of action: rare ones whenever they are allowed, and now and then one that is not."""
    rng = np.random.default_rng(seed)
    weights = np.array([0.3, 1.0, 2.0, 0.7, 0.6, 1.0])

    def act(observation: object, mask: np.ndarray) -> int:
        if rng.random() < 0.05:
            return int(rng.integers(len(Action)))
        return int(rng.choice(len(Action), p=weights * mask[:6] / (weights * mask[:6]).sum()))

    return act

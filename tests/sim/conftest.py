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
        sections = {*SHORT, *overrides}
        return SleepEnv(
            "SleepLLM-Mini-v0", **{name: SHORT.get(name, {}) | overrides.get(name, {}) for name in sections}
        )

    return make


def busy(seed: int) -> Policy:
    """Takes every kind of action: rare ones mostly when they are allowed, and now and then one that is not."""
    rng = np.random.default_rng(seed)
    weights = np.array([0.3, 1.0, 3.0, 0.7, 0.5, 1.0])

    def act(observation: object, mask: np.ndarray) -> object:
        allowed = np.ones(len(Action)) if rng.random() < 0.15 else mask[: len(Action)]
        action = int(rng.choice(len(Action), p=weights * allowed / (weights * allowed).sum()))
        if len(mask) == len(Action):
            return action
        return np.array([action, *rng.integers(3, size=2)])  # as many facts and nights as cards of tests have

    return act

"""Real episodes that tests of the sim compare with, each played once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.actions import OPERATORS, Action
from sleepgym.sim.dice import derived, integers, normal, uniform
from sleepgym.sim.recorder import Policy
from sleepgym.sim.response import Night, Situation
from sleepgym.sim.rules import at_facts
from sleepgym.sim.state import Mind

SHORT = {
    "sleep": {"steps": 4, "rehearsal_rows": 1, "validation_rows": 2, "max_recall_drop": 0.3},
    "edit": {"steps": 4},
    "episode": {"perplexity_rows": 2},
}
"""Little effort in edits and nights, so that an episode takes a second: what is compared does not depend on it."""

NOTES = {
    "capacity": 8,
    "ticks": 1,
    "token_price": 0.02,
    "look_up_price": 0.05,
    "sure_nats": 1.0,
    "while_offline": True,
}
"""Section of a card."""


@pytest.fixture(scope="session")
def mini() -> Callable[..., SleepEnv]:
    """Makes a real environment, as ``mini(budget={"capacity": 4})``."""

    def make(**overrides: dict) -> SleepEnv:
        sections = {*SHORT, *overrides}
        return SleepEnv(
            "SleepLLM-Mini-v0", **{name: SHORT.get(name, {}) | overrides.get(name, {}) for name in sections}
        )

    return make


@pytest.fixture(scope="session")
def busy() -> Callable[[int], Policy]:
    """Makes policies that take every kind of action: rare ones mostly when they are allowed, and some that are not."""

    def make(seed: int) -> Policy:
        rng = np.random.default_rng(seed)
        each = np.array([0.3, 1.0, 3.0, 0.7, 0.5, 1.0, 3.0, 0.1, 0.4, 0.2])

        def act(observation: object, mask: np.ndarray) -> object:
            operators = len(mask) if len(mask) == len(OPERATORS) else len(Action)
            weights = each[:operators]
            allowed = np.ones(operators) if rng.random() < 0.15 else mask[:operators]
            action = int(rng.choice(operators, p=weights * allowed / (weights * allowed).sum()))
            if len(mask) == operators:
                return action
            return np.array([action, *rng.integers(3, size=2)])  # as many facts and nights as cards of tests have

        return act

    return make


class Wear:
    """A cheap response with the phenomena in it: edits wear each other out, and nights hold most of what they train."""

    def inject(self, at: Situation, written: np.ndarray) -> Mind:
        mind = at.state.mind.copy()
        drawn = normal(keys(at), 0, written.shape[1])
        mind.chat[:] = np.where(written, 1 + drawn, mind.chat - 0.1 * written.sum(1, keepdims=True))
        mind.raw[:] = mind.chat + 0.5
        mind.ratio *= 1.01
        mind.sure[:] = np.abs(mind.chat[:, : mind.sure.shape[1]]) > 1
        return mind

    def refresh(self, at: Situation, refreshed: np.ndarray) -> Mind:
        return self.inject(at, at_facts(refreshed, at.state.facts, False))

    def night(
        self, at: Situation, refreshed: np.ndarray, trained: np.ndarray, held: np.ndarray, steps: np.ndarray
    ) -> Night:
        mind, ledger = at.state.mind.copy(), at.state.ledger
        passed = ledger.present & (uniform(keys(at), 1, trained.shape[1]) < 0.6)
        stage = np.where(passed, np.minimum(ledger.stage + 1, at.setting.card.sleep.last_stage), 0).astype(np.int32)
        mind.chat[:] = np.where(at_facts(passed, at.state.facts, False), 2.0, mind.chat)
        scale = np.where(ledger.present, at.setting.scales[stage], 0.0)
        rank = np.full(len(stage), at.setting.card.sleep.rank, np.int32)
        return Night(mind, passed, stage, scale, rank, uniform(keys(at), 2, 1)[:, 0] < 0.1)

    def readings(self, keys: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        return uniform(keys, 3, count) < 0.9, integers(uniform(keys, 4, count), 5, 12)


@pytest.fixture
def wear() -> Wear:
    """A cheap response."""
    return Wear()


def keys(at: Situation) -> np.ndarray:
    return derived(at.state.clock.dice, at.state.clock.steps)

"""What tests of real clients share: a small environment by id, and a wrapper that reports forbidden actions.

They run in an environment of their own (``make test-clients``); a client that is not installed is skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

MINI = "sleepgym:SleepLLM-Mini-v0"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def quick() -> dict[str, Any]:
    """Overrides of a card with which an episode takes a second: one day, little effort in edits and nights."""
    return {
        "edit": {"steps": 2},
        "sleep": {"steps": 2, "rehearsal_rows": 1, "validation_rows": 2},
        "episode": {"days": 1, "perplexity_rows": 2},
    }


@pytest.fixture(scope="session")
def make(quick: dict[str, Any]) -> Callable[..., gym.Env[Any, Any]]:
    """``gym.make`` for SleepLLM-Mini-v0 with little effort, as ``make(flat=True)``; it can be pickled."""
    return partial(gym.make, MINI, **quick)


@pytest.fixture(scope="session")
def make_vec(quick: dict[str, Any]) -> Callable[..., gym.vector.VectorEnv[Any, Any, Any]]:
    """``gym.make_vec``, likewise, as ``make_vec(num_envs=2)``."""
    return partial(gym.make_vec, MINI, **quick)


@pytest.fixture(scope="session")
def forbidden() -> Callable[[gym.Env[Any, Any]], float]:
    """Counts forbidden actions of finished episodes, under a ``RecordSleepStatistics``."""

    def count(env: gym.Env[Any, Any]) -> float:
        invalid = env.get_wrapper_attr("queues")["invalid"]
        assert len(invalid) > 0, "no episode has ended"
        return sum(invalid)

    return count

"""What tests of evaluations share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sleepgym.env.sleep_env import SleepEnv

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

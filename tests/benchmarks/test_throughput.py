"""The throughput benchmark counts what was done and says so on its page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from sleepgym.episode.actions import Action


@pytest.fixture
def throughput(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("throughput")


class Clockwork:
    """Two environments without a model: the second may do nothing but wait, and a night takes six ticks."""

    num_envs = 2

    def __init__(self, horizon: int = 1000) -> None:
        self.horizon = horizon

    def reset(self, seed: int) -> Any:
        self.seeds = [*getattr(self, "seeds", []), seed]
        self.tick = np.zeros(2, dtype=int)
        return None, self.info()

    def step(self, actions: np.ndarray) -> Any:
        assert actions[1] == Action.WAIT
        self.tick = self.tick + np.where(actions == Action.SLEEP, 6, 1)
        return None, None, np.zeros(2, bool), self.tick >= self.horizon, self.info()

    def info(self) -> dict[str, Any]:
        mask = np.ones((2, len(Action)), np.int8)
        mask[1, Action.INJECT :] = 0
        return {"action_mask": mask, "tick": self.tick}


def test_every_step_is_counted_and_only_doers_by_action(throughput: ModuleType) -> None:
    envs = Clockwork()
    timing = throughput.Contestant("two", envs, days=1, episodes=5).play()
    assert envs.seeds == [0, 2], "a fifth episode would leave an environment without one"
    assert timing.total.steps == 2 * 2 * len(throughput.DAY)
    assert timing.ticks == 2 * (len(throughput.DAY) + 5 + len(throughput.DAY))
    done = {name: count.steps for name, count in timing.by_action.items()}
    assert done["SLEEP"] == 2 and done["INJECT"] == 2 * throughput.DAY.count(Action.INJECT)
    assert done["WAIT"] == 2 * 2 * throughput.DAY.count(Action.WAIT)


def test_a_round_ends_with_its_episodes(throughput: ModuleType) -> None:
    steps = len(throughput.DAY) - 4
    timing = throughput.Contestant("two", Clockwork(horizon=steps), days=3, episodes=2).play()
    assert timing.total.steps == timing.ticks == 2 * steps


@pytest.mark.slow
def test_a_short_run_gets_onto_the_page(throughput: ModuleType, tmp_path: Path) -> None:
    out, page = tmp_path / "throughput.json", tmp_path / "throughput.md"
    throughput.main(
        throughput.Args(
            card="SleepLLM-Mini-v0", episodes=2, slots=(2,), whole=1, repeats=1, before="", out=out, page=page
        )
    )
    record = json.loads(out.read_text(encoding="utf-8"))
    assert [each["what"] for each in record["rows"]] == [
        "alone", "alone, whole episodes of 2 days", "2 processes, async", "2 slots",
    ]  # fmt: skip
    assert all(each["steps per second"]["median"] > 0 for each in record["rows"])
    assert record["rows"][0]["times alone"]["median"] == 1
    assert 0 < record["memory (MB)"]["tensors of a slot"] < record["memory (MB)"]["process with one slot"]
    assert "| 2 slots |" in page.read_text(encoding="utf-8")
    assert "| not measured |" in page.read_text(encoding="utf-8"), "there was nothing to compare with"

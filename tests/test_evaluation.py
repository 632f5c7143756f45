"""Evaluation: one result per seed, equal for equal seeds, with honest intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from sleepgym.env.sleep_env import SleepEnv
from sleepgym.evaluation import EpisodeResult, estimate, evaluate, run_episode, table
from sleepgym.schedulers import NeverSleep, PressureRule

RESULT = EpisodeResult(
    seed=0,
    score=0.5,
    recall=0.6,
    edits=5,
    budget=9,
    sleeps=2,
    naps=1,
    ppl_ratio=1.1,
    seconds=1.5,
    episode_return=4.0,
    collapsed=False,
)


def test_equal_seeds_give_equal_results_but_for_the_seconds() -> None:
    env = SleepEnv("SleepLLM-Mini-v0")
    seen: list[int] = []
    first, again, other = evaluate(env, PressureRule(), [3, 3, 4], on_episode=lambda r: seen.append(r.seed))
    assert replace(first, seconds=0) == replace(again, seconds=0)
    assert replace(first, seconds=0) != replace(other, seconds=0)
    assert seen == [3, 3, 4]


def test_an_episode_reports_every_step() -> None:
    ticks: list[int] = []
    result = run_episode(SleepEnv("SleepLLM-Mini-v0"), NeverSleep(), 0, lambda info: ticks.append(info["tick"]))
    assert ticks == list(range(1, 25))
    assert result.sleeps == 0
    assert result.edits <= result.budget
    assert 0 <= result.score <= 1


def test_a_model_that_knows_no_masks_is_run_too() -> None:
    class Waits:
        def predict(
            self, observation: object, state: object = None, episode_start: object = None, deterministic: bool = True
        ) -> tuple[int, object]:
            return 0, state

    assert run_episode(SleepEnv("SleepLLM-Mini-v0"), Waits(), 0).edits == 0


def test_interval_agrees_with_scipys_percentile_bootstrap() -> None:
    values = np.random.default_rng(0).normal(size=20)
    found = estimate(values.tolist(), np.random.default_rng(1))
    expected = stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(2))
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=0.03)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=0.03)


def test_interval_of_one_value_is_that_value() -> None:
    assert str(estimate([0.5], np.random.default_rng(0))) == "0.50 [0.50, 0.50]"
    with pytest.raises(ValueError, match="at least one"):
        estimate([], np.random.default_rng(0))


def test_table_has_the_best_scheduler_first() -> None:
    console = Console(width=200, record=True, quiet=False, file=None)
    results = {"worse": [RESULT], "better": [replace(RESULT, score=0.9)]}
    with console.capture() as captured:
        console.print(table(results, np.random.default_rng(0), "title"))
    shown = captured.get()
    assert shown.index("better") < shown.index("worse")
    assert "0.90 [0.90, 0.90]" in shown
    assert "+10.0%" in shown

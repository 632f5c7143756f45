"""What the results page says follows from the scores."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from sleepgym.evaluation import ScoreError, ScoreMatrix
from sleepgym.evaluation.plots import LearningCurve


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    return importlib.import_module("benchmarks.results")


def save(folder: Path, name: str, *scores: float, first: int = 0) -> None:
    streams = tuple(range(first, first + len(scores)))
    ScoreMatrix(name, streams, np.array([scores])).save(folder / name.replace(":", "-") / "scores.json")


def test_policies_are_runs_of_one(results: ModuleType, tmp_path: Path) -> None:
    save(tmp_path, "night-owl", 0.1, 0.2)
    save(tmp_path, "maskable-ppo:b.zip", 0.5, 0.6)
    save(tmp_path, "maskable-ppo:a.zip", 0.3, 0.4)
    found = results.matrices(tmp_path)
    assert found.keys() == {"night-owl", "PPO"}
    assert found["PPO"].scores.tolist() == [[0.3, 0.4], [0.5, 0.6]]
    save(tmp_path, "maskable-ppo:c.zip", 0.5, 0.6, first=7)
    with pytest.raises(ScoreError, match="expected policies on the same streams"):
        results.matrices(tmp_path)


def test_what_was_not_played_is_asked_for(results: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="found none; play them first"):
        results.played(tmp_path)


def test_the_gap_is_that_between_means(results: ModuleType) -> None:
    policies, rule, planner = np.array([[0.5, 0.7], [0.6, 0.8]]), np.array([[0.4, 0.6]]), np.array([[0.7, 0.9]])
    assert results.gap_closed(policies, rule, planner) == pytest.approx(0.5)


def test_noise_is_that_of_paired_differences(results: ModuleType) -> None:
    rng = np.random.default_rng(0)
    streams = rng.normal(0.6, 0.1, 4000)  # how hard a stream is cancels out
    rule, policies = streams[None], streams + 0.01 + rng.normal(0, 0.03, (3, 4000))
    found = results.noise(policies, rule)
    assert found["beyond"] == pytest.approx(0.03, rel=0.05)
    assert found["between"] == pytest.approx(0.03 * 2**0.5, rel=0.05)
    better = (policies + found["needed"] - 0.01 > rule).mean()
    assert better == pytest.approx(results.GOAL, abs=0.02), "a gain of that much is better so often"


def test_quarters_are_means_of_all_runs(results: ModuleType) -> None:
    curve = LearningCurve(np.arange(8), np.array([[0, 0, 1, 1, 2, 2, 3, 3], [1, 1, 2, 2, 3, 3, 4, 4]], float))
    assert results.quarters(curve) == "+0.50, +1.50, +2.50, +3.50"


def test_habits_are_shares_by_load(results: ModuleType) -> None:
    moments = [results.Moment(0, 0, 20.0, 0.9), results.Moment(3, 0, 9.0, 0.4), results.Moment(9, 0, 20.0, 0.0)]
    said = results.habits(moments, night=4)
    assert "16 or more: 0.90 (1 steps)" in said and "8 to 16: 0.40 (1 steps)" in said
    assert "with less: never met" in said and "by day: 0.00 (1 steps)" in said

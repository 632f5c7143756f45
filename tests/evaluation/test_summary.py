"""What is said about schedulers: summaries, comparisons and the sheets that show them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sleepgym.evaluation import (
    Comparison,
    EpisodeResult,
    Estimate,
    ScoreError,
    ScoreMatrix,
    Summary,
    compare,
    comparison_sheet,
    episodes_sheet,
    summarise,
    summary_sheet,
)

STREAMS = tuple(range(12))


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def matrix(name: str, scores: Any) -> ScoreMatrix:
    return ScoreMatrix(name, STREAMS, np.atleast_2d(scores))


LOW = matrix("never", np.linspace(0.2, 0.6, 12))
HIGH = matrix("planner", np.linspace(0.4, 0.8, 12))


def test_a_summary_of_one_half_between_the_references() -> None:
    found = summarise(matrix("rule", (LOW.scores + HIGH.scores) / 2), LOW, HIGH, rng())
    # The same on every stream: whatever is drawn, the normalised scores are a half.
    for estimate in (found.mean, found.iqm, found.gap):
        assert (estimate.point, estimate.low, estimate.high) == pytest.approx((0.5, 0.5, 0.5))
    assert found.score.point == pytest.approx(0.5)
    assert found.score.low < 0.5 < found.score.high


def test_a_summary_does_not_let_what_exceeds_the_planner_close_the_gap() -> None:
    uneven = matrix("rule", np.where(np.arange(12) % 2, LOW.scores[0], HIGH.scores[0] + 0.2))
    found = summarise(uneven, LOW, HIGH, rng())
    assert found.mean.point == pytest.approx(1.0)
    assert found.gap.point == pytest.approx(0.5)


def test_a_comparison_is_paired() -> None:
    found = compare(matrix("rule", HIGH.scores + 0.05), HIGH, rng())
    assert (found.difference.point, found.difference.low) == pytest.approx((0.05, 0.05))
    assert found.probability == Estimate(1.0, 1.0, 1.0)
    alike = compare(HIGH, HIGH, rng())
    assert (alike.difference, alike.probability) == (Estimate(0, 0, 0), Estimate(0.5, 0.5, 0.5))


def test_other_streams_are_an_error() -> None:
    other = ScoreMatrix("other", (99,), np.ones((1, 1)))
    with pytest.raises(ScoreError, match="evaluate both on the same seeds"):
        compare(LOW, other, rng())
    with pytest.raises(ScoreError, match="evaluate both on the same seeds"):
        summarise(LOW, LOW, other, rng())


def test_episodes_are_summed_up_and_the_best_comes_first(episode: Callable[..., EpisodeResult]) -> None:
    results = {
        "poor": [episode(seed=1, score=0.2), episode(seed=2, score=0.4, edits_used=20, budget=40, ppl_ratio=1.3)],
        "good": [episode(seed=1, score=0.8), episode(seed=2, score=0.8, sleeps=3)],
    }
    good, poor = json.loads(episodes_sheet(results, rng()).json())["rows"]
    assert (good["scheduler"], good["score"], good["nights"]) == ("good", {"point": 0.8, "low": 0.8, "high": 0.8}, 2.5)
    assert poor["score"]["point"] == pytest.approx(0.3)
    assert (poor["score"]["low"], poor["score"]["high"]) == pytest.approx((0.2, 0.4))
    assert (poor["edits_used"], poor["budget"]) == (14.5, 26)
    assert poor["drift"] == pytest.approx(0.2)


def test_a_ruined_model_can_be_shown(episode: Callable[..., EpisodeResult]) -> None:
    sheet = episodes_sheet(
        {"ruin": [episode(seed=1, score=0.0, ppl_ratio=float("inf"), collapsed=True)]}, rng(), "[title]"
    )
    assert "inf" in sheet.markdown()
    assert json.loads(sheet.json())["rows"][0]["drift"] is None


def test_schedulers_without_episodes_are_an_error() -> None:
    with pytest.raises(ScoreError, match="'nobody'"):
        episodes_sheet({"nobody": []}, rng())


def test_sheets_are_in_order_of_merit() -> None:
    def at(point: float) -> Estimate:
        return Estimate(point, point - 0.1, point + 0.1)

    summaries = {"b": Summary(at(0.3), at(0.1), at(0.1), at(0.9)), "a": Summary(at(0.4), at(0.2), at(0.2), at(0.8))}
    assert summary_sheet(summaries).markdown().splitlines()[2] == (
        "| a | 0.400 [0.300, 0.500] | 0.20 [0.10, 0.30] | 0.20 [0.10, 0.30] | 0.80 [0.70, 0.90] |"
    )
    comparisons = {"b": Comparison(at(-0.05), at(0.4)), "a": Comparison(at(0.05), at(0.6))}
    lines = comparison_sheet(comparisons, "owl").markdown().splitlines()
    assert lines[0] == "| scheduler | score - owl | P(better than owl) |"
    assert lines[2] == "| a | +0.050 [-0.050, +0.150] | 0.60 [0.50, 0.70] |"

"""Intervals: against scipy where it does the same, paired, clustered by run, repeatable, and covering what they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from sleepgym.evaluation import Estimate, ScoreError, ScoreMatrix, bootstrap_band, stratified_bootstrap
from sleepgym.evaluation.statistics import iqm, mean, paired_difference, performance_profile, probability_of_improvement


def matrix(scores: Any, name: str = "one") -> ScoreMatrix:
    scores = np.atleast_2d(np.asarray(scores, float))
    return ScoreMatrix(name, tuple(range(scores.shape[1])), scores)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("statistic", [mean, iqm])
def test_streams_alone_are_scipys_percentile_bootstrap(statistic: Any) -> None:
    values = rng(1).beta(4, 2, 40)
    scipys = stats.bootstrap(
        (values,),
        lambda drawn: statistic(drawn),
        n_resamples=8000,
        method="percentile",
        vectorized=False,
        rng=rng(2),
    ).confidence_interval
    found = stratified_bootstrap(statistic, matrix(values), rng=rng(3), resamples=8000, over="streams")
    assert found.point == pytest.approx(statistic(values[None]))
    # Ends of two sets of 8000 resamples differ by chance by a few hundredths of the interval's width.
    width = scipys.high - scipys.low
    assert found.low == pytest.approx(scipys.low, abs=0.06 * width)
    assert found.high == pytest.approx(scipys.high, abs=0.06 * width)


def test_runs_alone_are_scipys_bootstrap_of_the_runs_means() -> None:
    scores = rng(4).normal(0.5, 0.1, (12, 5)) + rng(5).normal(0, 0.1, (12, 1))
    scipys = stats.bootstrap(
        (scores.mean(axis=1),), np.mean, n_resamples=8000, method="percentile", rng=rng(6)
    ).confidence_interval
    found = stratified_bootstrap(mean, matrix(scores), rng=rng(7), resamples=8000, over="runs")
    width = scipys.high - scipys.low
    assert found.low == pytest.approx(scipys.low, abs=0.06 * width)
    assert found.high == pytest.approx(scipys.high, abs=0.06 * width)


@pytest.mark.parametrize("statistic", [paired_difference, probability_of_improvement])
def test_differences_are_scipys_paired_bootstrap(statistic: Any) -> None:
    hard = rng(8).normal(0.5, 0.2, 60)  # what both find hard
    one, other = hard + rng(9).normal(0.02, 0.05, 60), hard + rng(10).normal(0.0, 0.05, 60)
    scipys = stats.bootstrap(
        (one, other),
        lambda a, b: statistic(a[None], b[None]),
        n_resamples=8000,
        method="percentile",
        paired=True,
        vectorized=False,
        rng=rng(11),
    ).confidence_interval
    found = stratified_bootstrap(
        statistic, matrix(one), matrix(other, "other"), rng=rng(12), resamples=8000, over="streams"
    )
    width = scipys.high - scipys.low
    assert found.low == pytest.approx(scipys.low, abs=0.08 * width)
    assert found.high == pytest.approx(scipys.high, abs=0.08 * width)


def test_a_lucky_run_is_lucky_on_all_streams() -> None:
    # Two runs that differ, alike on every stream: whichever is drawn, the mean is one of three values.
    found = stratified_bootstrap(mean, matrix(np.array([[0.0] * 50, [1.0] * 50])), rng=rng(), over="runs")
    assert (found.low, found.point, found.high) == (0.0, 0.5, 1.0)


def test_what_is_not_drawn_adds_nothing() -> None:
    by_stream = matrix(np.tile([0.25, 0.5, 0.75], (4, 1)))
    assert stratified_bootstrap(mean, by_stream, rng=rng(), over="runs") == Estimate(0.5, 0.5, 0.5)
    by_run = matrix(np.tile([[0.25], [0.5], [0.75]], (1, 4)))
    assert stratified_bootstrap(mean, by_run, rng=rng(), over="streams") == Estimate(0.5, 0.5, 0.5)
    both = stratified_bootstrap(mean, by_run, rng=rng(), over="both")
    assert both.low < 0.5 < both.high


def test_differences_are_paired_by_stream() -> None:
    hard = rng(1).normal(0, 10, 30)
    found = stratified_bootstrap(paired_difference, matrix(hard + 0.25), matrix(hard, "other"), rng=rng())
    assert found.low == pytest.approx(0.25)
    assert found.high == pytest.approx(0.25)


def test_each_scheduler_is_drawn_among_its_own_runs() -> None:
    mine, theirs = matrix([[1.0, 1.0], [1.0, 1.0]]), matrix([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]], "other")
    assert stratified_bootstrap(paired_difference, mine, theirs, rng=rng(), over="runs") == Estimate(1.0, 1.0, 1.0)


def test_a_wider_confidence_is_a_wider_interval_and_the_same_seed_the_same_one() -> None:
    scores = matrix(rng(1).random((3, 20)))
    narrow = stratified_bootstrap(mean, scores, rng=rng(), confidence=0.5)
    wide = stratified_bootstrap(mean, scores, rng=rng(), confidence=0.99)
    assert wide.low < narrow.low < narrow.point < narrow.high < wide.high
    assert stratified_bootstrap(mean, scores, rng=rng()) == stratified_bootstrap(mean, scores, rng=rng())
    assert stratified_bootstrap(mean, scores, rng=rng()) != stratified_bootstrap(mean, scores, rng=rng(1))


def test_intervals_over_both_cover_the_truth() -> None:
    """Of runs and streams with effects of their own, at least nine in ten 95 % intervals hold the true mean."""
    held = 0
    for trial in range(200):
        draw = rng(trial)
        scores = draw.normal(0, 1, (10, 1)) + draw.normal(0, 1, (1, 30)) + draw.normal(0, 1, (10, 30))
        found = stratified_bootstrap(mean, matrix(scores), rng=draw, resamples=300)
        held += found.low <= 0 <= found.high
    assert held >= 180


def test_a_band_is_the_interval_of_each_point() -> None:
    scores, thresholds = matrix(rng(1).random((2, 15))), np.linspace(0, 1, 7)
    band = bootstrap_band(lambda s: performance_profile(s, thresholds), scores, rng=rng(), resamples=500)
    for at, threshold in enumerate(thresholds):
        single = stratified_bootstrap(
            lambda s, t=threshold: float(performance_profile(s, [t])[0]), scores, rng=rng(), resamples=500
        )
        assert (band.point[at], band.low[at], band.high[at]) == (single.point, single.low, single.high)


def test_one_run_on_one_stream_is_a_point() -> None:
    assert stratified_bootstrap(mean, matrix([[0.3]]), rng=rng()) == Estimate(0.3, 0.3, 0.3)


def test_an_estimate_is_formatted_as_its_numbers_are() -> None:
    estimate = Estimate(0.5, 0.25, 0.125)
    assert str(estimate) == f"{estimate}" == "0.50 [0.25, 0.12]"
    assert f"{estimate:+.3f}" == "+0.500 [+0.250, +0.125]"


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"resamples": 0}, ValueError, "at least one resample"),
        ({"confidence": 1.0}, ValueError, "confidence between 0 and 1"),
        ({"confidence": 0.0}, ValueError, "confidence between 0 and 1"),
        ({"over": "stream"}, ValueError, "expected over in .* found 'stream'"),
        ({"over": "runs"}, ScoreError, "several runs to draw from"),
    ],
)
def test_bad_options_are_errors(options: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        stratified_bootstrap(mean, matrix([[0.1, 0.2]]), rng=rng(), **options)


def test_other_streams_and_no_scores_are_errors() -> None:
    other = ScoreMatrix("other", (7, 8), np.zeros((1, 2)))
    with pytest.raises(ScoreError, match="expected 'other' on the streams of 'one'"):
        stratified_bootstrap(paired_difference, matrix([[0.1, 0.2]]), other, rng=rng())
    with pytest.raises(ScoreError, match="found none"):
        stratified_bootstrap(mean, rng=rng())

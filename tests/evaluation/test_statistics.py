"""Statistics agree with scipy, with hand-computed cases and with what Agarwal et al. 2021 say of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, trim_mean

from sleepgym.evaluation import statistics


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (1, 4), (2, 5), (3, 7), (5, 100)])
def test_iqm_is_scipys_trimmed_mean(shape: tuple[int, int], rng: np.random.Generator) -> None:
    scores = rng.normal(size=shape)
    assert statistics.iqm(scores) == pytest.approx(trim_mean(scores, 0.25, axis=None), abs=1e-12)


def test_iqm_leaves_outliers_out_and_pools_runs_and_streams() -> None:
    assert statistics.iqm(np.array([[-1e9, 1.0], [3.0, 1e9]])) == 2.0
    scores = np.array([[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]])
    assert statistics.iqm(scores) == statistics.iqm(scores.reshape(1, -1)) == np.mean([2.0, 3.0, 4.0, 5.0])


def test_statistics_leave_their_arguments_as_they_are(rng: np.random.Generator) -> None:
    scores = rng.normal(size=(3, 8))
    before = scores.copy()
    statistics.iqm(scores)
    statistics.optimality_gap(scores)
    np.testing.assert_array_equal(scores, before)


def test_optimality_gap_by_hand() -> None:
    # Short of 1 by 0.5, 0, 0 and 1.2; what exceeds 1 makes up for nothing.
    scores = np.array([[0.5, 1.0], [1.7, -0.2]])
    assert statistics.optimality_gap(scores) == pytest.approx((0.5 + 1.2) / 4)
    assert statistics.optimality_gap(scores, threshold=2.0) == pytest.approx((1.5 + 1.0 + 0.3 + 2.2) / 4)


def test_optimality_gap_is_threshold_minus_the_mean_of_capped_scores(rng: np.random.Generator) -> None:
    # The form in Agarwal et al. 2021, section 4.3.
    scores = rng.normal(0.7, 0.5, (4, 30))
    assert statistics.optimality_gap(scores) == pytest.approx(1 - np.minimum(scores, 1).mean())


def test_performance_profile_by_hand() -> None:
    scores = np.array([[0.1, 0.5], [0.5, 0.9]])
    found = statistics.performance_profile(scores, [0.0, 0.1, 0.5, 0.6, 0.9])
    np.testing.assert_array_equal(found, [1.0, 0.75, 0.25, 0.25, 0.0])


def test_the_area_under_a_profile_is_the_mean(rng: np.random.Generator) -> None:
    # E[X] is the integral of P(X > t) over t for X >= 0; midpoints, since the profile is a staircase.
    scores, cells = rng.random((3, 40)), 20_000
    thresholds = (np.arange(cells) + 0.5) / cells
    profile = statistics.performance_profile(scores, thresholds)
    assert profile.mean() == pytest.approx(statistics.mean(scores), abs=1 / cells)
    assert (np.diff(profile) <= 0).all()


def test_probability_of_improvement_by_hand() -> None:
    # First stream: 1 beats 0, 3 beats 0: 2 of 2. Second: 2 ties with 2 (a half), 1 loses: 0.5 of 2.
    mine, theirs = np.array([[1.0, 2.0], [3.0, 1.0]]), np.array([[0.0, 2.0]])
    assert statistics.probability_of_improvement(mine, theirs) == pytest.approx((2 / 2 + 0.5 / 2) / 2)


def test_probability_of_improvement_is_mann_and_whitneys_u_over_pairs(rng: np.random.Generator) -> None:
    # Whole numbers, so that ties occur.
    mine, theirs = rng.integers(6, size=(7, 20)).astype(float), rng.integers(6, size=(4, 20)).astype(float)
    u = [mannwhitneyu(mine[:, stream], theirs[:, stream]).statistic for stream in range(20)]
    assert statistics.probability_of_improvement(mine, theirs) == pytest.approx(np.mean(u) / (7 * 4))


def test_probability_of_improvement_compares_within_a_stream_only() -> None:
    # Better by a little on each of two very different streams; pooled over streams it would be 3 in 4.
    assert statistics.probability_of_improvement(np.array([[0.2, 0.9]]), np.array([[0.1, 0.8]])) == 1.0


def test_both_sides_of_a_comparison_add_up(rng: np.random.Generator) -> None:
    mine, theirs = rng.integers(4, size=(3, 9)).astype(float), rng.integers(4, size=(5, 9)).astype(float)
    there = statistics.probability_of_improvement(mine, theirs)
    assert there + statistics.probability_of_improvement(theirs, mine) == pytest.approx(1)
    assert statistics.probability_of_improvement(mine, mine) == pytest.approx(0.5)
    assert statistics.paired_difference(mine, theirs) == pytest.approx(-statistics.paired_difference(theirs, mine))


def test_paired_difference_by_hand_with_different_numbers_of_runs() -> None:
    mine, theirs = np.array([[0.5, 0.9], [0.7, 0.7]]), np.array([[0.4, 1.0]])
    # Means over runs are 0.6 and 0.8; differences +0.2 and -0.2.
    assert statistics.paired_difference(mine, theirs) == pytest.approx(0.0)
    assert statistics.paired_difference(mine, theirs - 0.1) == pytest.approx(0.1)

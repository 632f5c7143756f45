"""Statistics of agreement have the values that can be worked out by hand, and those of SciPy."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
from scipy import stats


@pytest.fixture
def agreement(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("common.agreement")


def test_tau_and_correlation_are_those_of_scipy_ties_included(agreement: ModuleType) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        real, sim = rng.integers(5, size=(2, 9)).astype(float)
        assert agreement.kendall(real, sim) == pytest.approx(stats.kendalltau(real, sim).statistic)
        assert agreement.pearson(real, sim) == pytest.approx(stats.pearsonr(real, sim).statistic)
    same = np.ones(3)
    assert np.isnan(agreement.kendall(same, np.arange(3.0))) and np.isnan(agreement.pearson(same, np.arange(3.0)))


def test_tau_counts_pairs_in_the_wrong_order(agreement: ModuleType) -> None:
    real = np.array([0.1, 0.2, 0.3, 0.4])
    assert agreement.kendall(real, 2 * real) == 1 and agreement.kendall(real, -real) == -1
    assert agreement.kendall(real, np.array([0.1, 0.3, 0.2, 0.4])) == pytest.approx((5 - 1) / 6)


def test_errors_are_means_of_differences(agreement: ModuleType) -> None:
    real, sim = np.array([0.5, 0.7]), np.array([0.6, 0.4])
    assert agreement.absolute_error(real, sim) == pytest.approx(0.2)
    assert agreement.error(real, sim) == pytest.approx(-0.1)


def test_a_wrong_order_weighs_as_much_as_the_real_difference(agreement: ModuleType) -> None:
    real = np.array([0.1, 0.2, 0.6])
    assert agreement.rank_violation(real, real**2) == 0
    # The first two have changed places: 0.1 for each of them, and nothing for the third.
    assert agreement.rank_violation(real, np.array([0.2, 0.1, 0.6])) == pytest.approx(0.2 / 3)
    # The first and the last: 0.5 each; the second is on the wrong side of both, of which the last is farther away.
    assert agreement.rank_violation(real, np.array([0.6, 0.2, 0.1])) == pytest.approx((0.5 + 0.4 + 0.5) / 3)
